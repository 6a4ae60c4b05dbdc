import numpy as np
import pytest
import soundfile
from conftest import tone

from mgr_jax import audio
from mgr_jax.audio import AudioError


def loudest_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * audio.SAMPLE_RATE_HZ / len(samples))


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channel_count_keeps_pitch_level_and_length(
    tmp_path, rate_hz, channels
):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([tone(440, 2, rate_hz)] * channels, axis=1), rate_hz)
    samples = audio.decode(path)
    assert samples.dtype == np.float32
    assert samples.shape == (44_100,)
    assert abs(loudest_hz(samples) - 440) < 1
    assert abs(np.abs(samples[5_000:-5_000]).max() - 0.5) < 0.005


@pytest.mark.parametrize(
    "name, subtype",
    [
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "FLOAT"),
        ("a.au", "PCM_16"),
        ("a.flac", "PCM_16"),
        ("a.ogg", "VORBIS"),
        ("a.mp3", "MPEG_LAYER_III"),
    ],
)
def test_every_format_is_read(tmp_path, name, subtype):
    path = tmp_path / name
    soundfile.write(path, tone(440, 2, 44_100), 44_100, subtype=subtype)
    samples = audio.decode(path)
    # An MP3 encoder pads; the others keep the length.
    assert abs(len(samples) - 44_100) <= (2_400 if name == "a.mp3" else 0)
    assert abs(loudest_hz(samples) - 440) < 1


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "opposite.wav"
    left = tone(440, 1)
    soundfile.write(path, np.stack([left, -left], axis=1), 22_050, subtype="FLOAT")
    assert np.abs(audio.decode(path)).max() == 0


def test_22050_hz_is_passed_through_untouched(tmp_path):
    path = tmp_path / "same.wav"
    samples = tone(440, 1)
    soundfile.write(path, samples, 22_050, subtype="FLOAT")
    np.testing.assert_array_equal(audio.decode(path), samples)


def _write_not_finite(path):
    samples = tone(440, 1)
    samples[100] = np.nan
    soundfile.write(path, samples, 22_050, subtype="FLOAT")


@pytest.mark.parametrize(
    "write, reason",
    [
        (lambda path: path.write_bytes(b""), "cannot be decoded"),
        (lambda path: path.write_text("not audio at all " * 99), "cannot be decoded"),
        (lambda path: soundfile.write(path, np.zeros(0), 22_050), "holds no audio"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: None, "cannot be read"),
        (_write_not_finite, "not finite"),
    ],
    ids=["empty", "text", "zero length", "a folder", "missing", "NaN"],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, write, reason):
    path = tmp_path / "bad.wav"
    write(path)
    with pytest.raises(AudioError) as error:
        audio.decode(path)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_clip_of_30_s_is_cut_as_in_the_paper():
    samples = np.arange(30 * 22_050, dtype=np.float32)
    segments = audio.segments(samples)
    assert segments.shape == (5, 110_250)
    for k in range(5):
        np.testing.assert_array_equal(
            segments[k], samples[k * 110_250 : (k + 1) * 110_250]
        )


@pytest.mark.parametrize(
    "seconds, count", [(0, 0), (4.99, 0), (5, 1), (12, 2), (24.9, 4), (25, 5), (34, 5)]
)
def test_a_short_clip_gives_its_whole_segments(seconds, count):
    samples = np.zeros(round(seconds * 22_050), np.float32)
    assert audio.segments(samples).shape == (count, 110_250)


def test_a_long_track_gives_segments_spread_evenly_over_it():
    starts = audio.segment_starts(250 * 22_050)
    middles_s = [(start + 110_250 / 2) / 22_050 for start in starts]
    np.testing.assert_allclose(middles_s, [25, 75, 125, 175, 225], atol=1e-4)


@pytest.mark.parametrize("seconds", [35.1, 36, 41, 600])
@pytest.mark.parametrize("count", [1, 3, 5, 7, 20])
def test_segments_of_a_long_track_never_overlap_nor_leave_it(seconds, count):
    starts = audio.segment_starts(round(seconds * 22_050), count)
    assert len(starts) == min(count, int(seconds // 5))
    assert min(np.diff(starts), default=110_250) >= 110_250
    assert starts[0] >= 0
    assert starts[-1] + 110_250 <= seconds * 22_050


def test_zero_takes_every_segment_that_fits():
    starts = audio.segment_starts(61 * 22_050, 0)
    assert starts == [k * 110_250 for k in range(12)]
