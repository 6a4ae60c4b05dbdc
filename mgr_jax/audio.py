"""Audio files to samples, samples to the paper's 5-second segments.

A path enters; float32 mono samples at 22 050 Hz leave, and from them whole segments
of 5 s. prepare and predict call it. soundfile decodes (wav, au, mp3, flac, ogg) and
soxr resamples: both release the GIL, so a pool of threads decodes in parallel.
"""

import pathlib

import numpy as np

from mgr_jax.config import UserError

SAMPLE_RATE_HZ = 22_050
SEGMENT_S = 5.0
SEGMENT_SAMPLES = int(SEGMENT_S * SAMPLE_RATE_HZ)

# Clips up to this long are cut from their start, as the paper cuts its 30-s clips;
# longer recordings are sampled over their whole length.
LONGEST_CLIP_S = 35.0

_BLOCK_FRAMES = 1 << 20


class AudioError(UserError):
    """A file that holds no usable audio; the message names it and says why."""


def decode(path: str | pathlib.Path) -> np.ndarray:
    """Decodes an audio file of any rate and channel count.

    Channels are averaged, then resampled with soxr's HQ recipe.

    Args:
      path: a file that libsndfile reads (wav, au, mp3, flac, ogg, aiff, ...).

    Returns:
      float32 samples of shape (samples,), mono, at 22 050 Hz; full scale is 1.0.

    Raises:
      AudioError: the file cannot be opened or decoded, holds no samples, or holds
        samples that are not finite.
    """
    import soxr

    mono, rate_hz = _read_mono(pathlib.Path(path))
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if mono.size == 0:
        raise AudioError(f"{path}: holds no audio; remove it or replace it")
    return mono


def _read_mono(path: pathlib.Path) -> tuple[np.ndarray, int]:
    """The mean of a file's channels, float32 (frames,), and its rate in Hz."""
    import soundfile

    try:
        with path.open("rb") as raw, soundfile.SoundFile(raw) as file:
            # Blocks are read until none is left: libsndfile can misreport the number
            # of frames in an MP3, so the header's count is not trusted.
            blocks = []
            while (block := file.read(_BLOCK_FRAMES, "float32", always_2d=True)).size:
                blocks.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
            rate_hz = file.samplerate
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be read ({error.strerror or error})"
        ) from None
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".").split("Error opening", 1)[-1].split(": ", 1)[-1]
        raise AudioError(f"{path}: cannot be decoded ({reason})") from None
    if not blocks:
        raise AudioError(f"{path}: holds no audio; remove it or replace it")
    mono = np.concatenate(blocks)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are not finite (NaN or infinity)")
    return mono, rate_hz


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
      (n, 110250), n from 0 (less than 5 s of audio) to `segments_per_track`.
    """
    starts = segment_starts(len(samples), segments_per_track)
    if not starts:
        return np.zeros((0, SEGMENT_SAMPLES), samples.dtype)
    return np.stack([samples[start : start + SEGMENT_SAMPLES] for start in starts])
