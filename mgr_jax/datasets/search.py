"""Finds folders at and below --data_dir, for the data sets that know their own layout.

A Config enters; folders leave, nearest first, always in the same order. gtzan and fma
take from them the first that looks like theirs.
"""

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator

from mgr_jax.config import Config

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
    seen = {config.features_path.resolve()}
    level = [config.data_path.absolute()]
    for depth in range(DEPTH + 1):
        below = []
        for folder in level:
            yield folder
            if depth < DEPTH:
                below += (sub for sub in subfolders(folder) if _is_new(sub, seen))
        level = below


def _is_new(folder: pathlib.Path, seen: set[pathlib.Path]) -> bool:
    real = folder.resolve()
    if folder.name.isdigit() or real in seen:
        return False
    seen.add(real)
    return True


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder that are not hidden, by name."""
    return _listed(folder, os.DirEntry.is_dir)


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder that are not hidden, as macOS's `._` forks are, by name."""
    return _listed(folder, os.DirEntry.is_file)


def _listed(
    folder: pathlib.Path, keep: Callable[[os.DirEntry], bool]
) -> list[pathlib.Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                pathlib.Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".") and keep(entry)
            )
    except OSError:
        return []


def place(config: Config) -> str:
    """How error messages name where they looked."""
    missing = "" if config.data_path.is_dir() else " (there is no such folder)"
    return f"--data_dir={config.data_path}{missing}"
