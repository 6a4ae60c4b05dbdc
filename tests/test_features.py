"""Features against librosa on real and synthesised audio, and against known answers."""

import functools
import json
import pathlib
import subprocess
import sys
import warnings

import jax
import librosa
import numpy as np
import pytest
import scipy.fft

from mgr_jax import audio, features, filterbanks, spectra, tuning
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_SAMPLES
from mgr_jax.features import FEATURES

ROOT = pathlib.Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"
# Of the features that librosa has: a thousandth of the range of a normalised one; dB of
# the others.
TOLERANCE = {
    "tempogram": 1e-3,
    "chroma": 1e-3,
    "spectrogram": 0.05,
    "mel": 0.05,
    "mfcc": 0.05,
}
BATCH = 16


def compute(fn, segments):
    """In batches of one size, so that each function is compiled once."""
    batches = []
    for start in range(0, len(segments), BATCH):
        batch = segments[start : start + BATCH]
        padded = np.pad(batch, [(0, BATCH - len(batch)), (0, 0)])
        batches.append(np.asarray(fn(padded))[: len(batch)])
    return np.concatenate(batches)


def from_librosa(name, samples):
    """What FACTS fixes, in librosa's words."""
    rate = SAMPLE_RATE_HZ
    in_db = functools.partial(librosa.power_to_db, ref=1.0, amin=1e-10, top_db=None)
    if name == "tempogram":
        return librosa.feature.tempogram(y=samples, sr=rate, hop_length=512)
    if name == "chroma":
        return librosa.feature.chroma_stft(y=samples, sr=rate, hop_length=512)
    if name == "spectrogram":
        stft = librosa.stft(samples, n_fft=2048, hop_length=1920, center=False)
        return in_db(np.abs(stft) ** 2)
    mel = in_db(librosa.feature.melspectrogram(y=samples, sr=rate))
    return mel if name == "mel" else librosa.feature.mfcc(S=mel, n_mfcc=20)


def librosa_tuning(samples):
    power = np.abs(librosa.stft(samples)) ** 2
    return librosa.estimate_tuning(S=power, sr=SAMPLE_RATE_HZ)


def largest_difference(ours, theirs):
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max()


@functools.cache
def real_segments(kind):
    """Two segments of every fifth GTZAN clip, or of every twentieth MP3."""
    pattern, step = {
        "gtzan": ("gtzan_mini/genres/*/*.wav", 5),
        "mp3": ("fma_like/fma_small/*/*.mp3", 20),
    }[kind]
    paths = sorted(REAL.glob(pattern))[::step]
    if not paths:
        pytest.skip(f"no real recordings in {REAL}")
    return np.concatenate([audio.segments(audio.decode(path), 2) for path in paths])


def sine(hz, level=0.9, num_samples=SEGMENT_SAMPLES):
    return level * np.sin(2 * np.pi * hz * np.arange(num_samples) / SAMPLE_RATE_HZ)


def clicks(period_samples):
    return (np.arange(SEGMENT_SAMPLES) % period_samples == 0).astype(float)


def synthesised():
    noise = np.random.default_rng(0).standard_normal((4, SEGMENT_SAMPLES))
    time = np.arange(SEGMENT_SAMPLES) / SAMPLE_RATE_HZ
    first_half = time < time[-1] / 2
    signals = {
        "white noise": 0.3 * noise[0],
        "quiet noise": 1e-4 * noise[1],
        "low tone": sine(110),
        "A": sine(440),
        "A and 30 cents": sine(440 * 2 ** (0.3 / 12)),
        "high tone": sine(1000),
        "chord": sine(261.63, 0.3) + sine(329.63, 0.3) + sine(392, 0.3),
        "sweep": np.sin(2 * np.pi * (50 * time + 1000 * time**2)),
        "clicks": clicks(11_025),
        "one click": clicks(10 * SEGMENT_SAMPLES),
        "silence": 0 * time,
        "noise, then silence": 0.3 * noise[2] * first_half,
        "silence, then a tone": sine(330) * ~first_half,
        "constant": np.ones(SEGMENT_SAMPLES),
        "square wave": np.sign(sine(220)),
        "16 bits, fading": np.round(3e4 * noise[3] * np.exp(-3 * time)) / 2**17,
    }
    return {name: signal.astype(np.float32) for name, signal in signals.items()}


