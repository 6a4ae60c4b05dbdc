"""Spectra to tuning: how far a segment's notes lie off A440, as librosa estimates it.

A segment enters, or the samples of several; the tuning leaves, as an index in TUNINGS
or in semitones. features calls it, for chroma.

The tuning is the fullest of 100 bins of a histogram, so a single peak that falls on
the other side of an edge can change every number of chroma. So it is rounded to float32
where librosa does that, and nowhere else.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mgr_jax.filterbanks import A0_HZ, HZ_PER_BIN, TUNINGS
from mgr_jax.spectra import Device, Segment, allow_float64, batched, of_frames

_PEAK_BINS = np.arange(14, 372).reshape(-1, 2).T  # from 150 to 4000 Hz, in pairs
_PEAK_THRESHOLD = 0.1  # of the frame's strongest bin
_ROWS_AT_ONCE = 8


@jax.jit
@batched
def estimate_tuning(segment: Segment) -> jax.Array:
    """(..., samples) to (...), the tuning that chroma takes, in semitones off A440."""
    return jnp.asarray(TUNINGS, jnp.float32)[tuning_index(segment)]


def tuning_index(segment: Segment) -> jax.Array:
    """The index in TUNINGS of the most frequent tuning of a segment's peaks.

    The weaker half of the peaks is left out; without peaks, the tuning is A440's.
    Source: librosa.estimate_tuning.
    """
    power, device = segment.power(), segment.device
    threshold = _PEAK_THRESHOLD * power.max(axis=1)
    threshold = jnp.where(segment.silent(), jnp.inf, threshold)
    strength, shift, in_lower = _peaks(power, threshold, device)
    # Were it not a loop of its own, XLA would compute it pair by pair as it counts.
    tuning = of_frames(
        lambda peaks: _tuning_of_peaks(*peaks, device), (shift, in_lower), device
    )
    count = _count(strength >= 0)
    counted = (strength >= _median_strength(strength, count)) & (strength >= 0)
    # The others are counted beyond, each column in a bin of its own, for two additions
    # to one bin wait for each other.
    beyond = len(TUNINGS) + np.arange(counted.shape[1], dtype=np.int32)
    votes = jnp.zeros(len(TUNINGS) + len(beyond), jnp.int32)
    votes = votes.at[jnp.where(counted, tuning, beyond)].add(1)[: len(TUNINGS)]
    return jnp.where(count > 0, votes.argmax(), len(TUNINGS) // 2)


def _find_peaks(power: jax.Array, threshold: jax.Array) -> tuple[jax.Array, ...]:
    """Local maxima from 150 to 4000 Hz. Source: librosa.piptrack.

    Two neighbouring bins cannot both be maxima, so they share a column.

    Args:
      power: (frames, 1025).
      threshold: (frames,), what peaks are above.

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
    threshold = threshold[:, None]
    in_lower = (lower > threshold) & (lower > far_below) & (lower >= upper)
    in_upper = (upper > threshold) & (upper > lower) & (upper >= far_above)
    below = jnp.where(in_lower, far_below, lower)
    peak = jnp.where(in_lower, lower, upper)
    above = jnp.where(in_lower, upper, far_above)
    return in_lower | in_upper, in_lower, below, peak, above


@allow_float64
def _peaks(
    power: jax.Array, threshold: jax.Array, device: Device
) -> tuple[jax.Array, ...]:
    """Spectral peaks at the top of parabolas through their three bins.

    Source: librosa.piptrack.

    Args:
      power: (frames, 1025).
      threshold: (frames,), see `_find_peaks`.
      device: what it runs on.

    Returns:
      (frames, pairs) each:
      strength: power at the parabola's top; -1 where there is no peak.
      shift: how many bins above the maximum that top is.
      in_lower: whether the maximum is the lower one of the pair.
    """
    precise = device.precise
    is_peak, in_lower, below, peak, above = _find_peaks(power, threshold)
    slope = (above - below).astype(precise) / 2
    curvature = (above + below).astype(precise) - 2 * peak.astype(precise)
    shift = jnp.where(jnp.abs(slope) < jnp.abs(curvature), -slope / curvature, 0)
    shift = _to_float32(shift)
    height = _to_float32(slope / 2 * shift.astype(precise))
    return jnp.where(is_peak, peak + height, -1), shift, in_lower


