import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import PRINT_PEAK_MB, ROOT, run_without_privileges, tone

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
    path = tmp_path / "stereo.wav"
    left = tone(440, 1)
    both = np.stack([left, -0.5 * left], axis=1)
    soundfile.write(path, both, 22_050, subtype="FLOAT")
    np.testing.assert_allclose(audio.decode(path), 0.25 * left, atol=1e-7)


def test_22050_hz_is_passed_through_untouched(tmp_path):
    path = tmp_path / "same.wav"
    samples = tone(440, 1)
    soundfile.write(path, samples, 22_050, subtype="FLOAT")
    np.testing.assert_array_equal(audio.decode(path), samples)


def write(samples, rate_hz=22_050, subtype="FLOAT"):
    """What writes a WAV of these samples to a path."""
    return lambda path: soundfile.write(path, samples, rate_hz, subtype=subtype)


def with_sample(value):
    samples = tone(440, 1)
    samples[100] = value
    return samples


def with_header(offset, number, samples=None):
    """A WAV in whose header the 32-bit number at an offset is another."""

    def write_it(path):
        write(tone(440, 1) if samples is None else samples, subtype="PCM_16")(path)
        whole = bytearray(path.read_bytes())
        whole[offset : offset + 4] = number.to_bytes(4, "little")
        path.write_bytes(whole)

    return write_it


def not_allowed(path):
    write(tone(440, 1))(path)
    path.chmod(0)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda path: path.write_bytes(b""), "cannot be decoded"),
        (lambda path: path.write_text("not audio at all " * 99), "cannot be decoded"),
        (write(np.zeros(0)), "holds no audio"),
        (lambda path: path.mkdir(), "is no file"),
        (os.mkfifo, "is no file"),
        (lambda path: None, "cannot be read (No such file"),
        (lambda path: path.symlink_to(path), "cannot be read (Too many levels"),
        (lambda path: path.symlink_to("unplugged.wav"), "cannot be read (No such"),
        (write(with_sample(np.nan)), "not finite"),
        (write(with_sample(np.inf)), "not finite"),
        (write(with_sample(3e30)), "3e+30 times full scale"),
        (write(np.zeros(22_050)), "nothing but silence"),
        (write(np.full(22_050, 0.7)), "nothing but silence"),
        (write(1e-5 * tone(440, 1)), "nothing but silence"),
        # Bytes 24 to 27 of a WAV are its rate.
        (with_header(24, 3), "it says that it has 3 samples a second"),
        (with_header(24, 2_000_000_000), "it says that it has 2000000000"),
    ],
    ids=[
        "empty", "text", "no samples", "folder", "fifo", "missing", "link loop",
        "dangling link", "NaN", "infinity", "absurd level", "silence", "DC",
        "converter noise", "3 Hz", "2 GHz",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bad.wav", "bad.mp3"])
def test_a_bad_file_is_one_line_that_names_it(tmp_path, name, make, reason):
    path = tmp_path / "made.wav"
    make(path)
    if os.path.lexists(path) and not path.is_symlink():
        path = path.rename(tmp_path / name)
    with pytest.raises(AudioError) as error:
        audio.decode(path)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_may_not_be_read_is_one_line_that_names_it(tmp_path):
    path = tmp_path / "secret.wav"
    not_allowed(path)
    script = f"from mgr_jax import audio; audio.decode({str(path)!r})"
    done = run_without_privileges([sys.executable, "-c", script])
    assert f"{path}: cannot be read (Permission denied)" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "two words.wav",
        'it\'s "quoted".wav',
        "two\nlines.wav",
        "music \u97f3\u697d \U0001f3b5.wav",
        "\x1b[31mred.wav",
        os.fsdecode(b"latin-1 \xe9.wav"),
        "-rf.wav",
        "%s {0}.wav",
    ],
)
def test_any_name_is_read_and_shown_in_one_line(tmp_path, name):
    path = tmp_path / name
    write(tone(440, 1))(os.fsencode(path))
    assert len(audio.decode(path)) == 22_050
    path.write_text("no audio")
    with pytest.raises(AudioError) as error:
        audio.decode(path)
    line = str(error.value)
    assert len(line.splitlines()) == 1 and line.isprintable()
    line.encode("utf-8")


@pytest.mark.parametrize("subtype", ["PCM_16", "MPEG_LAYER_III"])
def test_what_a_file_holds_decides_not_its_name(tmp_path, subtype):
    kind = "WAV" if subtype == "PCM_16" else "MP3"
    path = tmp_path / "song.flac"
    soundfile.write(path, tone(440, 2), 22_050, subtype=subtype, format=kind)
    assert abs(loudest_hz(audio.decode(path)) - 440) < 1


def test_a_single_sample_has_no_segment(tmp_path):
    path = tmp_path / "one.wav"
    # Alone, a sample does not swing.
    write(np.array([0.5]))(path)
    with pytest.raises(AudioError, match="nothing but silence"):
        audio.decode(path)
    write(np.array([0.5, -0.5]))(path)
    found, notes = audio.read_segments(path)
    assert len(list(found)) == 0
    assert notes.text == ""


def noise(seconds, rate_hz=22_050):
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate_hz))
    return samples.astype(np.float32)


CUTS = [
    ("a.wav", {}, "cut off: holds 7.2 of 12.0 s"),
    ("a.au", {}, "cut off: holds 7.2 of 12.0 s"),
    ("a.aiff", {}, "cut off: holds 7.2 of 12.0 s"),
    ("a.mp3", {}, "cut off: holds 7."),
    ("a.flac", {}, "damaged after"),
    ("a.ogg", {}, "cut off: ends in the middle of its stream"),
]


