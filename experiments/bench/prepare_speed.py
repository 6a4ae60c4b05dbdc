"""Preparing, against a loop over librosa, and against decoding alone.

    python -m experiments.bench.prepare_speed [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered as MP3s; a table leaves: tracks a second
of `mgr_jax.prepare`, from files to shards, for each of the paper's features, and for
all three from one decoding. The peer is what is usually written instead: librosa.load
and librosa's features, segment by segment, in as many processes as there are cores. The
limit is decoding and resampling alone, as many files at once as there are cores.
`growth` has the memory.
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

import numpy as np
from absl import flags

from experiments.bench import features_speed, music, timing
from mgr_jax import audio, prepare
from mgr_jax.config import Config


def run() -> None:
    """Measures what the flags say."""
    # For librosa's processes. With a thread a core, as they would have, they keep each
    # other waiting: on two cores, two of them take two to three times as long.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
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
        rows = [_row(names, folder, scratch / "features") for names in sets]
    timing.show("preparing", "librosa", "decoding alone", rows)


def _row(names: tuple[str, ...], folder: pathlib.Path, out: pathlib.Path) -> timing.Row:
    paths = sorted(folder.rglob("*.*"))
    cores = os.cpu_count() or 1
    with (
        concurrent.futures.ProcessPoolExecutor(
            cores, multiprocessing.get_context("spawn")
        ) as processes,
        concurrent.futures.ThreadPoolExecutor(cores) as threads,
    ):
        ways = {
            "ours": functools.partial(_prepare, names, folder, out),
            "peer": lambda: list(
                processes.map(functools.partial(_by_librosa, names), paths)
            ),
            "limit": lambda: list(threads.map(audio.decode, paths)),
        }
        found = timing.seconds(ways, flags.FLAGS.rounds)
    speeds = {way: len(paths) / took for way, took in found.items()}
    name = names[0] if len(names) == 1 else features_speed.TOGETHER
    what = f"{name} of {len(paths)} tracks"
    return timing.Row(what, "tracks/s", **speeds, more_is_better=True)


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
