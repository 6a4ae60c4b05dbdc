"""What one audio file holds: its state, and the numbers that describe it.

A path enters; a `Measurement` leaves, whatever the file is. verify calls `measure` from
a pool of threads. No more of a file than 30 s is held, however long it is.
"""

import dataclasses
import hashlib
import math
import os
import pathlib
import threading

import numpy as np

from mgr_jax import audio
from mgr_jax.audio import SEGMENT_SAMPLES, SILENCE, AudioError, Notes
from mgr_jax.config import shown
from mgr_jax.datasets import fingerprint

OK = "ok"
ODD_LENGTH = "odd length"
TRUNCATED = "truncated"
DAMAGED = "damaged"
SHORT = "short"
SILENT = "silent"
UNREADABLE = "unreadable"
MISSING = "missing"

# What prepare makes segments of.
USABLE = (OK, ODD_LENGTH, TRUNCATED, DAMAGED)

# Of full scale, and so many samples in a row: a wave that was cut off at its top.
_CLIPPED_AT = 0.999
_CLIPPED_RUN = 3

# Silence is looked for in pieces of this length.
_PIECE_S = 0.1
_BLOCK_VALUES = 1 << 16
_HASHED_BYTES = 1 << 20


class Stopped(Exception):
    """The measuring was told to end."""


@dataclasses.dataclass
class Measurement:
    """What was found in a file; None for what could not be.

    Attributes:
      state: OK, or the worst of what is wrong.
      reason: what is wrong, as a phrase without the path.
      num_bytes: size of the file.
      sha256: of the file's bytes, in hex.
      rate_hz: sample rate of the file.
      channels: how many it has.
      format: what it holds, whatever its name says: "WAV PCM_16".
      duration_s: of what can be decoded.
      peak: largest sample of any channel; full scale is 1.0, and an MP3 may be above.
      rms_db: level over all channels, relative to full scale.
      clipped_share: of the samples, those in runs of three or more of one channel at
        full scale or, as in the MP3 of clipped music, beyond.
      silent_share: of the tenths of a second, those that stay 80 dB below full scale.
      note: what is odd about a file that is used all the same, as in `audio.Notes`.
      shape: its fingerprint; None where it has none.
    """

    state: str = OK
    reason: str = ""
    num_bytes: int | None = None
    sha256: str | None = None
    rate_hz: int | None = None
    channels: int | None = None
    format: str | None = None
    duration_s: float | None = None
    peak: float | None = None
    rms_db: float | None = None
    clipped_share: float | None = None
    silent_share: float | None = None
    note: str = ""
    shape: np.ndarray | None = None


def measure(
    path: pathlib.Path,
    lengths_s: tuple[float, float] = (0, math.inf),
    stop: threading.Event | None = None,
) -> Measurement:
    """Reads a file from end to end.

    Args:
      path: the file; there may be none, or something else of its name.
      lengths_s: shortest and longest duration that is expected.
      stop: once it is set, the reading ends.

    Raises:
      Stopped: the reading was told to end.
    """
    stop = stop or threading.Event()
    found = Measurement()
    swing = _measure_file(path, found, stop)
    notes = Notes()
    try:
        decoded = _decode(path, found, notes, stop)
    except AudioError as error:
        found.reason = str(error).removeprefix(f"{shown(path)}: ")
        found.state = _unusable(path, swing)
        return found
    found.note = notes.text
    low, high = lengths_s
    if decoded < SEGMENT_SAMPLES:
        found.state = SHORT
        found.reason = f"is shorter than one segment of {audio.SEGMENT_S:g} s"
    elif notes.text:
        cut = notes.text.startswith("cut off")
        found.state, found.reason = (TRUNCATED if cut else DAMAGED), notes.text
    elif not low <= decoded / audio.SAMPLE_RATE_HZ <= high:
        found.state = ODD_LENGTH
        found.reason = f"{low:g} to {high:g} s are expected"
    return found


def _unusable(path: pathlib.Path, swing: float | None) -> str:
    """The state of a file that audio.stream refuses."""
    try:
        path.stat()
    except FileNotFoundError:
        return MISSING
    except OSError:
        return UNREADABLE
    return SILENT if swing is not None and swing < 2 * SILENCE else UNREADABLE