@pytest.mark.parametrize("kind", ["gtzan", "mp3"])
@pytest.mark.parametrize("name", TOLERANCE)
def test_equals_librosa_on_real_recordings(name, kind):
    segments = real_segments(kind)
    values = compute(FEATURES[name].fn, segments)
    differences = [
        largest_difference(value, from_librosa(name, samples))
        for value, samples in zip(values, segments, strict=True)
    ]
    assert max(differences) <= TOLERANCE[name]


@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty")
@pytest.mark.parametrize("name", TOLERANCE)
def test_equals_librosa_on_synthesised_audio(name):
    signals = synthesised()
    values = compute(FEATURES[name].fn, np.stack(list(signals.values())))
    differences = {
        signal: largest_difference(value, from_librosa(name, samples))
        for (signal, samples), value in zip(signals.items(), values, strict=True)
    }
    assert {
        signal: difference
        for signal, difference in differences.items()
        if difference > TOLERANCE[name]
    } == {}


def test_tempogram_of_a_steady_high_tone_equals_librosas_where_there_is_an_onset():
    # Frames 195 and on no longer see the tone begin. What is left to correlate is
    # rounding noise of less than 1e-6 dB, other in librosa from one processor to the
    # next; scaled to 1, it means nothing.
    samples = sine(4000).astype(np.float32)
    value = compute(features.tempogram, samples[None])[0]
    theirs = from_librosa("tempogram", samples)
    assert largest_difference(value[:, :190], theirs[:, :190]) <= 1e-3


