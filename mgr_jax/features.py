"""Samples to features: the paper's three, the two that it argues against, loudness.

Segments at 22 050 Hz enter, (..., samples); pictures leave, (..., bins, frames), both
float32. FEATURES maps a name to its function, its parameters and its axes; prepare and
predict compute with it, figures draw with it. The functions are pure JAX and import
neither librosa nor TensorFlow, so that they run on a bare accelerator machine. librosa
is their judge: the tests hold them equal to it, chroma's tuning estimate included.
loudness, which librosa does not have, is judged by its standard's filters.

Two measures make that hold to the last digit:

* librosa computes its FFT in float64 and rounds the result. A float32 FFT is off by
  about 1e-7 of the frame's strongest bin: on real audio 1 to 3 bins in 1000, all 90 dB
  or more below that one, then miss librosa's level by 0.05 to 4 dB. So spectra are
  computed in float64 here as well. TPUs have no float64 FFT and make do with float32.
* chroma's tuning is the fullest of 100 bins of a histogram, so a single peak that falls
  on the other side of an edge can change every number. `_peaks` therefore rounds to
  float32 where librosa does, and nowhere else.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES
from mgr_jax.filterbanks import (
    A0_HZ,
    HZ_PER_BIN,
    LOUDNESS_EDGES_HZ,
    MEL_BANDS,
    MFCC_COEFFICIENTS,
    N_FFT,
    TUNINGS,
    chroma_filters,
    dct_matrix,
    hann_window,
    loudness_filters,
    mel_filters,
    mel_frequencies_hz,
)

HOP_LENGTH = 512  # tempogram, chroma, mel, mfcc; paper section 2.1
SPECTROGRAM_HOP_LENGTH = N_FFT - 128  # frames overlap by 128; paper section 2.1
TEMPOGRAM_WINDOW = 384
LOUDNESS_FRAME_HOP_LENGTH = SAMPLE_RATE_HZ // 50  # 20 ms
LOUDNESS_BLOCK_FRAMES = 20  # 400 ms
LOUDNESS_HOP_FRAMES = 5  # 100 ms
LOUDNESS_HOP_LENGTH = LOUDNESS_HOP_FRAMES * LOUDNESS_FRAME_HOP_LENGTH
LOUDNESS_BLOCK_SAMPLES = N_FFT + (LOUDNESS_BLOCK_FRAMES - 1) * LOUDNESS_FRAME_HOP_LENGTH
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

AMIN = 1e-10  # power below it counts as it: -100 dB
ONSET_TOP_DB = 80
_ONSET_FLOOR = 10 ** (-ONSET_TOP_DB / 10)

_PEAK_BINS = np.arange(14, 372).reshape(-1, 2).T  # from 150 to 4000 Hz, in pairs
_PEAK_THRESHOLD = 0.1  # of the frame's strongest bin
_LUFS_OFFSET_DB = -0.691  # the standard's: cancels the K-weighting's gain at 997 Hz
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
      level: (bins,) the answer to gain: by how much each bin's numbers rise, in their
        own units, when the samples become 1 dB louder. 1 for a power in dB, 0 for what
        gain leaves alone. Powers that the floor of AMIN holds up do not follow it.
    """

    name: str
    fn: Callable[[jax.Array], jax.Array]
    params: Mapping[str, Any]
    axis: Axis
    value_label: str
    level: np.ndarray

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
        window = self.params.get("block_samples", N_FFT)
        centered = self.params["centered"]
        return self.bins, _num_frames(num_samples, self.hop_length, centered, window)


class _Device(NamedTuple):
    """What a kind of device is good at.

    Attributes:
      precise: dtype for what librosa computes in float64; that, where FFTs have it.
      frames_at_once: how many spectra to compute at a time; None for all.
    """

    precise: DTypeLike
    frames_at_once: int | None


# A CPU's cache holds the spectra of a third of a segment. And XLA does not carry
# arithmetic across the end of a loop: without one, it would repeat the spectrum's in
# every place that reads it, and take twice as long for chroma.
_CPU = _Device(jnp.float64, frames_at_once=72)
_GPU = _Device(jnp.float64, frames_at_once=None)
_TPU = _Device(jnp.float32, frames_at_once=None)


# The parts that features share. They take one segment: (samples,).


