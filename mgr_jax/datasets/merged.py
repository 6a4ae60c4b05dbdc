"""GTZAN and FMA as one data set, under FMA's genre names.

A Config enters; the tracks of both leave, each as its own loader finds it in
--data_dir, with an id and an artist that name the source. The registry of data sets
calls it. The curated sides are kept a source: GTZAN's filtered, FMA's official. The two
sources know artists by numbers of their own, so an artist that is in both counts as
two.
"""

import dataclasses

from mgr_jax.config import Config, UserError
from mgr_jax.datasets import fma, gtzan
from mgr_jax.datasets.base import Dataset, Track

# GTZAN's genres to FMA's top-level genres, which are what FMA's tracks are labelled
# with (track.genre_top). FMA's own tree of genres (genres.csv in fma_metadata) decides.
# Seven stand there at the top, by the same name. The other three are below the top, and
# get the genre at the top of their branch: Metal is below Rock, Disco below Soul-RnB,
# and reggae (Reggae - Dub, Reggae - Dancehall) below International.
GTZAN_TO_FMA = {
    "blues": "Blues",
    "classical": "Classical",
    "country": "Country",
    "disco": "Soul-RnB",
    "hiphop": "Hip-Hop",
    "jazz": "Jazz",
    "metal": "Rock",
    "pop": "Pop",
    "reggae": "International",
    "rock": "Rock",
}

# The default protocol of each is its curated one.
_SOURCES = {"gtzan": gtzan.DATASET, "fma": fma.DATASET}
_CURATED = "+".join(source.default_split for source in _SOURCES.values())


def load(config: Config) -> list[Track]:
    """Lists the tracks of GTZAN and of --fma_subset, both at or below --data_dir.

    Raises:
      UserError: one of the two is missing or damaged.
    """
    try:
        return [
            _of_source(track, name)
            for name, source in _SOURCES.items()
            for track in source.load(config)
        ]
    except UserError as error:
        raise UserError(
            f"{error} (--dataset=gtzan+fma needs both, GTZAN and FMA, in one "
            "--data_dir)"
        ) from None


def _of_source(track: Track, source: str) -> Track:
    """A track as its own loader made it, to one of the merged data set."""
    genre = track.genre.strip()
    side = track.fixed_sides.get(_SOURCES[source].default_split)
    return dataclasses.replace(
        track,
        id=f"{source}/{track.id}",
        genre=GTZAN_TO_FMA[genre] if source == "gtzan" else genre,
        artist=f"{source}/{track.artist}" if track.artist else "",
        fixed_sides={_CURATED: side} if side else {},
        source=source,
        source_genre=genre,
    )


DATASET = Dataset(
    name="gtzan+fma",
    load=load,
    default_split=_CURATED,
    splits=(_CURATED, "artist", "track", "segment"),
)