@pytest.mark.parametrize("name, settings, note", CUTS)
def test_a_file_that_was_cut_off_gives_what_is_there_and_a_note(
    tmp_path, name, settings, note
):
    path = tmp_path / name
    soundfile.write(path, noise(12), 22_050, **settings)
    found, notes = audio.read_segments(path)
    assert (len(list(found)), notes.text) == (2, "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found, notes = audio.read_segments(path)
    assert len(list(found)) == 1
    assert notes.text.startswith(note)


def test_a_length_that_the_writer_could_not_know_is_no_cut(tmp_path):
    """As from ffmpeg into a pipe: bytes 40 to 43 of a WAV are its data's size."""
    path = tmp_path / "piped.wav"
    with_header(40, 0xFFFF_FFFF, samples=noise(6))(path)
    found, notes = audio.read_segments(path)
    assert (len(list(found)), notes.text) == (1, "")


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    """As encoders write it into a pipe: the header's number of samples is 0."""
    path = tmp_path / "piped.flac"
    soundfile.write(path, noise(12), 22_050)
    whole = bytearray(path.read_bytes())
    whole[21] &= 0xF0
    whole[22:26] = bytes(4)
    path.write_bytes(whole)
    found, notes = audio.read_segments(path)
    assert (len(list(found)), notes.text) == (2, "")


@pytest.mark.parametrize("rate_hz, channels", [(22_050, 1), (44_100, 2)])
def test_an_mp3_has_no_seams_between_blocks(tmp_path, monkeypatch, rate_hz, channels):
    """At low bit rates a frame needs the ones before it, which a seek forgets."""
    path = tmp_path / "low.mp3"
    music = sum(tone(hz, 12, rate_hz, 0.1) for hz in (220, 277.2, 331, 987))
    samples = np.stack([music + 0.05 * noise(12, rate_hz)] * channels, axis=1)
    settings = {"bitrate_mode": "CONSTANT", "compression_level": 0.9}
    soundfile.write(path, samples, rate_hz, format="MP3", **settings)
    monkeypatch.setattr(audio, "_BLOCK_VALUES", 1 << 30)
    whole = audio.decode(path)
    monkeypatch.setattr(audio, "_BLOCK_VALUES", 20_000)
    np.testing.assert_allclose(audio.decode(path), whole, atol=1e-6)


def test_a_header_that_promises_hours_is_called_damaged(tmp_path):
    path = tmp_path / "proud.aiff"
    soundfile.write(path, noise(12), 22_050)
    whole = path.read_bytes()
    at = whole.index(b"SSND") + 4
    path.write_bytes(whole[:at] + (0x3FFF_FFFF).to_bytes(4, "big") + whole[at + 4 :])
    _, notes = audio.read_segments(path)
    assert notes.text.startswith("its header is damaged: holds 12.0 s and promises")


def test_an_ogg_that_lost_its_last_page_has_a_note(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(12), 22_050)
    path.write_bytes(path.read_bytes()[:-500])
    _, notes = audio.read_segments(path)
    assert notes.text.startswith("its end is missing") or "cut off" in notes.text


def test_an_mp3_too_short_for_a_frame_says_so(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(2), 44_100, format="MP3")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AudioError, match="too short to hold audio"):
        audio.decode(path)


def test_damage_at_the_very_start_is_an_error(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(2), 22_050)
    whole = bytearray(path.read_bytes())
    whole[100:] = bytes(len(whole) - 100)
    path.write_bytes(whole)
    with pytest.raises(AudioError, match=r"cannot be decoded|holds no audio"):
        audio.decode(path)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
@pytest.mark.parametrize("rate_hz", [22_050, 16_000])
def test_a_recording_too_long_to_hold_gives_the_segments_of_its_whole(
    tmp_path, monkeypatch, count, rate_hz
):
    path = tmp_path / "long.flac"
    soundfile.write(path, noise(83, rate_hz), rate_hz)
    expected = audio.segments(audio.decode(path), count)
    monkeypatch.setattr(audio, "_HELD_SAMPLES", 30 * 22_050)
    monkeypatch.setattr(audio, "_BLOCK_VALUES", 100_000)
    found, _ = audio.read_segments(path, count)
    np.testing.assert_array_equal(np.stack(list(found)), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_ten_hours_are_read_in_bounded_memory(tmp_path):
    """The file is sparse: a second that is not zero, and zeros that take no disk."""
    path = tmp_path / "ten hours.wav"
    samples, rate_hz = 10 * 3600 * 8_000, 8_000
    soundfile.write(path, np.full(8_000, 0.5), rate_hz, subtype="PCM_16")
    with path.open("r+b") as file:
        file.truncate(44 + 2 * samples)
        for offset, size in ((4, 36 + 2 * samples), (40, 2 * samples)):
            file.seek(offset)
            file.write(size.to_bytes(4, "little"))
    script = (
        "from mgr_jax import audio\n"
        f"found, notes = audio.read_segments({str(path)!r})\n"
        "print(len(found), repr(notes.text))\n"
        f"{PRINT_PEAK_MB}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    said, peak_mb = done.stdout.splitlines()
    assert said == "5 ''"
    # As float32 at 22 050 Hz, the whole would be 3.2 GB.
    assert int(peak_mb) < 600


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
