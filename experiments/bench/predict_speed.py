"""How long a recording takes to be judged, against the time to decode it alone.

    python -m experiments.bench.predict_speed --workdir=runs/RUN [--file=song.mp3]

A run's folder enters; a table leaves: the file decoded, judged by the library, and
answered by the page's server, in turn, so that all three share what the machine does
besides; then medians, and their ratio to decoding. Without --file, three minutes of
music are rendered and written as an MP3.
"""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import flags

from mgr_jax import audio, cli, predict, tables
from mgr_jax.config import UserError
from mgr_jax.datasets import synth

SECONDS = 180
RATE_HZ = 44_100


def run() -> None:
    """Measures what the flags say."""
    given = flags.FLAGS
    if not given.workdir:
        raise UserError("--workdir: name the folder of a trained run")
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as folder:
        path = pathlib.Path(given.file or _music(pathlib.Path(folder) / "music.mp3"))
        medians = measure(given.workdir, path, given.rounds)
    if given.json:
        print(json.dumps(medians))
        return
    decoding = medians["decoding alone"]
    rows = [(k, f"{1e3 * s:.0f}", f"{s / decoding:.2f}") for k, s in medians.items()]
    title = f"{path.name}, median of {given.rounds} rounds, interleaved"
    table = tables.Table(("what", "ms", "of decoding"), rows, title)
    print(tables.as_text(table))


def measure(run_folder: str, path: pathlib.Path, rounds: int) -> dict[str, float]:
    """Seconds of decoding, judging and answering a file, the median of so many rounds.

    Each is done once before, so that all is compiled.
    """
    predictor = predict.load(run_folder)
    server, address = _server(run_folder)
    try:
        ways = {
            "decoding alone": lambda: audio.decode(path),
            "judged by the library": lambda: predictor.file(path),
            "answered by the page": lambda: _ask(address, path),
        }
        seconds = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, way in ways.items():
                took = _timed(way)
                if number:
                    seconds[name].append(took)
        return {name: statistics.median(took) for name, took in seconds.items()}
    finally:
        server.terminate()
        server.communicate()


def _timed(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


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


def _music(path: pathlib.Path) -> pathlib.Path:
    """Three minutes of synth's clips, one after the other, as a stereo MP3."""
    import soundfile
    import soxr

    clips = [synth.render(number) for number in range(SECONDS // synth.CLIP_S)]
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
    flags.DEFINE_integer("rounds", 9, "Times that each is done.", lower_bound=1)
    flags.DEFINE_bool("json", False, "Print seconds as JSON.")
    cli.start(run)


if __name__ == "__main__":
    main()
