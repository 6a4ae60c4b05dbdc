"""Audio to windows of 5 s, while it is decoded: what a model judges of a recording.

Files or samples enter; a stream of windows and ends leaves, in order, which can be
taken in batches, and be decoded ahead by another thread. No recording is held as a
whole. predict calls it.
"""

import contextlib
import dataclasses
import math
import pathlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES, AudioError, Notes

# What is left over at the end gets a window of its own from this length on.
_SHORTEST_REST = SAMPLE_RATE_HZ

# (path, notes) to blocks of samples, as `audio.stream`.
Decode = Callable[[pathlib.Path, Notes], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Window:
    """5 s of a recording, and the sample at which they start."""

    start: int
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class End:
    """The end of a recording: how long it was, or why it could not be read."""

    path: pathlib.Path | None
    samples: int = 0
    note: str = ""
    error: AudioError | None = None


Item = Window | End


def hop_samples(hop_s: float) -> int:
    """Samples from the start of one window to the next.

    Raises:
      ValueError: the hop is none.
    """
    if not (math.isfinite(hop_s) and hop_s * SAMPLE_RATE_HZ >= 1):
        raise ValueError(f"a hop of {hop_s} s: give one above 0")
    return round(hop_s * SAMPLE_RATE_HZ)


def of_samples(samples: np.ndarray, hop: int) -> Iterator[Item]:
    """A recording's windows, and its end: (samples,) at 22 050 Hz."""
    return _of_blocks(None, [samples], hop, Notes())


def of_file(path: pathlib.Path, hop: int, decode: Decode) -> Iterator[Item]:
    """A file's windows, and its end; nothing is read before the first is asked for."""
    notes = Notes()
    return _of_blocks(path, decode(path, notes), hop, notes)


def _of_blocks(
    path: pathlib.Path | None, blocks: Iterable[np.ndarray], hop: int, notes: Notes
) -> Iterator[Item]:
    try:
        samples = yield from _cut(blocks, hop, notes)
    except AudioError as error:
        yield End(path, error=error)
    else:
        yield End(path, samples, notes.text)


def _cut(
    blocks: Iterable[np.ndarray], hop: int, notes: Notes
) -> Generator[Window, None, int]:
    """Cuts windows of 5 s while blocks arrive; returns the recording's samples.

    A second or more that is left over at the end is judged with what is before it. What
    is shorter than a window is repeated to fill one.
    """
    held, first = np.zeros(0, np.float32), 0  # first: the place of held's first sample
    start = end = 0
    for block in blocks:
        held = np.concatenate([held, block])
        while start + SEGMENT_SAMPLES <= first + len(held):
            end = start + SEGMENT_SAMPLES
            yield Window(start, held[start - first : end - first])
            start += hop
        # The last 5 s stay, for the end may come next.
        passed = max(0, min(start - first, len(held) - SEGMENT_SAMPLES))
        held, first = held[passed:], first + passed
    length = first + len(held)
    if length < SEGMENT_SAMPLES:
        notes.text = notes.text or "shorter than 5 s, so it was repeated to fill them"
        yield Window(0, np.resize(held, SEGMENT_SAMPLES))
    elif length - end >= _SHORTEST_REST:
        yield Window(length - SEGMENT_SAMPLES, held[-SEGMENT_SAMPLES:])
    return length


def in_batches(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Lists of items in their order, each with `most` windows, the last with fewer.

    An end that waits for no window comes at once.
    """
    batch, windows = [], 0
    for item in items:
        batch.append(item)
        windows += isinstance(item, Window)
        if windows in (0, most):
            yield batch
            batch, windows = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def in_background(items: Iterable[Item], ahead: int) -> Iterator[Iterator[Item]]:
    """Lets another thread go through items, so many ahead of who takes them."""
    waiting: queue.Queue = queue.Queue(ahead)
    stopped, ended = threading.Event(), object()

    def put(item: object) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(ended)
        except Exception as error:  # it is the taker's to deal with
            put(error)

    def taken() -> Iterator[Item]:
        while (item := waiting.get()) is not ended:
            if isinstance(item, Exception):
                raise item
            yield item

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join()
