"""Fingerprints: what is one recording, and what only sounds like it."""

import itertools

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SHARED

from mgr_jax import audio
from mgr_jax.datasets import fingerprint, synth

RATE_HZ = 22_050


def melody(seed, seconds=20, beat_s=0.5):
    """Plucked notes drawn anew each beat: float32 (samples,)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(beat_s * RATE_HZ)) / RATE_HZ
    notes = []
    for _ in range(round(seconds / beat_s)):
        hz = 220 * 2 ** (rng.integers(0, 24) / 12)
        notes.append(np.sin(2 * np.pi * hz * t) * np.exp(-t / rng.uniform(0.1, 0.5)))
    return (0.4 * np.concatenate(notes)).astype(np.float32)


def drums(kit, seconds=20, beat_s=0.5):
    """One pattern of a kick and a snare; the kit is how they sound."""
    rng = np.random.default_rng(kit)
    t = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    kick = np.sin(2 * np.pi * rng.uniform(45, 90) * t) * np.exp(
        -t / rng.uniform(0.05, 0.15)
    )
    snare = rng.standard_normal(len(t)) * np.exp(-t / rng.uniform(0.04, 0.12))
    loop = np.zeros(round((seconds + 1) * RATE_HZ))
    for beat in range(round(seconds / beat_s)):
        start = round(beat * beat_s * RATE_HZ)
        loop[start : start + len(t)] += (kick, snare, kick, kick)[beat % 4]
    return (0.3 * loop[: seconds * RATE_HZ]).astype(np.float32)


def correlation(ours, theirs):
    """What `alike` compares with its threshold."""
    prints = [fingerprint.fingerprint(samples) for samples in (ours, theirs)]
    length = min(map(len, prints))
    units = [fingerprint._units([shape], np.array([0]), length) for shape in prints]
    return float((units[0] @ units[1].T).item())


def are_one(ours, theirs):
    prints = [fingerprint.fingerprint(samples) for samples in (ours, theirs)]
    found = list(fingerprint.alike(prints))
    same = fingerprint.same_samples(ours, theirs) >= fingerprint.SAME
    return [pair[:2] for pair in found] == [(0, 1)] and same


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
def test_another_format_rate_and_level_is_the_same_recording(tmp_path, kind, rate_hz):
    path = tmp_path / f"a.{kind}"
    ours = melody(0)
    soundfile.write(path, 0.25 * soxr.resample(ours, RATE_HZ, rate_hz), rate_hz)
    assert are_one(ours, audio.decode(path))


def test_stereo_is_the_same_recording_as_its_mono(tmp_path):
    path = tmp_path / "a.mp3"
    ours = melody(0)
    soundfile.write(path, np.stack([ours, 0.7 * ours], axis=1), RATE_HZ)
    assert are_one(ours, audio.decode(path))


@pytest.mark.parametrize("shift", [-2_205, -1_105, 1_105, 2_205])
def test_a_small_shift_is_the_same_recording(shift):
    ours = melody(0)
    theirs = ours[-shift:] if shift < 0 else np.pad(ours, (shift, 0))
    assert are_one(ours, theirs)


def test_a_shift_of_less_than_a_sample_of_the_comparison_does_not_count():
    """At the 8 kHz of the second step, 1102 samples are 399.8, and 1 is 0.36."""
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * RATE_HZ).astype(np.float32)
    for shift in (1, 1_102):
        assert fingerprint.same_samples(noise, noise[shift:]) > 0.97


def test_a_turned_phase_and_a_shorter_copy_are_the_same_recording():
    ours = melody(0)
    assert are_one(ours, -ours)
    assert are_one(ours, ours[: 7 * RATE_HZ])
    assert are_one(ours[: 7 * RATE_HZ], ours)


def test_other_recordings_are_not_alike():
    prints = [fingerprint.fingerprint(melody(seed)) for seed in range(30)]
    assert not list(fingerprint.alike(prints))


def test_other_drums_in_the_same_pattern_are_alike_and_not_the_same():
    """What the second step is for."""
    pairs = list(itertools.combinations([drums(kit) for kit in range(4)], 2))
    assert max(correlation(*pair) for pair in pairs) >= fingerprint.ALIKE
    assert max(fingerprint.same_samples(*pair) for pair in pairs) < fingerprint.SAME


def test_another_tune_over_the_same_drums_is_not_alike():
    ours, theirs = (drums(0) + 0.5 * melody(seed) for seed in (1, 2))
    assert correlation(ours, theirs) < fingerprint.ALIKE


def test_the_second_step_tells_a_recording_from_another():
    assert fingerprint.same_samples(melody(0), melody(0)) == pytest.approx(1, abs=1e-4)
    assert fingerprint.same_samples(melody(0), melody(1)) < 0.5
    assert fingerprint.same_samples(melody(0), np.zeros(RATE_HZ, np.float32)) == 0


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(10 * RATE_HZ, np.float32),
        melody(0, seconds=4),
        np.sin(np.arange(10 * RATE_HZ) / 10).astype(np.float32),
    ],
    ids=["nothing", "silence", "4 s", "a steady tone"],
)
def test_what_has_no_shape_has_no_fingerprint(samples):
    assert fingerprint.fingerprint(samples) is None


def test_only_the_first_30_s_are_looked_at():
    ours = melody(0, seconds=31)
    longer = np.concatenate([ours[: 30 * RATE_HZ], melody(1, seconds=60)])
    shape = fingerprint.fingerprint(ours)
    assert shape.shape == (60, 24)
    np.testing.assert_array_equal(shape, fingerprint.fingerprint(longer))


def test_level_does_not_change_a_fingerprint():
    ours = melody(0)
    loud, soft = map(fingerprint.fingerprint, (ours, 0.01 * ours))
    np.testing.assert_allclose(loud, soft, atol=2e-3)


def test_every_pair_is_found_once_in_blocks_of_any_size(monkeypatch):
    rng = np.random.default_rng(0)
    lengths = [60, 59, 12, 60, 30, 60, 59, 12, 60, 60, 30, 60, 59]
    prints = [rng.standard_normal((n, 24)).astype(np.float16) for n in lengths]
    # Copies of three recordings, of equal and of other lengths.
    prints[9], prints[6], prints[7] = prints[0], prints[0][:59], prints[4][:12]
    prints[11] = prints[3]
    expected = {(0, 6), (0, 9), (6, 9), (4, 7), (3, 11)}
    for block in (1, 2, 3, 2_048):
        monkeypatch.setattr(fingerprint, "_BLOCK", block)
        found = list(fingerprint.alike(prints))
        assert {pair[:2] for pair in found} == expected
        assert len(found) == len(expected)
        assert all(pair[2] == pytest.approx(1, abs=1e-3) for pair in found)
    assert list(fingerprint.alike([])) == []


def test_synths_clips_are_all_different():
    prints = [fingerprint.fingerprint(synth.render(k)) for k in range(40)]
    assert not list(fingerprint.alike(prints))


@pytest.mark.parametrize("pair", [("018839", "038006"), ("029439", "047919")])
def test_a_piece_that_was_rendered_twice_is_found(pair):
    root = SHARED / "fma_like" / "fma_small"
    if not root.exists():
        pytest.skip(f"needs the development data {root}")
    ours, theirs = (audio.decode(root / name[:3] / f"{name}.mp3") for name in pair)
    other = audio.decode(root / "000" / "000270.mp3")
    assert are_one(ours, theirs)
    assert not are_one(ours, other)
