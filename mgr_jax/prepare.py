"""Tracks to TFRecord shards: the only writer of shards.

A data set's tracks enter; a folder leaves that `tfds.builder_from_directory` opens. The
shard is the unit of work: `shards.write_shard(jobs, k)` decodes its tracks, computes
the features in batches, and renames temporary files into place, so a killed run resumes
at the first shard that is missing, two runs give the same bytes, and memory does not
grow with the data set. This process maps it over the shards, or `beam` has a cluster
do so; the bytes are the same. TFDS's metadata is written last: a folder without it is
not finished. A finished folder that has lost a shard gets it again. main calls
`prepare`, or `prepare_all` where several features are to be had from one decoding.
"""

import contextlib
import csv
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mgr_jax import audio, beam, lean, shards, workdir
from mgr_jax.config import LOCAL, Config, UserError, replace_text, warn
from mgr_jax.datasets import Track, dataset_key, load_tracks
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import (
    COMMIT_FILE,
    FORMAT_VERSION,
    SPEC_FILE,
    TFDS_SPLIT,
    TRACKS_FILE,
    is_complete,
    prepared_folder,
    write_tracks,
)
from mgr_jax.shards import NOTE, SKIPPED, Account, Job
from mgr_jax.uris import Uri

SKIPPED_FILE = "skipped.csv"
NOTES_FILE = "notes.csv"

# What is listed where; a row of an account has a column of each name.
_ODD = {SKIPPED_FILE: SKIPPED, NOTES_FILE: NOTE}


def prepare(config: Config, beam_options: Sequence[str] = ()) -> pathlib.Path | Uri:
    """Makes sure that the shards of a run's data set and feature exist.

    Args:
      config: the run.
      beam_options: where its `runner` is one of Apache Beam's, options of Beam.

    Returns:
      The finished folder; what was finished before is not computed again.

    Raises:
      UserError: as `prepare_all`.
    """
    return prepare_all(config, [config.feature], beam_options)[0]


def prepare_all(
    config: Config, features: Sequence[str], beam_options: Sequence[str] = ()
) -> list[pathlib.Path | Uri]:
    """Makes sure that the shards of several features exist; tracks are decoded once.

    Args:
      config: a run, but for its feature.
      features: names of FEATURES.
      beam_options: where its `runner` is one of Apache Beam's, options of Beam.

    Returns:
      The features' finished folders, with the bytes that each would have if prepared
      alone; what was finished before is not computed again.

    Raises:
      UserError: the data are missing, the folder cannot be written, it was made from
        other tracks or settings, more tracks than --max_skipped cannot be read, or Beam
        is missing, takes no such options or has failed.
    """
    beam.check(config.runner, beam_options)
    configs = [
        dataclasses.replace(config, feature=name) for name in dict.fromkeys(features)
    ]
    folders = [prepared_folder(of) for of in configs]
    try:
        tracks = tuple(load_tracks(config))
    except UserError as error:
        if not all(map(is_complete, folders)):
            raise
        print(
            f"using the features in {_list(folders)}; the audio itself is not there "
            f"({error})"
        )
        return folders
    jobs = [
        _job(of, folder, tracks) for of, folder in zip(configs, folders, strict=True)
    ]
    # All processes take the locks in the same order, and none waits for ever.
    jobs = [
        job
        for job in sorted(jobs, key=lambda job: str(job.folder))
        if not _is_prepared(job, again=config.overwrite)
    ]
    with contextlib.ExitStack() as held:
        for job in jobs:
            held.enter_context(_writing_to(job.folder))
            _check_spec(job.folder, _spec(job), overwrite=config.overwrite)
        # Another process may have made them while this one waited.
        jobs = [job for job in jobs if not _is_finished(job, again=config.overwrite)]
        if jobs:
            _write_all(jobs, config, beam_options)
    return folders


def _list(items: Iterable[Any]) -> str:
    return ", ".join(map(str, items))


def _is_prepared(job: Job, again: bool) -> bool:
    """Whether there is nothing to do, and no lock to be taken; if so, says so."""
    if _read_spec(job.folder) != _spec(job) or not _is_finished(job, again):
        return False
    print(f"the features are prepared: {job.folder}", flush=True)
    return True


def _is_finished(job: Job, again: bool) -> bool:
    """Whether all is there; `again`, that nothing was skipped and may be mended now."""
    is_there = shards.is_done if again else shards.is_whole
    return is_complete(job.folder) and all(
        is_there(job, k) for k in range(job.num_shards)
    )


