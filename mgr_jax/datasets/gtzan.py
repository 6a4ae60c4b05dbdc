"""GTZAN: 1000 clips of 30 s, 10 genres x 100, as .au or .wav in any of its layouts.

A Config enters; tracks leave, each with its artist (Sturm 2012) and its side of the
fault-filtered split (Kereliuk et al. 2015). A copy that holds only some of the tracks
is fine. No licence of this audio is known.
"""

import pathlib
import re

from mgr_jax.config import Config, UserError
from mgr_jax.datasets import gtzan_lists, search
from mgr_jax.datasets.base import Dataset, Track

GENRES = (
    "blues", "classical", "country", "disco", "hiphop",
    "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip

# GENRE.NNNNN.EXT; .au before .wav, as the original is, where a copy holds both.
_EXTENSIONS = (".au", ".wav")
_NAME = re.compile(r"(?P<genre>[A-Za-z _-]+)\.(?P<number>\d{5})\.(au|wav)")


def load(config: Config) -> list[Track]:
    """Lists the tracks of the fullest copy at or below --data_dir.

    Raises:
      UserError: there is none.
    """
    copies = (_tracks(folder) for folder in search.folders(config))
    tracks = max(copies, key=len, default=[])
    if not tracks:
        fetch = search.download_command(config, "gtzan")
        raise UserError(
            f"no GTZAN in {search.place(config)}: looked in it, and {search.DEPTH} "
            "folders deep, for genres/blues/blues.00000.au (or .wav; genres_original/ "
            "and Data/genres_original/ too); fetch it (1.2 GB, licence unknown) with "
            f"{fetch}, or try --dataset=synth, which needs no data"
        )
    return tracks


def _tracks(folder: pathlib.Path) -> list[Track]:
    """The tracks of a folder that holds the genres' folders; empty for any other."""
    paths = [
        path
        for sub in search.subfolders(folder)
        if _genre(sub.name) in GENRES
        for path in search.files(sub)
        if (match := _NAME.fullmatch(path.name))
        and _genre(match["genre"]) == _genre(sub.name)
    ]
    # The last of the same id stays.
    paths.sort(key=lambda path: _EXTENSIONS.index(path.suffix), reverse=True)
    return list({(track := _track(path)).id: track for path in paths}.values())


def _track(path: pathlib.Path) -> Track:
    genre = _genre(path.parent.name)
    track_id = f"{genre}.{_NAME.fullmatch(path.name)['number']}"
    side = gtzan_lists.SIDES.get(track_id)
    return Track(
        id=track_id,
        path=path,
        genre=genre,
        artist=gtzan_lists.ARTISTS.get(track_id, track_id),
        fixed_sides={"filtered": side} if side else {},
    )


def _genre(name: str) -> str:
    """A folder's name as the list has it: some copies have "hip-hop" or "hip_hop"."""
    return re.sub("[ _-]", "", name.lower())


DATASET = Dataset(
    name="gtzan",
    load=load,
    default_split="filtered",
    splits=("filtered", "artist", "track", "segment"),
)
