"""Shards to batches: the only reader of shards, and the only importer of tf.data.

A prepared folder and an assignment of its segments to sides enter; iterators over
numpy batches leave. Training order is a function of (seed, epoch) alone; evaluation
pads its last batch and carries a mask, so that counts are exact. train and evaluate
call it.

Of a job's processes, each reads its share of the shards. It runs through the same order
as one process that reads them all: where another's examples stand, it has blanks, which
take part in the shuffle but hold nothing. So a training batch is made of the same rows
in the same places whatever the number of processes, and each process has some of them;
`steps.data_parallel` hands them round. That costs a batch's bytes on the network a
step. In return, no example is read by two processes, shares may be uneven, and the
memory of all processes together has to hold the training set, not that of each.

A side that fits in memory is read once, into arrays, and its batches are made of their
rows: tf.data, which has some work for each example, would take longer than a GPU does
to train on it. tf.data still draws the order, which is the same either way.
"""

import csv
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgr_jax import hosts, lean, memory
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import Track, dataset_key
from mgr_jax.features import Feature
from mgr_jax.local_copy import local_copy
from mgr_jax.splits import SIDES, Assignment
from mgr_jax.uris import Uri

SPEC_FILE = "spec.json"
TRACKS_FILE = "tracks.csv"
COMMIT_FILE = "dataset_info.json"
TFDS_SPLIT = "segments"

# Raised with any change to what prepare writes.
FORMAT_VERSION = 2

Batch = dict[str, np.ndarray]

_READ_AT_ONCE = 64
# tf.data's own work for a record takes longer than reading what is in it.
_PARSED_AT_ONCE = 32

_TRACK_COLUMNS = ("track_id", "genre", "artist", "segments")
# Written only where a track has a source, so that other data sets' files do without.
_SOURCE_COLUMNS = ("source", "source_genre")
_FIXED_PREFIX = "split:"


def prepared_folder(config: Config) -> pathlib.Path | Uri:
    """Where the shards of this run's data set and feature are, or will be."""
    name = config.feature
    if config.segments_per_track != 5:
        name += f"-{config.segments_per_track or 'all'}-segments"
    return config.features_path / dataset_key(config) / name


