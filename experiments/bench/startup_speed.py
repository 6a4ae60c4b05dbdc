"""How long the program takes to start, and to answer the first time.

    python -m experiments.bench.startup_speed [--quick]

Commands enter, each in a process of its own, and a table leaves: seconds from its start
to its end. The limit is what it cannot do without: a Python that does nothing, or one
that imports JAX. Prediction is of one rendered clip by a small run that is trained
here, with an empty compilation cache (cold), and with what the first left there (warm).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

from experiments.bench import timing
from mgr_jax.config import UserError

_IMPORT = "import mgr_jax.main"
_FIRST_STEP = """
import jax, numpy as np
from mgr_jax import steps
from mgr_jax.config import Config
shape = (1025, 57)
blank = np.zeros((1025, 1), np.float32), np.ones((1025, 1), np.float32)
state = steps.create_state(Config(feature="spectrogram"), 8, shape, blank, 100, 10)
batch = {"feature": np.zeros((32, *shape), np.float16), "label": np.zeros(32, int)}
jax.block_until_ready(steps.data_parallel(steps.train_step, donate=True)(state, batch))
"""


def run() -> None:
    """Measures what the flags say."""
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as name:
        folder = pathlib.Path(name)
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        cold = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
        module = ("-m", "mgr_jax.main")
        ways = {
            "nothing": lambda: _python("-c", "pass"),
            "import jax": lambda: _python("-c", "import jax"),
            "import mgr_jax.main": lambda: _python("-c", _IMPORT),
            "main --help": lambda: _python(*module, "--help", statuses=(0, 1)),
        }
        if not flags.FLAGS.quick:
            clip = _trained_run(folder)
            words = ("-m", "mgr_jax.predict", f"--workdir={folder / 'run'}", clip)
            ways |= {
                "first step, cold": lambda: _python("-c", _FIRST_STEP, **cold),
                "first step, warm": lambda: _python("-c", _FIRST_STEP, **cache),
                "predict a file, cold": lambda: _python(*words, **cold),
                "predict a file, warm": lambda: _python(*words, **cache),
            }
        found = timing.seconds(ways, flags.FLAGS.rounds)
    limits = {"import jax": "nothing", "import mgr_jax.main": "nothing"}
    limits["main --help"] = "nothing"
    rows = [
        timing.Row(what, "s", took, limit=found[limits.get(what, "import jax")])
        for what, took in found.items()
        if what != "nothing"
    ]
    timing.show("start-up", "", "Python, or import jax", rows)


def _python(*words: str | pathlib.Path, statuses=(0,), **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    if done.returncode not in statuses:
        raise UserError(f"{words[:3]}: ended with {done.returncode}: {done.stderr}")


def _trained_run(folder: pathlib.Path) -> pathlib.Path:
    """A small run on rendered clips; returns one of those."""
    _python(
        *("-m", "mgr_jax.main", "--dataset=synth", "--synth_clips=16"),
        *("--feature=spectrogram", "--num_epochs=1", "--mode=train"),
        *(f"--data_dir={folder}", f"--workdir={folder / 'run'}"),
    )
    return next(folder.rglob("*.wav"))


def main() -> None:
    """Defines the flags and runs."""
    timing.start(run, rounds=5)


if __name__ == "__main__":
    main()
