"""One shard: tracks to records, with the account of what became of each track.

A `Job` and a number enter; the shard's file and its account leave, renamed into place
(or sent to an object store) when they are whole. Jobs of several features share the
decoding of their tracks, and on a CPU the spectra. A job can travel to another process
or machine: the same gives the same bytes anywhere. prepare maps jobs over the shards of
a data set.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import math
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgr_jax import audio, cores, lean, memory
from mgr_jax.audio import SEGMENT_SAMPLES
from mgr_jax.config import shown
from mgr_jax.datasets import Track
from mgr_jax.features import FEATURES, together
from mgr_jax.input_pipeline import TFDS_SPLIT
from mgr_jax.uris import Uri

# Segments whose features are computed at a time, and the fewest that a core takes of
# them. One compiled shape serves all: what is fewer is padded up to it.
FEATURE_BATCH = 32
_LEAST = 4
# Values of float16 in a word of 64 bits.
_WORD = 4

_thread = threading.local()

# What an account says of a track that gave nothing, or less than it should have.
SKIPPED = "skipped"
NOTE = "used in part"


@dataclasses.dataclass(frozen=True)
class Job:
    """All that `write_shard` needs to know; it travels to other processes.

    Attributes:
      folder: where the shards go.
      name: TFDS's name of the data set, the first part of the shards' file names.
      feature: a name of FEATURES.
      genres: label names, in the order of the label numbers.
      tracks: all tracks, in shard order.
      tracks_per_shard: shard k holds tracks [k * n, (k + 1) * n).
      segments_per_track: see `audio.segment_starts`.
      decode_threads: how many tracks are decoded at once; 0 takes one per core that
        the process which writes may use.
    """

    folder: pathlib.Path | Uri
    name: str
    feature: str
    genres: tuple[str, ...]
    tracks: tuple[Track, ...]
    tracks_per_shard: int
    segments_per_track: int
    decode_threads: int

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.tracks) // self.tracks_per_shard)

    def shard_path(self, k: int) -> pathlib.Path | Uri:
        """File of shard k."""
        count = f"{k:05d}-of-{self.num_shards:05d}"
        return self.folder / f"{self.name}-{TFDS_SPLIT}.tfrecord-{count}"

    def account_path(self, k: int) -> pathlib.Path | Uri:
        """File that says how long shard k is, and what became of its tracks."""
        return self.folder / f"tracks-{k:05d}-of-{self.num_shards:05d}.json"


def write_shard(
    jobs: Sequence[Job], k: int, on_track: Callable[[], Any] = lambda: None
) -> None:
    """Writes shard k of each job, and the account of its tracks.

    The same job gives the same bytes, whatever others are given with it.

    Args:
      jobs: what all shards share; they differ in feature and folder alone.
      k: the shard's number, from 0.
      on_track: called after each track.
    """
    tf = lean.tensorflow()

    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(_scratch(job.folder)) for job in jobs]
        try:
            rows = _write_records(jobs, k, [x / "shard" for x in places], on_track)
        except tf.errors.OpError as error:
            raise _as_os_error(error, jobs[0].shard_path(k)) from None
        for job, place in zip(jobs, places, strict=True):
            account = {"bytes": (place / "shard").stat().st_size, "tracks": rows}
            (place / "account").write_text(json.dumps(account, indent=1) + "\n")
            # The account goes first: a shard that exists has one.
            _place(place / "account", job.account_path(k))
            _place(place / "shard", job.shard_path(k))


@contextlib.contextmanager
def _scratch(folder: pathlib.Path | Uri) -> Iterator[pathlib.Path]:
    """A folder to write in: beside its files' places, or where these are far, here."""
    if isinstance(folder, Uri):
        scratch = tempfile.mkdtemp(prefix="mgr_jax_")
    else:
        scratch = tempfile.mkdtemp(prefix=".writing-", dir=folder)
    try:
        yield pathlib.Path(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _place(source: pathlib.Path, target: pathlib.Path | Uri) -> None:
    """Puts a file where it belongs, as a whole."""
    if isinstance(target, Uri):
        target.send(source)
    else:
        os.replace(source, target)


def _write_records(
    jobs: Sequence[Job],
    k: int,
    paths: Sequence[pathlib.Path],
    on_track: Callable[[], Any],
) -> list[dict[str, Any]]:
    """Writes the records of shard k; returns what became of each of its tracks."""
    tf = lean.tensorflow()

    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(str(path))) for path in paths
        ]
        cuts = stack.enter_context(
            contextlib.closing(_segments(jobs[0], k, rows, on_track))
        )
        names = [job.feature for job in jobs]

        def computed() -> Iterator[tuple[list[_Cut], dict[str, np.ndarray]]]:
            while batch := list(itertools.islice(cuts, FEATURE_BATCH)):
                yield batch, compute(names, [cut.samples for cut in batch])

        def write(found: tuple[list[_Cut], dict[str, np.ndarray]]) -> None:
            batch, values = found
            for job, writer in zip(jobs, writers, strict=True):
                for cut, value in zip(batch, values[job.feature], strict=True):
                    writer.write(_serialise(_example(job, cut, value)))

        # One batch is written while the next is computed.
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "write"))
        for _ in _in_order(pool, write, computed(), ahead=1):
            pass
    return rows


