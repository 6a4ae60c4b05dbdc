"""Time and memory of preparing and of an epoch, as the data grow.

    python -m experiments.bench.growth [--data_dir=MY_MUSIC] [--quick]

A folder of music enters, or clips are rendered; a table leaves: the same recordings
linked once, twice, four and eight times, prepared and trained on for two epochs in a
process of its own each, with its peak memory. Time should double with the data, and
memory should not: the slopes between neighbours are printed, 1 for what doubles.
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from itertools import pairwise

from absl import flags

from experiments.bench import music, timing
from mgr_jax import tables
from mgr_jax.config import UserError

# Reads its own peak at the end: what a parent is told counts its own memory too.
_PROGRAM = """
import json, pathlib, sys, time
from mgr_jax import cores, prepare, train
from mgr_jax.config import Config, complete
from mgr_jax.datasets import DATASETS
folder = DATASETS["folder"]
config = Config(**json.loads(sys.argv[1]))
config = complete(config, folder.default_split, folder.splits)
began = time.perf_counter()
cores.show(config)
place = prepare.prepare(config)
took = {"prepare_s": time.perf_counter() - began}
if config.mode == "train":
    train.train(config, place)
status = pathlib.Path("/proc/self/status").read_text()
took["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1e3
print(json.dumps(took))
"""


def run() -> None:
    """Measures what the flags say."""
    quick = flags.FLAGS.quick
    if not pathlib.Path("/proc/self/status").exists():
        raise UserError("growth: peak memory is read from /proc; run it on Linux")
    found = []
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as name:
        scratch = pathlib.Path(name)
        paths = music.sources(
            flags.FLAGS.data_dir, scratch / "mp3", 12 if quick else 48
        )
        for times in (1, 2) if quick else (1, 2, 4, 8):
            folder = music.linked(paths, scratch / str(times), times)
            found.append(_measure(len(paths) * times, folder, scratch / f"f{times}"))
    if flags.FLAGS.json:
        print(json.dumps({"machine": timing.machine(), "rows": found}, indent=2))
        return
    header = list(found[0])
    rows = [tuple(map(timing.number, row.values())) for row in found]
    title = f"growth of preparing and training chroma; {timing.machine()}"
    print(tables.as_text(tables.Table(header, rows, title)))
    for what in header[1:]:
        slopes = [
            math.log2(after[what] / before[what]) for before, after in pairwise(found)
        ]
        print(f"slope of {what}: {', '.join(f'{slope:.2f}' for slope in slopes)}")


def _measure(tracks: int, folder: pathlib.Path, out: pathlib.Path) -> dict[str, float]:
    settings = {
        "dataset": "folder",
        "feature": "chroma",
        "data_dir": str(folder),
        "features_dir": str(out),
        "workdir": str(out / "run"),
        "num_epochs": 2,
        "patience": 0,
    }
    prepared = _process(settings | {"mode": "prepare"})
    trained = _process(settings | {"mode": "train"})
    rows = (out / "run" / "metrics.jsonl").read_text().splitlines()
    return {
        "tracks": tracks,
        "prepare s": prepared["prepare_s"],
        "prepare MB": prepared["peak_mb"],
        "epoch s": json.loads(rows[-1])["seconds"],
        "train MB": trained["peak_mb"],
    }


def _process(settings: dict) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(settings)],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        raise UserError(f"growth: a run failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_string("data_dir", "", "Folder of music. Default: rendered clips.")
    timing.start(run, rounds=1)


if __name__ == "__main__":
    main()
