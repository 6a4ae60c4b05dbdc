"""Audio files to samples, samples to the paper's 5-second segments.

A path enters; float32 mono samples at 22 050 Hz leave, and from them whole segments
of 5 s. prepare and predict call it. soundfile decodes (wav, au, mp3, flac, ogg;
containers the rest) and soxr resamples: both release the GIL, so a pool of threads
decodes in parallel.

No file stops the program: one that holds nothing usable raises AudioError, and one that
is usable in part gives that part and a note. Memory is bounded whatever the file's
length, for what is longer than ten minutes is not held as a whole.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mgr_jax import containers, uris
from mgr_jax.config import UserError, shown
from mgr_jax.uris import Uri

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE_HZ = 22_050
SEGMENT_S = 5.0
SEGMENT_SAMPLES = int(SEGMENT_S * SAMPLE_RATE_HZ)

# Clips up to this long are cut from their start, as the paper cuts its 30-s clips;
# longer recordings are sampled over their whole length.
LONGEST_CLIP_S = 35.0

# What is longer is read a second time rather than held.
_HELD_SAMPLES = 600 * SAMPLE_RATE_HZ

# Of a damaged FLAC, the block with the damage is lost as a whole.
_BLOCK_VALUES = 1 << 16

# A header outside these is damaged: resampling 8 Hz would fill the memory.
RATES_HZ = (2_000, 768_000)

# 80 dB below full scale, peak: what is fainter all the way is noise of a converter.
SILENCE = 1e-4

# 60 dB above full scale: floats of another kind, or bits that fell over.
LOUDEST = 1e3

# Of the frames that a header promises, the share below which a file was cut off. MP3
# headers are off by a little in whole files.
_WHOLE = 0.98
# What promises so many times more than there is says nothing of what there was.
_ABSURD = 100
_UNKNOWN_BYTES = 0x7FFF_FFF0  # from here on, writers to a pipe say "I do not know"
_PROMISED_BYTES = re.compile(
    r"^\s*(?:data|Data Size|SSND|ds64 data)\s*:\s*(\d+) \(should be (\d+)\)", re.M
)


class AudioError(UserError):
    """A file that holds no usable audio; the message names it and says why."""


class _UnknownFormatError(AudioError):
    """libsndfile knows no such format."""


@dataclasses.dataclass
class Notes:
    """What is odd about a recording that is used all the same.

    Attributes:
      text: "" or a phrase without a path, such as "cut off: holds 15.0 of 30.0 s". It
        is complete once the recording has been read to its end.
    """

    text: str = ""


def decode(path: str | pathlib.Path | Uri) -> np.ndarray:
    """Decodes an audio file of any rate and channel count, as a whole.

    Channels are averaged, then resampled with soxr's HQ recipe.

    Args:
      path: a file that libsndfile reads (wav, au, mp3, flac, ogg, aiff, ...); what it
        holds decides, not how its name ends.

    Returns:
      float32 samples of shape (samples,), mono, at 22 050 Hz; full scale is 1.0.

    Raises:
      AudioError: the file cannot be opened or decoded, holds no samples, nothing but
        silence, or samples that are no sound (not finite, far beyond full scale).
    """
    return _joined(stream(path))


def stream(
    path: str | pathlib.Path | Uri, notes: Notes | None = None
) -> Iterator[np.ndarray]:
    """Decodes an audio file block by block; see `decode`.

    Args:
      path: the file.
      notes: what is odd about it is written there.

    Yields:
      Blocks of float32 (samples,), mono, at 22 050 Hz.

    Raises:
      AudioError: as `decode`; that there is nothing but silence is known at the end.
    """
    path = uris.path(path)
    notes = Notes() if notes is None else notes
    try:
        with _opened(path) as file:
            blocks = _checked(path, _mono_blocks(file, notes))
            yield from _resampled(blocks, file.samplerate)
    except _UnknownFormatError as error:
        # Nothing was yielded yet.
        rate_hz, blocks = _of_container(path, notes, error)
        yield from _resampled(_checked(path, blocks), rate_hz)


def _resampled(blocks: Iterable[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    import soxr

    if rate_hz == SAMPLE_RATE_HZ:
        yield from blocks
        return
    resampler = soxr.ResampleStream(
        rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
    )
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def converted(samples: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Samples of any rate and channel count, as `decode` gives those of a file.

    Args:
      samples: (samples,) or (samples, channels); floats, full scale 1.0.
      sample_rate_hz: their rate.

    Returns:
      float32 (samples,), mono, at 22 050 Hz.

    Raises:
      ValueError: there are none, they are no floats, not finite or of another shape,
        or the rate is outside `RATES_HZ`.
    """
    import soxr

    samples = np.asarray(samples)
    low, high = RATES_HZ
    if not low <= sample_rate_hz <= high:
        raise ValueError(f"a rate of {sample_rate_hz} Hz: give {low} to {high}")
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"samples of shape {samples.shape}: give (samples, channels)")
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples of {samples.dtype}: give floats, full scale 1.0")
    if not np.isfinite(samples).all():
        raise ValueError("samples that are not finite (NaN or infinity)")
    mono = _mean_of_channels(samples.astype(np.float32).reshape(len(samples), -1))
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return mono
    return soxr.resample(mono, sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator["soundfile.SoundFile"]:
    """The file, open; what goes wrong with it inside is an AudioError."""
    try:
        with (
            descriptor(path) as number,
            forward_file()(number, closefd=False) as file,
        ):
            _check_rate(path, file.samplerate)
            yield file
    except (RuntimeError, ValueError, TypeError) as error:
        reason = _reason(error)
        unknown = reason == "Format not recognised"
        kind = _UnknownFormatError if unknown else AudioError
        raise kind(f"{shown(path)}: cannot be decoded ({reason})") from None


@contextlib.contextmanager
def descriptor(path: pathlib.Path) -> Iterator[int]:
    """The number of a file that is open for reading.

    Raises:
      AudioError: it cannot be read, or is no file.
      UserError: an object store does not answer as it should.
    """
    if isinstance(path, Uri):
        with _fetched(path) as number:
            yield number
        return
    try:
        # A FIFO would make this wait for its other end.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise AudioError(f"{shown(path)}: is no file; leave it out")
            yield number
        finally:
            os.close(number)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or "not enough memory"
        raise AudioError(f"{shown(path)}: cannot be read ({reason})") from None


@contextlib.contextmanager
def _fetched(path: Uri) -> Iterator[int]:
    """As `descriptor`, of a copy of a file that is in an object store."""
    with tempfile.NamedTemporaryFile(prefix="mgr_jax_") as copy:
        try:
            path.fetch(pathlib.Path(copy.name))
        except (FileNotFoundError, PermissionError) as error:
            reason = error.strerror
            raise AudioError(f"{shown(path)}: cannot be read ({reason})") from None
        except OSError as error:
            # That the network fails says nothing of the file, which is not left out.
            raise UserError(
                f"{shown(path)}: cannot be fetched ({error.strerror}); the same "
                "command goes on"
            ) from None
        yield copy.fileno()


def _check_rate(path: pathlib.Path, rate_hz: int) -> None:
    low, high = RATES_HZ
    if not low <= rate_hz <= high:
        raise AudioError(
            f"{shown(path)}: cannot be decoded (it says that it has {rate_hz} samples "
            "a second)"
        )


@functools.cache
def forward_file() -> type["soundfile.SoundFile"]:
    """A SoundFile that reads on from where it is, without a seek after each block.

    After a seek, an MP3 of a low bit rate goes on with wrong samples; at the end of a
    FLAC whose header does not know its length, the seek fails.
    """
    import soundfile

    class Forward(soundfile.SoundFile):
        def seekable(self):
            return False

    return Forward


def _reason(error: Exception) -> str:
    """What libsndfile says, without its preamble: "Format not recognised"."""
    text = " ".join(str(error).split()).rstrip(".")
    if "File does not exist" in text:  # said of an MP3 without a whole frame
        return "too short to hold audio"
    return re.sub(r"^.*Error opening \S+: ", "", text).removeprefix("Error : ")


def _mono_blocks(file: "soundfile.SoundFile", notes: Notes) -> Iterator[np.ndarray]:
    """The mean of a file's channels, float32 (frames,), at the file's rate."""
    # Blocks are read until none is left: libsndfile can misreport the number of frames
    # in an MP3, so the header's count is not trusted.
    frames, damage = 0, ""
    most = max(1, _BLOCK_VALUES // file.channels)
    while True:
        try:
            block = file.read(most, "float32", always_2d=True)
        except RuntimeError as error:
            if not frames:
                raise
            damage = _reason(error)
            break
        if not block.size:
            break
        frames += len(block)
        yield _mean_of_channels(block)
    if frames:
        notes.text = _note(file, frames, damage)


def _mean_of_channels(samples: np.ndarray) -> np.ndarray:
    """(samples, channels) to (samples,), of the same type.

    numpy's own mean over so short an axis takes as long as decoding an MP3.
    """
    first, *others = samples.T
    return sum(others, first) / samples.dtype.type(1 + len(others)) if others else first


def _of_container(
    path: pathlib.Path, notes: Notes, unknown: AudioError
) -> tuple[int, Iterator[np.ndarray]]:
    """Rate and mono blocks of a file that libsndfile does not know, as `unknown` says.

    Raises:
      AudioError: PyAV does not know it either, or is not installed.
    """
    is_expected = path.suffix.lower() in containers.EXTENSIONS
    if not containers.is_available():
        if not is_expected:
            raise unknown
        raise AudioError(f"{unknown}; pip install 'av>=15' lets such files be read")
    parts = containers.mono_blocks(path)
    try:
        rate_hz, first = next(parts)
    except (containers.ContainerError, StopIteration) as error:
        if not is_expected:
            raise unknown from None
        reason = str(error) or "it holds no samples"
        raise AudioError(f"{shown(path)}: cannot be decoded ({reason})") from None
    _check_rate(path, rate_hz)

    def blocks() -> Iterator[np.ndarray]:
        frames = len(first)
        yield first
        try:
            for _, block in parts:
                frames += len(block)
                yield block
        except containers.ContainerError as error:
            notes.text = f"damaged after {frames / rate_hz:.1f} s ({error})"

    return rate_hz, blocks()


def _checked(path: pathlib.Path, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, as long as they are sound.

    Raises:
      AudioError: they are none, or nothing but silence, which is known at the end.
    """
    lowest, highest = np.inf, -np.inf
    for mono in blocks:
        low, high = float(mono.min()), float(mono.max())
        if not np.isfinite([low, high]).all():
            raise AudioError(
                f"{shown(path)}: holds samples that are not finite (NaN or infinity)"
            )
        if max(-low, high) > LOUDEST:
            raise AudioError(
                f"{shown(path)}: holds samples {max(-low, high):.0g} times full scale, "
                "which are no sound"
            )
        lowest, highest = min(lowest, low), max(highest, high)
        yield mono
    if lowest > highest:
        raise AudioError(f"{shown(path)}: holds no audio; remove it or replace it")
    if highest - lowest < 2 * SILENCE:
        raise AudioError(f"{shown(path)}: holds nothing but silence")


def _note(file: "soundfile.SoundFile", frames: int, damage: str) -> str:
    """What is odd about a file of which so many frames could be read."""
    seconds = frames / file.samplerate
    if damage:
        return f"damaged after {seconds:.1f} s ({damage})"
    promised = _promised_frames(file, frames)
    whole_s = promised / file.samplerate
    if frames * _ABSURD < promised:
        return (
            f"its header is damaged: holds {seconds:.1f} s and promises {whole_s:.0f}"
        )
    if frames < _WHOLE * promised:
        return f"cut off: holds {seconds:.1f} of {whole_s:.1f} s"
    if "lacks an end-of-stream" in file.extra_info:
        return f"cut off: ends in the middle of its stream, after {seconds:.1f} s"
    if "Junk after the last page" in file.extra_info:
        return f"its end is missing, or is something else, after {seconds:.1f} s"
    return ""


def _promised_frames(file: "soundfile.SoundFile", frames: int) -> float:
    """How many frames the file's header says that there are."""
    # Of a container with plain samples, libsndfile counts what is there; what should
    # be stands in its log.
    found = _PROMISED_BYTES.search(file.extra_info)
    if found:
        promised, there = map(int, found.groups())
        if there < promised < _UNKNOWN_BYTES and there:
            return frames * promised / there
    return file.frames if file.frames < 1 << 62 else frames


def _joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def segment_starts(num_samples: int, segments_per_track: int = 5) -> list[int]:
    """Where a recording's segments start.

    A clip of up to 35 s is cut from its start without gaps: segment k is samples
    [k * 110250, (k + 1) * 110250), paper section 2.1. A longer recording is divided
    into equal parts, and the middle of each gives one segment. Segments never overlap;
    a recording with room for fewer than asked gives those that it has room for.

    Args:
      num_samples: length of the recording at 22 050 Hz.
      segments_per_track: how many to take; 0 takes all that fit, without gaps.

    Returns:
      First sample of each segment, ascending; empty for less than 5 s of audio.
    """
    fitting = num_samples // SEGMENT_SAMPLES
    count = min(segments_per_track, fitting) if segments_per_track else fitting
    if segments_per_track == 0 or num_samples <= LONGEST_CLIP_S * SAMPLE_RATE_HZ:
        return [k * SEGMENT_SAMPLES for k in range(count)]
    part = num_samples / count
    # Rounding down keeps neighbours a whole segment apart or more.
    return [int((k + 0.5) * part - SEGMENT_SAMPLES / 2) for k in range(count)]


def segments(samples: np.ndarray, segments_per_track: int = 5) -> np.ndarray:
    """Cuts a recording into 5-second segments (see `segment_starts`).

    Args:
      samples: (samples,) at 22 050 Hz.
      segments_per_track: how many to take; 0 takes all that fit.

    Returns:
      (n, 110250), n from 0 (less than 5 s of audio) to `segments_per_track`; a view of
      the samples where there is nothing between segments.
    """
    starts = segment_starts(len(samples), segments_per_track)
    whole = len(starts) * SEGMENT_SAMPLES
    if not starts or starts[-1] + SEGMENT_SAMPLES == whole:
        return samples[:whole].reshape(-1, SEGMENT_SAMPLES)
    return np.stack([samples[start : start + SEGMENT_SAMPLES] for start in starts])


def read_segments(
    path: str | pathlib.Path | Uri, segments_per_track: int = 5
) -> tuple[Iterable[np.ndarray], Notes]:
    """A file's segments, in bounded memory: `segments(decode(path))` piece by piece.

    Up to ten minutes are decoded and held. A longer recording is read to its end, and
    the segments are then picked from a second reading; where all segments are asked
    for, that is done while the caller takes them.

    Args:
      path: the file.
      segments_per_track: how many to take; 0 takes all that fit.

    Returns:
      The segments, each (110250,), to be gone through once, and the notes.

    Raises:
      AudioError: as `decode`. Where all segments of a long recording are asked for,
        going through them may raise it too, when the file changes meanwhile.
    """
    notes = Notes()
    blocks = stream(path, notes)
    held: list[np.ndarray] = []
    while sum(map(len, held)) < _HELD_SAMPLES:
        block = next(blocks, None)
        if block is None:
            return segments(_joined(held), segments_per_track), notes
        held.append(block)
    # Whether it is sound at all is known at its end.
    length = sum(map(len, itertools.chain(held, blocks)))
    if segments_per_track == 0:
        return _all_segments(stream(path)), notes
    starts = segment_starts(length, segments_per_track)
    return list(_picked(stream(path), starts)), notes


def _all_segments(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cuts segments without gaps while blocks arrive."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // SEGMENT_SAMPLES * SEGMENT_SAMPLES
        yield from rest[:whole].reshape(-1, SEGMENT_SAMPLES)
        rest = rest[whole:]


def _picked(blocks: Iterable[np.ndarray], starts: list[int]) -> Iterator[np.ndarray]:
    """The segments that start at the given samples, ascending and apart."""
    waiting = list(starts)
    rest, first = np.zeros(0, np.float32), 0
    for block in blocks:
        rest = np.concatenate([rest, block])
        while waiting and waiting[0] + SEGMENT_SAMPLES <= first + len(rest):
            start = waiting.pop(0) - first
            yield rest[start : start + SEGMENT_SAMPLES].copy()
        if not waiting:
            return
        # What lies before the next segment is not needed any more.
        passed = min(max(0, waiting[0] - first), len(rest))
        rest, first = rest[passed:], first + passed