def _example(job: Job, cut: "_Cut", value: np.ndarray) -> dict[str, int | bytes]:
    """A record's entries, as protobuf holds them."""
    track = job.tracks[cut.track]
    return {
        "feature": value.tobytes(),
        "label": job.genres.index(track.genre),
        "track": cut.track,
        "track_id": track.id.encode(),
        "segment": cut.segment,
    }


def _as_os_error(error: Any, path: pathlib.Path) -> OSError:
    """TensorFlow's error on a file as the OSError that its words speak of."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
    spoken = [number for number in numbers if os.strerror(number) in error.message]
    number = spoken[0] if spoken else errno.EIO
    return OSError(number, os.strerror(number), str(path))


class _Cut(NamedTuple):
    """One segment on its way to the feature: whose it is, which, and its samples."""

    track: int
    segment: int
    samples: np.ndarray


def _segments(
    job: Job, k: int, rows: list[dict[str, Any]], on_track: Callable[[], Any]
) -> Iterator[_Cut]:
    """Yields the segments of shard k.

    What became of each track is appended to `rows` when it is done with.
    """
    first = k * job.tracks_per_shard
    tracks = job.tracks[first : first + job.tracks_per_shard]
    threads = job.decode_threads or cores.available()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    try:
        read = functools.partial(_read, segments_per_track=job.segments_per_track)
        results = _in_order(pool, read, tracks, ahead=2 * threads)
        for index, (segments, notes, reason) in enumerate(results):
            path, number = shown(tracks[index].path), 0
            try:
                for samples in segments:
                    yield _Cut(first + index, number, samples)
                    number += 1
            except audio.AudioError as error:
                reason = str(error)
            note = reason or (notes.text and f"{path}: {notes.text}")
            if not number and not reason:
                why = f" ({notes.text})" if notes.text else ""
                reason = f"{path}: shorter than one segment of 5 s{why}"
            rows.append(
                {
                    "track": tracks[index].id,
                    "segments": number,
                    SKIPPED: "" if number else reason,
                    NOTE: note if number else "",
                }
            )
            on_track()
    finally:
        # After an interrupt, nobody waits for what is still to be decoded.
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: concurrent.futures.Executor,
    function: Callable[[Any], Any],
    items: Iterable[Any],
    ahead: int,
) -> Iterator[Any]:
    """As `pool.map`, but no more than so many results wait, for they take memory."""
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(
    track: Track, segments_per_track: int
) -> tuple[Iterable[np.ndarray], audio.Notes, str]:
    """A track's segments, what is odd about it, and why it cannot be used."""
    try:
        return *audio.read_segments(track.path, segments_per_track), ""
    except audio.AudioError as error:
        return (), audio.Notes(), str(error)


