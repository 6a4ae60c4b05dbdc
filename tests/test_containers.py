"""What libsndfile does not read: m4a, aac, wma, opus in mp4."""

import fractions

import numpy as np
import pytest
from conftest import tone

from mgr_jax import audio, containers
from mgr_jax.audio import AudioError

av = pytest.importorskip("av", reason="needs the extra av")

KINDS = [
    ("a.m4a", "aac", 44_100),
    ("a.aac", "aac", 44_100),
    ("a.wma", "wmav2", 44_100),
    ("opus.mp4", "libopus", 48_000),
    ("lossless.m4a", "alac", 44_100),
    ("a.webm", "libopus", 48_000),
    ("a.ac3", "ac3", 48_000),
]


def write(path, codec, rate_hz, hz=440.0, seconds=12.0):
    """A stereo file of a tone."""
    samples = np.stack([tone(hz, seconds, rate_hz)] * 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="stereo")
        stream.bit_rate = 128_000
        for start in range(0, samples.shape[1] - 2_048, 2_048):
            part = np.ascontiguousarray(samples[:, start : start + 2_048])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate_hz, start
            frame.time_base = fractions.Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def loudest_hz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * audio.SAMPLE_RATE_HZ / len(samples))


@pytest.mark.parametrize("name, codec, rate_hz", KINDS)
def test_pitch_level_and_length_are_kept(tmp_path, name, codec, rate_hz):
    samples = audio.decode(write(tmp_path / name, codec, rate_hz))
    assert samples.dtype == np.float32
    assert abs(len(samples) - 12 * 22_050) < 3_500
    assert abs(loudest_hz(samples) - 440) < 1
    middle = samples[20_000:-20_000]
    assert abs(np.sqrt(2 * np.mean(middle**2)) - 0.5) < 0.02


def test_segments_come_of_them_as_of_any_file(tmp_path):
    found, notes = audio.read_segments(write(tmp_path / "a.m4a", "aac", 44_100))
    assert (len(list(found)), notes.text) == (2, "")


@pytest.mark.parametrize("name", ["a.m4a", "a.mp3", "a.wav"])
def test_what_they_hold_decides_not_their_name(tmp_path, name):
    path = write(tmp_path / "made.m4a", "aac", 44_100).rename(tmp_path / name)
    assert abs(loudest_hz(audio.decode(path)) - 440) < 1


@pytest.mark.parametrize(
    "content",
    [
        b"not audio at all " * 99,
        b"",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://%s\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile %s\n",
    ],
    ids=["text", "empty", "a stream's playlist", "a list of files"],
)
def test_no_file_makes_ffmpeg_open_another(tmp_path, content):
    """A playlist that is named as audio could read what its maker may not."""
    other = write(tmp_path / "other.aac", "aac", 44_100)
    path = tmp_path / "a.m4a"
    path.write_bytes(content.replace(b"%s", str(other).encode()))
    with pytest.raises(AudioError, match="cannot be decoded") as error:
        audio.decode(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_was_cut_off_is_told(tmp_path):
    whole = write(tmp_path / "a.m4a", "aac", 44_100).read_bytes()
    (tmp_path / "a.m4a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="cannot be decoded"):
        audio.decode(tmp_path / "a.m4a")


@pytest.mark.parametrize("rate_hz", [0, 1, 10**9])
def test_an_absurd_rate_is_refused_before_anything_is_resampled(
    tmp_path, monkeypatch, rate_hz
):
    """A few bytes at 1 Hz would fill the memory at 22 050 Hz."""
    path = tmp_path / "a.m4a"
    path.write_text("no audio")
    blocks = [(rate_hz, np.ones(1_000_000, np.float32))]
    monkeypatch.setattr(containers, "mono_blocks", lambda path: iter(blocks))
    with pytest.raises(AudioError, match=f"has {rate_hz} samples a second"):
        audio.decode(path)


def test_a_film_without_sound_is_told(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        image = np.zeros((64, 64, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="holds no audio stream"):
        audio.decode(path)


@pytest.mark.parametrize(
    "name, told", [("a.m4a", "pip install 'av>=15'"), ("a.mp3", "recognised")]
)
def test_without_pyav_the_message_names_it_where_it_would_help(
    tmp_path, monkeypatch, name, told
):
    path = write(tmp_path / "made.m4a", "aac", 44_100).rename(tmp_path / name)
    monkeypatch.setattr(containers, "is_available", lambda: False)
    with pytest.raises(AudioError, match=told):
        audio.decode(path)