def _job(config: Config, folder: pathlib.Path | Uri, tracks: tuple[Track, ...]) -> Job:
    return Job(
        folder=folder,
        name=re.sub(r"\W+", "_", dataset_key(config)).strip("_"),
        feature=config.feature,
        genres=tuple(sorted({track.genre for track in tracks})),
        tracks=tracks,
        tracks_per_shard=config.tracks_per_shard,
        segments_per_track=config.segments_per_track,
        decode_threads=config.decode_threads,
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
def _writing_to(folder: pathlib.Path | Uri) -> Iterator[None]:
    """Holds the folder's lock; a write that fails becomes a line with the remedy."""
    with (
        workdir.writing(folder, "--features_dir"),
        workdir.held(folder, "prepares"),
    ):
        # The folder itself is made, and emptied, by the one that holds it.
        folder.mkdir(exist_ok=True)
        _delete_leftovers(folder)
        yield


def _delete_leftovers(folder: pathlib.Path | Uri) -> None:
    """Deletes what was being written when its process, or its worker, ended."""
    if isinstance(folder, Uri):  # nothing is begun there
        return
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read_spec(folder: pathlib.Path | Uri) -> dict[str, Any]:
    """What the folder was, or was to be, made from; {} where that is not known."""
    try:
        return json.loads((folder / SPEC_FILE).read_text())
    except (OSError, ValueError):
        return {}


def _check_spec(
    folder: pathlib.Path | Uri, spec: dict[str, Any], *, overwrite: bool
) -> None:
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
    if isinstance(folder, Uri):
        folder.rmtree()
    else:
        shutil.rmtree(folder)
    folder.mkdir()
    replace_text(folder / SPEC_FILE, json.dumps(spec, indent=2) + "\n")


def _write_all(
    jobs: Sequence[Job], config: Config, beam_options: Sequence[str]
) -> None:
    """Writes what jobs, which differ in feature and folder alone, lack."""
    started = time.monotonic()
    missing, count = shards.missing(jobs), jobs[0].num_shards
    done = count - len(missing)
    print(
        f"preparing {_list(job.feature for job in jobs)} of {len(jobs[0].tracks)} "
        f"tracks in {count} shards"
        f"{f', {done} of them already there' if done else ''}: "
        f"{_list(job.folder for job in jobs)}",
        flush=True,
    )
    if config.runner == LOCAL:
        _write_here(jobs[0], missing)
    else:
        beam.write_shards(jobs, config.runner, beam_options)
        # A worker that was lost, or outrun by another, may have left its own.
        for job in jobs:
            _delete_leftovers(job.folder)
    for job in jobs:
        accounts = [shards.read_account(job, k) for k in range(count)]
        _commit(job, accounts, config.max_skipped)
    # All have the same tracks, of which the same has become.
    rows = [row for account in accounts for row in account.tracks]
    print(
        f"prepared {sum(row['segments'] for row in rows)} segments of "
        f"{len(rows)} tracks, {sum(bool(row['skipped']) for row in rows)} "
        f"skipped, in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    for name, column in _ODD.items():
        odd = [row[column] for row in rows if row[column]]
        if odd:
            others = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            warn(f"{column}: {odd[0]}{others}; listed in {jobs[-1].folder / name}")


def _write_here(any_job: Job, missing: Mapping[int, Sequence[Job]]) -> None:
    import tqdm

    tracks, each = len(any_job.tracks), any_job.tracks_per_shard
    with tqdm.tqdm(
        total=tracks,
        initial=min((any_job.num_shards - len(missing)) * each, tracks),
        desc="preparing",
        unit="track",
        disable=None,
    ) as bar:
        for k, lacking in missing.items():
            shards.write_shard(lacking, k, on_track=bar.update)


def _commit(job: Job, accounts: Sequence[Account], max_skipped: float) -> None:
    """Writes the lists and, last, the metadata that makes the folder a data set."""
    rows = [row for account in accounts for row in account.tracks]
    for name, column in _ODD.items():
        lines = [("track_id", "segments", "reason")]
        lines += [(x["track"], x["segments"], x[column]) for x in rows if x[column]]
        _write_csv(job.folder / name, lines)
    skipped = [row[SKIPPED] for row in rows if row[SKIPPED]]
    if len(skipped) > max_skipped * len(rows) or len(skipped) == len(rows):
        raise UserError(
            f"{len(skipped)} of {len(rows)} tracks cannot be used, the first is "
            f"{skipped[0]}; all are listed in {job.folder / SKIPPED_FILE}; mend them, "
            "or allow a larger share with --max_skipped"
        )
    counts = {row["track"]: row["segments"] for row in rows}
    # A folder that lost a shard is finished until here; a kill must not leave it so.
    (job.folder / COMMIT_FILE).unlink(missing_ok=True)
    write_tracks(job.folder / TRACKS_FILE, job.tracks, counts)

    lengths = [sum(row["segments"] for row in account.tracks) for account in accounts]
    with _writable(job) as here:
        _write_metadata(job, here, lengths, sum(account.bytes for account in accounts))


@contextlib.contextmanager
def _writable(job: Job) -> Iterator[pathlib.Path]:
    """A folder for TFDS to write to; what is for an object store is then sent there."""
    if not isinstance(job.folder, Uri):
        yield job.folder
        return
    with tempfile.TemporaryDirectory(prefix="mgr_jax_") as name:
        here = pathlib.Path(name)
        # TFDS wants to see files of the shards' names, and does not open them.
        names = {job.shard_path(k).name for k in range(job.num_shards)}
        for name in names:
            (here / name).touch()
        yield here
        written = [path for path in here.iterdir() if path.name not in names]
        for path in sorted(written, key=lambda path: path.name == COMMIT_FILE):
            (job.folder / path.name).send(path)


def _write_metadata(
    job: Job, folder: pathlib.Path, lengths: list[int], num_bytes: int
) -> None:
    tfds = lean.tensorflow_datasets()

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=job.name,
        split=TFDS_SPLIT,
        filetype_suffix="tfrecord",
    )
    split = tfds.core.SplitInfo(
        name=TFDS_SPLIT,
        shard_lengths=lengths,
        num_bytes=num_bytes,
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=shards.tfds_features(job),
        split_infos=[split],
        description=f"{job.feature} of 5-second segments, made by mgr_jax.",
        check_data=False,
    )


def _write_csv(path: pathlib.Path | Uri, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
