"""Checks a data set, file by file: is it all there, whole, and there only once?

    python -m mgr_jax.datasets.verify --dataset=fma --data_dir=/data

Every track is decoded from end to end, and nothing is changed. What is shown: how many
tracks there are and should be, the rates and lengths of their files, which files are
missing, unreadable, silent, cut off, damaged, or too short to be used, which are of an
odd length, which recordings are there more than once (as the same bytes, or re-encoded:
see fingerprint.py), and which audio files no track refers to. A CSV has a row a file.

The exit status is 0 where nothing is wrong, or only what is known of the published data
(known_faults.py), and 1 where anything else is missing, unreadable, silent, cut off,
damaged, shorter than a segment, or there more than once. Odd lengths, clipping and
extra files are shown, and do not count.

The flags enter; a text and the CSV leave.
"""

import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import os
import pathlib
import sys
import threading
from collections.abc import Iterator, Sequence

from absl import flags

from mgr_jax import cli, cores
from mgr_jax import config as config_lib
from mgr_jax.config import FMA_SUBSETS, Config, shown, warn
from mgr_jax.datasets import (
    DATASETS,
    dataset_key,
    expected,
    findings,
    load_tracks,
    repeats,
)
from mgr_jax.datasets import measure as measure_lib
from mgr_jax.datasets.base import Track
from mgr_jax.datasets.findings import Findings, Row
from mgr_jax.datasets.known_faults import known_fault
from mgr_jax.datasets.measure import Measurement

CSV_NAME = "verify.csv"

_FLAGS = (
    "dataset", "data_dir", "features_dir", "fma_subset", "synth_clips",
    "decode_threads",
)  # fmt: skip


def verify(config: Config) -> Findings:
    """Reads every file of a data set.

    A fingerprint of 3 kB a track is kept, and of each file that is read no more than
    30 s, so memory hardly grows with the data set, and not with its recordings.

    Raises:
      UserError: the data set cannot be listed.
    """
    tracks = load_tracks(config)
    with _decoders_quiet():
        with contextlib.closing(_measured(config, tracks)) as measurements:
            measured = list(measurements)
        found = repeats.find(tracks, measured)
    rows = [
        Row(track.id, track.genre, source, track.path, measurement,
            known_fault(track.id, source))
        for track, measurement in zip(tracks, measured, strict=True)
        for source in [expected.source_of(config, track)]
    ]  # fmt: skip
    rows += [
        Row(track_id, genre, "gtzan", None, _not_there("is not there"),
            known_fault(track_id, "gtzan"))
        for track_id, genre in expected.missing_gtzan(config, tracks)
    ]  # fmt: skip
    rows += [
        Row("", "", config.dataset, path, Measurement(findings.EXTRA, reason))
        for path, reason in expected.extra_files(config, tracks)
    ]
    return Findings(config, rows, found)


def _not_there(reason: str) -> Measurement:
    return Measurement(measure_lib.MISSING, reason)


def _measured(config: Config, tracks: Sequence[Track]) -> Iterator[Measurement]:
    """Measures each track's file, several at once, in the tracks' order."""
    import tqdm

    stop = threading.Event()
    threads = config.decode_threads or cores.available()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    measure_one = functools.partial(_measure, config, stop)
    try:
        yield from tqdm.tqdm(
            pool.map(measure_one, tracks),
            total=len(tracks),
            desc="reading",
            unit="track",
            disable=None,
        )
    finally:
        # After an interrupt, what is being read ends at its next block.
        stop.set()
        pool.shutdown(cancel_futures=True)


def _measure(config: Config, stop: threading.Event, track: Track) -> Measurement:
    lengths_s = expected.lengths_s(expected.source_of(config, track))
    return measure_lib.measure(track.path, lengths_s, stop)


@contextlib.contextmanager
def _decoders_quiet() -> Iterator[None]:
    """Keeps off the terminal what libmpg123 says of an MP3, line upon line.

    It writes to the process's standard error itself; Python's goes on to where it went.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    ours = sys.stderr
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        sys.stderr.close()
        sys.stderr = ours
        os.close(nothing)
        os.close(kept)


def write_csv(found: Findings, path: pathlib.Path) -> None:
    """Writes a row a file, whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    rows = list(findings.columns(found))
    text = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with config_lib.replacing(path) as scratch, scratch.open("w", **text) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _save(found: Findings, wanted: str) -> str:
    """Writes the CSV to --csv or to its own place, and returns a line that says so."""
    own = found.config.features_path / dataset_key(found.config) / CSV_NAME
    path = config_lib.expanded("csv", wanted) if wanted else own
    try:
        if not wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_csv(found, path)
    except OSError as error:
        warn(
            f"{shown(path)}: cannot be written ({error.strerror or error}); name a "
            "file for all of it with --csv"
        )
        return ""
    return f"all files: {shown(path)}"


def run() -> None:
    """Checks the data set that the flags name, and says what is wrong with it.

    Raises:
      UserError: there is no such data set, or it cannot be listed.
      SystemExit: something is wrong with it, of status 1.
    """
    config = config_lib.from_flags(flags.FLAGS)
    config_lib.check_choices(config, {"dataset": DATASETS, "fma_subset": FMA_SUBSETS})
    config_lib.check_local("data_dir", config.data_path)
    found = verify(config)
    print(findings.as_text(found), end="\n\n")
    where = _save(found, flags.FLAGS.csv)
    if where:
        print(where)
    print(findings.verdict(found), flush=True)
    if not found.is_right:
        sys.exit(1)


def main() -> None:
    """Defines the flags and runs: the program `python -m mgr_jax.datasets.verify`."""
    fields = (field.name for field in dataclasses.fields(Config))
    choices = {"dataset": DATASETS, "fma_subset": FMA_SUBSETS}
    config_lib.define_flags(
        choices, flags.FLAGS, leave_out=[name for name in fields if name not in _FLAGS]
    )
    flags.DEFINE_string(
        "csv",
        "",
        "File for a row a file. Default: FEATURES_DIR/DATASET/verify.csv.",
    )
    # They are this program's own, for --help.
    for name in (*_FLAGS, "csv"):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    cli.start(run, goes_on=False)


if __name__ == "__main__":
    main()
