"""What of a data set is in --data_dir already, and need not be downloaded.

A Config and its archives enter; those leave whose data are whole. download asks, and
has noted here what it unpacked.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

from mgr_jax import config as config_lib
from mgr_jax.config import FMA_SUBSETS, Config, UserError
from mgr_jax.datasets import archives, fma, gtzan, search, unpack
from mgr_jax.datasets.archives import Archive
from mgr_jax.datasets.unpack import Unpacked

# In --data_dir: hidden, so that nothing in it is taken for data.
DOWNLOADS_FOLDER = ".downloads"

_GTZAN_TRACKS = 1_000


def write_record(archive: Archive, unpacked: Unpacked, folder: pathlib.Path) -> None:
    """Notes in the folder of downloads what was unpacked of an archive."""
    text = json.dumps(dataclasses.asdict(unpacked), indent=2) + "\n"
    config_lib.replace_text(_record_path(archive, folder), text)


def places(names: Sequence[str], data_path: pathlib.Path) -> str:
    """How messages name an archive's folders."""
    return " and ".join(str(data_path / name) for name in names)


def _record_path(archive: Archive, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{archive.name}.json"


def present(config: Config, wanted: Sequence[Archive]) -> dict[Archive, str]:
    """The archives whose data are there, each with what is there, and where.

    That is known by the record of what was unpacked, of which no file may be missing
    now; or, for data that were put there by hand, by what makes the data set whole.
    """
    data_path = config.data_path.absolute()
    found = {}
    for archive in wanted:
        where = _by_record(archive, data_path) or _by_hand(archive, config)
        if where:
            found[archive] = where
    return found


def _by_record(archive: Archive, data_path: pathlib.Path) -> str:
    """Where all files are that were unpacked here once; "" where they are not."""
    path = _record_path(archive, data_path / DOWNLOADS_FOLDER)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        files, names = int(record["files"]), [str(name) for name in record["folders"]]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    found = sum(_count_files(data_path / name) for name in names)
    if not found or found < files:
        return ""
    return f"{found} files in {places(names, data_path)}"


def _by_hand(archive: Archive, config: Config) -> str:
    """Where a whole data set is that this program did not unpack; "" where none is."""
    if archive.folders == archives.GTZAN.folders:
        return _gtzan_by_hand(config)
    if archive.folders == archives.FMA_METADATA.folders:
        subset = config.fma_subset
        return next((str(p) for p in _csv_paths(config) if _listed(p, subset)), "")
    return _fma_audio_by_hand(config)


def _gtzan_by_hand(config: Config) -> str:
    try:
        tracks = gtzan.load(config)
    except UserError:
        return ""
    if len(tracks) < _GTZAN_TRACKS:
        return ""
    return f"{len(tracks)} tracks in {tracks[0].path.parents[1]}"


def _csv_paths(config: Config) -> list[pathlib.Path]:
    """Each tracks.csv in a folder fma_metadata, the nearest first."""
    return [
        folder / "tracks.csv"
        for folder in search.folders(config)
        if folder.name == "fma_metadata" and (folder / "tracks.csv").is_file()
    ]


def _listed(path: pathlib.Path, subset: str) -> int:
    """How many tracks of a subset of FMA a tracks.csv lists; 0 where it cannot be read.

    A subset holds the ones before it.
    """
    try:
        table = fma.read_tracks_csv(path)
    except UserError:
        return 0
    names = FMA_SUBSETS[: FMA_SUBSETS.index(subset) + 1]
    return int(table["subset"].isin(names).sum())


def _fma_audio_by_hand(config: Config) -> str:
    """Where as much audio of the subset, or of a larger one, is as the nearest list
    has of it; "" where there is less.
    """
    for subset in FMA_SUBSETS[FMA_SUBSETS.index(config.fma_subset) :]:
        for folder in search.folders(config):
            if folder.name == f"fma_{subset}" and (csv_paths := _csv_paths(config)):
                found = _count_files(folder, ".mp3")
                if found and found >= (_listed(csv_paths[0], subset) or found + 1):
                    return f"{found} tracks in {folder}"
    return ""


def _count_files(folder: pathlib.Path, suffix: str = "") -> int:
    """How many files are below a folder, those that macOS leaves not counted."""
    return sum(
        name.endswith(suffix) and not unpack.is_junk([name])
        for _, _, names in os.walk(folder)
        for name in names
    )
