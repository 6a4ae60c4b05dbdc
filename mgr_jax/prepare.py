"""Tracks to TFRecord shards: the only writer of shards.

A data set's tracks enter; a folder leaves that `tfds.builder_from_directory` opens. The
shard is the unit of work: `write_shard(job, k)` decodes its tracks, computes the
feature in batches, and renames a temporary file into place, so a killed run resumes at
the first shard that is missing, two runs give the same bytes, and memory does not grow
with the data set. TFDS's metadata is written last: a folder without it is not finished.
main calls `prepare`.
"""

import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mgr_jax import audio, workdir
from mgr_jax.config import Config, UserError, replace_text
from mgr_jax.datasets import Track, dataset_key, load_tracks
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import (
    COMMIT_FILE,
    SPEC_FILE,
    TFDS_SPLIT,
    TRACKS_FILE,
    is_complete,
    prepared_folder,
    write_tracks,
)

SKIPPED_FILE = "skipped.csv"
FORMAT_VERSION = 1

# One compiled shape serves all: the last batch of a shard is padded up to it.
FEATURE_BATCH = 32


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
      decode_threads: how many tracks are decoded at once.
    """

    folder: pathlib.Path
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

    def shard_path(self, k: int) -> pathlib.Path:
        """File of shard k."""
        count = f"{k:05d}-of-{self.num_shards:05d}"
        return self.folder / f"{self.name}-{TFDS_SPLIT}.tfrecord-{count}"

    def account_path(self, k: int) -> pathlib.Path:
        """File that says what became of shard k's tracks."""
        return self.folder / f"tracks-{k:05d}-of-{self.num_shards:05d}.json"


def prepare(config: Config) -> pathlib.Path:
    """Makes sure that the shards of a run's data set and feature exist.

    Args:
      config: the run.

    Returns:
      The finished folder; what was finished before is not computed again.

    Raises:
      UserError: the data are missing, the folder cannot be written, it was made from
        other tracks or settings, or more tracks than --max_skipped cannot be read.
    """
    folder = prepared_folder(config)
    try:
        tracks = tuple(load_tracks(config))
    except UserError as error:
        if not is_complete(folder):
            raise
        print(
            f"using the features in {folder}; the audio itself is not there ({error})"
        )
        return folder
    job = _job(config, folder, tracks)
    spec = _spec(job)
    if is_complete(folder) and _read_spec(folder) == spec:
        print(f"the features are prepared: {folder}", flush=True)
        return folder
    with _writing_to(folder):
        _check_spec(folder, spec, overwrite=config.overwrite)
        if not is_complete(folder):
            _write_all(job, config.max_skipped)
    return folder


def _job(config: Config, folder: pathlib.Path, tracks: tuple[Track, ...]) -> Job:
    return Job(
        folder=folder,
        name=re.sub(r"\W+", "_", dataset_key(config)).strip("_"),
        feature=config.feature,
        genres=tuple(sorted({track.genre for track in tracks})),
        tracks=tracks,
        tracks_per_shard=config.tracks_per_shard,
        segments_per_track=config.segments_per_track,
        decode_threads=config.decode_threads or os.cpu_count() or 1,
    )


def _spec(job: Job) -> dict[str, Any]:
    """What decides the bytes of the shards, as it is kept in spec.json."""
    listing = hashlib.sha256()
    for track in job.tracks:
        try:
            size = track.path.stat().st_size
        except OSError:
            size = -1
        sides = sorted(track.fixed_sides.items())
        entry = [track.id, track.genre, track.artist, sides, size]
        listing.update(json.dumps(entry).encode())
    return {
        "format_version": FORMAT_VERSION,
        "feature": job.feature,
        "feature_params": dict(FEATURES[job.feature].params),
        "sample_rate_hz": audio.SAMPLE_RATE_HZ,
        "segment_s": audio.SEGMENT_S,
        "segments_per_track": job.segments_per_track,
        "tracks_per_shard": job.tracks_per_shard,
        "num_tracks": len(job.tracks),
        "tracks_sha256": listing.hexdigest(),
    }


