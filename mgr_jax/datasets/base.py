"""What a data set is to the rest of the program: a name, a way to list its tracks, and
the split protocols that it supports. Every file of this folder makes one `Dataset`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from mgr_jax.config import Config
from mgr_jax.uris import Uri


@dataclasses.dataclass(frozen=True)
class Track:
    """One recording.

    Attributes:
      id: unique within the data set, stable between runs and machines.
      path: its audio file.
      genre: its label.
      artist: an identifier that tracks by one artist share; "" where it is unknown.
      fixed_sides: curated protocol ("filtered", "official") to "train", "validation" or
        "test"; a track that a protocol leaves out is missing from it.
      source: the data set that it is from, where several are merged into one, each of
        them divided by itself; "" in a data set that is not merged.
      source_genre: its label in that data set; "" as above.
    """

    id: str
    path: pathlib.Path | Uri
    genre: str
    artist: str = ""
    fixed_sides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str = ""
    source_genre: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A source of tracks.

    Attributes:
      name: value of --dataset.
      load: Config to the data set's tracks, in any order; raises UserError that says
        where it looked, what it expected there and how to get it.
      default_split: protocol taken when --split is not given.
      splits: the protocols that this data set supports.
    """

    name: str
    load: Callable[[Config], list[Track]]
    default_split: str
    splits: tuple[str, ...]
