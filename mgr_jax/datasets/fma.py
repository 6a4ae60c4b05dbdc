"""FMA, the Free Music Archive: clips of 30 s as MP3, labelled by its own metadata.

A Config enters; the tracks of --fma_subset leave, with their artist and their side of
the official split. Subsets are nested: small is in medium, medium in large. A track
whose file is missing is listed too; preparing skips it and counts it.
"""

import io
import pathlib
from typing import TYPE_CHECKING

from mgr_jax.config import FMA_SUBSETS, Config, UserError, check_choices, warn
from mgr_jax.datasets import archives, search
from mgr_jax.datasets.base import Dataset, Track

if TYPE_CHECKING:
    import pandas as pd

_METADATA = archives.FMA_METADATA.sources[0].url

# Columns of tracks.csv, by the two header rows that name them.
_COLUMNS = {
    "subset": ("set", "subset"),
    "side": ("set", "split"),
    "genre": ("track", "genre_top"),
    "artist": ("artist", "id"),
}

_SIDES = {"training": "train", "validation": "validation", "test": "test"}


def load(config: Config) -> list[Track]:
    """Lists the tracks of --fma_subset that have a top genre.

    Raises:
      UserError: the metadata or the audio is not at or below --data_dir, nor beside
        it, or the metadata is not FMA's tracks.csv.
    """
    check_choices(config, {"fma_subset": FMA_SUBSETS})
    subset = config.fma_subset
    csv_path = find_csv(config)
    table = read_tracks_csv(csv_path)
    wanted = FMA_SUBSETS[: FMA_SUBSETS.index(subset) + 1]
    table = table[table["subset"].isin(wanted) & (table["genre"] != "")]
    if table.empty:
        raise UserError(
            f"{csv_path}: lists no track of --fma_subset={subset} that has a top "
            f"genre; take tracks.csv from {_METADATA}"
        )
    files = [f"{number:06d}.mp3" for number in table.index]
    root = _find_audio(_folders(config), csv_path, subset, files)
    if root is None:
        raise UserError(
            _missing(config, f"fma_{subset}/{files[0][:3]}/{files[0]} and its like")
        )
    return [
        Track(
            id=file.removesuffix(".mp3"),
            path=root / file[:3] / file,
            genre=row.genre,
            artist=row.artist,
            fixed_sides={"official": _SIDES[row.side]} if row.side in _SIDES else {},
        )
        for file, row in zip(files, table.itertuples(), strict=True)
    ]


def _folders(config: Config) -> list[pathlib.Path]:
    return [*search.folders(config), *_beside(config.data_path)]


def _beside(data_path: pathlib.Path) -> list[pathlib.Path]:
    """Where the rest is when --data_dir is fma_small or fma_metadata itself."""
    names = [f"fma_{name}" for name in ("metadata", *FMA_SUBSETS)]
    path = data_path.absolute()
    return [path.with_name(name) for name in names] if path.name in names else []


def find_csv(config: Config) -> pathlib.Path:
    """The nearest tracks.csv, one in a folder fma_metadata before any other.

    Raises:
      UserError: there is none at or below --data_dir, nor beside it.
    """
    places = _folders(config)
    paths = [path for folder in places if (path := folder / "tracks.csv").is_file()]
    if not paths:
        raise UserError(_missing(config, "fma_metadata/tracks.csv"))
    return min(paths, key=lambda path: path.parent.name != "fma_metadata")


def _find_audio(
    folders: list[pathlib.Path], csv_path: pathlib.Path, subset: str, files: list[str]
) -> pathlib.Path | None:
    """The folder that holds the subset's audio, in whole or in part.

    That of a larger subset will do where there is none of its own; of several, the one
    beside the metadata comes first.
    """
    names = [f"fma_{name}" for name in FMA_SUBSETS[FMA_SUBSETS.index(subset) :]]
    roots = [folder for folder in folders if folder.name in names]
    home = csv_path.parent.parent
    roots.sort(key=lambda p: (names.index(p.name), p.parent != home))
    for root in roots:
        if any((root / file[:3] / file).is_file() for file in files):
            return root
    return None


def _missing(config: Config, what: str) -> str:
    return (
        f"no {what} in {search.place(config)}: looked in it, {search.DEPTH} folders "
        f"deep, and beside it; fetch it with {search.download_command(config, 'fma')}, "
        "or try --dataset=synth, which needs no data"
    )


def read_tracks_csv(path: pathlib.Path) -> "pd.DataFrame":
    """Reads the columns of FMA's tracks.csv that make a track.

    Two header rows name a column and a third names the index; quoted fields hold commas
    and line breaks. A last row that was cut off is left out, with a warning.

    Args:
      path: tracks.csv.

    Returns:
      One row a track, in the file's order, indexed by the track's number (int), with
      the columns subset, side, genre, artist (str, "" where the file has nothing).

    Raises:
      UserError: it cannot be read, or is not that table.
    """
    import pandas as pd

    options = {"header": None, "dtype": str, "keep_default_na": False}
    try:
        whole = _whole_rows(path)
        header = pd.read_csv(io.BytesIO(whole), nrows=2, **options)
        names = list(zip(*header.to_numpy(), strict=True))
        missing = [".".join(n) for n in _COLUMNS.values() if n not in names]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        at = {column: names.index(name) for column, name in _COLUMNS.items()}
        table = pd.read_csv(
            io.BytesIO(whole), skiprows=3, usecols=[0, *at.values()], **options
        )
        table.index = table[0].astype(int)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # pandas' own errors, and a name or number amiss
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: is not FMA's tracks.csv, or is damaged ({reason}); take it from "
            f"{_METADATA}"
        ) from None
    return table[list(at.values())].set_axis(list(at), axis="columns")


def _whole_rows(path: pathlib.Path) -> bytes:
    """A CSV file's bytes, up to its last whole row.

    A row ends at a line break outside quotes: one that an even number of quotes
    precede.
    """
    data = path.read_bytes()
    end, quotes = len(data), data.count(b'"')
    while end and (quotes % 2 or data[end - 1 : end] != b"\n"):
        start = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', start, end)
        end = start
    if b"\0" in data:
        raise ValueError("it holds bytes that are no text")
    if end < len(data):
        warn(
            f"{path}: its last row is cut off and is left out, and so is all that may "
            f"have followed; take it whole from {_METADATA}"
        )
    return data[:end]


DATASET = Dataset(
    name="fma",
    load=load,
    default_split="official",
    splits=("official", "artist", "track", "segment"),
)