@pytest.mark.parametrize("kind", ["gtzan", "mp3"])
def test_tuning_equals_librosas_on_real_recordings(kind):
    segments = real_segments(kind)
    ours = compute(tuning.estimate_tuning, segments)
    theirs = [librosa_tuning(samples) for samples in segments]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="a GPU's Fourier transform rounds otherwise"
)
@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty")
def test_tuning_equals_librosas_even_where_it_is_read_from_roundings():
    # The spectrum of a click is flat but for its last digit.
    rng = np.random.default_rng(1)
    segments = rng.uniform(-1, 1, (2 * BATCH, SEGMENT_SAMPLES))
    for i, segment in enumerate(segments[:BATCH]):
        keep = rng.integers(0, SEGMENT_SAMPLES, 1 + i)
        segment[np.setdiff1d(np.arange(SEGMENT_SAMPLES), keep)] = 0
    segments = segments.astype(np.float32)
    ours = compute(tuning.estimate_tuning, segments)
    theirs = [librosa_tuning(samples) for samples in segments]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_tempogram_of_120_clicks_a_minute_peaks_at_120_bpm():
    value = compute(features.tempogram, clicks(SAMPLE_RATE_HZ // 2)[None])[0]
    bpm = FEATURES["tempogram"].axis.values
    # Half and double the tempo also fit.
    near = np.flatnonzero((bpm > 80) & (bpm < 180))
    assert abs(bpm[near[value[near].mean(axis=1).argmax()]] - 120) < 4


@pytest.mark.parametrize("octave", [-1, 0, 1, 2])
def test_chroma_of_an_a_peaks_at_a(octave):
    value = compute(features.chroma, sine(440 * 2.0**octave)[None])[0]
    assert set(FEATURES["chroma"].axis.values[value.argmax(axis=0)]) == {"A"}


@pytest.mark.parametrize("cents", [-50, -30, 0, 7, 30, 49])
@pytest.mark.parametrize("hz, error", [(440, 0.041), (3520, 0.011)])
def test_a_tones_detuning_is_its_tuning(hz, error, cents):
    # Three bins and a parabola place a tone to 0.05 bins, fewer cents the higher it is.
    samples = sine(hz * 2 ** (cents / 1200))[None]
    assert abs(compute(tuning.estimate_tuning, samples)[0] - cents / 100) < error


@pytest.mark.parametrize("name", ["spectrogram", "mel"])
@pytest.mark.parametrize("hz", [300, 1000, 5000])
def test_a_tone_lands_in_its_bin(name, hz):
    value = compute(FEATURES[name].fn, sine(hz)[None])[0]
    bins_hz = FEATURES[name].axis.values
    assert value[:, 10].argmax() == np.abs(bins_hz - hz).argmin()


def test_level_is_absolute():
    quiet, loud = compute(
        features.spectrogram, np.stack([sine(1000, 0.05), sine(1000)])
    )
    # A windowed sine of amplitude a has the power (a * 2048 / 4) ** 2 in its bin.
    assert abs(loud.max() - 20 * np.log10(0.9 * 512)) < 0.5
    np.testing.assert_allclose(loud.max() - quiet.max(), 20 * np.log10(18), atol=1e-3)


# Of 20 dB more, in the feature's units. tempogram's floor is relative to the loudest.
GAIN_TOLERANCE = {"tempogram": 1e-4, "chroma": 1e-4}


@pytest.mark.parametrize("name", FEATURES)
def test_gain_moves_each_bin_by_its_level(name):
    feature = FEATURES[name]
    noise = 0.02 * np.random.default_rng(0).standard_normal(SEGMENT_SAMPLES)
    quiet, loud = compute(feature.fn, np.stack([noise, 10 * noise]))
    assert feature.level.shape == (feature.bins,)
    expected = np.broadcast_to(20 * feature.level[:, None], quiet.shape)
    tolerance = GAIN_TOLERANCE.get(name, 1e-2)
    np.testing.assert_allclose(loud - quiet, expected, rtol=0, atol=tolerance)


def test_levels_are_of_powers_in_decibels():
    levels = {name: list(feature.level) for name, feature in FEATURES.items()}
    assert levels == {
        "tempogram": 384 * [0],
        "chroma": 12 * [0],
        "spectrogram": 1025 * [1],
        "mel": 128 * [1],
        "mfcc": [np.sqrt(128)] + 19 * [0],
        "loudness": 11 * [1] + 22 * [0],
    }


def test_what_is_heard_of_a_power_is_neither_near_silence_nor_near_the_top():
    spectrogram = FEATURES["spectrogram"]
    values = np.full((2, 1025, 3), 7.0, np.float16)
    values[1, 5] = -99
    heard = spectrogram.heard(values)
    assert heard.dtype == np.float32
    assert (heard[1, 5] == -40).all()
    # 928 * 22 050 / 2048 is 9991 Hz, and the next bin is above 10 kHz.
    assert (heard[0, :929] == 7).all()
    assert (heard[:, 929:] == -40).all()
    np.testing.assert_array_equal(spectrogram.heard(jax.numpy.asarray(values)), heard)


def test_what_is_heard_of_a_band_is_what_is_heard_of_its_bins():
    """Noise of -40 dB a bin is at the least that is heard of each mel band."""
    noise = np.random.default_rng(0).standard_normal((4, SEGMENT_SAMPLES))
    # A Hann window of 2048 samples has the energy 768.
    noise *= np.sqrt(10**-4 / 768)
    power = 10 ** (compute(FEATURES["mel"].fn, noise).astype(np.float64) / 10)
    level_db = 10 * np.log10(power.mean(axis=(0, 2)))
    np.testing.assert_allclose(level_db[1:], FEATURES["mel"].least[1:], atol=0.5)
    most = FEATURES["mel"].most
    assert np.isinf(most[:124]).all()  # up to 9912 Hz
    assert (most[124:] == FEATURES["mel"].least[124:]).all()


def test_of_loudness_what_the_standard_gates_out_is_not_heard():
    loudness = FEATURES["loudness"]
    heard = loudness.heard(np.full((33, 2), -90.0))
    assert (heard[:11] == -70).all()
    assert (heard[11:] == -90).all()


@pytest.mark.parametrize("name", ["tempogram", "chroma", "mfcc"])
def test_all_of_a_feature_without_such_bounds_is_heard(name):
    values = np.random.default_rng(0).standard_normal((2, 3)) * 1e4
    np.testing.assert_array_equal(FEATURES[name].heard(values), np.float32(values))
    assert FEATURES[name].hearing == []


@pytest.mark.parametrize(
    "name, floor",
    [("tempogram", 0), ("chroma", 0), ("spectrogram", -100), ("mel", -100)],
)
def test_silence_is_at_the_floor(name, floor):
    value = compute(FEATURES[name].fn, np.zeros((1, SEGMENT_SAMPLES)))
    np.testing.assert_allclose(value, floor, atol=1e-4)


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@pytest.mark.parametrize("hop_length, centered", [(512, True), (1920, False)])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 10, 16, 17, 35])
def test_power_is_librosas_however_many_frames_there_are(count, hop_length, centered):
    size = (count - 1) * hop_length + (1 if centered else 2048)
    samples = np.random.default_rng(count).uniform(-1, 1, size).astype(np.float32)
    power = spectra.batched(lambda segment: segment.power(hop_length, centered))
    ours = jax.jit(power)(samples)
    theirs = librosa.stft(samples, n_fft=2048, hop_length=hop_length, center=centered)
    assert ours.shape == (count, 1025)
    np.testing.assert_allclose(ours, np.abs(theirs.T) ** 2, rtol=1e-5, atol=1e-9)


