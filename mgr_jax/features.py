"""Samples to features: the paper's three, the two that it argues against, loudness.

Segments at 22 050 Hz enter, (..., samples); pictures leave, (..., bins, frames), both
float32. FEATURES maps a name to its function, its parameters and its axes; prepare and
predict compute with it, figures draw with it. The functions are pure JAX and import
neither librosa nor TensorFlow, so that they run on a bare accelerator machine. librosa
is their judge: the tests hold them equal to it, chroma's tuning estimate included.
loudness, which librosa does not have, is judged by its standard's filters. What makes
that hold to the last digit stands in spectra and in tuning.
"""

import dataclasses
import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES
from mgr_jax.filterbanks import (
    HZ_PER_BIN,
    LOUDNESS_EDGES_HZ,
    MEL_BANDS,
    MFCC_COEFFICIENTS,
    N_FFT,
    chroma_filters,
    dct_matrix,
    hann_window,
    loudness_filters,
    mel_filters,
    mel_frequencies_hz,
)
from mgr_jax.spectra import (
    AMIN,
    HOP_LENGTH,
    Segment,
    batched,
    decibels,
    matmul,
    mel_power,
    num_frames,
    of_frames,
)
from mgr_jax.tuning import tuning_index

SPECTROGRAM_HOP_LENGTH = N_FFT - 128  # frames overlap by 128; paper section 2.1
TEMPOGRAM_WINDOW = 384
LOUDNESS_FRAME_HOP_LENGTH = SAMPLE_RATE_HZ // 50  # 20 ms
LOUDNESS_BLOCK_FRAMES = 20  # 400 ms
LOUDNESS_HOP_FRAMES = 5  # 100 ms
LOUDNESS_HOP_LENGTH = LOUDNESS_HOP_FRAMES * LOUDNESS_FRAME_HOP_LENGTH
LOUDNESS_BLOCK_SAMPLES = N_FFT + (LOUDNESS_BLOCK_FRAMES - 1) * LOUDNESS_FRAME_HOP_LENGTH
PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
ONSET_TOP_DB = 80
_ONSET_FLOOR = 10 ** (-ONSET_TOP_DB / 10)
_LUFS_OFFSET_DB = -0.691  # the standard's: cancels the K-weighting's gain at 997 Hz
_TINY = np.finfo(np.float32).tiny

# What a model is shown of powers. What is quieter, 90 dB and more below a full-scale
# tone, tells the number of bits of a file, and its codec, more than its music.
QUIETEST_DB = -40.0
QUIETEST_LUFS = -70.0  # the standard's absolute gate
# What is higher may be cut off where a file had another sampling rate: soxr's HQ keeps
# 91 % of the band. Recordings at 22 050 Hz would be told from all others by it.
HIGHEST_HZ = 10_000


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


@dataclasses.dataclass(frozen=True, eq=False)
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
      floor: what AMIN makes the least value of a bin with a level; -inf where it does
        not show in a single bin.
      least, most: (bins,) or one for all: what `heard` holds a bin's numbers to.
    """

    name: str
    fn: Callable[[jax.Array], jax.Array]
    params: Mapping[str, Any]
    axis: Axis
    value_label: str
    level: np.ndarray
    floor: float = -math.inf
    least: np.ndarray | float = -math.inf
    most: np.ndarray | float = math.inf

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
        return self.bins, num_frames(num_samples, self.hop_length, centered, window)

    def heard(self, values: Any) -> Any:
        """What a model is shown of a feature: the same recording, whatever its file.

        Args:
          values: (..., bins, frames), an array of numpy or JAX, of any float type.

        Returns:
          The same, float32, each bin held to its `least` and its `most`.
        """
        least, most = (
            np.reshape(np.float32(bound), (-1, 1)) for bound in (self.least, self.most)
        )
        return values.astype(np.float32).clip(least, most)

    @property
    def hearing(self) -> list[float]:
        """The bounds of `heard` in short, to be kept with what is trained on it."""
        least = np.ravel(self.least)
        held = least[np.isfinite(least)]
        if not held.size:
            return []
        return [float(held.min()), int(np.sum(self.most > self.least))]


def _over(x: jax.Array, peak: jax.Array) -> jax.Array:
    """Rows over their largest magnitude, or as they are; librosa.util.normalize."""
    return x / jnp.where(peak < _TINY, 1, peak)


def _feature(fn: Callable[[Segment], jax.Array]):
    """Makes `fn` of one segment, to (frames, bins), a Feature's `fn`."""
    return jax.jit(functools.wraps(fn)(_of_batch(fn)))


