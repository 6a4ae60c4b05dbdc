"""Samples to features: the paper's three, and the two that it argues against.

Segments at 22 050 Hz enter, (..., samples); pictures leave, (..., bins, frames), both
float32. FEATURES maps a name to its function, its parameters and its axes; prepare and
predict compute with it, figures draw with it. The functions are pure JAX and import
neither librosa nor TensorFlow, so that they run on a bare accelerator machine. librosa
is their judge: the tests hold them equal to it, chroma's tuning estimate included.

Two measures make that hold to the last digit:

* librosa computes its FFT in double precision and rounds the result to float32. A FFT
  in float32 is off by 1e-7 of the frame's strongest bin, which is more than all of a
  bin that lies 140 dB below it. So spectra are computed in float64 here as well. TPUs
  have no float64 FFT and get float32: there, only bins more than about 100 dB below
  their frame's strongest are off by more than 0.05 dB.
* chroma's tuning is the fullest of 100 histogram bins, so one peak that falls on the
  other side of an edge can change every number. `_peaks` therefore rounds to float32
  where librosa does, and nowhere else.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES

N_FFT = 2048
HOP_LENGTH = 512  # tempogram, chroma, mel, mfcc; paper section 2.1
SPECTROGRAM_HOP_LENGTH = N_FFT - 128  # frames overlap by 128; paper section 2.1
MEL_BANDS = 128
MFCC_COEFFICIENTS = 20
TEMPOGRAM_WINDOW = 384
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

AMIN = 1e-10  # power below it counts as it: -100 dB
ONSET_TOP_DB = 80
_ONSET_FLOOR = 10 ** (-ONSET_TOP_DB / 10)

# Chroma's tuning, in semitones off A440, is one of these.
TUNINGS = np.linspace(-0.5, 0.5, 101)[:-1]
_LOWEST_PITCH_HZ, _HIGHEST_PITCH_HZ = 150.0, 4000.0
_PEAK_THRESHOLD = 0.1  # of the frame's strongest bin
_A0_HZ = 27.5

_HZ_PER_BIN = SAMPLE_RATE_HZ / N_FFT
_TINY = np.finfo(np.float32).tiny


@dataclasses.dataclass(frozen=True)
class Axis:
    """What a feature's bins stand for.

    Attributes:
      label: the quantity, "Frequency".
      unit: its unit, "Hz"; "" for a plain number.
      values: (bins,) the value of each bin, a number or a name.
    """

    label: str
    unit: str
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature: how to compute it, and what its numbers mean.

    Attributes:
      name: its name in FEATURES.
      fn: (..., samples) to (..., bins, frames), float32, jitted and batched. What it
        makes of a segment does not depend on what else is in the batch.
      params: whatever changes the numbers. "version" goes up when the code does so.
      axis: the bins.
      value_label: the quantity and unit of the numbers themselves.
    """

    name: str
    fn: Callable[[jax.Array], jax.Array]
    params: Mapping[str, Any]
    axis: Axis
    value_label: str

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.axis.values)

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return self.params["hop_length"]

    def shape(self, num_samples: int = SEGMENT_SAMPLES) -> tuple[int, int]:
        """(bins, frames) that `fn` makes of `num_samples` samples."""
        frames = _num_frames(num_samples, self.hop_length, self.params["centered"])
        return self.bins, frames


