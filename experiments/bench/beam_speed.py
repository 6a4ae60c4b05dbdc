"""Preparing on Apache Beam by two workers, against one: how much of it is shared.

    python -m experiments.bench.beam_speed [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered as MP3s; a table leaves: tracks a second
of `mgr_jax.prepare` on chroma by two workers of DirectRunner, each a process, on two
cores. The peer is one worker on one core: twice as fast is an efficiency of 1. A worker
first imports and compiles for seconds, which is what preparing two tracks takes; the
second row leaves that out. The last row is --runner=local, on two cores and on one.
Linux alone lets a process be held to a core.
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

from experiments.bench import music, timing
from mgr_jax import beam, prepare
from mgr_jax.config import LOCAL, Config, UserError

_RUNNER = "DirectRunner"
_FEATURE = "chroma"
_TRACKS_PER_SHARD = 4


def run() -> None:
    """Measures what the flags say."""
    beam.check(_RUNNER, ())
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise UserError(
            "beam_speed: it holds workers to cores; run it on Linux, on two"
        )
    quick = flags.FLAGS.quick
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as name:
        scratch = pathlib.Path(name)
        paths = music.sources(flags.FLAGS.data_dir, scratch / "mp3", 8 if quick else 48)
        paths = paths[:8] if quick else paths
        whole = music.linked(paths, scratch / "music", 1 if quick else 4)
        # A track for each worker: its start, and hardly more.
        start = music.linked((paths * 2)[:2], scratch / "start", 1)
        rows = _rows(whole, start, scratch / "features")
    timing.show("preparing by two workers", "one worker", "", rows)


def _rows(
    whole: pathlib.Path, start: pathlib.Path, out: pathlib.Path
) -> list[timing.Row]:
    quick = flags.FLAGS.quick
    what = [(_RUNNER, whole)]
    if not quick:
        what += [(_RUNNER, start), (LOCAL, whole)]
    ways = {
        (runner, folder, cores): functools.partial(_prepare, folder, out, runner, cores)
        for runner, folder in what
        for cores in (2, 1)
    }
    took = timing.seconds(ways, flags.FLAGS.rounds)
    tracks = _count(whole)
    name = f"{_FEATURE} of {tracks} tracks"

    def row(name: str, runner: str, *, beyond: pathlib.Path | None = None):
        """Of two cores and of one; `beyond` a folder, whose tracks do not count."""
        left = tracks - (_count(beyond) if beyond else 0)
        two, one = (
            left / (took[runner, whole, n] - (took[runner, beyond, n] if beyond else 0))
            for n in (2, 1)
        )
        return timing.Row(name, "tracks/s", two, peer=one, more_is_better=True)

    rows = [row(name, _RUNNER)]
    if not quick:
        rows.append(row(f"{name}, beyond the start", _RUNNER, beyond=start))
        rows.append(row(f"{name}, local", LOCAL))
    return rows


def _count(folder: pathlib.Path) -> int:
    return len(list(folder.rglob("*.*")))


def _prepare(folder: pathlib.Path, out: pathlib.Path, runner: str, cores: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    config = Config(
        dataset="folder",
        feature=_FEATURE,
        data_dir=str(folder),
        features_dir=str(out),
        # Two workers need two shards.
        tracks_per_shard=min(_TRACKS_PER_SHARD, _count(folder) // 2),
        runner=runner,
    )
    options = ()
    if runner != LOCAL:
        options = (
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={cores}",
        )
    with _held_to(cores), contextlib.redirect_stdout(io.StringIO()):
        prepare.prepare(config, options)


@contextlib.contextmanager
def _held_to(cores: int) -> Iterator[None]:
    """Lets this process, and those that it starts, run on so many cores."""
    allowed = os.sched_getaffinity(0)
    _hold(set(sorted(allowed)[:cores]))
    try:
        yield
    finally:
        _hold(allowed)


def _hold(cores: set[int]) -> None:
    # Threads that are there already, as XLA's are, do not follow the main one.
    for thread in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_string("data_dir", "", "Folder of music. Default: rendered clips.")
    timing.start(run, rounds=3)


if __name__ == "__main__":
    main()
