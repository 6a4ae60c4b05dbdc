"""Preparing on Apache Beam by two workers, against one: how much of it is shared.

    python -m experiments.bench.beam_speed [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered as MP3s; a table leaves: tracks a second
of `mgr_jax.prepare` by two workers of DirectRunner, each a process, on two cores. The
peer is one worker on one core, so twice as fast is an efficiency of 1. A worker first
imports and compiles for seconds: a feature's second row leaves out what preparing two
tracks takes, and so has the speed of long work. Its third is --runner=local, one
process on all cores, beside the same peer. Linux alone holds a process to a core.
"""

import contextlib
import functools
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from absl import flags

from experiments.bench import features_speed, music, timing
from mgr_jax import beam, prepare
from mgr_jax.config import LOCAL, Config, UserError

RUNNER = "DirectRunner"


def run() -> None:
    """Measures what the flags say."""
    beam.check(RUNNER, ())
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise UserError("this takes Linux and two cores")
    quick = flags.FLAGS.quick
    features = features_speed.PAPER[1:2] if quick else features_speed.PAPER
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as name:
        scratch = pathlib.Path(name)
        paths = music.sources(
            flags.FLAGS.data_dir, scratch / "mp3", 12 if quick else 48
        )
        paths = paths[:24] if quick else paths
        whole = music.linked(paths, scratch / "music", 1 if quick else 4)
        start = music.linked(paths[:2], scratch / "start", 1)
        rows = [
            row
            for feature in features
            for row in _rows(feature, whole, start, scratch / "features")
        ]
    timing.show("preparing by two workers", "one worker", "", rows)


def _rows(
    feature: str, whole: pathlib.Path, start: pathlib.Path, out: pathlib.Path
) -> list[timing.Row]:
    def by(workers: int, folder: pathlib.Path) -> timing.Way:
        return functools.partial(_prepare, feature, folder, out, workers)

    def row(what: str, ours: float, peer: float) -> timing.Row:
        return timing.Row(what, "tracks/s", ours, peer=peer, more_is_better=True)

    ways = {"two": by(2, whole), "one": by(1, whole)}
    if not flags.FLAGS.quick:
        ways |= {"two start": by(2, start), "one start": by(1, start)}
        ways |= {"local": by(0, whole)}
    took = timing.seconds(ways, 1 if flags.FLAGS.quick else flags.FLAGS.rounds)
    tracks = len(list(whole.rglob("*.*")))
    speed = {way: tracks / took[way] for way in ways if "start" not in way}
    what = f"{feature} of {tracks} tracks"
    rows = [row(what, speed["two"], speed["one"])]
    if not flags.FLAGS.quick:
        two, one = (
            (tracks - 2) / (took[way] - took[f"{way} start"]) for way in ("two", "one")
        )
        rows.append(row(f"{feature}, beyond the start", two, one))
        rows.append(row(f"{feature}, local", speed["local"], speed["one"]))
    return rows


def _prepare(
    feature: str, folder: pathlib.Path, out: pathlib.Path, workers: int
) -> None:
    """Prepares by so many workers, a core each; 0 is this process, on all cores."""
    shutil.rmtree(out, ignore_errors=True)
    config = Config(
        dataset="folder",
        feature=feature,
        data_dir=str(folder),
        features_dir=str(out),
        # Each worker has a shard of the two tracks, too.
        tracks_per_shard=1 if folder.name == "start" else 4,
        runner=RUNNER if workers else LOCAL,
    )
    options = [
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
    ]
    with _held_to(workers), contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare(config, options if workers else ())


@contextlib.contextmanager
def _held_to(cores: int) -> Iterator[None]:
    """Lets processes that are started within run on so many cores; 0 takes all."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[: cores or None])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_string("data_dir", "", "Folder of music. Default: rendered clips.")
    timing.start(run, rounds=3)


if __name__ == "__main__":
    main()