def test_a_frame_of_silence_has_neither_pitch_nor_peaks_whatever_is_beside_it():
    samples = np.zeros(SEGMENT_SAMPLES, np.float32)
    # Frames 99 to 102 hold it. Of these, the first is transformed together with the
    # silent one before it, and the last with the one after it.
    noise = np.random.default_rng(0).standard_normal(100)
    samples[101 * 512 - 300 : 101 * 512 - 200] = 1e3 * noise
    value = compute(features.chroma, samples[None])[0]
    assert list(np.flatnonzero(value.any(axis=0))) == [99, 100, 101, 102]
    found = compute(tuning.estimate_tuning, samples[None])[0]
    np.testing.assert_allclose(found, librosa_tuning(samples), atol=1e-6)


def test_what_is_no_number_is_not_taken_for_silence():
    samples = sine(440).astype(np.float32)
    samples[100 * 512] = np.nan
    value = compute(features.chroma, samples[None])[0]
    assert np.isnan(value[:, 100]).all()


def test_features_computed_together_are_those_computed_one_by_one():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((2, 2, SEGMENT_SAMPLES)).astype(np.float32)
    found = features.together(FEATURES)(batch)
    assert list(found) == sorted(FEATURES)
    for name, value in found.items():
        # XLA may add in another order.
        alone = FEATURES[name].fn(batch)
        np.testing.assert_allclose(value, alone, rtol=1e-5, atol=1e-5)


def test_features_computed_together_share_their_spectra(monkeypatch):
    def made_for(*names):
        made = []
        power_spectrum = spectra.power_spectrum

        def counted(*args):
            made.append(args)
            return power_spectrum(*args)

        with monkeypatch.context() as patched:
            patched.setattr(spectra, "power_spectrum", counted)
            shape = jax.ShapeDtypeStruct((SEGMENT_SAMPLES,), np.float32)
            features.together(names).lower(shape)
        return len(made)

    alone = made_for("chroma")
    assert alone
    assert made_for("chroma", "tempogram", "mel") == alone
    assert made_for("chroma", "tempogram", "spectrogram") == 2 * alone


@pytest.mark.parametrize("name", FEATURES)
def test_a_segment_does_not_depend_on_its_batch(name):
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((BATCH, SEGMENT_SAMPLES)).astype(np.float32)
    alone = np.zeros_like(batch)
    alone[3] = batch[3]
    batch[8] *= 1e3
    fn = FEATURES[name].fn
    np.testing.assert_array_equal(fn(batch)[3], fn(alone)[3])


def test_mel_filters_are_librosas():
    theirs = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=2048)
    np.testing.assert_allclose(filterbanks.mel_filters(), theirs, rtol=1e-6, atol=1e-9)
    centres_hz = librosa.mel_frequencies(130, fmin=0, fmax=SAMPLE_RATE_HZ / 2)
    np.testing.assert_allclose(filterbanks.mel_frequencies_hz(), centres_hz, atol=1e-9)