@contextlib.contextmanager
def _writing_to(folder: pathlib.Path) -> Iterator[None]:
    """Holds the folder's lock; an OSError within becomes a line that names the flag."""
    try:
        # The folder itself is made, and emptied, by the one that holds it.
        with workdir.held(folder, "prepares"):
            folder.mkdir(exist_ok=True)
            for leftover in folder.glob(".writing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); name a folder "
            "that can with --features_dir"
        ) from error


def _read_spec(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder was, or was to be, made from; {} where that is not known."""
    try:
        return json.loads((folder / SPEC_FILE).read_text())
    except (OSError, ValueError):
        return {}


def _check_spec(folder: pathlib.Path, spec: dict[str, Any], *, overwrite: bool) -> None:
    """Leaves the folder fit to go on in: same spec, or emptied."""
    found = _read_spec(folder)
    if found == spec:
        return
    changed = ", ".join(
        f"{key} {found.get(key)} then, {spec[key]} now"
        for key in spec
        if found.get(key) != spec[key] and key != "tracks_sha256"
    )
    changed = changed or "the tracks' files or labels have changed"
    if is_complete(folder):
        if not overwrite:
            raise UserError(
                f"{folder}: was prepared from something else ({changed}); prepare anew "
                "with --overwrite, or elsewhere with --features_dir"
            )
        print(f"preparing {folder} anew ({changed})", flush=True)
    # The commit point goes first, so that no half-deleted folder looks finished.
    (folder / COMMIT_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)
    folder.mkdir()
    replace_text(folder / SPEC_FILE, json.dumps(spec, indent=2) + "\n")


def _write_all(job: Job, max_skipped: float) -> None:
    import tqdm

    started = time.monotonic()
    missing = [k for k in range(job.num_shards) if not _is_done(job, k)]
    done = job.num_shards - len(missing)
    print(
        f"preparing {job.feature} of {len(job.tracks)} tracks in {job.num_shards} "
        f"shards{f', {done} of them already there' if done else ''}: {job.folder}",
        flush=True,
    )
    with tqdm.tqdm(
        total=len(job.tracks),
        initial=min(done * job.tracks_per_shard, len(job.tracks)),
        desc="preparing",
        unit="track",
        disable=None,
    ) as bar:
        for k in missing:
            write_shard(job, k, on_track=bar.update)
    accounts = [row for k in range(job.num_shards) for row in _read_account(job, k)]
    _commit(job, accounts, max_skipped)
    print(
        f"prepared {sum(row['segments'] for row in accounts)} segments of "
        f"{len(accounts)} tracks, {sum(bool(row['skipped']) for row in accounts)} "
        f"skipped, in {time.monotonic() - started:.0f} s",
        flush=True,
    )


def write_shard(job: Job, k: int, on_track: Callable[[], Any] = lambda: None) -> None:
    """Writes shard k and the account of its tracks; the same job gives the same bytes.

    Args:
      job: what all shards share.
      k: the shard's number, from 0.
      on_track: called after each track.
    """
    import tensorflow as tf

    features = tfds_features(job)
    first = k * job.tracks_per_shard
    account: list[dict[str, Any]] = []
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=".writing-", dir=job.folder))
    with tf.io.TFRecordWriter(str(scratch / "shard")) as writer:
        stream = _segments(job, first, account, on_track)
        while batch := list(itertools.islice(stream, FEATURE_BATCH)):
            values = compute(job.feature, np.stack([cut.samples for cut in batch]))
            for cut, value in zip(batch, values, strict=True):
                example = {
                    "feature": value,
                    "label": job.tracks[cut.track].genre,
                    "track": cut.track,
                    "track_id": job.tracks[cut.track].id,
                    "segment": cut.segment,
                }
                writer.write(_serialise(features, example))
    (scratch / "account").write_text(json.dumps(account, indent=1) + "\n")
    # The account goes first: a shard that exists has one.
    os.replace(scratch / "account", job.account_path(k))
    os.replace(scratch / "shard", job.shard_path(k))
    scratch.rmdir()


class _Cut(NamedTuple):
    """One segment on its way to the feature: whose it is, which, and its samples."""

    track: int
    segment: int
    samples: np.ndarray


def _segments(
    job: Job, first: int, account: list[dict[str, Any]], on_track: Callable[[], Any]
) -> Iterator[_Cut]:
    """Yields the segments of the shard that begins with track `first`.

    What became of each track is appended to `account` as it is known.
    """
    tracks = job.tracks[first : first + job.tracks_per_shard]
    read = functools.partial(_read_segments, segments_per_track=job.segments_per_track)
    with concurrent.futures.ThreadPoolExecutor(job.decode_threads) as pool:
        for index, (segments, reason) in enumerate(pool.map(read, tracks)):
            account.append(
                {
                    "track": tracks[index].id,
                    "segments": len(segments),
                    "skipped": reason,
                }
            )
            for number, samples in enumerate(segments):
                yield _Cut(first + index, number, samples)
            on_track()


def _read_segments(track: Track, segments_per_track: int) -> tuple[np.ndarray, str]:
    """A track's segments (n, samples), and why there are none."""
    try:
        segments = audio.segments(audio.decode(track.path), segments_per_track)
    except audio.AudioError as error:
        return np.zeros((0, audio.SEGMENT_SAMPLES), np.float32), str(error)
    reason = "" if len(segments) else f"{track.path}: shorter than one segment of 5 s"
    return segments, reason


def compute(feature: str, samples: np.ndarray) -> np.ndarray:
    """A feature as the shards hold it.

    Args:
      feature: a name of FEATURES.
      samples: float32 (n, samples), up to FEATURE_BATCH segments.

    Returns:
      float16 (n, bins, frames).
    """
    padding = [(0, FEATURE_BATCH - len(samples)), (0, 0)]
    values = _jitted(feature)(np.pad(samples, padding))
    return np.asarray(values[: len(samples)]).astype(np.float16)


@functools.cache
def _jitted(name: str) -> Any:
    import jax

    return jax.jit(FEATURES[name].fn)


def tfds_features(job: Job) -> Any:
    """The shards' layout, as TFDS describes it."""
    import tensorflow_datasets as tfds

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


def _serialise(features: Any, example: dict[str, Any]) -> bytes:
    import tensorflow as tf

    # protobuf leaves the order of map entries open; two runs shall give equal bytes.
    record = tf.train.Example.FromString(features.serialize_example(example))
    return record.SerializeToString(deterministic=True)


def _read_account(job: Job, k: int) -> list[dict[str, Any]]:
    return json.loads(job.account_path(k).read_text())


def _is_done(job: Job, k: int) -> bool:
    """Whether shard k is there; a track that it had to skip may have been mended."""
    return job.shard_path(k).exists() and not any(
        row["skipped"] for row in _read_account(job, k)
    )


def _commit(job: Job, accounts: list[dict[str, Any]], max_skipped: float) -> None:
    """Writes the lists and, last, the metadata that makes the folder a data set."""
    import tensorflow_datasets as tfds

    skipped = [row for row in accounts if row["skipped"]]
    with (job.folder / SKIPPED_FILE).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["track_id", "reason"])
        rows.writerows([row["track"], row["skipped"]] for row in skipped)
    if len(skipped) > max_skipped * len(accounts) or len(skipped) == len(accounts):
        raise UserError(
            f"{len(skipped)} of {len(accounts)} tracks cannot be read, the first as "
            f"{skipped[0]['skipped']}; all are listed in {job.folder / SKIPPED_FILE}; "
            "mend them, or allow a larger share with --max_skipped"
        )
    counts = {row["track"]: row["segments"] for row in accounts}
    write_tracks(job.folder / TRACKS_FILE, job.tracks, counts)

    lengths = [
        sum(row["segments"] for row in _read_account(job, k))
        for k in range(job.num_shards)
    ]
    template = tfds.core.ShardedFileTemplate(
        data_dir=job.folder,
        dataset_name=job.name,
        split=TFDS_SPLIT,
        filetype_suffix="tfrecord",
    )
    split = tfds.core.SplitInfo(
        name=TFDS_SPLIT,
        shard_lengths=lengths,
        num_bytes=sum(job.shard_path(k).stat().st_size for k in range(job.num_shards)),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=job.folder,
        features=tfds_features(job),
        split_infos=[split],
        description=f"{job.feature} of 5-second segments, made by mgr_jax.",
        check_data=False,
    )
