"""Synthesised music against what is known of it."""

import dataclasses

import librosa
import numpy as np
import pytest

from mgr_jax import audio
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import synth

NUM_GENRES = len(synth.GENRES)

# The first clip's samples at 0, 5, 10, ... s, in steps of 16 bits.
PINNED = (-1517, -385, 9078, -210, 176, -1074)


def config_for(folder, clips=8):
    return Config(data_dir=str(folder), synth_clips=clips)


def beat_period_s(samples):
    """The strongest lag of the onset strength's autocorrelation in 0.28 to 0.7 s."""
    hop = 128
    onsets = librosa.onset.onset_strength(y=samples, sr=22050, hop_length=hop)
    correlation = librosa.autocorrelate(onsets - onsets.mean())
    lags_s = np.arange(len(correlation)) * hop / 22050
    correlation[(lags_s < 0.28) | (lags_s > 0.7)] = -np.inf
    return lags_s[correlation.argmax()]


def pitch_class_energy(samples):
    """(12,) energy by pitch class, C first, of one spectrum over the whole clip."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / 22050)
    heard = (frequency_hz > 240) & (frequency_hz < 4300)
    pitch = np.rint(69 + 12 * np.log2(frequency_hz[heard] / 440)).astype(int)
    return np.bincount(pitch % 12, power[heard], minlength=12)


def centroid_hz(samples):
    magnitude = np.abs(np.fft.rfft(samples))
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / 22050)
    return (magnitude * frequency_hz).sum() / magnitude.sum()


def features(samples):
    """Tempogram and chroma of a clip's second 5 s."""
    segment = samples[110_250:220_500]
    return {
        "tempogram": librosa.feature.tempogram(y=segment, sr=22050),
        "chroma": librosa.feature.chroma_stft(y=segment, sr=22050),
    }


@pytest.fixture(scope="module")
def clips():
    return [synth.render(index) for index in range(2 * NUM_GENRES)]


# --- what a clip is ---


def test_a_clip_is_30_seconds_of_16_bit_samples(clips):
    for samples in clips[:2]:
        assert samples.shape == (661_500,)
        assert samples.dtype == np.float32
        assert (samples * 32768 == np.rint(samples * 32768)).all()


def test_the_same_seed_and_index_give_the_same_samples(clips):
    assert (synth.render(5) == clips[5]).all()


def test_another_seed_or_index_gives_another_clip_of_the_same_genre(clips):
    assert synth.describe(5, seed=1).genre == synth.describe(5).genre
    assert synth.describe(5, seed=1).tempo_bpm != synth.describe(5).tempo_bpm
    assert not np.allclose(clips[5], clips[5 + NUM_GENRES], atol=1e-2)


def test_a_change_of_what_is_rendered_comes_with_a_new_version(clips):
    # Whoever changes these numbers on purpose raises VERSION, or old caches stay in
    # use. Two steps of 16 bits are left to the machine's rounding.
    assert synth.VERSION == 2
    samples = np.rint(clips[0][::110_250] * 32768)
    np.testing.assert_allclose(samples, PINNED, atol=2)


def test_no_clip_reaches_full_scale(clips):
    assert max(np.abs(samples).max() for samples in clips) < 0.99


# --- what a genre is ---


def test_genres_are_all_combinations_of_three_pairs_of_factors():
    assert len(set(synth.GENRES)) == 8
    assert list(synth.GENRES) == sorted(synth.GENRES)
    pairs = (synth.RHYTHMS, synth.HARMONIES, synth.TIMBRES)
    for place, pair in enumerate(pairs):
        named = [synth.factors(genre)[place] for genre in synth.GENRES]
        assert sorted(named) == sorted([*pair] * 4)


def test_genres_take_turns_and_each_has_every_tonic_equally_often():
    drawn = [synth.describe(index) for index in range(48)]
    assert [clip.genre for clip in drawn] == [*synth.GENRES] * 6
    for genre in synth.GENRES:
        tonics = sorted(clip.tonic for clip in drawn if clip.genre == genre)
        assert tonics == sorted(synth.TONICS * 2)


def test_both_harmonies_use_every_pitch_class():
    for harmony in synth.HARMONIES.values():
        used = {
            (tonic + root + interval) % 12
            for tonic in synth.TONICS
            for root in harmony.roots
            for interval in harmony.triad
        }
        assert used == set(range(12))


def test_nothing_but_its_factors_tells_a_genre():
    drawn = [synth.describe(index) for index in range(100 * NUM_GENRES)]
    heard = {"genre", "tempo_bpm", "shelf_db"}
    for field in dataclasses.fields(synth.Clip):
        if field.name in heard:
            continue
        values = np.array([getattr(clip, field.name) for clip in drawn])
        means = values.reshape(-1, NUM_GENRES).mean(axis=0)
        assert np.ptp(means) < values.std() / 2, field.name


def test_the_two_rhythms_have_separate_tempi():
    march, waltz = (synth.RHYTHMS[name].tempo_bpm for name in ("march", "waltz"))
    assert march[1] < waltz[0]


# --- what can be measured in the sound ---


def test_the_measured_tempo_is_the_clips_own(clips):
    for index in (0, 1, 2, 3, 4, 5, 6, 7):
        expected_s = 60 / synth.describe(index).tempo_bpm
        assert beat_period_s(clips[index]) == pytest.approx(expected_s, rel=0.03)