# Windows and filterbanks: numpy, computed once.


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
    bins_hz = np.arange(N_FFT // 2 + 1) * _HZ_PER_BIN
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
    bins_hz = np.arange(1, N_FFT // 2 + 2) * _HZ_PER_BIN
    pitch = 12 * np.log2(bins_hz / _A0_HZ) - TUNINGS[:, None]
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


# The parts that features share. They take one segment: (samples,).


def _num_frames(num_samples: int, hop_length: int, centered: bool) -> int:
    beyond_first = num_samples if centered else num_samples - N_FFT
    if num_samples < 1 or beyond_first < 0:
        raise ValueError(
            f"{num_samples} samples are too few: an uncentered frame takes {N_FFT}"
        )
    return 1 + beyond_first // hop_length


def _windows(x: jax.Array, count: int, length: int, hop_length: int) -> jax.Array:
    """Overlapping stretches of `x` (n,), one a row: (count, length)."""
    starts = jnp.arange(count, dtype=jnp.int32) * hop_length
    return jax.vmap(lambda start: lax.dynamic_slice(x, (start,), (length,)))(starts)


def _allow_float64(fn):
    """Lets `fn` compute in float64, which JAX otherwise turns into float32.

    Only floats may be made inside: integers would be 64 bits wide there, and JAX cannot
    lower those once it is back outside.
    """

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return fn(*args, **kwargs)

    return wrapped


@_allow_float64
def _power_spectrum(
    samples: jax.Array, precise: Any, hop_length: int = HOP_LENGTH, centered=True
) -> jax.Array:
    """(samples,) to (frames, 1025), the squared magnitude of the STFT, float32.

    Source: np.abs(librosa.stft(samples, ...)) ** 2.

    Args:
      samples: float32.
      precise: dtype for the window and the FFT, float64 where the device has it.
      hop_length: samples from one frame to the next.
      centered: frame t is centred on sample t * hop_length rather than starting there.
    """
    count = _num_frames(samples.size, hop_length, centered)
    padded = jnp.pad(samples, N_FFT // 2 if centered else 0)
    frames = _windows(padded, count, N_FFT, hop_length).astype(precise)
    spectrum = jnp.fft.rfft(frames * hann_window(N_FFT).astype(precise))
    real = jnp.abs(spectrum.real.astype(jnp.float32))
    imag = jnp.abs(spectrum.imag.astype(jnp.float32))
    # numpy's magnitude of a complex64, roundings included. A click's spectrum is flat:
    # only through these roundings does it have the peaks that tuning is read from.
    larger, smaller = jnp.maximum(real, imag), jnp.minimum(real, imag)
    ratio = (smaller / jnp.where(larger > 0, larger, 1)).astype(precise)
    magnitude = larger * jnp.sqrt((1 + ratio * ratio).astype(jnp.float32))
    return magnitude * magnitude


def _decibels(power: jax.Array) -> jax.Array:
    """Power in dB re 1; librosa.power_to_db(power, top_db=None)."""
    return 10 * jnp.log10(jnp.maximum(power, AMIN))


def _matmul(a: Any, b: jax.Array) -> jax.Array:
    # Accelerators would otherwise round the factors to 8 or 11 bits.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@functools.cache
def _mel_filters_in_groups() -> tuple[tuple[slice, np.ndarray], ...]:
    # A band covers few bins. Multiplying groups of bands by the bins that they cover
    # does a fifth of the work of multiplying all by all.
    groups = []
    for filters in np.split(mel_filters(), 8):
        covered = np.flatnonzero(filters.any(axis=0))
        bins = slice(covered[0], covered[-1] + 1)
        groups.append((bins, filters[:, bins]))
    return tuple(groups)


def _mel_power(power: jax.Array) -> jax.Array:
    """(frames, 1025) to (frames, MEL_BANDS)."""
    groups = [
        _matmul(power[:, bins], filters.T) for bins, filters in _mel_filters_in_groups()
    ]
    return jnp.concatenate(groups, axis=1)


def _unit_peak(x: jax.Array) -> jax.Array:
    """Rows scaled to a largest magnitude of 1; librosa.util.normalize."""
    peak = jnp.abs(x).max(axis=-1, keepdims=True)
    return x / jnp.where(peak < _TINY, 1, peak)


def _feature(fn: Callable[[jax.Array, Any], jax.Array]):
    """Makes `fn` of one segment and a precise dtype a jitted function of a batch."""

    def in_turn(samples):
        # Spectra of one segment stay in the processor's cache, those of a batch do
        # not: on a CPU, one segment after the other takes a third of the time.
        return lax.map(lambda one: fn(one, jnp.float64), samples)

    def at_once(samples):
        return jax.vmap(lambda one: fn(one, jnp.float64))(samples)

    def at_once_float32(samples):
        return jax.vmap(lambda one: fn(one, jnp.float32))(samples)

    @jax.jit
    @functools.wraps(fn)
    def batched(samples: jax.Array) -> jax.Array:
        samples = jnp.asarray(samples, jnp.float32)
        batch = samples.shape[:-1]
        # The device is known only when the function is compiled, or exported for one.
        values = lax.platform_dependent(
            samples.reshape(-1, samples.shape[-1]),
            cpu=in_turn,
            tpu=at_once_float32,
            default=at_once,
        )
        # Frames come first up to here, as FFTs and matrix products leave them.
        return values.reshape(*batch, *values.shape[1:]).swapaxes(-1, -2)

    return batched


# Tempogram.


def _onset_strength(samples: jax.Array, precise: Any) -> jax.Array:
    """(samples,) to (frames,), the mean rise over mel bands, in dB a frame.

    Source: librosa.onset.onset_strength, its defaults.
    """
    power = _mel_power(_power_spectrum(samples, precise))
    power = jnp.maximum(power, jnp.maximum(power.max() * _ONSET_FLOOR, AMIN))
    # A rise in dB is a ratio of powers. In a steady tone it is smaller than the
    # roundings of the two levels, of which it would be the difference.
    rise = 10 * jnp.log10(power[1:] / power[:-1])
    rise = jnp.maximum(rise, 0).mean(axis=1)
    # One frame for the difference, and half a spectrum's frames to centre it.
    late = 1 + N_FFT // (2 * HOP_LENGTH)
    return jnp.pad(rise, (late, 0))[: len(power)]


@_feature
def tempogram(samples: jax.Array, precise: Any) -> jax.Array:
    """Local autocorrelation of onset strength, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.tempogram, its defaults.
    """
    onsets = _onset_strength(samples, precise)
    half = TEMPOGRAM_WINDOW // 2
    ramp = np.linspace(0, 1, half, endpoint=False, dtype=np.float32)
    padded = jnp.concatenate([onsets[0] * ramp, onsets, onsets[-1] * ramp[::-1]])
    windows = _windows(padded, len(onsets), TEMPOGRAM_WINDOW, 1)
    windows *= hann_window(TEMPOGRAM_WINDOW).astype(np.float32)
    # Twice the window keeps the end of one from wrapping round to its start.
    spectrum = jnp.fft.rfft(windows, 2 * TEMPOGRAM_WINDOW)
    energy = spectrum.real**2 + spectrum.imag**2
    autocorrelation = jnp.fft.irfft(energy, 2 * TEMPOGRAM_WINDOW)
    return _unit_peak(autocorrelation[:, :TEMPOGRAM_WINDOW])


# Chroma.


def _log2_ratio(x: jax.Array, near: jax.Array) -> jax.Array:
    """log2(x / near) for x within a tenth of `near`, exact to 1e-12.

    The first terms of the series of artanh: XLA's own log in float64 is a call for each
    number, several times slower.
    """
    t = (x - near) / (x + near)
    t2 = t * t
    series = 1 + t2 * (1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 / 9)))
    return t * series * (2 / math.log(2))


@_allow_float64
def _peaks(power: jax.Array, precise: Any) -> tuple[jax.Array, jax.Array]:
    """Spectral peaks from 150 to 4000 Hz, and how far off a semitone they are.

    Every `to_float32` stands where librosa stores a float32.
    Source: librosa.piptrack and librosa.pitch_tuning.

    Args:
      power: (frames, 1025).
      precise: dtype for what librosa computes in float64.

    Returns:
      strength: (pairs, frames) power at the top of the parabola through a peak and its
        neighbours; -1 where there is no peak. Two neighbouring bins cannot both be
        peaks, so they share a row.
      tuning: (pairs, frames) int32, which of TUNINGS the peak's pitch has.
    """
    to_float32 = functools.partial(jnp.asarray, dtype=jnp.float32)
    bins_hz = np.arange(N_FFT // 2 + 1) * _HZ_PER_BIN
    first, end = np.searchsorted(bins_hz, [_LOWEST_PITCH_HZ, _HIGHEST_PITCH_HZ])
    bins = np.arange(first, end, dtype=float).reshape(-1, 2, 1)

    # The bins from first - 1 to end: each pair of bins has one on either side.
    region = power[:, first - 1 : end + 1].T
    below, lower, upper, above = (
        region[:-2:2],
        region[1:-1:2],
        region[2::2],
        region[3::2],
    )
    threshold = jnp.float32(_PEAK_THRESHOLD) * power.max(axis=1)
    in_lower = (lower > threshold) & (lower > below) & (lower >= upper)
    in_upper = (upper > threshold) & (upper > lower) & (upper >= above)
    left = jnp.where(in_lower, below, lower)
    peak = jnp.where(in_lower, lower, upper)
    right = jnp.where(in_lower, upper, above)
    peak_bin = jnp.where(in_lower, bins[:, 0], bins[:, 1]).astype(precise)

    slope = (right - left).astype(precise) / 2
    curvature = (right + left).astype(precise) - 2 * peak.astype(precise)
    shift = jnp.where(jnp.abs(slope) < jnp.abs(curvature), -slope / curvature, 0)
    shift = to_float32(shift).astype(precise)
    strength = peak + to_float32(slope / 2 * shift)

    hz = to_float32((peak_bin + shift) * _HZ_PER_BIN).astype(precise)
    ratio = to_float32(hz / _A0_HZ).astype(precise)
    near = np.log2(bins * _HZ_PER_BIN / _A0_HZ).astype(precise)
    octaves = _log2_ratio(ratio, peak_bin * (_HZ_PER_BIN / _A0_HZ))
    octaves += jnp.where(in_lower, near[:, 0], near[:, 1])
    semitones = 12 * to_float32(octaves)
    offset = semitones - jnp.floor(semitones)
    offset = jnp.where(offset < 0.5, offset, offset - 1).astype(precise)
    tuning = jnp.floor(offset * 100 + 50).astype(jnp.int32)
    return jnp.where(in_lower | in_upper, strength, -1), tuning


def _count(mask: jax.Array) -> jax.Array:
    # Exact below 2**24, and XLA sums floats faster than integers.
    return mask.astype(jnp.float32).sum().astype(jnp.int32)


def _order_statistic(values: jax.Array, rank: jax.Array) -> jax.Array:
    """The value of `values` that has `rank` smaller ones, where it is positive.

    The bits of a positive float sort as the float does, so the value is found bit by
    bit, by counting. A sort of 40 000 numbers takes twenty times as long.
    """

    def try_bit(i, bits):
        candidate = bits | (1 << (30 - i))
        bound = lax.bitcast_convert_type(candidate, jnp.float32)
        return jnp.where(_count(values < bound) <= rank, candidate, bits)

    bits = lax.fori_loop(0, 31, try_bit, jnp.int32(0))
    return lax.bitcast_convert_type(bits, jnp.float32)


def _median_strength(strength: jax.Array, count: jax.Array) -> jax.Array:
    """Median of the `count` entries that are not -1; numpy's, halfway if it is even."""
    before = strength.size - count
    low = _order_statistic(strength, before + (count - 1) // 2)
    next_higher = jnp.where(strength > low, strength, jnp.inf).min()
    low_is_both = _count(strength <= low) > before + count // 2
    return (low + jnp.where(low_is_both, low, next_higher)) * 0.5


def _estimate_tuning(power: jax.Array, precise: Any) -> jax.Array:
    """(frames, 1025) to the index in TUNINGS of the most frequent tuning of peaks.

    The weaker half of the peaks is left out; without peaks, the tuning is A440's.
    Source: librosa.estimate_tuning.
    """
    strength, tuning = _peaks(power, precise)
    count = _count(strength >= 0)
    counted = (strength >= _median_strength(strength, count)) & (strength >= 0)
    # The others are counted in a bin of their own, which is then cut off.
    votes = jnp.zeros(len(TUNINGS) + 1, jnp.int32)
    votes = votes.at[jnp.where(counted, tuning, len(TUNINGS))].add(1)[:-1]
    return jnp.where(count > 0, votes.argmax(), len(TUNINGS) // 2)


@_feature
def chroma(samples: jax.Array, precise: Any) -> jax.Array:
    """Energy of the twelve pitch classes, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.chroma_stft, its defaults.
    """
    power = _power_spectrum(samples, precise)
    filters = jnp.asarray(chroma_filters())[_estimate_tuning(power, precise)]
    return _unit_peak(_matmul(power, filters.T))


@jax.jit
def estimate_tuning(samples: jax.Array) -> jax.Array:
    """(samples,) to the tuning that chroma assumes, in semitones off A440."""
    samples = jnp.asarray(samples, jnp.float32)
    index = _estimate_tuning(_power_spectrum(samples, jnp.float64), jnp.float64)
    return jnp.asarray(TUNINGS, jnp.float32)[index]


# Spectrogram, and the two that the paper argues against.


@_feature
def spectrogram(samples: jax.Array, precise: Any) -> jax.Array:
    """Power in dB re 1, uncentred frames that overlap by 128 samples.

    Source: paper section 2.1; librosa.stft(n_fft=2048, hop_length=1920, center=False).
    """
    power = _power_spectrum(samples, precise, SPECTROGRAM_HOP_LENGTH, centered=False)
    return _decibels(power)


@_feature
def mel(samples: jax.Array, precise: Any) -> jax.Array:
    """Power in mel bands, in dB re 1.

    Source: librosa.feature.melspectrogram, its defaults, in dB without top_db.
    """
    return _decibels(_mel_power(_power_spectrum(samples, precise)))


@_feature
def mfcc(samples: jax.Array, precise: Any) -> jax.Array:
    """Mel-frequency cepstral coefficients: the first terms of the mel bands' DCT.

    Source: librosa.feature.mfcc(S=mel, n_mfcc=20).
    """
    mel_db = _decibels(_mel_power(_power_spectrum(samples, precise)))
    return _matmul(mel_db, dct_matrix().T)


# The registry: a new feature is one function above and one entry here.


def _params(hop_length: int = HOP_LENGTH, centered: bool = True, **more: Any):
    return {
        "version": 1,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "n_fft": N_FFT,
        "window": "hann",
        "hop_length": hop_length,
        "centered": centered,
    } | more


def _beats_per_minute() -> np.ndarray:
    with np.errstate(divide="ignore"):  # a lag of 0 is infinitely fast
        return 60 * SAMPLE_RATE_HZ / (HOP_LENGTH * np.arange(TEMPOGRAM_WINDOW))


_ONSETS = {"mel_bands": MEL_BANDS, "amin": AMIN, "top_db": ONSET_TOP_DB}

FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature(
            "tempogram",
            tempogram,
            _params(window_frames=TEMPOGRAM_WINDOW, **_ONSETS),
            Axis("Tempo", "BPM", _beats_per_minute()),
            "autocorrelation (1 at lag 0)",
        ),
        Feature(
            "chroma",
            chroma,
            _params(tuning="estimated per segment"),
            Axis("Pitch class", "pitch class", np.array(PITCH_CLASSES)),
            "energy (1 at the strongest)",
        ),
        Feature(
            "spectrogram",
            spectrogram,
            _params(SPECTROGRAM_HOP_LENGTH, centered=False, amin=AMIN),
            Axis("Frequency", "Hz", np.arange(N_FFT // 2 + 1) * _HZ_PER_BIN),
            "power (dB)",
        ),
        Feature(
            "mel",
            mel,
            _params(mel_bands=MEL_BANDS, amin=AMIN),
            Axis("Frequency", "Hz", mel_frequencies_hz()[1:-1]),
            "power (dB)",
        ),
        Feature(
            "mfcc",
            mfcc,
            _params(mel_bands=MEL_BANDS, amin=AMIN, coefficients=MFCC_COEFFICIENTS),
            Axis("Coefficient", "", np.arange(MFCC_COEFFICIENTS)),
            "cepstral coefficient (dB)",
        ),
    )
}
