"""The same recording in two files: a coarse fingerprint finds it, the samples prove it.

Samples enter; pairs that are alike leave, whatever their format, rate and level. verify
calls it, in two steps:

- `fingerprint` is 24 bands (150 to 3500 Hz) by half seconds of log energy, of the first
  30 s; `alike` compares all pairs by correlation, over what the shorter one holds.
- `same_samples` compares two recordings sample by sample, at the lag that fits best.
  Two drum loops of one pattern and other sounds are alike to 0.93 in the first, and no
  more than 0.73 in the second, so that a repeat is what passes both.

Measured on 456 clips (50 of GTZAN, 236 rendered from MIDI, 10 from elsewhere, 160 of
synth): pairs of other recordings reach 0.57 at 30 s, 0.68 at 10 s and 0.82 at 5 s in
the first, and 0.08 in the second. Re-encoded as MP3, Ogg or FLAC, at 8 to 48 kHz, 12 dB
softer, in mono or stereo, or cut to 7 s, a clip stays above 0.99 in the first and at
0.97 or more in the second; moved by 50 ms above 0.96, by 100 ms above 0.89 in the
first. Moved by 250 ms it may be missed (0.67), and so may other excerpts of one song.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ

# No more of a recording than this is looked at.
COMPARED_S = 30
COMPARED_SAMPLES = COMPARED_S * SAMPLE_RATE_HZ

ALIKE = 0.88
SAME = 0.9

BANDS = 24
FRAMES_PER_S = 2

_LOWEST_HZ, _HIGHEST_HZ = 150, 3_500
_FFT = 2_048
_HOP = _FFT // 2
# So wide a window hardly sees the delay of an encoder.
_WINDOW_S = 1.0
# 50 dB below the loudest band: what is fainter is an encoder's noise.
_FLOOR = 1e-5
# In powers of ten: a steady sound has no shape that could be compared.
_FLAT = 0.02
_SHORTEST_FRAMES = 5 * FRAMES_PER_S
_BLOCK = 2_048

_WAVE_RATE_HZ = 8_000
_LONGEST_LAG_S = 0.5
_FINER_LAGS = 4


def fingerprint(samples: np.ndarray) -> np.ndarray | None:
    """What a recording sounds like, half second by half second.

    Args:
      samples: (samples,) at 22 050 Hz; what is after the first 30 s is not looked at.

    Returns:
      float16 (frames, 24), two frames a second and 60 at the most: each band's log10
      energy, less the mean of its frame, so that level and swells do not count. None
      where there are less than 5 s, or the sound is too even to be told from others.
    """
    power = _band_energies(samples[:COMPARED_SAMPLES])
    window = np.hanning(round(_WINDOW_S * SAMPLE_RATE_HZ / _HOP) + 2)[1:-1]
    if len(power) < len(window):
        return None
    smooth = np.stack([np.convolve(band, window, "same") for band in power.T], axis=1)
    # At its ends a recording fills but half the window.
    smooth /= np.convolve(np.ones(len(power)), window, "same")[:, None]
    step = SAMPLE_RATE_HZ / _HOP / FRAMES_PER_S
    at = np.rint(np.arange(0, len(smooth) - 1, step)).astype(int)
    if len(at) < _SHORTEST_FRAMES or not smooth.max() > 0:
        return None
    shape = np.log10(smooth[at] / smooth.max() + _FLOOR)
    shape -= shape.mean(axis=1, keepdims=True)
    if (shape - shape.mean(axis=0)).std() < _FLAT:
        return None
    return shape.astype(np.float16)


def _band_energies(samples: np.ndarray) -> np.ndarray:
    """(frames, 24) energy in bands of equal ratio, a frame every 1024 samples."""
    edges_hz = np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, BANDS + 1)
    edges = np.rint(edges_hz * _FFT / SAMPLE_RATE_HZ).astype(int)
    if len(samples) < _FFT:
        return np.zeros((0, BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FFT)[::_HOP]
    window = np.hanning(_FFT).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window)[:, : edges[-1]]) ** 2
    return np.add.reduceat(power, edges[:-1], axis=1)


def alike(prints: Sequence[np.ndarray]) -> Iterator[tuple[int, int, float]]:
    """The pairs of recordings that may be the same.

    All pairs are compared, by products of float32 matrices of 2048 rows. A fingerprint
    takes 3 kB. 25 000 of them, 312 million pairs, take 72 MB, 90 MB more while they are
    compared, and 15 s on two cores; four times as long for twice as many.

    Args:
      prints: what `fingerprint` returned, None left out.

    Yields:
      (i, j, correlation) with i < j, each pair of correlation 0.88 or more once.
    """
    lengths = np.array([len(shape) for shape in prints], dtype=int)
    for length in np.unique(lengths):
        # Each is compared with those as long as itself, and with all that are longer.
        rows = np.flatnonzero(lengths == length)
        columns = np.concatenate([rows, np.flatnonzero(lengths > length)])
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            yield from _alike_in(prints, block, columns[start:], int(length))


def _alike_in(
    prints: Sequence[np.ndarray], rows: np.ndarray, columns: np.ndarray, length: int
) -> Iterator[tuple[int, int, float]]:
    """Compares the rows with the columns, of which they are the first."""
    ours = _units(prints, rows, length)
    for start in range(0, len(columns), _BLOCK):
        found = columns[start : start + _BLOCK]
        similarity = ours @ _units(prints, found, length).T
        for row, column in np.argwhere(similarity >= ALIKE):
            # Of the square of the rows with themselves, the half above the diagonal.
            if start + column > row:
                i, j = sorted((int(rows[row]), int(found[column])))
                yield i, j, float(similarity[row, column])


def _units(prints: Sequence[np.ndarray], at: np.ndarray, length: int) -> np.ndarray:
    """Fingerprints cut to a length, as vectors whose product is their correlation."""
    shapes = np.stack([prints[k][:length] for k in at]).astype(np.float32)
    shapes -= shapes.mean(axis=1, keepdims=True)
    vectors = shapes.reshape(len(shapes), -1)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Of one that is even over this length, nothing is known.
    even = norms < _FLAT * np.sqrt(vectors.shape[1])
    return np.where(even, 0, vectors / np.maximum(norms, 1e-9))


def same_samples(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far two recordings are the same sound, over what the shorter one holds.

    Args:
      ours: (samples,) at 22 050 Hz; what is after the first 30 s is not looked at.
      theirs: likewise.

    Returns:
      The largest correlation, of either sign, from 150 to 3500 Hz at any lag of up to
      half a second; from 0 to 1, and `SAME` or more for one recording.
    """
    import soxr

    length = min(len(ours), len(theirs), COMPARED_SAMPLES)
    both = [
        soxr.resample(samples[:length], SAMPLE_RATE_HZ, _WAVE_RATE_HZ)
        for samples in (ours, theirs)
    ]
    size = 1 << (2 * len(both[0])).bit_length()
    frequency_hz = np.fft.rfftfreq(size, 1 / _WAVE_RATE_HZ)
    outside = (frequency_hz < _LOWEST_HZ) | (frequency_hz > _HIGHEST_HZ)
    spectra = [np.where(outside, 0, np.fft.rfft(samples, size)) for samples in both]
    energies = [2 * float(np.sum(np.abs(s) ** 2)) / size for s in spectra]
    if not min(energies) > 0:
        return 0.0
    # Lags are rarely whole samples.
    fine = _FINER_LAGS * np.fft.irfft(
        spectra[0] * spectra[1].conj(), _FINER_LAGS * size
    )
    lag = round(_LONGEST_LAG_S * _WAVE_RATE_HZ * _FINER_LAGS)
    near = np.concatenate([fine[: lag + 1], fine[-lag:]])
    return float(np.abs(near).max() / np.sqrt(energies[0] * energies[1]))