def test_chroma_filters_are_librosas_at_every_tuning():
    theirs = [
        librosa.filters.chroma(sr=SAMPLE_RATE_HZ, n_fft=2048, tuning=tuning)
        for tuning in filterbanks.TUNINGS
    ]
    np.testing.assert_allclose(
        filterbanks.chroma_filters(), theirs, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("length", [384, 2048])
def test_hann_window_is_librosas(length):
    theirs = librosa.filters.get_window("hann", length)
    np.testing.assert_allclose(filterbanks.hann_window(length), theirs, atol=1e-15)


def test_dct_is_scipys():
    theirs = scipy.fft.dct(np.eye(128), norm="ortho", axis=0)[:20]
    np.testing.assert_allclose(filterbanks.dct_matrix(), theirs, atol=1e-7)


@pytest.mark.parametrize(
    "peaks", [[3.0], [3.0, 1.0], [2.0, 1.0, 5.0], [1.0, 4.0, 4.0, 9.0], [1e-12, 1e9]]
)
def test_median_is_numpys(peaks):
    strength = np.full((3, 4), -1, np.float32)
    strength.flat[: len(peaks)] = peaks
    median = tuning._median_strength(strength, np.int32(len(peaks)))
    assert median == np.median(np.float32(peaks))


@pytest.mark.parametrize("spread", [1e-3, 1, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_median_of_many_is_numpys(spread, ties):
    rng = np.random.default_rng(0)
    for count in (1, 2, 99, 100, 5_000):
        peaks = np.exp(spread * rng.standard_normal(count)).astype(np.float32)
        if ties:
            peaks = rng.choice(peaks[:7], count)
        strength = np.full(6_000, -1, np.float32)
        strength[rng.permutation(6_000)[:count]] = peaks
        median = tuning._median_strength(strength, np.int32(count))
        assert median == np.median(peaks)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("tempogram", (384, 216)),
        ("chroma", (12, 216)),
        ("spectrogram", (1025, 57)),
        ("mel", (128, 216)),
        ("mfcc", (20, 216)),
    ],
)
def test_shapes(name, shape):
    feature = FEATURES[name]
    assert feature.shape() == shape
    assert feature.bins == shape[0]
    for batch, num_samples in [((), 2048), ((3,), 33_333), ((0, 2), 661_500)]:
        samples = jax.ShapeDtypeStruct((*batch, num_samples), np.float32)
        value = jax.eval_shape(feature.fn, samples)
        assert value.shape == (*batch, *feature.shape(num_samples))
        assert value.dtype == np.float32


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="2047 samples are too few"):
        features.spectrogram(np.zeros(2047, np.float32))
    with pytest.raises(ValueError, match="0 samples are too few"):
        features.chroma(np.zeros(0, np.float32))


@pytest.mark.parametrize("name", TOLERANCE)
def test_another_length_equals_librosa(name):
    samples = 0.1 * np.random.default_rng(0).standard_normal(12_345).astype(np.float32)
    value = np.asarray(FEATURES[name].fn(samples))
    assert largest_difference(value, from_librosa(name, samples)) <= TOLERANCE[name]


def test_vmap_keeps_the_precision():
    samples = np.random.default_rng(0).standard_normal((2, 6000)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX warns when it cuts float64 to float32
        mapped = jax.jit(jax.vmap(features.spectrogram))(samples)
    np.testing.assert_array_equal(mapped, features.spectrogram(samples))


@pytest.mark.parametrize("name", FEATURES)
def test_exports_for_every_kind_of_device(name):
    samples = np.random.default_rng(0).standard_normal((2, 12_345)).astype(np.float32)
    fn = FEATURES[name].fn
    exported = jax.export.export(fn, platforms=["cpu", "cuda", "tpu"])(samples)
    np.testing.assert_allclose(exported.call(samples), fn(samples), atol=1e-3)


@pytest.mark.parametrize("name", ["tempogram", "chroma", "spectrogram", "loudness"])
def test_spectra_are_float64_wherever_there_is_a_float64_fft(name):
    samples = jax.ShapeDtypeStruct((2, SEGMENT_SAMPLES), np.float32)
    for platform in ("cpu", "cuda"):
        exported = jax.export.export(FEATURES[name].fn, platforms=[platform])(samples)
        assert "complex<f64>" in exported.mlir_module()
        if name != "tempogram":  # whose autocorrelation takes float32
            assert "complex<f32>" not in exported.mlir_module()
    exported = jax.export.export(FEATURES[name].fn, platforms=["tpu"])(samples)
    assert "f64" not in exported.mlir_module()


def test_metadata_says_what_the_numbers_are():
    for name, feature in FEATURES.items():
        assert feature.name == name
        assert isinstance(feature.params["version"], int)
        assert json.loads(json.dumps(feature.params)) == feature.params
        hop_length = {"spectrogram": 1920, "loudness": 2205}.get(name, 512)
        assert feature.hop_length == hop_length
        assert feature.value_label
    tempo, chroma, hz, mel_hz, cepstrum, _ = (
        feature.axis.values for feature in FEATURES.values()
    )
    assert np.isinf(tempo[0])
    np.testing.assert_allclose(tempo[22], 60 / (22 * 512 / 22_050))
    assert list(chroma[[0, 9, 11]]) == ["C", "A", "B"]
    assert (hz[0], hz[-1]) == (0, 11_025)
    assert (np.diff(mel_hz) > 0).all()
    assert list(cepstrum) == list(range(20))


def test_runs_where_librosa_and_tensorflow_are_not_installed():
    script = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['librosa', 'tensorflow', 'soundfile', 'soxr'])\n"
        "import numpy as np\n"
        "from mgr_jax.features import FEATURES\n"
        "print(FEATURES['mel'].fn(np.zeros((1, 4096), np.float32)).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 128, 9)"
