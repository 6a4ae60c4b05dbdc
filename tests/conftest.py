"""What several test files share: small audio, and the program run as a user would."""

import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import absl.flags
import numpy as np
import pytest
import soundfile

from mgr_jax import config as config_lib
from mgr_jax import main
from mgr_jax.config import Config
from mgr_jax.uris import Uri

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

# Before jax is imported: many tests compile the same small network.
_COMPILED = tempfile.TemporaryDirectory(prefix="mgr_jax_compiled_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# What runs in the background of a shell ignores it, as would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def tone(hz: float, seconds: float, rate_hz: int = 22_050, level: float = 0.5):
    """A sine: float32 (samples,)."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def write_music_folder(root: pathlib.Path, tracks_per_genre: int = 8) -> pathlib.Path:
    """Two genres that a chroma tells apart: tones around A, tones around D sharp."""
    noise = np.random.default_rng(0)
    for genre, hz in (("a tones", 440.0), ("d sharp", 622.25)):
        for number in range(tracks_per_genre):
            samples = tone(hz * (1 + number % 2), 11.0)
            samples += 0.02 * noise.standard_normal(len(samples)).astype(np.float32)
            path = root / genre / f"track {number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 22_050)
    return root


@pytest.fixture(scope="session")
def music_folder(tmp_path_factory) -> pathlib.Path:
    """16 tracks of two segments each, in two genres; only read by the tests."""
    return write_music_folder(tmp_path_factory.mktemp("music") / "my music")


def run_module(
    module: str, *flags: object, cwd: pathlib.Path, start_only=False, **environment: str
):
    """Runs `python -m MODULE` with the given flags in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, flags)]
    settings = {
        "cwd": cwd,
        "env": os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    if start_only:
        return subprocess.Popen(command, **settings)
    return subprocess.run(command, **settings, timeout=600)


def run_here(*flags: object) -> None:
    """What `python -m mgr_jax.main` does with these flags, within this process.

    For what comes after a start of its own, or beside one: starting takes longest.
    """
    values = absl.flags.FlagValues()
    config_lib.define_flags(main.CHOICES, values)
    values(["main", *map(str, flags)])
    main.run(main.configure(values))


def config_for(data, features, **settings) -> Config:
    """A config that prepares chroma of a music folder, three tracks a shard."""
    return Config(
        **{
            "dataset": "folder",
            "data_dir": str(data),
            "features_dir": str(features),
            "feature": "chroma",
            "tracks_per_shard": 3,
            "split": "track",
            **settings,
        }
    )


def contents(folder: pathlib.Path | Uri) -> dict[str, bytes]:
    """The files of a folder, or of one in an object store, by name."""
    if isinstance(folder, Uri):
        return {path.name: path.read_bytes() for path, _ in folder.listed()}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# What a script prints its own peak memory with, in MB. What getrusage says of a process
# counts its parent's memory, too.
PRINT_PEAK_MB = (
    "status = open('/proc/self/status').read()\n"
    "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"
)


def run_without_privileges(command: list[str], **settings):
    """Runs a command that permissions hold for, also where the tests are root's."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read and write all, and there is no setpriv")
        powers = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={powers}", *command]
    settings = {"cwd": ROOT, "capture_output": True, "text": True, **settings}
    return subprocess.run(command, **settings, timeout=600)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Runs `python -m mgr_jax.main` (see `run_module`)."""
    cwd = tmp_path_factory.mktemp("cwd")
    return functools.partial(run_module, "mgr_jax.main", cwd=cwd)
