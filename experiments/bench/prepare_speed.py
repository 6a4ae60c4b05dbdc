"""Preparing, against a loop over librosa, and against decoding alone.

    python -m experiments.bench.prepare_speed [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered as MP3s; a table leaves: tracks a second
of `mgr_jax.prepare`, from files to shards, for each of the paper's features, and for
all three from one decoding. The peer is what is usually written instead: librosa.load
and librosa's features, segment by segment, in as many processes as there are cores. It
has two rows: with one thread of OpenBLAS, which librosa uses, in each process; and as
it comes, with one a core in each, which keep each other waiting. The limit is decoding
and resampling alone, as many files at once as there are cores. `growth` has the memory.
"""

import concurrent.futures
import contextlib
import functools
import io
import multiprocessing
import multiprocessing.pool
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from absl import flags

from experiments.bench import features_speed, music, timing
from mgr_jax import audio, cores, prepare
from mgr_jax.config import Config

_THREADS = "OPENBLAS_NUM_THREADS"


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
        _processes(threads=1) as processes,
        _processes(threads=cores.available()) as as_they_come,
        concurrent.futures.ThreadPoolExecutor(cores.available()) as threads,
    ):
        ways = {
            "ours": functools.partial(_prepare, names, folder, out),
            "one thread each": lambda: processes.map(by_librosa, paths, 1),
            "as it comes": lambda: as_they_come.map(by_librosa, paths, 1),
            "limit": lambda: list(threads.map(audio.decode, paths)),
        }
        found = timing.seconds(ways, flags.FLAGS.rounds)
    speeds = {way: len(paths) / took for way, took in found.items()}
    name = names[0] if len(names) == 1 else features_speed.TOGETHER
    return [
        timing.Row(
            f"{name} of {len(paths)} tracks, {peer}",
            "tracks/s",
            speeds["ours"],
            speeds[peer],
            speeds["limit"],
            more_is_better=True,
        )
        for peer in ("one thread each", "as it comes")
    ]


@contextlib.contextmanager
def _processes(threads: int) -> Iterator[multiprocessing.pool.Pool]:
    """As many as there are cores, with so many threads of OpenBLAS each.

    It asks how many when it is loaded, so that a process has to begin with them.
    """
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = str(threads)
    try:
        pool = multiprocessing.get_context("spawn").Pool(cores.available())
    finally:
        del os.environ[_THREADS]
        if before is not None:
            os.environ[_THREADS] = before
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
