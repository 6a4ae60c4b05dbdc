"""Loudness against the standard's filters in the time domain, and known answers."""

import fractions
import pathlib

import jax
import numpy as np
import pytest
import scipy.signal

from mgr_jax import audio, figures, filterbanks
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES
from mgr_jax.features import FEATURES

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
LOUDNESS = FEATURES["loudness"]
ROWS = list(LOUDNESS.axis.values)
STANDARD_HZ = 48_000
# ITU-R BS.1770-5, annex 1, tables 1 and 2: b, then a.
HEAD = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1]
HEAD += [-1.69065929318241, 0.73248077421585]
HIGH_PASS = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
BANDS = len(filterbanks.LOUDNESS_EDGES_HZ) - 1


def loudness(samples):
    """(samples,) to (kinds, total and bands, blocks)."""
    value = np.asarray(LOUDNESS.fn(np.asarray(samples, np.float32)))
    return value.reshape(3, 1 + BANDS, -1)


def sine(hz, rate_hz=SAMPLE_RATE_HZ, seconds=5):
    return np.sin(2 * np.pi * hz * np.arange(rate_hz * seconds) / rate_hz)


def noise(rate_hz, low_hz, high_hz, seed=0):
    """Five seconds of one and the same noise, at whatever rate."""
    rng = np.random.default_rng(seed)
    spectrum = np.zeros(5 * rate_hz // 2 + 1, complex)
    lines = np.arange(5 * low_hz, 5 * high_hz)
    phases = rng.uniform(0, 2 * np.pi, len(lines))
    spectrum[lines] = rng.rayleigh(size=len(lines)) * np.exp(1j * phases)
    return 5 * rate_hz / 1000 * np.fft.irfft(spectrum)


def by_the_standard(samples_48k):
    """K-weighted samples at 48 kHz, to loudness every 100 ms.

    The blocks are as long and as soft as ours: 20 squared Hann windows, 20 ms apart.
    """
    weighted = scipy.signal.sosfilt([HEAD, HIGH_PASS], samples_48k)
    ours = np.zeros(2048 + 19 * 441)
    for frame in range(20):
        ours[frame * 441 :][:2048] += scipy.signal.get_window("hann", 2048) ** 2
    # A block as our clock has it, read 48 000 times a second.
    length = round(len(ours) * STANDARD_HZ / SAMPLE_RATE_HZ)
    seconds = np.arange(length) / STANDARD_HZ
    block = np.interp(seconds * SAMPLE_RATE_HZ, np.arange(len(ours)), ours)
    blocks = np.lib.stride_tricks.sliding_window_view(weighted**2, length)
    power = blocks[:: STANDARD_HZ // 10] @ (block / block.sum())
    return -0.691 + 10 * np.log10(power)


def gain_db(hz):
    _, response = scipy.signal.sosfreqz([HEAD, HIGH_PASS], [hz], fs=STANDARD_HZ)
    return 20 * np.log10(np.abs(response[0]))


def test_a_full_scale_sine_of_997_hz_reads_minus_3_01():
    np.testing.assert_allclose(loudness(sine(997))[0, 0], -3.01, atol=0.01)


@pytest.mark.parametrize("hz", [40, 60, 100, 500, 2000, 4000, 10_000])
def test_a_tone_is_weighted_as_the_standard_says(hz):
    expected = -0.691 - 10 * np.log10(2) + gain_db(hz)
    np.testing.assert_allclose(loudness(sine(hz))[0, 0], expected, atol=0.05)


def test_a_low_tone_reads_lower_than_a_high_one_of_the_same_level():
    low, high = loudness(sine(60))[0, 0], loudness(sine(3000))[0, 0]
    assert (high - low > 6).all()


def test_noise_reads_what_the_standards_filters_give_in_the_time_domain():
    ours = loudness(noise(SAMPLE_RATE_HZ, 20, 10_500))[0, 0]
    theirs = by_the_standard(noise(STANDARD_HZ, 20, 10_500))
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=0.02)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_bands_noise_reads_in_its_row_what_the_standard_gives(band):
    low, high = filterbanks.LOUDNESS_EDGES_HZ[band : band + 2]
    # A margin for the window's lobes; 30 Hz, below which tones read too high.
    low, high = max(low + 35, 30), high - 35
    ours = loudness(noise(SAMPLE_RATE_HZ, low, high))[0, 1 + band]
    theirs = by_the_standard(noise(STANDARD_HZ, low, high))[: len(ours)]
    np.testing.assert_allclose((ours - theirs).mean(), 0, atol=0.05)
    # The standard's high-pass also delays the swells of a low band, some milliseconds.
    np.testing.assert_allclose(ours, theirs, atol=0.2)


def test_real_recordings_read_what_the_standards_filters_give():
    paths = sorted(REAL.glob("gtzan_mini/genres/*/*.wav"))[::3]
    if not paths:
        pytest.skip(f"no real recordings in {REAL}")
    ratio = fractions.Fraction(STANDARD_HZ, SAMPLE_RATE_HZ)
    differences = []
    for path in paths:
        samples = audio.segments(audio.decode(path), 1)[0].astype(float)
        upsampled = scipy.signal.resample_poly(
            samples, ratio.numerator, ratio.denominator, window=("kaiser", 14)
        )
        ours = loudness(samples)[0, 0]
        # The first block starts before the standard's filters are in swing.
        theirs = by_the_standard(upsampled)[: len(ours)]
        differences.append(ours[1:] - theirs[1:])
    # The rest is bass below 40 Hz, in its swells and in what a bin's width blurs.
    assert np.abs(differences).max() < 0.5
    assert np.abs(np.mean(differences, axis=1)).max() < 0.15
    assert np.median(np.abs(differences)) < 0.02


def test_bands_add_up_to_the_total():
    values = loudness(noise(SAMPLE_RATE_HZ, 20, 11_000))[0]
    added = 10 * np.log10((10 ** ((values[1:] + 0.691) / 10)).sum(axis=0)) - 0.691
    np.testing.assert_allclose(added, values[0], atol=1e-3)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_tone_lands_in_its_band(band):
    low, high = filterbanks.LOUDNESS_EDGES_HZ[band : band + 2]
    values = loudness(sine((low + high) / 2))[0]
    assert set(values[1:].argmax(axis=0)) == {band}
    np.testing.assert_allclose(values[1 + band], values[0], atol=0.05)
    others = np.delete(values[1:], band, axis=0)
    assert (others < values[0] - 25).all()


def test_bands_are_equally_wide_to_hearing():
    edges = np.array(filterbanks.LOUDNESS_EDGES_HZ)
    assert (edges[0], edges[-1]) == (0, SAMPLE_RATE_HZ / 2)
    steps = np.diff(21.4 * np.log10(1 + 0.00437 * edges))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)