def _of_batch(fn: Callable[[Segment], Any]) -> Callable[[jax.Array], Any]:
    of_batch = batched(fn)

    def features(samples: jax.Array) -> Any:
        # FFTs and matrix products want frames first, a picture wants bins first.
        return jax.tree.map(lambda x: x.swapaxes(-1, -2), of_batch(samples))

    return features


# Tempogram.


def _onset_strength(segment: Segment) -> jax.Array:
    """(samples,) to (frames,), the mean rise over mel bands, in dB a frame.

    Source: librosa.onset.onset_strength, its defaults.
    """
    power = mel_power(segment.power())
    # Of each frame first: of all at once, XLA would look through groups of bands.
    greatest = power.max(axis=1).max()
    power = jnp.maximum(power, jnp.maximum(greatest * _ONSET_FLOOR, AMIN))
    # A rise in dB is a ratio of powers. In a steady tone it is smaller than the
    # roundings of the two levels, of which it would be the difference.
    rise = 10 * jnp.log10(power[1:] / power[:-1])
    rise = _sum_of_bands(jnp.maximum(rise, 0)) / MEL_BANDS
    # One frame for the difference, and half a spectrum's frames to centre it.
    late = 1 + N_FFT // (2 * HOP_LENGTH)
    return jnp.pad(rise, (late, 0))[: len(power)]


def _sum_of_bands(x: jax.Array) -> jax.Array:
    """(frames, bands) to (frames,), in one order; `bands` is a power of two.

    XLA chooses a sum's order by what else it compiles: a feature that is computed alone
    would differ from the same among others.
    """
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        x = x[:, :half] + x[:, half:]
    return x[:, 0]


@_feature
def tempogram(segment: Segment) -> jax.Array:
    """Local autocorrelation of onset strength, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.tempogram, its defaults.
    """
    onsets = _onset_strength(segment)
    half = TEMPOGRAM_WINDOW // 2
    ramp = np.linspace(0, 1, half, endpoint=False, dtype=np.float32)
    padded = jnp.concatenate([onsets[0] * ramp, onsets, onsets[-1] * ramp[::-1]])
    window = hann_window(TEMPOGRAM_WINDOW).astype(np.float32)

    stretches = of_frames(
        lambda start: lax.dynamic_slice(padded, (start,), (TEMPOGRAM_WINDOW,)),
        np.arange(len(onsets), dtype=np.int32),
        segment.device,
    )
    # Twice the window keeps the end of it from wrapping round to its start.
    spectrum = jnp.fft.rfft(stretches * window, 2 * TEMPOGRAM_WINDOW)
    energy = spectrum.real**2 + spectrum.imag**2
    # Of real numbers that mirror themselves, the transform is its own inverse but for a
    # factor, and takes two thirds of the time of the inverse.
    mirrored = jnp.concatenate([energy, energy[:, -2:0:-1]], axis=1)
    autocorrelation = jnp.fft.rfft(mirrored).real[:, :TEMPOGRAM_WINDOW]
    # By Cauchy and Schwarz, its largest is at lag 0.
    return _over(autocorrelation, autocorrelation[:, :1])


@_feature
def chroma(segment: Segment) -> jax.Array:
    """Energy of the twelve pitch classes, each frame's largest scaled to 1.

    Source: paper section 2.1; librosa.feature.chroma_stft, its defaults.
    """
    # XLA multiplies by sixteen columns sooner than by twelve.
    none = 16 - len(PITCH_CLASSES)
    filters = np.pad(chroma_filters(), ((0, 0), (0, none), (0, 0)))
    filters = jnp.asarray(filters)[tuning_index(segment)]
    energy = matmul(segment.power(), filters.T)[:, : len(PITCH_CLASSES)]
    energy = jnp.where(segment.silent()[:, None], 0, energy)
    return _over(energy, energy.max(axis=1, keepdims=True))


# Spectrogram, and the two that the paper argues against.


@_feature
def spectrogram(segment: Segment) -> jax.Array:
    """Power in dB re 1, uncentred frames that overlap by 128 samples.

    Source: paper section 2.1; librosa.stft(n_fft=2048, hop_length=1920, center=False).
    """
    power = segment.power(SPECTROGRAM_HOP_LENGTH, centered=False)
    return decibels(power)


