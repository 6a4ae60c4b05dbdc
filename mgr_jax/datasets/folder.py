"""Any folder of your own: ROOT/LABEL/**/*.ext, where the folders' names are the labels.

A Config enters; tracks leave. Where a label's folder holds folders, as in
ROOT/LABEL/ARTIST/*.ext, they name the artists, and so allow the artist split.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from mgr_jax import uris
from mgr_jax.config import Config, UserError, as_text, real, shown, warn
from mgr_jax.datasets import search
from mgr_jax.datasets.base import Dataset, Track
from mgr_jax.uris import Uri

# What libsndfile reads, in the spellings in use; compared in lower case.
EXTENSIONS = (
    ".wav", ".wave", ".w64", ".rf64", ".au", ".snd", ".aif", ".aiff", ".aifc", ".caf",
    ".flac", ".ogg", ".oga", ".opus", ".mp3",
)  # fmt: skip


def load(config: Config) -> list[Track]:
    """Lists every audio file below a label's folder, hidden ones left out.

    That a file cannot be read, such as a link to nothing, shows when it is prepared.

    Raises:
      UserError: there is none.
    """
    root = config.data_path
    tracks = []
    for label in search.subfolders(root):
        if real(label) == real(config.features_path):
            continue
        found = [_track(root, path) for path in audio_files(label, root=root)]
        if not found:
            warn(f"{shown(label)}: holds no audio, so it is no label")
        tracks += found
    if not tracks:
        raise UserError(
            f"no audio in {search.place(config)}: looked for LABEL/**/*.ext, where ext "
            f"is one of {' '.join(e[1:] for e in EXTENSIONS)}; put each genre's files "
            "into a folder of its name there (convert m4a or wma first), or try "
            "--dataset=synth, which needs no data"
        )
    return tracks


def audio_files(
    folder: pathlib.Path,
    extensions: tuple[str, ...] = EXTENSIONS,
    root: pathlib.Path | None = None,
) -> Iterator[pathlib.Path]:
    """The audio files below a folder, by name, hidden ones left out, links followed.

    Args:
      folder: where to look.
      extensions: how the files' names end, in lower case.
      root: a folder around it; links that lead to it, or around it, are not followed.
    """
    # A folder that a link reaches again, or that holds ROOT, would lead round and
    # round, and into other labels.
    real_root, seen = real(root or folder), set()
    for place, subs, names in _walk(folder):
        found = real(place)
        around = root is not None and real_root.is_relative_to(found)
        if found in seen or around:
            subs.clear()
            continue
        seen.add(found)
        subs[:] = sorted(sub for sub in subs if not sub.startswith("."))
        for name in sorted(names):
            path = uris.path(place) / name
            if not name.startswith(".") and path.suffix.lower() in extensions:
                yield path


def _walk(folder: pathlib.Path | Uri) -> Iterator[tuple[Any, list[str], list[str]]]:
    if isinstance(folder, Uri):
        return folder.walk(_warn_unlisted)
    return os.walk(folder, followlinks=True, onerror=_warn_unlisted)


def _warn_unlisted(error: OSError) -> None:
    search.warn_unlisted(error.filename, error)


def _track(root: pathlib.Path, path: pathlib.Path) -> Track:
    parts = [as_text(part) for part in path.relative_to(root).parts]
    return Track(
        # The extension stays: a.wav and a.mp3 may both be there.
        id="/".join(parts),
        path=path,
        genre=parts[0],
        artist=parts[1] if len(parts) > 2 else "",
    )


DATASET = Dataset(
    name="folder",
    load=load,
    default_split="track",
    splits=("artist", "track", "segment"),
)
