"""A file to what the page shows of it: genres in words and over time, and an outline.

A predictor and a path enter; an answer that JSON can hold leaves. serve calls it in a
thread of its own, and may stop it.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mgr_jax import audio
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_S, AudioError, Notes
from mgr_jax.config import shown
from mgr_jax.predict import Prediction, Predictor

# The model is sure of a genre that has at least this probability, and that leads the
# next one by so much.
SURE_PROBABILITY = 0.50
SURE_LEAD = 0.15

# A picture of a recording has from so many parts up to twice as many.
OUTLINE_PARTS = 500


class Stopped(Exception):
    """Nobody waits for the answer any more."""


def answer(found: Prediction) -> tuple[str, bool]:
    """A prediction in words, and whether the model is sure.

    It is where the likeliest genre has `SURE_PROBABILITY` and leads by `SURE_LEAD`.

    Returns:
      Such as "Probably jazz (83 %), then blues (9 %)", True.
    """
    (first, most), *others = found.ranked
    second, next_most = others[0] if others else ("", 0.0)
    sure = most >= SURE_PROBABILITY and most - next_most >= SURE_LEAD
    if not sure:
        rest = f", {second} {_percent(next_most)}" if second else ""
        return f"Not sure: {first} {_percent(most)}{rest}", False
    rest = f", then {second} ({_percent(next_most)})" if next_most >= 0.005 else ""
    return f"Probably {first} ({_percent(most)}){rest}", True


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else "over 99 %"


@dataclasses.dataclass
class Outline:
    """The outline of a recording that arrives in blocks, however long it is.

    Parts start short; when there are too many, neighbours become one.

    Attributes:
      part_samples: samples of a part.
      parts: float32 (parts, 2), the lowest and the highest sample of each.
      rest: samples that do not fill a part yet.
    """

    part_samples: int = 64
    parts: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros((0, 2), np.float32)
    )
    rest: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.float32)
    )

    def add(self, block: np.ndarray) -> None:
        """Takes the next samples."""
        samples = np.concatenate([self.rest, block])
        whole = len(samples) // self.part_samples * self.part_samples
        rows = samples[:whole].reshape(-1, self.part_samples)
        self.parts = np.concatenate([self.parts, _extremes(rows)])
        self.rest = samples[whole:]
        while len(self.parts) >= 2 * OUTLINE_PARTS:
            self._halve()

    def _halve(self) -> None:
        if len(self.parts) % 2:
            # The two extremes of the odd part stand for its samples.
            extremes = np.resize(self.parts[-1], self.part_samples)
            self.rest = np.append(extremes, self.rest)
        pairs = self.parts[: len(self.parts) // 2 * 2].reshape(-1, 4)
        self.parts, self.part_samples = _extremes(pairs), 2 * self.part_samples

    def facts(self) -> dict[str, Any]:
        """The outline so far, as JSON takes it."""
        parts = self.parts
        if self.rest.size:
            parts = np.concatenate([parts, _extremes(self.rest[None])])
        low, high = np.round(parts.T.astype(float), 3).tolist()
        return {
            "part_s": self.part_samples / SAMPLE_RATE_HZ,
            "low": low,
            "high": high,
        }


def _extremes(rows: np.ndarray) -> np.ndarray:
    """(rows, n) to (rows, 2): the lowest and the highest of each row."""
    return np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1)


def judge(
    predictor: Predictor,
    path: pathlib.Path,
    hop_s: float,
    max_minutes: int,
    stopped: Callable[[], bool],
) -> dict[str, Any]:
    """A file's genres, in words and over time, and its outline.

    Args:
      predictor: the run.
      path: the file.
      hop_s: seconds from the start of one window to the next.
      max_minutes: what is longer is refused once so much has been decoded.
      stopped: true once the answer is not needed any more.

    Returns:
      The answer, as `static/openapi.json` describes it.

    Raises:
      AudioError: the file holds no usable audio, or too much of it.
      Stopped: `stopped` turned true.
    """
    began_s = time.monotonic()
    outline = Outline()
    decode = functools.partial(_heard, outline, max_minutes, stopped)
    found = predictor.file(path, hop_s, decode)
    sentence, sure = answer(found)
    return {
        "answer": sentence,
        "sure": sure,
        "labels": list(found.labels),
        "overall": {label: round(share, 4) for label, share in found.ranked},
        "duration_s": round(found.duration_s, 3),
        "note": found.note,
        "window_s": SEGMENT_S,
        "times_s": np.round(found.times_s, 3).tolist(),
        "probabilities": np.round(found.probabilities.astype(float), 4).tolist(),
        "peaks": outline.facts(),
        "seconds": round(time.monotonic() - began_s, 3),
    }


def _heard(
    outline: Outline,
    max_minutes: int,
    stopped: Callable[[], bool],
    path: pathlib.Path,
    notes: Notes,
) -> Iterator[np.ndarray]:
    """A file's samples, block by block, for as long as they are wanted."""
    samples = 0
    for block in audio.stream(path, notes):
        if stopped():
            raise Stopped
        samples += len(block)
        if samples > max_minutes * 60 * SAMPLE_RATE_HZ:
            raise AudioError(
                f"{shown(path)}: is longer than {max_minutes} min, the most that this "
                "server takes; cut it, or start the server with a larger --max_minutes"
            )
        outline.add(block)
        yield block