@allow_float64
def _tuning_of_peaks(
    shift: jax.Array, in_lower: jax.Array, device: Device
) -> jax.Array:
    """(pairs,) of a frame, as `_peaks` has them, to int32 indices in TUNINGS.

    Source: librosa.pitch_tuning.
    """
    precise = device.precise

    def at_peak(of_bins):  # (2, pairs) to (pairs,)
        return jnp.where(in_lower, *of_bins.astype(precise))

    bins = at_peak(_PEAK_BINS) + shift.astype(precise)
    hz = _to_float32(bins * HZ_PER_BIN).astype(precise)
    ratio = _to_float32(hz / A0_HZ).astype(precise)
    bin_ratio = _PEAK_BINS * HZ_PER_BIN / A0_HZ
    octaves = at_peak(np.log2(bin_ratio)) + _log2_ratio(ratio, at_peak(bin_ratio))
    semitones = 12 * _to_float32(octaves)
    offset = semitones - jnp.floor(semitones)
    offset = jnp.where(offset < 0.5, offset, offset - 1).astype(precise)
    return jnp.floor(offset * 100 + 50).astype(jnp.int32)


def _to_float32(x: jax.Array) -> jax.Array:
    """Stands wherever librosa stores a float32, and nowhere else."""
    return x.astype(jnp.float32)


def _log2_ratio(x: jax.Array, near: jax.Array) -> jax.Array:
    """log2(x / near) for x within a tenth of `near`, exact to 1e-12.

    The first terms of the series of artanh: XLA's own log in float64 is a call for each
    number, several times slower.
    """
    t = (x - near) / (x + near)
    t2 = t * t
    series = 1 + t2 * (1 / 3 + t2 * (1 / 5 + t2 * (1 / 7 + t2 / 9)))
    return t * series * (2 / math.log(2))


def _median_strength(strength: jax.Array, count: jax.Array) -> jax.Array:
    """Median of the `count` entries that are not -1; numpy's, halfway if it is even."""
    before = strength.size - count
    low, up_to_low = _order_statistic(strength, before, before + (count - 1) // 2)
    next_higher = jnp.where(strength > low, strength, jnp.inf).min()
    low_is_both = up_to_low > before + count // 2
    return (low + jnp.where(low_is_both, low, next_higher)) * 0.5


def _order_statistic(
    values: jax.Array, before: jax.Array, rank: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The value that has `rank` smaller ones, and how many are not greater than it.

    Of the values, `before` are negative, and the others, of which it is one, positive.
    The bits of a positive float sort as the float does. So the value is sought between
    the bits of the least and of the greatest, by counting what is smaller than a guess,
    until no other is in reach. Guesses by proportion and halving take turns: the first
    are often close, the second bound the number of both. A sort of 40 000 numbers takes
    twenty times as long.
    """

    def is_open(state):
        _, low, high, below_low, below_high = state
        return (below_high - below_low > 1) & (high - low > 1)

    def narrow(state):
        halve, low, high, below_low, below_high = state
        share = (rank - below_low + 0.5) / (below_high - below_low)
        guess = low + ((high - low) * jnp.where(halve, 0.5, share)).astype(jnp.int32)
        guess = jnp.clip(guess, low + 1, high - 1)
        count = _count(values < lax.bitcast_convert_type(guess, jnp.float32))
        fits = count <= rank
        return (
            ~halve,
            jnp.where(fits, guess, low),
            jnp.where(fits, high, guess),
            jnp.where(fits, count, below_low),
            jnp.where(fits, below_high, count),
        )

    def bits(value):
        return lax.bitcast_convert_type(value, jnp.int32)

    least = jnp.where(values > 0, values, jnp.inf).min()
    size = jnp.int32(values.size)
    start = (jnp.bool_(False), bits(least), bits(values.max()) + 1, before, size)
    # All that is from `low` to below `high` is one value.
    _, low, _, _, below_high = lax.while_loop(is_open, narrow, start)
    found = lax.bitcast_convert_type(low, jnp.float32)
    return jnp.where(values >= found, values, jnp.inf).min(), below_high


def _count(mask: jax.Array) -> jax.Array:
    """How many are True, of (rows, columns)."""
    # XLA makes one loop of a comparison and a sum of a few rows. For a sum of all rows,
    # it would first write the mask to memory.
    ones = mask.astype(jnp.int32)
    rows = len(ones) // _ROWS_AT_ONCE
    parts = [ones[k * rows : (k + 1) * rows] for k in range(_ROWS_AT_ONCE)]
    return sum(parts).sum() + ones[_ROWS_AT_ONCE * rows :].sum()