@_feature
def mel(segment: Segment) -> jax.Array:
    """Power in mel bands, in dB re 1.

    Source: librosa.feature.melspectrogram, its defaults, in dB without top_db.
    """
    return decibels(mel_power(segment.power()))


@_feature
def mfcc(segment: Segment) -> jax.Array:
    """Mel-frequency cepstral coefficients: the first terms of the mel bands' DCT.

    Source: librosa.feature.mfcc(S=mel, n_mfcc=20).
    """
    mel_db = decibels(mel_power(segment.power()))
    return matmul(mel_db, dct_matrix().T)


# Loudness.


@_feature
def loudness(segment: Segment) -> jax.Array:
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
    count = num_frames(
        segment.samples.size,
        LOUDNESS_HOP_LENGTH,
        centered=False,
        window=LOUDNESS_BLOCK_SAMPLES,
    )
    power = segment.power(LOUDNESS_FRAME_HOP_LENGTH, centered=False)
    mean_square = jnp.maximum(matmul(power, loudness_filters().T), AMIN)

    starts = np.arange(count, dtype=np.int32) * LOUDNESS_HOP_FRAMES
    within = np.arange(LOUDNESS_BLOCK_FRAMES, dtype=np.int32)
    block = mean_square[starts[:, None] + within]  # (blocks, frames, bands)
    mean = block.mean(axis=1)
    deviation = decibels(block).std(axis=1)
    peak = 10 * jnp.log10(block.max(axis=1) / mean)
    return jnp.concatenate([decibels(mean) + _LUFS_OFFSET_DB, deviation, peak], axis=1)


# The registry: a new feature is one function above, one entry here, a name in config.


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


_FLOOR_DB = 10 * math.log10(AMIN)
_BINS_HZ = np.arange(N_FFT // 2 + 1) * HZ_PER_BIN
# Quietest powers in a band: as if its spectrum's bins had QUIETEST_DB each.
_QUIETEST_MEL_DB = QUIETEST_DB + 10 * np.log10(mel_filters().sum(axis=1))
_MEL_HIGHEST_HZ = mel_frequencies_hz()[2:]
_LOUDNESS_LEVEL = np.repeat([1.0, 0.0, 0.0], len(LOUDNESS_EDGES_HZ))


def _most(least: np.ndarray, highest_hz: np.ndarray) -> np.ndarray:
    return np.where(highest_hz > HIGHEST_HZ, least, np.inf)


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
            Axis("Frequency", "Hz", _BINS_HZ),
            "power (dB)",
            level=np.ones(len(_BINS_HZ)),
            floor=_FLOOR_DB,
            least=np.full(len(_BINS_HZ), QUIETEST_DB),
            most=_most(QUIETEST_DB, _BINS_HZ),
        ),
        Feature(
            "mel",
            mel,
            _params(mel_bands=MEL_BANDS, amin=AMIN),
            Axis("Frequency", "Hz", mel_frequencies_hz()[1:-1]),
            "power (dB)",
            level=np.ones(MEL_BANDS),
            floor=_FLOOR_DB,
            least=_QUIETEST_MEL_DB,
            most=_most(_QUIETEST_MEL_DB, _MEL_HIGHEST_HZ),
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
            level=_LOUDNESS_LEVEL,
            floor=_FLOOR_DB + _LUFS_OFFSET_DB,
            least=np.where(_LOUDNESS_LEVEL > 0, QUIETEST_LUFS, -np.inf),
        ),
    )
}


def together(
    names: Sequence[str], finish: Callable[[jax.Array], Any] = lambda values: values
) -> Callable[[jax.Array], dict[str, Any]]:
    """Several features as one function, which computes what they share once.

    Args:
      names: of FEATURES.
      finish: what is made of a segment's (frames, bins) while a core has them at hand:
        arrays of two axes, which are swapped in the end as those are.

    Returns:
      (..., samples) to a dict of name to (..., bins, frames), jitted and batched: what
      each feature's `fn` gives, to the last roundings of float32, and finished.
    """
    of_segment = {name: inspect.unwrap(FEATURES[name].fn) for name in names}

    def all_of(segment: Segment) -> dict[str, Any]:
        return {name: finish(fn(segment)) for name, fn in of_segment.items()}

    return jax.jit(_of_batch(all_of))