def _decode(
    path: pathlib.Path, found: Measurement, notes: Notes, stop: threading.Event
) -> int:
    """Decodes as prepare does, takes the fingerprint, and counts samples.

    Raises:
      AudioError: see `audio.decode`.
    """
    held, decoded = [], 0
    for block in audio.stream(path, notes):
        _check(stop)
        if decoded < fingerprint.COMPARED_SAMPLES:
            held.append(block)
        decoded += len(block)
    samples = np.concatenate([np.zeros(0, np.float32), *held])
    found.shape = fingerprint.fingerprint(samples)
    return decoded


def _measure_file(
    path: pathlib.Path, found: Measurement, stop: threading.Event
) -> float | None:
    """Fills in what the file itself tells: bytes, header, and its own samples.

    Returns:
      How far the mean of the channels swings; None where no sample can be read. What
      is wrong is not said here: audio.stream says it.
    """
    try:
        with audio.descriptor(path) as number:
            found.num_bytes = os.fstat(number).st_size
            found.sha256 = _hash(number, stop)
            with audio.forward_file()(number, closefd=False) as file:
                found.rate_hz, found.channels = file.samplerate, file.channels
                found.format = f"{file.format} {file.subtype}"
                return _measure_samples(file, found, stop)
    except (AudioError, RuntimeError, ValueError, TypeError):
        return None


def _hash(number: int, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(number, _HASHED_BYTES):
        _check(stop)
        digest.update(chunk)
    os.lseek(number, 0, os.SEEK_SET)
    return digest.hexdigest()


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _measure_samples(file, found: Measurement, stop: threading.Event) -> float | None:
    """Levels of a soundfile.SoundFile's samples, as far as they can be read."""
    frames = silent = clipped = 0
    energy, peak, low, high = 0.0, 0.0, math.inf, -math.inf
    tail = _Tail.of(file.channels)
    while len(block := _read(file)):
        _check(stop)
        if not np.isfinite(block).all():
            return None
        size = np.abs(block)
        frames += len(block)
        energy += float(np.sum(np.square(block, dtype=np.float64)))
        peak = max(peak, float(size.max()))
        silent += _silent_frames(size.max(axis=1), file.samplerate)
        newly, tail = _clipped(block, tail)
        clipped += newly
        mono = block.mean(axis=1)
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
    found.duration_s = frames / file.samplerate
    if not frames:
        return None
    values = frames * file.channels
    found.peak = peak
    found.rms_db = 10 * math.log10(energy / values) if energy else -math.inf
    found.clipped_share = clipped / values
    found.silent_share = silent / frames
    return high - low


def _read(file) -> np.ndarray:
    """The next block, (frames, channels); none after damage, which audio tells of."""
    try:
        frames = max(1, _BLOCK_VALUES // file.channels)
        return file.read(frames, "float32", always_2d=True)
    except RuntimeError:
        return np.zeros((0, file.channels), np.float32)


def _silent_frames(peaks: np.ndarray, rate_hz: int) -> int:
    """How many of a block's frames are in tenths of a second that are silent."""
    starts = np.arange(0, len(peaks), max(1, round(_PIECE_S * rate_hz)))
    lengths = np.diff(starts, append=len(peaks))
    return int(lengths[np.maximum.reduceat(peaks, starts) < SILENCE].sum())


@dataclasses.dataclass(frozen=True)
class _Tail:
    """The end of a block, so that a run which goes on in the next is seen whole.

    Attributes:
      signs: (2, channels), -1 and 1 at full scale, 0 elsewhere.
      counted: (2, channels), those that are counted as clipped already.
    """

    signs: np.ndarray
    counted: np.ndarray

    @classmethod
    def of(cls, channels: int) -> "_Tail":
        shape = (_CLIPPED_RUN - 1, channels)
        return cls(np.zeros(shape, np.int8), np.zeros(shape, bool))


def _clipped(block: np.ndarray, tail: _Tail) -> tuple[int, _Tail]:
    """How many samples are found to be clipped, and what the next block must know."""
    signs = np.where(np.abs(block) >= _CLIPPED_AT, np.sign(block), 0).astype(np.int8)
    signs = np.concatenate([tail.signs, signs])
    runs = len(signs) - _CLIPPED_RUN + 1
    whole = signs[:runs] != 0
    for k in range(1, _CLIPPED_RUN):
        whole &= signs[k : k + runs] == signs[:runs]
    inside = np.zeros(signs.shape, bool)
    inside[: len(tail.counted)] = tail.counted
    for k in range(_CLIPPED_RUN):
        inside[k : k + runs] |= whole
    kept = len(tail.counted)
    newly = int(inside.sum() - tail.counted.sum())
    return newly, _Tail(signs[-kept:], inside[-kept:])