def test_the_measured_pitch_classes_are_the_clips_own(clips):
    for index, samples in enumerate(clips):
        clip = synth.describe(index)
        harmony = synth.HARMONIES[synth.factors(clip.genre)[1]]
        expected = {
            (clip.tonic + root + interval) % 12
            for root in harmony.roots
            for interval in harmony.triad
        }
        loudest = np.argsort(pitch_class_energy(samples))[-len(expected) :]
        assert set(loudest) == expected


def test_major_clips_hold_the_major_third_and_minor_clips_the_minor(clips):
    for index, samples in enumerate(clips):
        clip = synth.describe(index)
        energy = np.roll(pitch_class_energy(samples), -clip.tonic)
        major_over_minor_db = 10 * np.log10(energy[4] / energy[3])
        if synth.factors(clip.genre)[1] == "minor":
            major_over_minor_db = -major_over_minor_db
        assert major_over_minor_db > 15


def test_bright_clips_have_a_higher_spectral_centroid_than_dark_ones(clips):
    centroids = {"bright": [], "dark": []}
    for index, samples in enumerate(clips):
        timbre = synth.factors(synth.describe(index).genre)[2]
        centroids[timbre].append(centroid_hz(samples))
    assert min(centroids["bright"]) > max(centroids["dark"])


def test_a_clip_is_as_loud_as_drawn(clips):
    for index in (0, 7):
        level_db = 10 * np.log10(np.mean(clips[index].astype(np.float64) ** 2))
        assert level_db == pytest.approx(synth.describe(index).level_db, abs=0.05)


def test_each_feature_hears_its_own_factor_and_no_other(monkeypatch, clips):
    # The first clip again, with one factor exchanged and all else as it was drawn.
    changes = {
        "rhythm": (synth.RHYTHMS, "march", synth.RHYTHMS["waltz"]),
        "harmony": (synth.HARMONIES, "major", synth.HARMONIES["minor"]),
        "timbre": (synth.TIMBRES, "bright", synth.TIMBRES["dark"]),
    }
    before = features(clips[0])
    moved = {feature: {} for feature in before}
    for factor, (table, name, other) in changes.items():
        with monkeypatch.context() as patch:
            patch.setitem(table, name, other)
            after = features(synth.render(0))
        for feature, value in after.items():
            moved[feature][factor] = np.abs(value - before[feature]).mean()
    for feature, own in (("tempogram", "rhythm"), ("chroma", "harmony")):
        heard = moved[feature].pop(own)
        assert heard > 5 * max(moved[feature].values()), (feature, heard, moved)


# --- the cache ---


def test_tracks_name_16_bit_files_that_hold_what_is_rendered(tmp_path, clips):
    tracks = synth.load(config_for(tmp_path))
    assert [track.genre for track in tracks] == list(synth.GENRES)
    assert tracks[3].id == tracks[3].artist == "synth-00003"
    folder = tmp_path / "synth" / f"v{synth.VERSION}"
    assert tracks[3].path == folder / synth.GENRES[3] / "00003.wav"
    for index, track in enumerate(tracks):
        assert (audio.decode(track.path) == clips[index]).all()


def stand_in(monkeypatch, clips):
    """Replaces the renderer by stored clips; returns the list of what it is asked."""
    asked = []

    def render(index, seed=0):
        asked.append(index)
        return clips[index][:1000]

    monkeypatch.setattr(synth, "render", render)
    return asked


def test_rendered_clips_are_kept(monkeypatch, tmp_path, clips, capsys):
    asked = stand_in(monkeypatch, clips)
    first = synth.load(config_for(tmp_path))
    capsys.readouterr()
    assert synth.load(config_for(tmp_path)) == first
    assert asked == list(range(8))
    assert capsys.readouterr().err == ""


def test_more_clips_begin_with_the_same_ones(monkeypatch, tmp_path, clips):
    asked = stand_in(monkeypatch, clips)
    few = synth.load(config_for(tmp_path, clips=8))
    many = synth.load(config_for(tmp_path, clips=16))
    assert many[:8] == few
    assert asked == list(range(16))
    assert synth.load(config_for(tmp_path, clips=8)) == few


def test_only_what_is_missing_is_rendered_again(monkeypatch, tmp_path, clips):
    asked = stand_in(monkeypatch, clips)
    tracks = synth.load(config_for(tmp_path))
    whole = tracks[5].path.read_bytes()
    tracks[5].path.unlink()
    tracks[5].path.with_suffix(".1234.tmp").write_bytes(whole[:100])
    asked.clear()
    synth.load(config_for(tmp_path))
    assert asked == [5]
    assert tracks[5].path.read_bytes() == whole


def test_a_run_killed_while_it_writes_leaves_whole_clips_only(
    monkeypatch, tmp_path, clips
):
    asked = stand_in(monkeypatch, clips)
    replace = synth.pathlib.Path.replace

    def killed_at_the_third(path, target):
        if len(asked) == 3:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(synth.pathlib.Path, "replace", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            synth.load(config_for(tmp_path))
    assert len(list(tmp_path.rglob("*.wav"))) == 2
    asked.clear()
    synth.load(config_for(tmp_path))
    assert asked == list(range(2, 8))


def test_rendering_is_announced_in_one_line_where_there_is_no_terminal(
    monkeypatch, tmp_path, clips, capsys
):
    stand_in(monkeypatch, clips)
    synth.load(config_for(tmp_path))
    folder = tmp_path / "synth" / f"v{synth.VERSION}"
    assert capsys.readouterr().err == f"rendering 8 synth clips to {folder}\n"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"--data_dir=.*file.*cannot write") as error:
        synth.load(config_for(tmp_path / "file"))
    assert "\n" not in str(error.value)
