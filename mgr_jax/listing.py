"""What a user names, files, folders and playlists, to the audio files that are meant.

Words of a command line enter; paths leave, in a stable order: as given, folders by
name, playlists by line. predict calls `expand`.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

from mgr_jax import containers
from mgr_jax.config import UserError, expanded, is_address, shown, warn
from mgr_jax.datasets.folder import EXTENSIONS, audio_files

PLAYLISTS = (".m3u", ".m3u8")


def expand(words: Sequence[str]) -> tuple[list[pathlib.Path], int]:
    """Lists the files that are meant.

    A file that is named is taken whatever it is called, and though it be missing: that
    shows when it is read.

    Args:
      words: files, folders (taken with all that is below them) and playlists.

    Returns:
      The paths, and how many of the words, or lines of playlists, name none, as an
      address does; each of these is warned of.

    Raises:
      UserError: no file is meant by any of them.
    """
    paths: list[pathlib.Path] = []
    failed = 0
    for word in words:
        if is_address(word):
            warn(
                f"{shown(word)}: is no file; what is on the net must be downloaded "
                "first"
            )
            failed += 1
            continue
        path = expanded("", word)
        # pathlib's is_dir raises where a name is too long, or a folder is closed.
        if os.path.isdir(path):
            found, problems = list(_of_folder(path)), 0
        elif path.suffix.lower() in PLAYLISTS:
            found, problems = _of_playlist(path)
        else:
            found, problems = [path], 0
        if not found and not problems:
            warn(f"{shown(path)}: holds no audio; name a file, a folder or a playlist")
            problems += 1
        paths += found
        failed += problems
    if not paths:
        raise UserError(
            "no audio is named; say python -m mgr_jax.predict --workdir=RUN PATH..., "
            "with files, folders or playlists"
        )
    return paths, failed


def _of_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return audio_files(folder, (*EXTENSIONS, *containers.EXTENSIONS))


def _of_playlist(playlist: pathlib.Path) -> tuple[list[pathlib.Path], int]:
    """A playlist's files, relative ones beside it, and how many lines name none."""
    try:
        lines = _text(playlist.read_bytes()).splitlines()
    except OSError as error:
        warn(f"{shown(playlist)}: cannot be read ({error.strerror})")
        return [], 1
    paths, failed = [], 0
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if "\0" in line or is_address(line):
            warn(
                f"{shown(playlist)}: line {number} is no file; what is on the net must "
                "be downloaded first"
            )
            failed += 1
        else:
            paths.append(playlist.parent / line)
    return paths, failed


def _text(data: bytes) -> str:
    """A playlist's text: UTF-8, with or without a mark, or what Windows wrote."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
