"""Preparing, against a loop over librosa, and against decoding alone.

    python -m experiments.bench.prepare_speed [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered as MP3s; a table leaves: tracks a second
of `mgr_jax.prepare`, from files to shards, for each of the paper's features, and for
all three from one decoding. The peer is what is usually written instead: librosa.load
and librosa's features, segment by segment, in as many processes as there are cores. It
has two rows: with one thread a process for OpenBLAS, which librosa uses, and as it
comes, with one a core, which keep each other waiting. The limit is decoding and
resampling alone, as many files at once as there are cores. `growth` has the memory.
"""

import concurrent.futures
import contextlib
import functools
import io
import multiprocessing
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from absl import flags

from experiments.bench import features_speed, music, timing
from mgr_jax import audio, cores, prepare
from mgr_jax.config import Config


def run() -> None:
    """Measures what the flags say."""
    quick = flags.FLAGS.quick
    features = features_speed.PAPER[1:2] if quick else features_speed.PAPER
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as name:
        scratch = pathlib.Path(name)
        paths = music.sources(
            flags.FLAGS.data_dir, scratch / "mp3", 12 if quick else 48
        )
        folder = music.linked(paths[:24] if quick else paths, scratch / "music", 1)
        sets = [(feature,) for feature in features]
        if not quick:
            sets.append(features)
        rows = [
            row for names in sets for row in _rows(names, folder, scratch / "features")
        ]
    timing.show("preparing", "librosa", "decoding alone", rows)


def _rows(
    names: tuple[str, ...], folder: pathlib.Path, out: pathlib.Path
) -> list[timing.Row]:
    paths = sorted(folder.rglob("*.*"))
    by_librosa = functools.partial(_by_librosa, names)
    with (
        _processes(OPENBLAS_NUM_THREADS="1") as processes,
        _processes() as as_they_come,
        concurrent.futures.ThreadPoolExecutor(cores.available()) as threads,
    ):
        ways = {
            "ours": functools.partial(_prepare, names, folder, out),
            "peer": lambda: processes.map(by_librosa, paths, 1),
            "as it comes": lambda: as_they_come.map(by_librosa, paths, 1),
            "limit": lambda: list(threads.map(audio.decode, paths)),
        }
        found = timing.seconds(ways, flags.FLAGS.rounds)
    speeds = {way: len(paths) / took for way, took in found.items()}
    ours, limit = speeds["ours"], speeds["limit"]
    name = names[0] if len(names) == 1 else features_speed.TOGETHER
    what = f"{name} of {len(paths)} tracks"
    return [
        timing.Row(said, "tracks/s", ours, speeds[peer], limit, more_is_better=True)
        for said, peer in ((what, "peer"), (f"{what}, as it comes", "as it comes"))
    ]


@contextlib.contextmanager
def _processes(**environment: str) -> Iterator[Any]:
    """A pool of as many as there are cores, started with these variables.

    What numpy's libraries read when they are loaded can only be set before.
    """
    with mock.patch.dict(os.environ, environment):
        pool = multiprocessing.get_context("spawn").Pool(cores.available())
    with pool:
        yield pool


def _prepare(names: tuple[str, ...], folder: pathlib.Path, out: pathlib.Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    config = Config(dataset="folder", data_dir=str(folder), features_dir=str(out))
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare_all(config, names)


def _by_librosa(names: tuple[str, ...], path: pathlib.Path) -> list[np.ndarray]:
    """Features of a track's five segments, as float16."""
    import librosa

    samples, _ = librosa.load(path, sr=audio.SAMPLE_RATE_HZ)
    starts = np.linspace(0, len(samples) - audio.SEGMENT_SAMPLES, 5).astype(int)
    return [
        features_speed.of_librosa(
            name, samples[start : start + audio.SEGMENT_SAMPLES]
        ).astype(np.float16)
        for start in starts
        for name in names
    ]


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_string("data_dir", "", "Folder of music. Default: rendered clips.")
    timing.start(run, rounds=3)


if __name__ == "__main__":
    main()