def test_k_weighting_is_scipys_response_of_the_standards_filters():
    hz = np.linspace(1, 11_025, 500)
    expected = [10 ** (gain_db(one) / 10) for one in hz]
    np.testing.assert_allclose(filterbanks.k_weighting(hz), expected, rtol=1e-6)


def test_twice_the_amplitude_moves_loudness_by_6_02_and_nothing_else():
    samples = 0.3 * noise(SAMPLE_RATE_HZ, 20, 11_000)
    moved = loudness(2 * samples) - loudness(samples)
    np.testing.assert_allclose(moved[0], 20 * np.log10(2), atol=1e-3)
    np.testing.assert_allclose(moved[1:], 0, atol=1e-3)


def test_a_steady_tone_neither_deviates_nor_peaks():
    values = loudness(sine(1000))
    np.testing.assert_allclose(values[1:, 0], 0, atol=1e-3)


def test_a_level_that_alternates_has_the_deviation_and_peak_of_its_levels():
    # 100 ms loud, 100 ms at a tenth of the amplitude. Frames of 93 ms smear the edges,
    # so both numbers lie below those of the levels themselves.
    time = np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE_HZ
    gated = sine(1000) * np.where(time % 0.2 < 0.1, 1, 0.1)
    _, deviation, peak = loudness(gated)
    assert (deviation[0] > 4).all() and (deviation[0] < 10).all()
    half_the_time = 10 * np.log10(2 / 1.01)
    assert (peak[0] > 0.7 * half_the_time).all()
    assert (peak[0] <= half_the_time + 0.05).all()


def test_a_click_peaks_where_it_sounds_and_nowhere_else():
    # In the middle of a frame the click is counted whole, over the squared window's
    # 2048 * 3 / 8 samples; in the block once, over 400 ms.
    samples = 1e-3 * noise(SAMPLE_RATE_HZ, 20, 11_000)
    samples[122 * 441 + 1024] = 100
    peak = loudness(samples)[2, 0]
    frames_held = np.flatnonzero(peak > 5)
    assert len(frames_held) in (4, 5)
    np.testing.assert_array_equal(np.diff(frames_held), 1)
    middle = frames_held[len(frames_held) // 2]
    at_once = 10 * np.log10(20 * 441 / (2048 * 3 / 8))
    np.testing.assert_allclose(peak[middle], at_once, atol=0.05)


def test_silence_is_at_the_floor():
    values = loudness(np.zeros(SEGMENT_SAMPLES))
    np.testing.assert_allclose(values[0], -100.691, atol=1e-4)
    np.testing.assert_allclose(values[1:], 0, atol=1e-4)


def test_music_that_stops_stays_finite():
    samples = sine(440) * (np.arange(SEGMENT_SAMPLES) < 50_000)
    assert np.isfinite(loudness(samples)).all()


def test_a_batch_equals_its_segments_one_by_one():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((3, SEGMENT_SAMPLES)).astype(np.float32)
    together = np.asarray(LOUDNESS.fn(batch))
    for value, samples in zip(together, batch, strict=True):
        np.testing.assert_allclose(value, LOUDNESS.fn(samples), atol=1e-4)


def test_shape_is_compact():
    assert LOUDNESS.shape() == (33, 46)
    shortest = LOUDNESS.params["block_samples"]
    assert LOUDNESS.shape(shortest) == (33, 1)
    for batch, num_samples in [((), shortest), ((3,), 33_333), ((0, 2), 661_500)]:
        samples = jax.ShapeDtypeStruct((*batch, num_samples), np.float32)
        value = jax.eval_shape(LOUDNESS.fn, samples)
        assert value.shape == (*batch, *LOUDNESS.shape(num_samples))
        assert value.dtype == np.float32


def test_less_than_a_block_is_refused():
    message = "10426 samples are too few: need 10427 or more"
    with pytest.raises(ValueError, match=message):
        LOUDNESS.fn(np.zeros(10_426, np.float32))
    with pytest.raises(ValueError, match=message):
        LOUDNESS.shape(10_426)


def test_rows_are_named_kind_by_kind():
    assert len(ROWS) == 33
    assert ROWS[:2] == ["loudness, total", "loudness, 0-110 Hz"]
    assert ROWS[11] == "deviation, total"
    assert ROWS[22] == "peak, total"
    assert ROWS[-1] == "peak, 7400-11025 Hz"


def test_the_figure_names_the_kinds_of_rows():
    figure = figures.examples_figure({"pop": np.zeros(LOUDNESS.shape())}, LOUDNESS)
    panel = figure.axes[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert dict(zip(names, panel.get_yticks(), strict=True)) == {
        "loudness": 5,
        "deviation": 16,
        "peak": 27,
    }
