"""Samples to power spectra, and what else the features share.

The samples of one segment enter, (samples,); spectra leave, (frames, bins), float32.
`batched` makes a function of a batch out of what works on one segment. features and
tuning call it.

librosa computes its FFT in float64 and rounds the result. A float32 FFT is off by
about 1e-7 of the frame's strongest bin: on real audio 1 to 3 bins in 1000, all 90 dB
or more below that one, then miss librosa's level by 0.05 to 4 dB. So spectra are
computed in float64 here as well. TPUs have no float64 FFT and make do with float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from mgr_jax.filterbanks import N_FFT, hann_window, mel_filters

HOP_LENGTH = 512  # tempogram, chroma, mel, mfcc; paper section 2.1

AMIN = 1e-10  # power below it counts as it: -100 dB

# Pairs of frames in a turn of a loop: as many as a core transforms at a time.
_PAIRS_AT_ONCE = 4
# Of the strongest power of the frame beside it, what may be nothing but roundings.
_ROUNDINGS = 1e-25


class Device(NamedTuple):
    """What a kind of device is good at.

    Attributes:
      precise: dtype for what librosa computes in float64; that, where FFTs have it.
      frames_at_once: how many frames a loop computes at a time; None for no loops. With
        loops, spectra are computed in pairs.
    """

    precise: DTypeLike
    frames_at_once: int | None


# XLA does not carry arithmetic across the end of a loop: without one, it would repeat a
# spectrum's in every place that reads it, and take twice as long for chroma. What is
# computed in a turn stays in a core's cache until it is used.
_CPU = Device(jnp.float64, frames_at_once=72)
_GPU = Device(jnp.float64, frames_at_once=None)
_TPU = Device(jnp.float32, frames_at_once=None)


class Segment:
    """One segment while a function of it is compiled, and what spectra it has so far.

    Features that are computed together share these. XLA would not: it does not see that
    two loops do the same.

    Attributes:
      samples: float32 (samples,).
      device: what it runs on.
    """

    def __init__(self, samples: jax.Array, device: Device):
        """Begins without spectra."""
        self.samples, self.device = samples, device
        self._powers: dict[tuple[int, bool], jax.Array] = {}
        self._silent: jax.Array | None = None

    def power(self, hop_length: int = HOP_LENGTH, centered: bool = True) -> jax.Array:
        """(frames, 1025), as `power_spectrum` gives it."""
        kind = hop_length, centered
        if kind not in self._powers:
            self._powers[kind] = power_spectrum(self.samples, self.device, *kind)
        return self._powers[kind]

    def silent(self) -> jax.Array:
        """(frames,), whether a frame of `power()` holds nothing but roundings."""
        if self._silent is None:
            self._silent = _silent(self.power())
        return self._silent


def batched(fn: Callable[[Segment], Any]):
    """Makes a function of one segment one of a batch.

    Args:
      fn: a segment to an array, or to a tree of arrays.

    Returns:
      (..., samples) to (..., *shape of that array). It may be mapped with jax.vmap.
    """

    def in_turn(samples):
        if samples.shape[0] == 1:  # without a loop, there is one less to start
            return jax.tree.map(lambda x: x[None], fn(Segment(samples[0], _CPU)))
        return lax.map(lambda one: fn(Segment(one, _CPU)), samples)

    def at_once(device, samples):
        return jax.vmap(lambda one: fn(Segment(one, device)))(samples)

    @jax.custom_batching.custom_vmap
    def of_batch(samples: jax.Array) -> jax.Array:
        samples = jnp.asarray(samples, jnp.float32)
        batch = samples.shape[:-1]
        # The device is known only when the function is compiled, or exported for one.
        values = lax.platform_dependent(
            samples.reshape(math.prod(batch), samples.shape[-1]),
            cpu=in_turn,
            tpu=functools.partial(at_once, _TPU),
            default=functools.partial(at_once, _GPU),
        )
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), values)

    @of_batch.def_vmap
    def _(axis_size, in_batched, samples):
        # jax.vmap's own way would lose float64: it rewrites what was traced inside
        # `allow_float64` when that is left.
        values = of_batch(samples)
        return values, jax.tree.map(lambda _: True, values)

    return functools.wraps(fn)(of_batch)


def allow_float64(fn):
    """Lets `fn` compute in float64, which JAX otherwise turns into float32.

    Only floats are made inside: integers without a type would be 64 bits wide there,
    and JAX could not lower all that was made of those once it was back outside.
    """

    @functools.wraps(fn)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return fn(*args, **kwargs)

    return wrapped


def of_frames(fn: Callable[[Any], Any], frames: Any, device: Device) -> Any:
    """What `fn` makes of each frame, stacked: a part of them at a time on a CPU.

    There, a loop's results are arrays, while XLA may compute others again wherever they
    are read; and it copies what a loop slices, but gathers number by number.

    Args:
      fn: of one frame, to an array or a tree of arrays.
      frames: (frames, ...), or where each starts, or a tree of these.
      device: what it runs on.
    """
    if device.frames_at_once is None:
        return jax.vmap(fn)(frames)
    return lax.map(fn, frames, batch_size=device.frames_at_once)


def num_frames(
    num_samples: int, hop_length: int, centered: bool, window: int = N_FFT
) -> int:
    """How many frames there are in a segment.

    Args:
      num_samples: length of the segment.
      hop_length: samples from one frame to the next.
      centered: whether zeros at both ends let a frame be centred on any sample.
      window: samples that a frame spans.

    Raises:
      ValueError: there is not enough for one frame.
    """
    shortest = 1 if centered else window
    if num_samples < shortest:
        raise ValueError(f"{num_samples} samples are too few: need {shortest} or more")
    return 1 + (num_samples - (0 if centered else window)) // hop_length


def power_spectrum(
    samples: jax.Array, device: Device, hop_length: int = HOP_LENGTH, centered=True
) -> jax.Array:
    """(samples,) to (frames, 1025), the squared magnitude of the STFT, float32.

    Source: np.abs(librosa.stft(samples, ...)) ** 2.

    Args:
      samples: float32.
      device: what it runs on.
      hop_length: samples from one frame to the next.
      centered: frame t is centred on sample t * hop_length rather than starting there.
    """
    count = num_frames(samples.size, hop_length, centered)
    edge = jnp.zeros(N_FFT // 2 if centered else 0, jnp.float32)
    padded = jnp.concatenate([edge, samples, edge])
    starts = np.arange(count, dtype=np.int32) * hop_length

    @allow_float64
    def windowed(start):
        frame = lax.dynamic_slice(padded, (start,), (N_FFT,)).astype(device.precise)
        return frame * hann_window(N_FFT).astype(device.precise)

    @allow_float64
    def of_one(start):
        spectrum = jnp.fft.rfft(windowed(start))
        return _power(spectrum.real, spectrum.imag)

    @allow_float64
    def of_two(starts):
        return _powers_of_two(windowed(starts[0]), windowed(starts[1]))

    if device.frames_at_once is None:
        return jax.vmap(of_one)(starts)
    return _in_pairs(of_two, of_one, starts)


def _power(real: jax.Array, imag: jax.Array) -> jax.Array:
    """Squared magnitude in float32, through numpy's of a complex64, roundings included.

    The spectrum of a click is flat: only the roundings give it the peaks that its
    tuning is read from.
    """
    precise = real.dtype
    real, imag = jnp.abs(real.astype(jnp.float32)), jnp.abs(imag.astype(jnp.float32))
    # By comparing: jnp.maximum takes more operations, to let NaN pass. It passes here
    # as well, through the ratio.
    larger = jnp.where(real > imag, real, imag)
    smaller = jnp.where(real > imag, imag, real)
    ratio = (smaller / jnp.where(larger > 0, larger, 1)).astype(precise)
    magnitude = larger * jnp.sqrt((1 + ratio * ratio).astype(jnp.float32))
    return magnitude * magnitude


def _powers_of_two(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Power of two frames, (N_FFT,) each, by one transform instead of two real ones.

    They are its real and its imaginary part. In the spectrum of a real frame, a bin is
    the conjugate of its mirror image: half their sum is the first's, half their
    difference the second's. A frame leaves roundings in the other, see `_silent`; and
    NaN, if it has any.

    Returns:
      (2, 1) of bin 0, which is its own image, and (2, 1024) of the others, float32.
    """
    both = jnp.fft.fft(lax.complex(first / 2, second / 2))
    bins, images = both[1 : N_FFT // 2 + 1], both[N_FFT // 2 :][::-1]
    sign = np.array([[1.0], [-1.0]])
    others = _power(bins.real + sign * images.real, bins.imag - sign * images.imag)
    lowest = 2 * jnp.stack([both.real[:1], both.imag[:1]])
    return _power(lowest, jnp.zeros_like(lowest)), others


def _in_pairs(
    of_two: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    of_one: Callable[[Any], jax.Array],
    starts: np.ndarray,
) -> jax.Array:
    """(frames, 1025), of two frames at a time, and some pairs in each turn of a loop.

    Args:
      of_two: where two frames start, (2,), to what `_powers_of_two` gives of them.
      of_one: where the last of an odd number starts, to its (1025,).
      starts: (frames,), where each starts.
    """
    pairs, odd = divmod(len(starts), 2)
    paired = starts[: 2 * pairs].reshape(pairs, 2)
    at_once = min(_PAIRS_AT_ONCE, pairs)

    def in_turn(turn, power):
        first = jnp.minimum(turn * at_once, pairs - at_once)
        some = lax.dynamic_slice(paired, (first, 0), (at_once, 2))
        lowest, others = (x.reshape(2 * at_once, -1) for x in jax.vmap(of_two)(some))
        # Each to its place: joined first, they would be copied once more.
        power = lax.dynamic_update_slice(power, others, (2 * first, 1))
        return lax.dynamic_update_slice(power, lowest, (2 * first, 0))

    power = jnp.zeros((len(starts), N_FFT // 2 + 1), jnp.float32)
    if pairs:
        power = lax.fori_loop(0, -(-pairs // at_once), in_turn, power)
    if odd:
        power = power.at[-1].set(of_one(starts[-1]))
    return power


def _silent(power: jax.Array) -> jax.Array:
    """(frames, 1025) to (frames,), see `Segment.silent`.

    Frames that are transformed together leave roundings in each other, 300 dB below
    themselves: where one is silent, a faint spectrum. No recording falls or rises as
    far from one frame to the next.
    """
    strongest = power.max(axis=1)
    around = jnp.pad(strongest, 1)
    beside = jnp.maximum(around[:-2], around[2:])
    # What is NaN is not silent; on a CPU, the greatest of NaN is -inf.
    return (strongest >= 0) & (strongest <= _ROUNDINGS * beside)


def decibels(power: jax.Array) -> jax.Array:
    """Power in dB re 1; librosa.power_to_db(power, top_db=None)."""
    return 10 * jnp.log10(jnp.maximum(power, AMIN))


def matmul(a: Any, b: jax.Array) -> jax.Array:
    """Matrix product of float32, to float32's precision on every kind of device."""
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


def mel_power(power: jax.Array) -> jax.Array:
    """Power spectrum to power in mel bands: (frames, 1025) to (frames, MEL_BANDS)."""
    groups = [
        matmul(power[:, bins], filters.T) for bins, filters in _mel_filters_in_groups()
    ]
    return jnp.concatenate(groups, axis=1)