def is_complete(folder: pathlib.Path | Uri) -> bool:
    """Whether the folder was prepared to its end: its metadata is written last.

    TFDS writes it in place, so a kill can leave half of it.
    """
    try:
        json.loads((folder / COMMIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A finished folder of shards.

    Attributes:
      folder: where it is, or where its copy is on this machine.
      genres: label names, in the order of the label numbers.
      tracks: every track that gave segments or was skipped, in shard order.
      segment_counts: track id to its number of segments (0 where it was skipped).
      shape: (bins, frames) of one segment's feature.
      spec: what it was made from (spec.json).
    """

    folder: pathlib.Path
    genres: tuple[str, ...]
    tracks: tuple[Track, ...]
    segment_counts: Mapping[str, int]
    shape: tuple[int, int]
    spec: Mapping[str, Any]


def open_prepared(folder: pathlib.Path | Uri) -> Prepared:
    """Opens a prepared folder; one that is in an object store is copied from there.

    Raises:
      UserError: it is not there, or was not prepared to its end.
    """
    if not is_complete(folder):
        raise UserError(
            f"{folder}: holds no finished features; run --mode=prepare, or name the "
            "folder that holds them with --features_dir"
        )
    if isinstance(folder, Uri):
        folder = local_copy(folder, COMMIT_FILE, SPEC_FILE)
    try:
        spec = json.loads((folder / SPEC_FILE).read_text())
        version = spec["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{folder}: has format version {version}, and this program reads "
                f"{FORMAT_VERSION}; prepare it again with --overwrite"
            )
        info = _builder(folder).info
        features = info.features
        tracks, counts = read_tracks(folder / TRACKS_FILE)
        if len(tracks) != spec["num_tracks"]:
            raise ValueError(f"{TRACKS_FILE} has {len(tracks)} rows")
        prepared = Prepared(
            folder=folder,
            genres=tuple(features["label"].names),
            tracks=tracks,
            segment_counts=counts,
            shape=tuple(features["feature"].shape),
            spec=spec,
        )
    except UserError:
        raise
    # TFDS, protobuf and csv each raise what they like of what was not written so.
    except Exception as error:
        raise UserError(
            f"{folder}: its lists are damaged ({_short(error)}); delete {COMMIT_FILE} "
            "there, and --mode=prepare, where the audio is, writes them again"
        ) from None
    _check_size(folder, info)
    return prepared


def _check_size(folder: pathlib.Path, info: Any) -> None:
    """A shard that was cut off would be read as one with fewer examples."""
    split = info.splits[TFDS_SPLIT]
    paths = [pathlib.Path(path) for path in split.filepaths]
    missing = [path for path in paths if not path.exists()]
    found = sum(path.stat().st_size for path in paths if path not in missing)
    if found != split.num_bytes:
        lost = f" ({missing[0].name} is missing)" if missing else ""
        raise UserError(
            f"{folder}: its shards have {found} bytes where {split.num_bytes} were "
            f"written{lost}; --mode=prepare, where the audio is, makes what is lost "
            "again"
        )


def write_tracks(
    path: pathlib.Path, tracks: tuple[Track, ...], counts: Mapping[str, int]
) -> None:
    """Writes the list of tracks that splits are drawn from, without their paths."""
    protocols = sorted({name for track in tracks for name in track.fixed_sides})
    columns = _SOURCE_COLUMNS if any(track.source for track in tracks) else ()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        fixed = [_FIXED_PREFIX + name for name in protocols]
        rows.writerow([*_TRACK_COLUMNS, *columns, *fixed])
        for track in tracks:
            about = [track.id, track.genre, track.artist, counts[track.id]]
            source = [getattr(track, column) for column in columns]
            sides = [track.fixed_sides.get(name, "") for name in protocols]
            rows.writerow([*about, *source, *sides])


def read_tracks(path: pathlib.Path) -> tuple[tuple[Track, ...], dict[str, int]]:
    """Reads what `write_tracks` wrote: the tracks and their numbers of segments."""
    tracks, counts = [], {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sides = {
                column.removeprefix(_FIXED_PREFIX): side
                for column, side in row.items()
                if column.startswith(_FIXED_PREFIX) and side
            }
            tracks.append(
                Track(
                    id=row["track_id"],
                    path=pathlib.Path(),
                    genre=row["genre"],
                    artist=row["artist"],
                    fixed_sides=sides,
                    source=row.get("source", ""),
                    source_genre=row.get("source_genre", ""),
                )
            )
            counts[row["track_id"]] = int(row["segments"])
    return tuple(tracks), counts


def count_segments(assignment: Assignment, side: str) -> int:
    """How many segments lie on a side."""
    return sum(sides.count(side) for sides in assignment.sides.values())


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a split, ready to be read.

    Attributes:
      dataset: tf.data.Dataset of its examples, each a dict of feature (bins, frames)
        float16, label, track (index into Prepared.tracks) and segment; in shard order.
        In place of what other hosts read there are blanks, whose feature is (0, 0).
      shares: how many of them each host reads.
      host: this host's number.
      shape: (bins, frames) of a feature.
      files: the shards that it is read from.
      places: (total,) for each example of all hosts, in shard order, its place in this
        host's share; -1 where another host reads it.
      held: this host's share in memory, arrays (size, ...), where it was read.
    """

    dataset: Any
    shares: tuple[int, ...]
    host: int
    shape: tuple[int, int]
    files: tuple[str, ...]
    places: np.ndarray
    held: Batch | None = None

    @property
    def total(self) -> int:
        """Number of examples, over all hosts."""
        return sum(self.shares)

    @property
    def size(self) -> int:
        """Number of examples in this host's share."""
        return self.shares[self.host]

    @property
    def example_bytes(self) -> int:
        """Size of one example's feature."""
        return 2 * int(np.prod(self.shape))

    @property
    def share_mb(self) -> float:
        """Size of the largest share of a host."""
        return max(self.shares) * self.example_bytes / 1e6


def load_side(
    prepared: Prepared,
    assignment: Assignment,
    side: str,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> Side:
    """Opens one side of a split.

    Args:
      prepared: the shards.
      assignment: which segment lies on which side.
      side: "train", "validation" or "test".
      process_index: this host's number; it reads every `process_count`-th shard.
      process_count: number of hosts.

    Returns:
      The side; nothing is read yet.
    """
    tf = lean.tensorflow()

    _keep_off_accelerators()
    info = _builder(prepared.folder).info
    files = tuple(str(path) for path in info.splits[TFDS_SPLIT].filepaths)
    wanted = _side_table(prepared, assignment) == SIDES.index(side)
    shard = np.arange(len(wanted)) // prepared.spec["tracks_per_shard"]
    counts = np.bincount(shard, wanted.sum(axis=1), len(files)).astype(np.int64)

    keys = {
        name: tf.io.FixedLenFeature([], tf.int64)
        for name in ("label", "track", "segment")
    } | {"feature": tf.io.FixedLenFeature([], tf.string)}

    def parse(records: Any) -> dict[str, Any]:
        examples = tf.io.parse_example(records, keys)
        place = tf.stack([examples["track"], examples["segment"]], axis=1)
        belong = tf.gather_nd(wanted, place)
        examples = {
            key: tf.boolean_mask(value, belong) for key, value in examples.items()
        }
        values = tf.io.decode_raw(examples["feature"], tf.float16)
        return examples | {"feature": tf.reshape(values, (-1, *prepared.shape))}

    def read(paths: Any) -> Any:
        records = tf.data.TFRecordDataset(paths).batch(_PARSED_AT_ONCE)
        return records.map(parse, num_parallel_calls=2).unbatch()

    if process_count == 1:
        dataset = read(list(files))
    else:
        dataset = _with_blanks(read, files, counts, process_index, process_count)
    mine = np.repeat(np.arange(len(files)) % process_count == process_index, counts)
    return Side(
        dataset=dataset,
        shares=tuple(int(counts[k::process_count].sum()) for k in range(process_count)),
        host=process_index,
        shape=prepared.shape,
        files=files[process_index::process_count],
        places=np.where(mine, np.cumsum(mine) - 1, -1),
    )


def _with_blanks(
    read: Callable[[Any], Any],
    files: Sequence[str],
    counts: np.ndarray,
    process_index: int,
    process_count: int,
) -> Any:
    """What all files hold, in their order, but blanks for other hosts' files."""
    tf = lean.tensorflow()

    zero = tf.zeros((), tf.int64)
    blank = {"feature": tf.zeros((0, 0), tf.float16)}
    blank |= dict.fromkeys(("label", "track", "segment"), zero)
    mine = np.arange(len(files)) % process_count == process_index

    def shard(path: Any, count: Any, is_mine: Any) -> Any:
        others = tf.data.Dataset.from_tensors(blank).repeat(
            tf.where(is_mine, zero, count)
        )
        return others.concatenate(read(tf.boolean_mask([path], [is_mine])))

    listed = tf.data.Dataset.from_tensor_slices((list(files), counts, mine))
    return listed.flat_map(shard)


def _own(side: Side) -> Any:
    """The examples of a side that this host reads, without blanks."""
    tf = lean.tensorflow()

    dataset = _deterministic(side.dataset)
    if len(side.shares) == 1:
        return dataset
    return dataset.filter(lambda example: tf.size(example["feature"]) > 0)


def in_memory(side: Side, budget_mb: float) -> Side:
    """Reads a host's share into memory, where every host's share fits.

    Raises:
      UserError: a shard is damaged, or holds other examples than the lists say.
    """
    if side.share_mb > budget_mb:
        return side
    held: Batch = {}
    done = 0
    for batch in _share(side, _READ_AT_ONCE):
        if done + len(batch["label"]) > side.size:
            break
        for key, value in batch.items():
            if key not in held:
                held[key] = np.empty((side.size, *value.shape[1:]), value.dtype)
            held[key][done : done + len(value)] = value
        done += len(batch["label"])
    if done != side.size:
        raise UserError(
            f"{side.files[0]} or another beside it holds other segments than "
            f"{TRACKS_FILE} says; delete that folder and prepare it again"
        )
    return dataclasses.replace(side, held=held or None)


def training_batches(
    side: Side,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    shuffle_buffer_mb: int,
    skip: int = 0,
    rows_alone: bool = False,
) -> Iterator[Batch]:
    """One epoch's batches, in an order that (seed, epoch) fixes.

    The whole side is shuffled where it fits the buffer, else a window of that size
    slides over it. The last incomplete batch is left out; the next epoch's order leaves
    out other examples.

    Args:
      side: what to read.
      seed: the run's seed.
      epoch: number of the epoch.
      batch_size: examples a batch.
      shuffle_buffer_mb: memory for the shuffle.
      skip: number of batches to leave out at the start, to go on within an epoch.
      rows_alone: whether to say which examples make a batch, instead of giving them.

    Yields:
      Dicts of feature (batch, bins, frames) float16, label (batch,) int64. Rows that
      another host reads are zeros. With `rows_alone`, of rows (batch,), the places of
      the same examples among all of the side, in shard order.
    """
    tf = lean.tensorflow()

    window = int(shuffle_buffer_mb * 1e6 // side.example_bytes)
    order = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])

    def shuffled(examples: Any) -> Any:
        return _deterministic(examples).shuffle(
            max(1, min(side.total, window)), seed=order
        )

    if rows_alone or side.held is not None:
        drawn = shuffled(tf.data.Dataset.range(side.total)).batch(side.total)
        for places in drawn.as_numpy_iterator():
            whole = len(places) // batch_size
            for rows in places[: whole * batch_size].reshape(whole, -1)[skip:]:
                yield {"rows": rows} if rows_alone else _held_rows(side, rows)
        return
    examples = shuffled(side.dataset)
    if len(side.shares) > 1:

        def filled(example: dict[str, Any]) -> dict[str, Any]:
            missing = side.shape - tf.shape(example["feature"])
            feature = tf.pad(example["feature"], [(0, missing[0]), (0, missing[1])])
            return example | {"feature": tf.ensure_shape(feature, side.shape)}

        examples = examples.map(filled)
    batches = examples.batch(batch_size, drop_remainder=True).skip(skip).prefetch(2)
    yield from _read(side, batches)


def _held_rows(side: Side, rows: np.ndarray) -> Batch:
    """Examples of a side that is held, by their places among those of all hosts."""
    places = side.places[rows]
    batch = {}
    for key, value in side.held.items():
        batch[key] = memory.aligned((len(places), *value.shape[1:]), value.dtype)
        # Clipped, or numpy would make a copy first. A place of -1 is blanked below.
        np.take(value, places, axis=0, out=batch[key], mode="clip")
    if len(side.shares) > 1:
        for value in batch.values():
            value[places < 0] = 0
    return batch


def _share(side: Side, batch_size: int) -> Iterator[Batch]:
    """This host's share in shard order, the last batch as small as it is."""
    if side.held is None:
        yield from _read(side, _own(side).batch(batch_size).prefetch(2))
        return
    for start in range(0, side.size, batch_size):
        yield {k: v[start : start + batch_size] for k, v in side.held.items()}


def evaluation_batches(side: Side, batch_size: int) -> Iterator[Batch]:
    """Every example of this host's share once, in shard order, the last batch padded.

    A host whose share is smaller than another's has batches of padding at the end, so
    that all hosts have as many.

    Yields:
      Dicts of feature, label, track and segment, each (batch_size, ...), and mask
      (batch_size,) bool: False where a row is padding.
    """
    left = -(-max(side.shares) // batch_size)
    for batch in _share(side, batch_size):
        left -= 1
        yield padded(batch, batch_size)
    nothing = {key: np.zeros(0, np.int64) for key in ("label", "track", "segment")}
    nothing["feature"] = np.zeros((0, *side.shape), np.float16)
    for _ in range(left):
        yield padded(nothing, batch_size)


def in_shard_order(rows: Batch) -> Batch:
    """Rows of several hosts, which name their track and segment, as one reads them."""
    order = np.lexsort((rows["segment"], rows["track"]))
    return {key: value[order] for key, value in rows.items()}


def padded(batch: Batch, batch_size: int) -> Batch:
    """A batch of `batch_size` rows or fewer, filled up with zeros.

    Returns:
      The batch's arrays, each (batch_size, ...), and mask (batch_size,) bool: False
      where a row is padding.
    """
    count = len(batch["label"])
    filling = {
        key: np.zeros((batch_size - count, *value.shape[1:]), value.dtype)
        for key, value in batch.items()
    }
    whole = {key: np.concatenate([batch[key], filling[key]]) for key in batch}
    return whole | {"mask": np.arange(batch_size) < count}


def normalisation(side: Side, feature: Feature) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of what is heard of every bin, over examples and frames.

    A bin that hardly varies in training (above an encoder's low pass, say) would be
    blown up in a file where it does, so deviations are held to a tenth of their mean
    or more.

    Args:
      side: what to read.
      feature: of which it is made.

    Returns:
      (mean, deviation), each float32 (bins, 1).
    """
    total = squares = np.zeros(side.shape[0])
    frames = 0
    for batch in _share(side, _READ_AT_ONCE):
        values = feature.heard(batch["feature"])
        total = total + values.sum((0, 2), dtype=np.float64)
        squares = squares + np.square(values, dtype=np.float64).sum((0, 2))
        frames += values.shape[0] * values.shape[2]
    total, squares, frames = hosts.add((total, squares, frames))
    mean = total / frames
    deviation = np.sqrt(np.maximum(squares / frames - mean**2, 0.0))
    deviation = np.maximum(deviation, max(0.1 * deviation.mean(), 1e-6))
    return (
        mean[:, None].astype(np.float32),
        deviation[:, None].astype(np.float32),
    )


def example_per_genre(side: Side, genres: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The first example of every genre that a side holds.

    Returns:
      Genre to its feature (bins, frames) float32.
    """
    found: dict[str, np.ndarray] = {}
    for example in _read(side, _own(side)):
        genre = genres[example["label"]]
        if genre not in found:
            found[genre] = example["feature"].astype(np.float32)
            if len(found) == len(genres):
                break
    return {genre: found[genre] for genre in genres if genre in found}


def _side_table(prepared: Prepared, assignment: Assignment) -> np.ndarray:
    """(tracks, segments) of the number of each segment's side, -1 for none."""
    most = max(prepared.segment_counts.values())
    table = np.full((len(prepared.tracks), most), -1, np.int8)
    for row, track in enumerate(prepared.tracks):
        for column, side in enumerate(assignment.sides.get(track.id, ())):
            if side:
                table[row, column] = SIDES.index(side)
    return table


def _read(side: Side, dataset: Any) -> Iterator[Any]:
    """What a dataset made of a side yields; a shard that is damaged is named."""
    tf = lean.tensorflow()

    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        for file in side.files:
            reason = _damage(file)
            if reason:
                raise UserError(
                    f"{file}: {reason}; delete it, and --mode=prepare, where the audio "
                    "is, makes it again"
                ) from None
        raise UserError(
            f"{side.files[0]} or another beside it cannot be read "
            f"({_short(error)}); delete that folder and prepare it again"
        ) from None


def _damage(file: str) -> str:
    """What is wrong with a shard, whose records carry checksums; "" for nothing."""
    tf = lean.tensorflow()

    try:
        for _ in tf.data.TFRecordDataset([file]):
            pass
    except tf.errors.DataLossError:
        return "is damaged (a checksum in it does not fit)"
    except tf.errors.OpError as error:
        return f"cannot be read ({_short(error)})"
    return ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _deterministic(dataset: Any) -> Any:
    tf = lean.tensorflow()

    options = tf.data.Options()
    options.deterministic = True
    # Nothing is left to be tuned, and a tuner is slow to end: what closes an iterator
    # sometimes waits for it, for a quarter of a second.
    options.autotune.enabled = False
    return dataset.with_options(options)


@functools.cache
def _keep_off_accelerators() -> None:
    """TensorFlow only reads data here; left alone it would take a GPU's memory."""
    tf = lean.tensorflow()

    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")


def _builder(folder: pathlib.Path) -> Any:
    tfds = lean.tensorflow_datasets()

    return tfds.builder_from_directory(str(folder))
