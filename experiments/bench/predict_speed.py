"""How long a recording takes to be judged, against the time to decode it alone.

    python -m experiments.bench.predict_speed --workdir=runs/RUN [--file=song.mp3]

A run's folder enters; a table leaves: the file judged by the library, and answered by
the page's server; the limit is decoding it alone. Without --file, music is rendered and
written as an MP3: three minutes of it, or one with --quick.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from absl import flags

from experiments.bench import timing
from mgr_jax import audio, predict
from mgr_jax.config import UserError
from mgr_jax.datasets import synth

SECONDS, QUICK_SECONDS = 180, 60
RATE_HZ = 44_100


def run() -> None:
    """Measures what the flags say."""
    given = flags.FLAGS
    if not given.workdir:
        raise UserError("--workdir: name the folder of a trained run")
    seconds = QUICK_SECONDS if given.quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as folder:
        scratch = pathlib.Path(folder) / "music.mp3"
        path = pathlib.Path(given.file) if given.file else _music(scratch, seconds)
        rows = measure(given.workdir, path, given.rounds)
    timing.show(path.name, "", "decoding alone", rows)


def measure(run_folder: str, path: pathlib.Path, rounds: int) -> list[timing.Row]:
    """Milliseconds of judging and of answering a file, beside those of decoding it."""
    predictor = predict.load(run_folder)
    server, address = _server(run_folder)
    ways = {
        "decoding alone": lambda: audio.decode(path),
        "judged by the library": lambda: predictor.file(path),
        "answered by the page": lambda: _ask(address, path),
    }
    try:
        found = timing.seconds(ways, rounds)
    finally:
        server.terminate()
        server.communicate()
    limit = 1e3 * found.pop("decoding alone")
    return [timing.Row(way, "ms", 1e3 * s, limit=limit) for way, s in found.items()]


def _server(run_folder: str) -> tuple[subprocess.Popen, str]:
    """The page's server, and its address, once it is ready."""
    command = [sys.executable, "-m", "mgr_jax.serve", f"--workdir={run_folder}"]
    server = subprocess.Popen([*command, "--port=0"], stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.match(r"ready: (\S+)", line):
            return server, found[1]
    raise UserError("the page's server did not start; what it said is above")


def _ask(address: str, path: pathlib.Path) -> None:
    import requests

    with path.open("rb") as file:
        answer = requests.post(f"{address}api/predict", data=file, timeout=600)
    answer.raise_for_status()


def _music(path: pathlib.Path, seconds: int) -> pathlib.Path:
    """So much of synth's clips, one after the other, as a stereo MP3."""
    import soundfile
    import soxr

    clips = [synth.render(number) for number in range(int(seconds // synth.CLIP_S))]
    samples = np.concatenate(clips)
    both = np.stack([soxr.resample(samples, audio.SAMPLE_RATE_HZ, RATE_HZ)] * 2, axis=1)
    soundfile.write(path, both, RATE_HZ, format="MP3")
    return path


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_string("workdir", "", "Folder of a trained run.")
    flags.DEFINE_string(
        "file", "", "Audio file to judge. Default: an MP3 of 3 minutes."
    )
    timing.start(run, rounds=9)


if __name__ == "__main__":
    main()