def compute(
    names: Sequence[str], samples: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Features as the shards hold them.

    Args:
      names: of FEATURES. On a CPU, they share their spectra.
      samples: float32 (samples,) of each of n segments, 1 to FEATURE_BATCH.

    Returns:
      float16 (n, bins, frames) of each name.
    """
    import jax

    on_cpu = jax.default_backend() == "cpu"
    # A CPU computes segment by segment: its cores share them. The rest takes them all.
    sharers = cores.available() if on_cpu else 1
    size = max(math.ceil(FEATURE_BATCH / sharers), _LEAST)
    values = {
        name: np.empty((len(samples), *FEATURES[name].shape()), np.float16)
        for name in names
    }
    # Elsewhere, what is compiled together might be rounded in another way than alone.
    groups = [tuple(names)] if on_cpu else [(name,) for name in names]
    compiled = [_compiled(group, size) for group in groups]
    fill = functools.partial(_fill, values, samples, compiled, size)
    *others, last = range(0, len(samples), size)
    waiting = [_threads().submit(fill, first) for first in others]
    fill(last)
    for future in waiting:
        future.result()
    return values


def _fill(
    values: dict[str, np.ndarray],
    samples: Sequence[np.ndarray],
    compiled: Sequence[Any],
    size: int,
    first: int,
) -> None:
    """Puts the features of up to `size` segments, from `first` on, into `values`."""
    part = samples[first : first + size]
    places = slice(first, first + len(part))
    rows = _laid_out(part, size)
    for group in compiled:
        # XLA reads the thread's own array until there are values to be read.
        for name, (words, rest) in group(rows).items():
            filled = values[name][places]
            whole = words.shape[1] * _WORD
            _turn(words, filled[..., :whole].view(np.uint64))
            _turn(rest, filled[..., whole:])


def _turn(found: Any, into: np.ndarray) -> None:
    """Puts the bins first of what has the frames first."""
    into[:] = np.asarray(found)[: len(into)].swapaxes(1, 2)


def _laid_out(samples: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Up to `size` segments as rows of the thread's own array, until the next call.

    Rows after the last segment hold those of an earlier call, or zeros.
    """
    rows = getattr(_thread, "rows", None)
    if rows is None or len(rows) != size:
        rows = _thread.rows = memory.aligned((size, SEGMENT_SAMPLES), np.float32)
        rows[:] = 0
    for row, segment in zip(rows, samples, strict=False):
        row[:] = segment
    return rows


@functools.cache
def _threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(cores.available(), "feature")


@functools.cache
def _compiled(names: tuple[str, ...], size: int) -> Any:
    """Of float32 (size, samples), to `_in_words` of each name."""
    import jax

    @jax.jit
    def stored(samples):
        words = together(names, _in_words)(samples)
        return jax.tree.map(lambda x: x.swapaxes(-1, -2), words)

    samples = jax.ShapeDtypeStruct((size, SEGMENT_SAMPLES), np.float32)
    return stored.lower(samples).compile(cores.compiler_options(alone=True))


def _in_words(values: Any) -> tuple[Any, Any]:
    """A feature, rounded, as numpy can put its bins first soonest: in larger pieces.

    numpy would round to the same, but takes as long as a tempogram for it; XLA on a CPU
    takes longer than numpy for putting bins first.

    Args:
      values: float32 (frames, bins).

    Returns:
      uint64 (frames // 4, bins), of four float16 each; and float16 (frames left, bins).
    """
    import jax
    import jax.numpy as jnp

    values = values.astype(jnp.float16)
    whole = len(values) // _WORD * _WORD
    with jax.enable_x64(True):
        bits = jax.lax.bitcast_convert_type(values[:whole], jnp.uint16)
        words = functools.reduce(
            jnp.bitwise_or,
            (
                bits[k::_WORD].astype(jnp.uint64) << np.uint64(16 * k)
                for k in range(_WORD)
            ),
        )
    return words, values[whole:]


def tfds_features(job: Job) -> Any:
    """The shards' layout, as TFDS describes it."""
    tfds = lean.tensorflow_datasets()

    return tfds.features.FeaturesDict(
        {
            "feature": tfds.features.Tensor(
                shape=FEATURES[job.feature].shape(),
                dtype=np.float16,
                encoding=tfds.features.Encoding.BYTES,
            ),
            "label": tfds.features.ClassLabel(names=job.genres),
            "track": tfds.features.Scalar(np.int64),
            "track_id": tfds.features.Text(),
            "segment": tfds.features.Scalar(np.int64),
        }
    )


def _serialise(example: dict[str, int | bytes]) -> bytes:
    """A record, as TFDS would write it for `tfds_features`, with fewer copies."""
    tf = lean.tensorflow()

    record = tf.train.Example()
    for name, value in example.items():
        entry = record.features.feature[name]
        if isinstance(value, int):
            entry.int64_list.value.append(value)
        else:
            entry.bytes_list.value.append(value)
    # protobuf leaves the order of map entries open; two runs shall give equal bytes.
    return record.SerializeToString(deterministic=True)


@dataclasses.dataclass(frozen=True)
class Account:
    """What an account file says: its shard's length, and a row a track."""

    bytes: int
    tracks: list[dict[str, Any]]


def read_account(job: Job, k: int) -> Account | None:
    """The account of shard k; None where there is none that can be read."""
    try:
        return Account(**json.loads(job.account_path(k).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_whole(job: Job, k: int) -> bool:
    """Whether shard k is there in all its length."""
    account = read_account(job, k)
    try:
        return account is not None and (
            job.shard_path(k).stat().st_size == account.bytes
        )
    except OSError:
        return False


def is_done(job: Job, k: int) -> bool:
    """Whether shard k is there; a track that it had to skip may have been mended."""
    account = read_account(job, k)
    return is_whole(job, k) and not any(row[SKIPPED] for row in account.tracks)


def missing(jobs: Iterable[Job]) -> dict[int, list[Job]]:
    """By shard number, in order, the jobs that lack it."""
    lacking: dict[int, list[Job]] = collections.defaultdict(list)
    for job in jobs:
        for k in range(job.num_shards):
            if not is_done(job, k):
                lacking[k].append(job)
    return dict(sorted(lacking.items()))
