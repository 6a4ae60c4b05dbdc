import concurrent.futures
import csv
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import config_for, contents, tone, write_music_folder

from mgr_jax import audio, input_pipeline, prepare, shards
from mgr_jax.audio import SEGMENT_SAMPLES
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import load_tracks
from mgr_jax.features import FEATURES
from mgr_jax.splits import Assignment


@pytest.fixture(scope="module")
def prepared(music_folder, tmp_path_factory) -> pathlib.Path:
    return prepare.prepare(config_for(music_folder, tmp_path_factory.mktemp("f")))


@pytest.fixture
def copied(prepared, music_folder, tmp_path) -> tuple[Config, pathlib.Path]:
    """A finished folder to damage, and the config that it is of."""
    config = config_for(music_folder, tmp_path)
    folder = input_pipeline.prepared_folder(config)
    shutil.copytree(prepared, folder)
    return config, folder


def test_tfds_opens_the_folder_in_a_plain_python_session(prepared):
    script = (
        "import sys, tensorflow_datasets as tfds\n"
        f"builder = tfds.builder_from_directory({str(prepared)!r})\n"
        "examples = list(tfds.as_numpy(builder.as_dataset(split='segments')))\n"
        "assert 'mgr_jax' not in sys.modules\n"
        "print(len(examples), examples[0]['feature'].shape,\n"
        "    examples[0]['feature'].dtype, examples[-1]['track_id'].decode(),\n"
        "    builder.info.features['label'].names)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    expected = "32 (12, 216) float16 d sharp/track 7.wav ['a tones', 'd sharp']"
    assert done.stdout.strip() == expected


def test_a_record_is_what_tfds_would_write(own_music, tmp_path):
    """Of a genre that is not the first, and a name that is not ASCII."""
    import tensorflow as tf

    (own_music / "d sharp" / "track 3.wav").rename(own_music / "d sharp" / "Ré.wav")
    config = config_for(own_music, tmp_path / "f")
    folder = prepare.prepare(config)
    job = prepare._job(config, folder, tuple(load_tracks(config)))
    layout = shards.tfds_features(job)
    opened = input_pipeline.open_prepared(folder)
    values = {
        (example["track"], example["segment"]): example["feature"]
        for example in _all_examples(opened)
    }
    records = [
        tf.train.Example.FromString(record)
        for path in sorted(folder.glob("*.tfrecord-*"))
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    assert len(records) == len(values)
    names = set()
    for record in records:
        numbers = record.features.feature
        track = numbers["track"].int64_list.value[0]
        segment = numbers["segment"].int64_list.value[0]
        names.add(opened.tracks[track].id)
        expected = layout.serialize_example(
            {
                "feature": values[track, segment].astype(np.float16),
                "label": opened.tracks[track].genre,
                "track": track,
                "track_id": opened.tracks[track].id,
                "segment": segment,
            }
        )
        assert record == tf.train.Example.FromString(expected)
    assert "d sharp/Ré.wav" in names


def test_shards_hold_the_feature_of_each_segment(prepared, music_folder):
    path = music_folder / "d sharp" / "track 3.wav"
    segments = audio.segments(audio.decode(path))
    expected = np.asarray(FEATURES["chroma"].fn(segments))
    opened = input_pipeline.open_prepared(prepared)
    found = [
        example
        for example in _all_examples(opened)
        if opened.tracks[example["track"]].id == "d sharp/track 3.wav"
    ]
    assert [example["segment"] for example in found] == [0, 1]
    assert [example["label"] for example in found] == [1, 1]
    for example, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(example["feature"], value, atol=2e-3)


def _all_examples(opened):
    sides = dict.fromkeys((track.id for track in opened.tracks), ("train",) * 2)
    side = input_pipeline.load_side(opened, Assignment(sides), "train")
    return list(side.dataset.as_numpy_iterator())


def test_a_finished_folder_is_not_computed_again(prepared, music_folder):
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    again = prepare.prepare(config_for(music_folder, prepared.parents[1]))
    assert again == prepared
    assert before == {path: path.stat().st_mtime_ns for path in prepared.iterdir()}


def test_a_finished_folder_is_used_without_writing_to_it(
    prepared, music_folder, monkeypatch
):
    monkeypatch.setattr(prepare, "_writing_to", _die)
    config = config_for(music_folder, prepared.parents[1])
    assert prepare.prepare(config) == prepared


def test_a_mended_file_is_read_again(own_music, tmp_path):
    path = own_music / "a tones" / "track 1.wav"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    config = config_for(own_music, tmp_path / "f")
    with pytest.raises(UserError, match="cannot be used"):
        prepare.prepare(config)
    path.write_bytes(whole)
    folder = prepare.prepare(config)
    assert set(input_pipeline.open_prepared(folder).segment_counts.values()) == {2}


def test_a_file_that_was_mended_at_its_size_is_read_again_when_told(
    own_music, tmp_path
):
    path = own_music / "a tones" / "track 1.wav"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    config = config_for(own_music, tmp_path / "f", max_skipped=0.2)
    folder = prepare.prepare(config)
    path.write_bytes(whole)
    prepare.prepare(config)
    assert list(listed(folder / "skipped.csv")) == ["a tones/track 1.wav"]
    prepare.prepare(dataclasses.replace(config, overwrite=True))
    assert listed(folder / "skipped.csv") == {}
    assert set(input_pipeline.open_prepared(folder).segment_counts.values()) == {2}


@pytest.mark.parametrize("count", [0, 5])
def test_silence_is_skipped_however_long_it_is(own_music, tmp_path, monkeypatch, count):
    path = own_music / "a tones" / "track 1.wav"
    soundfile.write(path, np.zeros(40 * 22_050), 22_050)
    monkeypatch.setattr(audio, "_HELD_SAMPLES", 6 * 22_050)
    config = config_for(
        own_music, tmp_path / "f", max_skipped=0.2, segments_per_track=count
    )
    folder = prepare.prepare(config)
    (reason,) = listed(folder / "skipped.csv").values()
    assert reason.endswith("holds nothing but silence")


def test_an_interrupted_overwrite_keeps_no_shard_of_before(own_music, tmp_path):
    config = config_for(own_music, tmp_path / "f")
    folder = prepare.prepare(config)
    for name in ("dataset_info.json", "spec.json"):
        (folder / name).unlink()
    shard = next(folder.glob("*.tfrecord-00000-*"))
    expected = shard.read_bytes()
    shard.write_bytes(b"of other music")
    prepare.prepare(config)
    assert shard.read_bytes() == expected


class Killed(BaseException):
    """Stands in for a signal: nothing in the program catches it."""


@pytest.mark.parametrize("kill_at", [0, 3, 4, 15])
def test_killed_and_resumed_gives_the_same_bytes(
    prepared, music_folder, tmp_path, monkeypatch, kill_at
):
    """The kill comes while a track is read, or (15) before the commit."""
    config = config_for(music_folder, tmp_path)
    reads = []
    whole = audio.read_segments

    def read_segments(path, count):
        reads.append(path)
        if len(reads) > kill_at:
            raise Killed
        return whole(path, count)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(audio, "read_segments", read_segments)
        if kill_at == 15:
            patched.setattr(audio, "read_segments", whole)
            patched.setattr(prepare, "_commit", _die)
        prepare.prepare(config)
    folder = input_pipeline.prepared_folder(config)
    assert not input_pipeline.is_complete(folder)
    prepare.prepare(config)
    assert contents(folder) == contents(prepared)


def _die(*_):
    raise Killed


def test_segments_have_their_features_however_many_there_are_and_whoever_asks():
    """A batch is computed in parts, where those of the batch before it still lie."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((32, SEGMENT_SAMPLES)).astype(np.float32)
    names = ("chroma", "spectrogram")
    expected = {name: np.asarray(FEATURES[name].fn(samples)) for name in names}

    def hold(chosen):
        values = shards.compute(names, [samples[k] for k in chosen])
        assert list(values) == list(names)
        for name, value in values.items():
            assert value.dtype == np.float16
            # XLA may add in another order before it rounds.
            one = expected[name][chosen]
            np.testing.assert_allclose(value, one, rtol=1e-3, atol=1e-5)

    batches = [range(32), [31], [5, 3, 1], range(20), range(12, 32), [0, 31]]
    with concurrent.futures.ThreadPoolExecutor(3) as callers:
        for _ in callers.map(hold, map(list, 3 * batches)):
            pass


def test_a_resumed_run_leaves_finished_shards_alone(
    music_folder, tmp_path, monkeypatch
):
    config = config_for(music_folder, tmp_path)
    monkeypatch.setattr(prepare, "_commit", _die)
    with pytest.raises(Killed):
        prepare.prepare(config)
    folder = input_pipeline.prepared_folder(config)
    files = sorted(folder.glob("*.tfrecord-*"))
    assert len(files) == 6
    files[2].unlink()
    monkeypatch.undo()
    written = record_shards(monkeypatch)
    prepare.prepare(config)
    assert written == [2]


@pytest.fixture
def own_music(tmp_path):
    return write_music_folder(tmp_path / "music", tracks_per_genre=5)


def test_unreadable_files_are_skipped_listed_and_counted(own_music, tmp_path, capsys):
    bad = own_music / "a tones" / "track 1.wav"
    bad.write_text("this is no audio")
    short = own_music / "d sharp" / "track 0.wav"
    soundfile.write(short, tone(440, 4.9), 22_050)
    folder = prepare.prepare(config_for(own_music, tmp_path / "f", max_skipped=0.2))
    with (folder / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["track_id"] for row in rows] == [
        "a tones/track 1.wav",
        "d sharp/track 0.wav",
    ]
    assert "cannot be decoded" in rows[0]["reason"]
    assert "shorter than one segment of 5 s" in rows[1]["reason"]
    assert "16 segments of 10 tracks, 2 skipped" in capsys.readouterr().out
    counts = input_pipeline.open_prepared(folder).segment_counts
    assert counts["a tones/track 1.wav"] == 0
    assert counts["a tones/track 2.wav"] == 2


def test_a_folder_of_bad_files_is_prepared_and_none_passes_as_good(own_music, tmp_path):
    """Every one is skipped with its reason, used in part with a note, or read."""
    place = own_music / "a tones"
    good = (place / "track 0.wav").read_bytes()
    stereo = np.stack([tone(440, 11, 192_000)] * 8, axis=1)

    def write(name, samples, rate_hz=22_050, **settings):
        soundfile.write(place / name, samples, rate_hz, **settings)

    (place / "cut.wav").write_bytes(good[: len(good) * 6 // 11])
    (place / "stub.wav").write_bytes(good[: len(good) // 11])
    (place / "empty.wav").write_bytes(b"")
    (place / "text.mp3").write_text("lyrics\n" * 500)
    (place / "named.mp3").write_bytes(good)
    (place / "line\nbreak 'q' \"q\" \u97f3.wav").write_bytes(good)
    (place / "loop.wav").symlink_to("loop.wav")
    (place / "gone.wav").symlink_to("gone")
    (place / "folder.wav").mkdir()
    os.mkfifo(place / "fifo.wav")
    write("nan.wav", np.full(250_000, np.nan), subtype="FLOAT")
    write("one.wav", np.array([0.5]))
    write("silence.wav", np.zeros(250_000))
    write("dc.wav", np.full(250_000, 0.5))
    write("8k.wav", tone(440, 11, 8_000), 8_000)
    write("192k.wav", stereo, 192_000)
    folder = prepare.prepare(config_for(own_music, tmp_path / "f", max_skipped=1.0))
    counts = input_pipeline.open_prepared(folder).segment_counts
    of_place = {
        name.removeprefix("a tones/"): count
        for name, count in counts.items()
        if name.startswith("a tones/")
    }
    usable = {name: count for name, count in of_place.items() if count}
    assert usable == {
        **{f"track {k}.wav": 2 for k in range(5)},
        "cut.wav": 1,
        "named.mp3": 2,
        "line\nbreak 'q' \"q\" \u97f3.wav": 2,
        "8k.wav": 2,
        "192k.wav": 2,
    }
    reasons = {
        "stub.wav": "shorter than one segment of 5 s (cut off: holds 1.0 of 11.0 s)",
        "empty.wav": "cannot be decoded (Format not recognised)",
        "text.mp3": "cannot be decoded (Format not recognised)",
        "loop.wav": "cannot be read (Too many levels of symbolic links)",
        "gone.wav": "cannot be read (No such file or directory)",
        "fifo.wav": "is no file; leave it out",
        "nan.wav": "holds samples that are not finite (NaN or infinity)",
        "one.wav": "holds nothing but silence",
        "silence.wav": "holds nothing but silence",
        "dc.wav": "holds nothing but silence",
    }
    assert listed(folder / "skipped.csv") == {
        f"a tones/{name}": f"{place / name}: {reason}"
        for name, reason in reasons.items()
    }
    assert listed(folder / "notes.csv") == {
        "a tones/cut.wav": f"{place / 'cut.wav'}: cut off: holds 6.0 of 11.0 s"
    }


def listed(path: pathlib.Path) -> dict[str, str]:
    """Track to what is said of it."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["track_id"]: row["reason"] for row in csv.DictReader(file)}


def test_what_was_skipped_is_said_with_the_first_reason(own_music, tmp_path, capsys):
    for number in (1, 2):
        (own_music / "d sharp" / f"track {number}.wav").write_bytes(b"")
    folder = prepare.prepare(config_for(own_music, tmp_path / "f", max_skipped=0.2))
    (line,) = capsys.readouterr().err.splitlines()
    first = own_music / "d sharp" / "track 1.wav"
    assert line == (
        f"warning: skipped: {first}: cannot be decoded (Format not recognised) (and 1 "
        f"more); listed in {folder / 'skipped.csv'}"
    )


def test_a_file_that_vanishes_after_it_was_listed_is_skipped(
    own_music, tmp_path, monkeypatch
):
    load_tracks = prepare.load_tracks

    def then_vanish(config):
        tracks = load_tracks(config)
        tracks[3].path.unlink()
        return tracks

    monkeypatch.setattr(prepare, "load_tracks", then_vanish)
    folder = prepare.prepare(config_for(own_music, tmp_path / "f", max_skipped=0.2))
    (reason,) = listed(folder / "skipped.csv").values()
    assert reason.endswith("track 3.wav: cannot be read (No such file or directory)")


@pytest.mark.parametrize("count", [1, 0])
def test_a_long_recording_is_prepared_as_any_other(
    own_music, tmp_path, monkeypatch, count
):
    config = config_for(own_music, tmp_path / "f", segments_per_track=count)
    expected = contents(prepare.prepare(config))
    monkeypatch.setattr(audio, "_HELD_SAMPLES", 6 * 22_050)
    again = dataclasses.replace(config, features_dir=str(tmp_path / "g"))
    assert contents(prepare.prepare(again)) == expected


def test_a_recording_that_breaks_off_while_it_is_cut_counts_what_it_gave(
    own_music, tmp_path, monkeypatch
):
    """All segments of a long recording are taken from a second reading."""
    path = own_music / "a tones" / "track 0.wav"
    soundfile.write(path, tone(440, 22), 22_050)
    monkeypatch.setattr(audio, "_HELD_SAMPLES", 12 * 22_050)
    all_segments = audio._all_segments

    def break_off(blocks):
        for number, segment in enumerate(all_segments(blocks)):
            if number == 2:
                raise audio.AudioError(f"{path}: vanished")
            yield segment

    monkeypatch.setattr(audio, "_all_segments", break_off)
    config = config_for(own_music, tmp_path / "f", segments_per_track=0)
    folder = prepare.prepare(config)
    counts = input_pipeline.open_prepared(folder).segment_counts
    assert counts["a tones/track 0.wav"] == 2
    (note,) = listed(folder / "notes.csv").values()
    assert "vanished" in note
    sides = {name: ("train",) * count for name, count in counts.items()}
    side = input_pipeline.load_side(
        input_pipeline.open_prepared(folder), Assignment(sides), "train"
    )
    assert len(list(side.dataset)) == side.size == sum(counts.values())


@pytest.mark.parametrize("lost", ["shard", "half a shard", "account", "several"])
def test_what_a_finished_folder_lost_is_made_again_and_nothing_else(
    prepared, copied, monkeypatch, lost
):
    config, folder = copied
    files = sorted(folder.glob("*.tfrecord-*"))
    expected = {"several": [0, 4]}.get(lost, [2])
    for k in expected:
        if lost == "half a shard":
            files[k].write_bytes(files[k].read_bytes()[:1_000])
        elif lost == "account":
            next(folder.glob(f"tracks-{k:05d}-*")).write_text("{")
        else:
            files[k].unlink()
    made = record_shards(monkeypatch)
    prepare.prepare(config)
    assert made == expected
    assert contents(folder) == contents(prepared)


def record_shards(monkeypatch) -> list[int]:
    """The numbers of the shards that are written from here on."""
    written = []
    write = shards.write_shard
    monkeypatch.setattr(
        shards,
        "write_shard",
        lambda job, k, **kw: (written.append(k), write(job, k, **kw)),
    )
    return written


@pytest.mark.parametrize("name", ["tracks.csv", "features.json"])
def test_damaged_lists_are_written_again_as_the_message_says(
    prepared, copied, monkeypatch, name
):
    config, folder = copied
    (folder / name).write_text("{")
    prepare.prepare(config)
    with pytest.raises(UserError, match=r"delete dataset_info\.json there"):
        input_pipeline.open_prepared(folder)
    (folder / "dataset_info.json").unlink()
    made = record_shards(monkeypatch)
    prepare.prepare(config)
    assert made == []
    assert contents(folder) == contents(prepared)


@pytest.mark.parametrize("left", ["", "{"])
def test_a_kill_while_the_commit_is_written_leaves_no_finished_folder(
    prepared, copied, monkeypatch, left
):
    """TFDS writes it in place: a kill can leave it empty, or half of it."""
    config, folder = copied
    (folder / "dataset_info.json").write_text(left)
    assert not input_pipeline.is_complete(folder)
    made = record_shards(monkeypatch)
    prepare.prepare(config)
    assert made == []
    assert contents(folder) == contents(prepared)


def test_a_kill_while_a_lost_shard_is_committed_leaves_no_finished_folder(
    prepared, copied, monkeypatch
):
    config, folder = copied
    next(folder.glob("*.tfrecord-00002-*")).unlink()

    def die_within(path, *_):
        path.write_text("")
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(prepare, "write_tracks", die_within)
        prepare.prepare(config)
    assert not input_pipeline.is_complete(folder)
    prepare.prepare(config)
    assert contents(folder) == contents(prepared)


@pytest.mark.parametrize("spec", ["another version", "nothing that can be read"])
def test_features_of_another_version_are_made_anew_only_when_told(
    prepared, copied, spec
):
    config, folder = copied
    path = folder / "spec.json"
    whole = json.loads(path.read_text())
    other = json.dumps(whole | {"format_version": 1}) if "another" in spec else "\xff"
    path.write_text(other)
    with pytest.raises(UserError, match=r"format_version (1|None) then, 2 now"):
        prepare.prepare(config)
    prepare.prepare(dataclasses.replace(config, overwrite=True))
    assert contents(folder) == contents(prepared)


def test_an_interrupt_does_not_wait_for_what_is_still_to_be_decoded(
    music_folder, tmp_path, monkeypatch
):
    read, begun = audio.read_segments, []

    def slowly(path, count):
        begun.append(path)
        time.sleep(0.05)
        return read(path, count)

    monkeypatch.setattr(audio, "read_segments", slowly)
    monkeypatch.setattr(shards, "compute", _die)
    monkeypatch.setattr(shards, "FEATURE_BATCH", 1)
    config = config_for(music_folder, tmp_path, tracks_per_shard=16, decode_threads=1)
    with pytest.raises(Killed):
        prepare.prepare(config)
    assert len(begun) < 8
    assert not list(input_pipeline.prepared_folder(config).glob(".writing-*"))


def test_too_many_skipped_is_an_error_until_it_is_allowed(own_music, tmp_path):
    (own_music / "a tones" / "track 1.wav").write_bytes(b"")
    config = config_for(own_music, tmp_path / "f")
    with pytest.raises(
        UserError, match=r"1 of 10 tracks cannot be used.*--max_skipped"
    ):
        prepare.prepare(config)
    assert not input_pipeline.is_complete(input_pipeline.prepared_folder(config))
    folder = prepare.prepare(dataclasses.replace(config, max_skipped=0.1))
    assert input_pipeline.is_complete(folder)


def test_changed_tracks_are_noticed_and_prepared_anew_only_when_told(
    own_music, tmp_path
):
    config = config_for(own_music, tmp_path / "f")
    folder = prepare.prepare(config)
    before = contents(folder)
    shutil.copy(own_music / "a tones/track 1.wav", own_music / "a tones/track 9.wav")
    with pytest.raises(UserError, match=r"num_tracks 10 then, 11 now.*--overwrite"):
        prepare.prepare(config)
    assert contents(folder) == before
    prepare.prepare(dataclasses.replace(config, overwrite=True))
    assert len(input_pipeline.open_prepared(folder).tracks) == 11


def test_features_serve_where_the_audio_is_not(own_music, tmp_path, capsys):
    config = config_for(own_music, tmp_path / "f")
    folder = prepare.prepare(config)
    shutil.rmtree(own_music)
    assert prepare.prepare(config) == folder
    assert "the audio itself is not there" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_names_the_flag(music_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written .*--features_dir"):
        prepare.prepare(config_for(music_folder, tmp_path / "file" / "features"))


def test_other_numbers_of_segments_live_side_by_side(music_folder, tmp_path):
    config = config_for(music_folder, tmp_path, segments_per_track=1)
    folder = prepare.prepare(config)
    assert folder.name == "chroma-1-segments"
    assert set(input_pipeline.open_prepared(folder).segment_counts.values()) == {1}


def test_two_at_once_wait_for_each_other(prepared, music_folder, tmp_path, program):
    flags = [
        "--mode=prepare",
        "--dataset=folder",
        "--feature=chroma",
        "--tracks_per_shard=3",
        f"--data_dir={music_folder}",
        f"--features_dir={tmp_path}",
    ]
    both = [program(*flags, start_only=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    folder = tmp_path / prepared.relative_to(prepared.parents[1])
    assert contents(folder) == contents(prepared)


FEATURES_OF_PAPER = ["tempogram", "chroma", "spectrogram"]


def folders_of(config, features):
    return [
        input_pipeline.prepared_folder(dataclasses.replace(config, feature=feature))
        for feature in features
    ]


def test_several_features_are_prepared_from_one_decoding(
    music_folder, tmp_path, monkeypatch
):
    alone = config_for(music_folder, tmp_path / "alone")
    expected = [
        contents(prepare.prepare(dataclasses.replace(alone, feature=feature)))
        for feature in FEATURES_OF_PAPER
    ]
    decoded, read = [], audio.read_segments
    monkeypatch.setattr(
        audio,
        "read_segments",
        lambda path, number: (decoded.append(path), read(path, number))[1],
    )
    config = config_for(music_folder, tmp_path / "together")
    folders = prepare.prepare_all(config, FEATURES_OF_PAPER)
    assert folders == folders_of(config, FEATURES_OF_PAPER)
    assert list(map(contents, folders)) == expected
    assert len(decoded) == len(set(decoded)) == 16


def test_of_several_features_only_what_is_missing_is_made(
    music_folder, tmp_path, monkeypatch, capsys
):
    config = config_for(music_folder, tmp_path)
    folders = prepare.prepare_all(config, FEATURES_OF_PAPER)
    before = list(map(contents, folders))
    tempogram, chroma, _ = folders
    for folder, k in (tempogram, 1), (chroma, 1), (chroma, 4):
        next(folder.glob(f"*.tfrecord-{k:05d}-*")).unlink()
    made, write = [], shards.write_shard
    monkeypatch.setattr(
        shards,
        "write_shard",
        lambda jobs, k, **kw: (
            made.append((k, sorted(job.feature for job in jobs))),
            write(jobs, k, **kw),
        ),
    )
    capsys.readouterr()
    # Named twice, it is there once.
    prepare.prepare_all(config, [*FEATURES_OF_PAPER, "chroma"])
    assert made == [(1, ["chroma", "tempogram"]), (4, ["chroma"])]
    assert list(map(contents, folders)) == before
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"the features are prepared: {folders[2]}"
    assert "preparing chroma, tempogram of 16 tracks in 6 shards, 4 of them" in said[1]


def test_the_program_prepares_several_features(music_folder, tmp_path, program):
    flags = [
        "--mode=prepare",
        "--dataset=folder",
        f"--data_dir={music_folder}",
        f"--features_dir={tmp_path}",
    ]
    done = program(*flags, "--feature=chroma,spectrogram")
    assert done.returncode == 0, done.stderr
    config = config_for(music_folder, tmp_path)
    for folder in folders_of(config, ["chroma", "spectrogram"]):
        assert input_pipeline.is_complete(folder)

    done = program(*flags, "--feature=chroma,spectogram")
    assert done.returncode == 1
    assert "--feature=spectogram: choose one of" in done.stderr
    assert "did you mean spectrogram?" in done.stderr
    done = program(*flags, "--mode=train", "--feature=chroma,spectrogram")
    assert done.returncode == 1
    assert "--feature=chroma,spectrogram: choose one of" in done.stderr
