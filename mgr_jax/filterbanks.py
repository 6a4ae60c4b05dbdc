"""Windows, filterbanks and transforms that features are built from, as constants.

Nothing enters; numpy arrays leave, computed once from their definitions. features
multiplies by them. The tests hold them equal to librosa's and scipy's, and loudness's
to the standard's own filters.
"""

import functools

import numpy as np

from mgr_jax.audio import SAMPLE_RATE_HZ

N_FFT = 2048
MEL_BANDS = 128
MFCC_COEFFICIENTS = 20

HZ_PER_BIN = SAMPLE_RATE_HZ / N_FFT
A0_HZ = 27.5

# Loudness's bands: steps of about 3.6 on the scale of ERB numbers, on which the bands
# of hearing are equally wide, in round numbers. Source: Glasberg and Moore, "Derivation
# of auditory filter shapes from notched-noise data", 1990.
LOUDNESS_EDGES_HZ = (0, 110, 270, 500, 850, 1400, 2150, 3250, 4950, 7400, 11_025)

# Two filters in a row, (b0, b1, b2) and (a0, a1, a2) of each, at 48 kHz: the head's
# high shelf, then a high-pass. Source: ITU-R BS.1770-5, annex 1, tables 1 and 2.
K_WEIGHTING_RATE_HZ = 48_000
K_WEIGHTING = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    (
        (1.0, -2.0, 1.0),
        (1.0, -1.99004745483398, 0.99007225036621),
    ),
)

# Chroma's tuning, in semitones off A440, is one of these.
TUNINGS = np.linspace(-0.5, 0.5, 101)[:-1]


@functools.cache
def hann_window(length: int) -> np.ndarray:
    """Periodic Hann window, float64 (length,); scipy.signal.get_window("hann")."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def mel_frequencies_hz() -> np.ndarray:
    """Corners of the mel bands, (MEL_BANDS + 2,): band i peaks at value i + 1.

    Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mel for a factor of 6.4.
    Source: librosa.mel_frequencies, from 0 Hz to half the sampling rate.
    """
    mel_at_1_khz, mels_per_e = 15.0, 27 / np.log(6.4)
    top = mel_at_1_khz + mels_per_e * np.log(SAMPLE_RATE_HZ / 2 / 1000)
    mels = np.linspace(0, top, MEL_BANDS + 2)
    above = 1000 * np.exp((mels - mel_at_1_khz) / mels_per_e)
    return np.where(mels < mel_at_1_khz, mels * 200 / 3, above)


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangles of unit area over the corners, float32 (MEL_BANDS, 1025).

    Source: librosa.filters.mel, its defaults.
    """
    corners = mel_frequencies_hz()[:, None]
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    bins_hz = np.arange(N_FFT // 2 + 1) * HZ_PER_BIN
    rising, falling = (bins_hz - low) / (peak - low), (high - bins_hz) / (high - peak)
    triangles = np.minimum(rising, falling).clip(0)
    return (triangles * 2 / (high - low)).astype(np.float32)


@functools.cache
def chroma_filters() -> np.ndarray:
    """What each bin gives each pitch class, float32 (len(TUNINGS), 12, 1025).

    A Gaussian over the distance in semitones, of unit energy, weighted by another one
    around the fifth octave. Source: librosa.filters.chroma, its defaults; Ellis,
    "Chroma feature analysis and synthesis", 2007.
    """
    # One bin beyond the last, for the last one's width.
    bins_hz = np.arange(1, N_FFT // 2 + 2) * HZ_PER_BIN
    pitch = 12 * np.log2(bins_hz / A0_HZ) - TUNINGS[:, None]
    # 0 Hz has no pitch: it is put 1.5 octaves below bin 1.
    pitch = np.concatenate([pitch[:, :1] - 18, pitch], axis=1)
    width = np.maximum(np.diff(pitch), 1)[:, None, :]
    pitch = pitch[:, None, :-1]
    from_a = np.arange(12)[:, None]
    distance = np.mod(pitch - from_a + 6, 12) - 6
    filters = np.exp(-0.5 * (2 * distance / width) ** 2)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    filters *= np.exp(-0.5 * ((pitch / 12 - 5) / 2) ** 2)
    return np.roll(filters, -3, axis=1).astype(np.float32)  # from A to C first


@functools.cache
def dct_matrix() -> np.ndarray:
    """Orthonormal DCT-II, float32 (MFCC_COEFFICIENTS, MEL_BANDS); scipy.fft.dct."""
    order = np.arange(MFCC_COEFFICIENTS)[:, None]
    matrix = np.cos(np.pi * order * (np.arange(MEL_BANDS) + 0.5) / MEL_BANDS)
    scale = np.where(order == 0, 1, 2) / MEL_BANDS
    return (matrix * np.sqrt(scale)).astype(np.float32)


def k_weighting(hz: np.ndarray) -> np.ndarray:
    """Gain in power of the K-weighting at frequencies in Hz, of the same shape.

    Source: ITU-R BS.1770-5, annex 1.
    """
    delay = np.exp(-2j * np.pi * np.asarray(hz) / K_WEIGHTING_RATE_HZ)
    gain = np.ones(delay.shape)
    for (b0, b1, b2), (a0, a1, a2) in K_WEIGHTING:
        above, below = b0 + delay * (b1 + delay * b2), a0 + delay * (a1 + delay * a2)
        gain = gain * np.abs(above / below) ** 2
    return gain


@functools.cache
def loudness_filters() -> np.ndarray:
    """What each bin adds to a frame's K-weighted mean square, float32 (11, 1025).

    The first row takes the whole spectrum, the others a band of LOUDNESS_EDGES_HZ each:
    bins from its lower edge on, up to its upper edge. They add up to the first.
    """
    bins_hz = np.arange(N_FFT // 2 + 1) * HZ_PER_BIN
    # All bins but the first and the last stand for a negative frequency as well.
    sides = np.full(len(bins_hz), 2.0)
    sides[[0, -1]] = 1
    window_energy = (hann_window(N_FFT) ** 2).sum()
    weights = sides * k_weighting(bins_hz) / (N_FFT * window_energy)
    band = np.searchsorted(LOUDNESS_EDGES_HZ[1:-1], bins_hz, side="right")
    in_band = band == np.arange(len(LOUDNESS_EDGES_HZ) - 1)[:, None]
    return np.vstack([weights, in_band * weights]).astype(np.float32)
