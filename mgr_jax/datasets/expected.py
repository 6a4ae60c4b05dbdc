"""What a whole data set holds: how many tracks of what length, and nothing beside them.

A Config and the tracks that its loader lists enter; what is missing from them, and the
audio files that none of them refers to, leave. verify calls it.
"""

import contextlib
import io
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from mgr_jax.config import Config, real
from mgr_jax.datasets import fma, folder, gtzan, merged
from mgr_jax.datasets.base import Track

# Clips of a whole data set. FMA's include those that have no top genre and are not
# listed: none in small and medium, half of large.
FULL = {
    "gtzan": 1_000,
    "fma_small": 8_000,
    "fma_medium": 25_000,
    "fma_large": 106_574,
}
GTZAN_PER_GENRE = 100

# Shortest and longest clip.
_LENGTHS_S = {"gtzan": (29.9, 30.7), "fma": (29.0, 31.0)}

FORK = "a fork that macOS left, no audio"

# Below the folder of a data set of this kind; what is deeper is another data set's.
_DEPTHS = {"gtzan": 1, "fma": 2, "folder": 1_000}


def source_of(config: Config, track: Track) -> str:
    """The data set that a track is from, also where two are merged."""
    return track.source or config.dataset


def lengths_s(source: str) -> tuple[float, float]:
    """Shortest and longest duration that a data set's clips have."""
    return _LENGTHS_S.get(source, (0, math.inf))


def full_count(config: Config) -> int | None:
    """How many clips the whole data set has; None where nobody can know."""
    parts = [
        f"fma_{config.fma_subset}" if name == "fma" else name
        for name in config.dataset.split("+")
    ]
    return sum(FULL[name] for name in parts) if set(parts) <= set(FULL) else None


def missing_gtzan(config: Config, tracks: Sequence[Track]) -> list[tuple[str, str]]:
    """(id, genre) of GTZAN's tracks that no file is there of.

    Other data sets list their tracks whether or not there is a file.
    """
    names = config.dataset.split("+")
    if "gtzan" not in names:
        return []
    prefix = "gtzan/" if len(names) > 1 else ""
    there = {track.id for track in tracks}
    return [
        (track_id, merged.GTZAN_TO_FMA[genre] if prefix else genre)
        for genre in gtzan.GENRES
        for number in range(GTZAN_PER_GENRE)
        if (track_id := f"{prefix}{genre}.{number:05d}") not in there
    ]


def extra_files(
    config: Config, tracks: Sequence[Track]
) -> list[tuple[pathlib.Path, str]]:
    """Audio files in the data set's folder that no track refers to, each with why.

    What FMA's tracks.csv lists is none, though it be of another subset.
    """
    extra = []
    for source in dict.fromkeys(source_of(config, track) for track in tracks):
        if source not in _DEPTHS:
            continue
        ours = [track.path for track in tracks if source_of(config, track) == source]
        root = config.data_path if source == "folder" else ours[0].parents[1]
        known = set(ours)
        found = (
            path
            for path in _audio_files(root, _DEPTHS[source], real(config.features_path))
            if path not in known
        )
        if source == "gtzan":
            extra += _of_gtzan(ours, found)
        elif source == "fma":
            extra += _of_fma(config, root, found)
        else:
            extra += _of_folder(root, found)
    return extra


def _audio_files(
    root: pathlib.Path, depth: int, features: pathlib.Path
) -> Iterator[pathlib.Path]:
    """The files at and below a folder that are named as audio is, hidden ones too."""
    seen = set()
    for place, subs, names in os.walk(root, followlinks=True):
        found = real(place)
        inside = len(pathlib.Path(place).relative_to(root).parts)
        if found in seen or found == features:
            subs.clear()
            continue
        seen.add(found)
        subs[:] = sorted(sub for sub in subs if not sub.startswith("."))
        if inside >= depth:
            subs.clear()
        for name in sorted(names):
            path = pathlib.Path(place, name)
            if path.suffix.lower() in folder.EXTENSIONS:
                yield path


def _of_gtzan(
    ours: Sequence[pathlib.Path], paths: Iterator[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, str]]:
    taken = {path.with_suffix("") for path in ours}
    for path in paths:
        reason = "not named as a track of GTZAN in its genre's folder"
        if path.with_suffix("") in taken:
            reason = "a track that is there in another format, which is the one taken"
        yield path, _if_hidden(path) or reason


def _of_fma(
    config: Config, root: pathlib.Path, paths: Iterator[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, str]]:
    listed = None
    for path in paths:
        if _if_hidden(path):
            yield path, _if_hidden(path)
        elif (number := _fma_number(root, path)) is None:
            yield path, "not named as a track of FMA in its folder"
        else:
            listed = _fma_numbers(config) if listed is None else listed
            if number not in listed:
                yield path, "not in tracks.csv"


def _of_folder(
    root: pathlib.Path, paths: Iterator[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, str]]:
    for path in paths:
        in_label = path.parent != root
        reason = "reached by another name, too" if in_label else "in no label's folder"
        yield path, _if_hidden(path) or reason


def _if_hidden(path: pathlib.Path) -> str:
    if path.name.startswith("._"):
        return FORK
    return "hidden" if path.name.startswith(".") else ""


def _fma_number(root: pathlib.Path, path: pathlib.Path) -> int | None:
    """The number of a file NNN/NNNNNN.mp3 of FMA; None for any other."""
    name = path.stem
    digits = len(name) == 6 and name.isascii() and name.isdigit()
    if digits and path == root / name[:3] / f"{name}.mp3":
        return int(name)
    return None


def _fma_numbers(config: Config) -> set[int]:
    """All tracks that tracks.csv lists, of every subset."""
    # The loader has said already what is odd about it.
    with contextlib.redirect_stderr(io.StringIO()):
        return set(fma.read_tracks_csv(fma.find_csv(config)).index)