def _num_frames(
    num_samples: int, hop_length: int, centered: bool, window: int = N_FFT
) -> int:
    shortest = 1 if centered else window
    if num_samples < shortest:
        raise ValueError(f"{num_samples} samples are too few: need {shortest} or more")
    return 1 + (num_samples - (0 if centered else window)) // hop_length


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


def _power_spectrum(
    samples: jax.Array, device: _Device, hop_length: int = HOP_LENGTH, centered=True
) -> jax.Array:
    """(samples,) to (frames, 1025), the squared magnitude of the STFT, float32.

    Source: np.abs(librosa.stft(samples, ...)) ** 2.

    Args:
      samples: float32.
      device: what it runs on.
      hop_length: samples from one frame to the next.
      centered: frame t is centred on sample t * hop_length rather than starting there.
    """
    count = _num_frames(samples.size, hop_length, centered)
    edge = jnp.zeros(N_FFT // 2 if centered else 0, jnp.float32)
    padded = jnp.concatenate([edge, samples, edge])

    @_allow_float64
    def power_of_frame(start):
        frame = lax.dynamic_slice(padded, (start,), (N_FFT,)).astype(device.precise)
        spectrum = jnp.fft.rfft(frame * hann_window(N_FFT).astype(device.precise))
        real = jnp.abs(spectrum.real.astype(jnp.float32))
        imag = jnp.abs(spectrum.imag.astype(jnp.float32))
        # numpy's magnitude of a complex64, roundings included. The spectrum of a click
        # is flat: only the roundings give it the peaks that its tuning is read from.
        larger, smaller = jnp.maximum(real, imag), jnp.minimum(real, imag)
        ratio = (smaller / jnp.where(larger > 0, larger, 1)).astype(device.precise)
        magnitude = larger * jnp.sqrt((1 + ratio * ratio).astype(jnp.float32))
        return magnitude * magnitude

    starts = np.arange(count, dtype=np.int32) * hop_length
    if device.frames_at_once is None:
        return jax.vmap(power_of_frame)(starts)
    return lax.map(power_of_frame, starts, batch_size=device.frames_at_once)


def _decibels(power: jax.Array) -> jax.Array:
    """Power in dB re 1; librosa.power_to_db(power, top_db=None)."""
    return 10 * jnp.log10(jnp.maximum(power, AMIN))


def _matmul(a: Any, b: jax.Array) -> jax.Array:
    # Accelerators would otherwise round the factors to 8 or 11 bits.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@functools.cache
def _mel_filters_in_groups() -> tuple[tuple[slice, np.ndarray], ...]:
    # A band covers few bins. Multiplying groups of bands by the bins that they cover
    # does an eighth of the work of multiplying all by all.
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


def _batched(fn: Callable[[jax.Array, _Device], jax.Array]):
    """Makes `fn` of one segment and a device a function of a batch."""

    def in_turn(samples):
        if len(samples) == 1:  # without a loop, XLA can share work between features
            return fn(samples[0], _CPU)[None]
        return lax.map(lambda one: fn(one, _CPU), samples)

    def at_once(device, samples):
        return jax.vmap(lambda one: fn(one, device))(samples)

    @jax.custom_batching.custom_vmap
    def batched(samples: jax.Array) -> jax.Array:
        samples = jnp.asarray(samples, jnp.float32)
        batch = samples.shape[:-1]
        # The device is known only when the function is compiled, or exported for one.
        values = lax.platform_dependent(
            samples.reshape(math.prod(batch), samples.shape[-1]),
            cpu=in_turn,
            tpu=functools.partial(at_once, _TPU),
            default=functools.partial(at_once, _GPU),
        )
        return values.reshape(*batch, *values.shape[1:])

    @batched.def_vmap
    def _(axis_size, in_batched, samples):
        # jax.vmap's own way would lose float64: it rewrites what was traced inside
        # `_allow_float64` when that is left.
        return batched(samples), True

    return functools.wraps(fn)(batched)


def _feature(fn: Callable[[jax.Array, _Device], jax.Array]):
    """Makes `fn` of one segment, to (frames, bins), a Feature's `fn`."""
    batched = _batched(fn)

    @jax.jit
    @functools.wraps(fn)
    def feature(samples: jax.Array) -> jax.Array:
        # FFTs and matrix products want frames first, a picture wants bins first.
        return batched(samples).swapaxes(-1, -2)

    return feature


# Tempogram.


def _onset_strength(samples: jax.Array, device: _Device) -> jax.Array:
    """(samples,) to (frames,), the mean rise over mel bands, in dB a frame.

    Source: librosa.onset.onset_strength, its defaults.
    """
    power = _mel_power(_power_spectrum(samples, device))
    power = jnp.maximum(power, jnp.maximum(power.max() * _ONSET_FLOOR, AMIN))
    # A rise in dB is a ratio of powers. In a steady tone it is smaller than the
    # roundings of the two levels, of which it would be the difference.
    rise = 10 * jnp.log10(power[1:] / power[:-1])
    rise = jnp.maximum(rise, 0).mean(axis=1)
    # One frame for the difference, and half a spectrum's frames to centre it.
    late = 1 + N_FFT // (2 * HOP_LENGTH)
    return jnp.pad(rise, (late, 0))[: len(power)]


@_feature
def tempogram(samples: jax.Array, device: _Device) -> jax.Array:
    """Local autocorrelation of onset strength, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.tempogram, its defaults.
    """
    onsets = _onset_strength(samples, device)
    # Twice the window keeps the end of it from wrapping round to its start.
    half, length = TEMPOGRAM_WINDOW // 2, 2 * TEMPOGRAM_WINDOW
    ramp = np.linspace(0, 1, half, endpoint=False, dtype=np.float32)
    rest = np.zeros(length - TEMPOGRAM_WINDOW, np.float32)
    padded = jnp.concatenate([onsets[0] * ramp, onsets, onsets[-1] * ramp[::-1], rest])
    window = np.append(hann_window(TEMPOGRAM_WINDOW), rest).astype(np.float32)

    starts = np.arange(len(onsets), dtype=np.int32)
    stretch = jax.vmap(lambda start: lax.dynamic_slice(padded, (start,), (length,)))
    spectrum = jnp.fft.rfft(stretch(starts) * window)
    energy = spectrum.real**2 + spectrum.imag**2
    autocorrelation = jnp.fft.irfft(energy, length)
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


def _find_peaks(power: jax.Array) -> tuple[jax.Array, ...]:
    """Local maxima from 150 to 4000 Hz. Source: librosa.piptrack.

    Two neighbouring bins cannot both be maxima, so they share a column.

    Args:
      power: (frames, 1025).

    Returns:
      (frames, pairs) each:
      is_peak: whether one of the pair is a local maximum and strong enough.
      in_lower: whether it is the lower one.
      below, peak, above: power at the maximum and at the bins next to it.
    """
    first, last = _PEAK_BINS[0, 0], _PEAK_BINS[1, -1]
    lower, upper = power[:, first : last + 1 : 2], power[:, first + 1 : last + 1 : 2]
    far_below, far_above = (
        power[:, first - 1 : last : 2],
        power[:, first + 2 : last + 2 : 2],
    )
    threshold = _PEAK_THRESHOLD * power.max(axis=1, keepdims=True)
    in_lower = (lower > threshold) & (lower > far_below) & (lower >= upper)
    in_upper = (upper > threshold) & (upper > lower) & (upper >= far_above)
    below = jnp.where(in_lower, far_below, lower)
    peak = jnp.where(in_lower, lower, upper)
    above = jnp.where(in_lower, upper, far_above)
    return in_lower | in_upper, in_lower, below, peak, above


@_allow_float64
def _peaks(power: jax.Array, device: _Device) -> tuple[jax.Array, jax.Array]:
    """Strength and tuning of spectral peaks, from parabolas through their three bins.

    Every `to_float32` stands where librosa stores a float32.
    Sources: librosa.piptrack, librosa.pitch_tuning.

    Args:
      power: (frames, 1025).
      device: what it runs on.

    Returns:
      strength: (frames, pairs) power at the parabola's top; -1 where there is no peak.
      tuning: (frames, pairs) int32, index in TUNINGS.
    """
    precise = device.precise
    to_float32 = functools.partial(jnp.asarray, dtype=jnp.float32)
    is_peak, in_lower, below, peak, above = _find_peaks(power)
    slope = (above - below).astype(precise) / 2
    curvature = (above + below).astype(precise) - 2 * peak.astype(precise)
    shift = jnp.where(jnp.abs(slope) < jnp.abs(curvature), -slope / curvature, 0)
    shift = to_float32(shift).astype(precise)
    strength = jnp.where(is_peak, peak + to_float32(slope / 2 * shift), -1)

    def at_peak(of_bins):  # (2, pairs) to (frames, pairs)
        return jnp.where(in_lower, *of_bins.astype(precise))

    hz = to_float32((at_peak(_PEAK_BINS) + shift) * HZ_PER_BIN).astype(precise)
    ratio = to_float32(hz / A0_HZ).astype(precise)
    bin_ratio = _PEAK_BINS * HZ_PER_BIN / A0_HZ
    octaves = at_peak(np.log2(bin_ratio)) + _log2_ratio(ratio, at_peak(bin_ratio))
    semitones = 12 * to_float32(octaves)
    offset = semitones - jnp.floor(semitones)
    offset = jnp.where(offset < 0.5, offset, offset - 1).astype(precise)
    return strength, jnp.floor(offset * 100 + 50).astype(jnp.int32)


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

    bits = lax.fori_loop(np.int32(0), np.int32(31), try_bit, jnp.int32(0))
    return lax.bitcast_convert_type(bits, jnp.float32)


def _median_strength(strength: jax.Array, count: jax.Array) -> jax.Array:
    """Median of the `count` entries that are not -1; numpy's, halfway if it is even."""
    before = strength.size - count
    low = _order_statistic(strength, before + (count - 1) // 2)
    next_higher = jnp.where(strength > low, strength, jnp.inf).min()
    low_is_both = _count(strength <= low) > before + count // 2
    return (low + jnp.where(low_is_both, low, next_higher)) * 0.5


def _estimate_tuning(power: jax.Array, device: _Device) -> jax.Array:
    """(frames, 1025) to the index in TUNINGS of the most frequent tuning of peaks.

    The weaker half of the peaks is left out; without peaks, the tuning is A440's.
    Source: librosa.estimate_tuning.
    """
    strength, tuning = _peaks(power, device)
    count = _count(strength >= 0)
    counted = (strength >= _median_strength(strength, count)) & (strength >= 0)
    # The others are counted in a bin of their own, which is then cut off.
    votes = jnp.zeros(len(TUNINGS) + 1, jnp.int32)
    votes = votes.at[jnp.where(counted, tuning, len(TUNINGS))].add(1)[:-1]
    return jnp.where(count > 0, votes.argmax(), len(TUNINGS) // 2)


@_feature
def chroma(samples: jax.Array, device: _Device) -> jax.Array:
    """Energy of the twelve pitch classes, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.chroma_stft, its defaults.
    """
    power = _power_spectrum(samples, device)
    filters = jnp.asarray(chroma_filters())[_estimate_tuning(power, device)]
    return _unit_peak(_matmul(power, filters.T))


@jax.jit
@_batched
def estimate_tuning(samples: jax.Array, device: _Device) -> jax.Array:
    """(..., samples) to (...), the tuning that chroma takes, in semitones off A440."""
    index = _estimate_tuning(_power_spectrum(samples, device), device)
    return jnp.asarray(TUNINGS, jnp.float32)[index]


# Spectrogram, and the two that the paper argues against.


@_feature
def spectrogram(samples: jax.Array, device: _Device) -> jax.Array:
    """Power in dB re 1, uncentred frames that overlap by 128 samples.

    Source: paper section 2.1; librosa.stft(n_fft=2048, hop_length=1920, center=False).
    """
    power = _power_spectrum(samples, device, SPECTROGRAM_HOP_LENGTH, centered=False)
    return _decibels(power)


@_feature
def mel(samples: jax.Array, device: _Device) -> jax.Array:
    """Power in mel bands, in dB re 1.

    Source: librosa.feature.melspectrogram, its defaults, in dB without top_db.
    """
    return _decibels(_mel_power(_power_spectrum(samples, device)))


@_feature
def mfcc(samples: jax.Array, device: _Device) -> jax.Array:
    """Mel-frequency cepstral coefficients: the first terms of the mel bands' DCT.

    Source: librosa.feature.mfcc(S=mel, n_mfcc=20).
    """
    mel_db = _decibels(_mel_power(_power_spectrum(samples, device)))
    return _matmul(mel_db, dct_matrix().T)


# Loudness.


@_feature
def loudness(samples: jax.Array, device: _Device) -> jax.Array:
    """Momentary loudness, in all and by band, and how it moves within its 400 ms.

    Three rows for the total and for each of ten bands, every 100 ms:

    * loudness in LUFS: a full-scale sine of 997 Hz reads -3.01.
    * deviation in dB: standard deviation of the levels of the block's 20 frames.
    * peak in dB: the loudest frame's level over the block's.

    Source: ITU-R BS.1770-5, annex 1, up to its gating, which is left out: a block's
    loudness is what EBU Tech 3341 calls momentary. The simplifications are these.

    * One channel. The standard adds the powers of channels: two equal ones read 3.01 LU
      more than their mean, which enters here.
    * What lies above 11 025 Hz is not there to count.
    * The K-weighting multiplies spectra instead of filtering samples. Tones from 35 Hz
      up are right to 0.05 LU; below, where it takes 7 dB and more, they read too high,
      by 0.4 LU at 25 Hz and 2 LU at 15 Hz. Over 50 real clips, that and the filters'
      delay put the worst block off by 0.46 LU, and the worst clip's mean by 0.12.
    * The squared windows of a block's frames add up to 400 ms, with soft edges of 93 ms
      where the standard's are sharp.
    """
    count = _num_frames(
        samples.size, LOUDNESS_HOP_LENGTH, centered=False, window=LOUDNESS_BLOCK_SAMPLES
    )
    power = _power_spectrum(samples, device, LOUDNESS_FRAME_HOP_LENGTH, centered=False)
    mean_square = jnp.maximum(_matmul(power, loudness_filters().T), AMIN)

    starts = np.arange(count, dtype=np.int32) * LOUDNESS_HOP_FRAMES
    within = np.arange(LOUDNESS_BLOCK_FRAMES, dtype=np.int32)
    block = mean_square[starts[:, None] + within]  # (blocks, frames, bands)
    mean = block.mean(axis=1)
    deviation = _decibels(block).std(axis=1)
    peak = 10 * jnp.log10(block.max(axis=1) / mean)
    return jnp.concatenate([_decibels(mean) + _LUFS_OFFSET_DB, deviation, peak], axis=1)


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


def _loudness_rows() -> list[str]:
    edges = LOUDNESS_EDGES_HZ
    bands = [f"{low}-{high} Hz" for low, high in itertools.pairwise(edges)]
    kinds = ("loudness", "deviation", "peak")
    return [f"{kind}, {band}" for kind in kinds for band in ["total", *bands]]


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
            level=np.zeros(TEMPOGRAM_WINDOW),
        ),
        Feature(
            "chroma",
            chroma,
            _params(tuning="estimated per segment"),
            Axis("Pitch class", "pitch class", np.array(PITCH_CLASSES)),
            "energy (1 at the strongest)",
            level=np.zeros(len(PITCH_CLASSES)),
        ),
        Feature(
            "spectrogram",
            spectrogram,
            _params(SPECTROGRAM_HOP_LENGTH, centered=False, amin=AMIN),
            Axis("Frequency", "Hz", np.arange(N_FFT // 2 + 1) * HZ_PER_BIN),
            "power (dB)",
            level=np.ones(N_FFT // 2 + 1),
        ),
        Feature(
            "mel",
            mel,
            _params(mel_bands=MEL_BANDS, amin=AMIN),
            Axis("Frequency", "Hz", mel_frequencies_hz()[1:-1]),
            "power (dB)",
            level=np.ones(MEL_BANDS),
        ),
        Feature(
            "mfcc",
            mfcc,
            _params(mel_bands=MEL_BANDS, amin=AMIN, coefficients=MFCC_COEFFICIENTS),
            Axis("Coefficient", "", np.arange(MFCC_COEFFICIENTS)),
            "cepstral coefficient (dB)",
            # The first one is the sum of the bands' levels over their number's root.
            level=math.sqrt(MEL_BANDS) * np.eye(MFCC_COEFFICIENTS)[0],
        ),
        Feature(
            "loudness",
            loudness,
            _params(
                LOUDNESS_HOP_LENGTH,
                centered=False,
                block_samples=LOUDNESS_BLOCK_SAMPLES,
                frame_hop_length=LOUDNESS_FRAME_HOP_LENGTH,
                weighting="K, ITU-R BS.1770-5",
                band_edges_hz=list(LOUDNESS_EDGES_HZ),
                amin=AMIN,
            ),
            Axis("Statistic by band", "", np.array(_loudness_rows())),
            "loudness (LUFS), deviation and peak (dB)",
            level=np.repeat([1.0, 0.0, 0.0], len(LOUDNESS_EDGES_HZ)),
        ),
    )
}
