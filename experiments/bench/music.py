"""Folders of music for the benchmarks: one's own recordings, linked, or rendered clips.

A folder, or nothing, enters; a folder that `--dataset=folder` reads leaves.
"""

import itertools
import pathlib

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ
from mgr_jax.config import UserError, expanded
from mgr_jax.datasets import synth

RATE_HZ = 44_100
_EXTENSIONS = {".mp3", ".wav", ".flac", ".ogg", ".au"}
_LABELS = ("a", "b")


def sources(given: str, scratch: pathlib.Path, count: int) -> list[pathlib.Path]:
    """Recordings: those below a given folder, or clips that are rendered as MP3s.

    Raises:
      UserError: the folder holds none.
    """
    if not given:
        return [_render(scratch, number) for number in range(count)]
    found = sorted(
        path
        for path in expanded("data_dir", given).rglob("*")
        if path.suffix.lower() in _EXTENSIONS
    )
    if not found:
        raise UserError(f"--data_dir={given}: holds no audio; name a folder of music")
    return found


def linked(paths: list[pathlib.Path], folder: pathlib.Path, times: int) -> pathlib.Path:
    """A folder with so many links to each recording, under two labels."""
    labels = itertools.cycle(_LABELS)
    for number in range(times):
        for path in paths:
            link = folder / next(labels) / f"{number}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    return folder


def _render(folder: pathlib.Path, number: int) -> pathlib.Path:
    """A clip of 30 s, as FMA has them: MP3, stereo, at 44.1 kHz."""
    import soundfile
    import soxr

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.mp3"
    samples = soxr.resample(synth.render(number), SAMPLE_RATE_HZ, RATE_HZ)
    soundfile.write(path, np.stack([samples] * 2, axis=1), RATE_HZ, format="MP3")
    return path
