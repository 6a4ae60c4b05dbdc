"""Finds folders at and below --data_dir, for the data sets that know their own layout.

A Config enters; folders leave, nearest first, always in the same order. gtzan and fma
take from them the first that looks like theirs.
"""

import errno
import itertools
import os
import pathlib
import shlex
from collections.abc import Iterator

from mgr_jax.config import Config, real, shown, warn
from mgr_jax.uris import Uri

DEPTH = 3

# A home folder may be given by mistake: looking must end, and soon.
_MOST_FOLDERS = 5_000


def folders(config: Config) -> Iterator[pathlib.Path]:
    """--data_dir, then the folders in it down to `DEPTH`, breadth first, by name.

    Hidden folders, folders that are a number (FMA's audio) and --features_dir are left
    out; links are followed, each folder once. A folder that cannot be listed counts as
    empty, and --data_dir itself need not exist.
    """
    return itertools.islice(_breadth_first(config), _MOST_FOLDERS)


def _breadth_first(config: Config) -> Iterator[pathlib.Path]:
    seen = {real(config.features_path)}
    level = [config.data_path.absolute()]
    for depth in range(DEPTH + 1):
        below = []
        for folder in level:
            yield folder
            if depth < DEPTH:
                below += (sub for sub in subfolders(folder) if _is_new(sub, seen))
        level = below


def _is_new(folder: pathlib.Path, seen: set[pathlib.Path]) -> bool:
    found = real(folder)
    if folder.name.isdigit() or found in seen:
        return False
    seen.add(found)
    return True


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder that are not hidden, by name."""
    try:
        return [path for path, is_folder in _listed(folder) if is_folder]
    except OSError as error:
        # That a store lets nobody in is no answer of it.
        if isinstance(folder, Uri) and error.errno != errno.ENOENT:
            raise
        return []


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder but folders, and not hidden, as macOS's `._` forks are.

    That something cannot be read, such as a link to nothing, shows when it is. A folder
    that cannot be listed counts as empty, with a warning.
    """
    try:
        return [path for path, is_folder in _listed(folder) if not is_folder]
    except OSError as error:
        warn_unlisted(folder, error)
        return []


def warn_unlisted(folder: str | os.PathLike[str], error: OSError) -> None:
    """Says of a folder of a data set that what is in it is left out."""
    warn(f"{shown(folder)}: cannot be listed ({error.strerror}); it is left out")


def _listed(folder: pathlib.Path) -> list[tuple[pathlib.Path, bool]]:
    """What is in a folder and not hidden, by name, and whether each is a folder."""
    if isinstance(folder, Uri):
        return [found for found in folder.listed() if not found[0].name.startswith(".")]
    with os.scandir(folder) as entries:
        return sorted(
            (pathlib.Path(entry.path), _is_folder(entry))
            for entry in entries
            if not entry.name.startswith(".")
        )


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def place(config: Config) -> str:
    """How error messages name where they looked."""
    missing = "" if config.data_path.is_dir() else " (there is no such folder)"
    return f"--data_dir={config.data_path}{missing}"


def download_command(config: Config, dataset: str) -> str:
    """What fetches a data set into --data_dir, as error messages name it."""
    flags, then = data_flags(config, dataset), ""
    if isinstance(config.data_path, Uri):
        flags = flags.removesuffix(_data_dir_flag(config)) + "--data_dir=DIR"
        then = " to this machine and copying it there"
    return f"python -m mgr_jax.datasets.download {flags}{then}"


def data_flags(config: Config, dataset: str) -> str:
    """The flags by which every program finds a data set."""
    words = [f"--dataset={dataset}"]
    if dataset == "fma" and config.fma_subset != Config.fma_subset:
        words.append(f"--fma_subset={config.fma_subset}")
    return " ".join([*words, _data_dir_flag(config)])


def _data_dir_flag(config: Config) -> str:
    return shlex.quote(f"--data_dir={config.data_path.absolute()}")
