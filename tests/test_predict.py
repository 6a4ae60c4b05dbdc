"""Predicting on one's own music, as a library and as the program."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, SHARED, run_module, tone

from mgr_jax import (
    baselines,
    evaluate,
    export,
    input_pipeline,
    predict,
    prepare,
    scores,
    shards,
    train,
    windows,
    workdir,
)
from mgr_jax.audio import SEGMENT_SAMPLES, AudioError
from mgr_jax.config import Config, UserError

SETTINGS = {
    "dataset": "folder",
    "feature": "chroma",
    "split": "track",
    "batch_size": 4,
    "num_epochs": 12,
    "learning_rate": 0.01,
    "widths": (4, 4, 8),
    "hidden_units": 8,
}


def make_run(music_folder, place, **settings) -> pathlib.Path:
    config = Config(
        **SETTINGS | settings,
        data_dir=str(music_folder),
        features_dir=str(place / "features"),
        workdir=str(place / "run"),
    )
    fit = baselines.fit if config.model == "svm" else train.train
    fit(config, prepare.prepare(config))
    evaluate.evaluate(config)
    return place / "run"


@pytest.fixture(scope="module")
def run(music_folder, tmp_path_factory) -> pathlib.Path:
    """A run whose model tells tones around A from tones around D sharp."""
    return make_run(music_folder, tmp_path_factory.mktemp("predict"))


@pytest.fixture(scope="module")
def predictor(run) -> predict.Predictor:
    return predict.load(run)


def write(path, hz=440.0, seconds=12.0, rate_hz=22_050, channels=1, **settings):
    samples = np.stack([tone(hz, seconds, rate_hz)] * channels, axis=1)
    soundfile.write(path, samples, rate_hz, **settings)
    return path


def program(run, *words, cwd, **environment):
    return run_module(
        "mgr_jax.predict", f"--workdir={run}", *words, cwd=cwd, **environment
    )


# The library.


def test_samples_and_files_are_judged_alike(predictor, tmp_path):
    samples = tone(622.25, 12.0)
    found = predictor(samples, 22_050)
    path = tmp_path / "d.wav"
    soundfile.write(path, samples, 22_050, subtype="FLOAT")
    of_file = predictor.file(path)
    np.testing.assert_allclose(found.probabilities, of_file.probabilities, atol=1e-6)
    assert found.labels == ("a tones", "d sharp")
    assert found.ranked[0][0] == "d sharp" and found.ranked[0][1] > 0.9
    assert found.duration_s == of_file.duration_s == 12.0
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.overall, found.probabilities.mean(axis=0))


def test_a_test_sets_segments_get_the_probabilities_that_evaluation_gave_them(
    run, predictor, music_folder
):
    of_run, _ = scores.read_predictions_csv(run / "predictions.csv")
    for track in set(of_run.track_ids):
        rows = of_run.track_ids == track
        found = predictor.file(music_folder / track)
        expected = of_run.probabilities[rows]
        np.testing.assert_allclose(found.probabilities[:2], expected, atol=1e-5)


@pytest.mark.parametrize(
    "seconds, hop_s, starts",
    [
        (12.0, 5.0, [0, 5, 7]),
        (10.0, 5.0, [0, 5]),
        (10.9, 5.0, [0, 5]),
        (11.0, 5.0, [0, 5, 6]),
        (10.0, 2.5, [0, 2.5, 5]),
        (5.0, 5.0, [0]),
        (30.0, 20.0, [0, 20, 25]),
        (0.5, 5.0, [0]),
    ],
)
def test_windows_start_every_hop_and_the_end_is_heard(
    predictor, seconds, hop_s, starts
):
    found = predictor(tone(440, seconds), 22_050, hop_s)
    np.testing.assert_allclose(found.times_s, starts)
    assert found.duration_s == seconds
    assert ("repeated" in found.note) == (seconds < 5)
    assert found.ranked[0][0] == "a tones"


def test_each_window_is_judged_by_what_is_in_it(predictor):
    samples = np.concatenate([tone(440, 10), tone(622.25, 10)])
    found = predictor(samples, 22_050)
    tops = [ranked[0][0] for _, ranked in found.windows]
    assert tops == ["a tones", "a tones", "d sharp", "d sharp"]


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_any_rate_and_channel_count_are_judged_alike(
    predictor, rate_hz, channels
):
    samples = np.stack([tone(440, 12, rate_hz)] * channels, axis=1).squeeze()
    expected = predictor(tone(440, 12), 22_050).overall
    found = predictor(samples, rate_hz).overall
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    "samples, rate_hz, hop_s, words",
    [
        (np.zeros(0), 22_050, 5, "shape"),
        (np.zeros((3, 3, 3)), 22_050, 5, "shape"),
        (np.zeros(99_999, np.int16), 22_050, 5, "int16"),
        (np.full(99_999, np.nan), 22_050, 5, "not finite"),
        (np.zeros(99_999), 0, 5, "rate of 0"),
        (np.zeros(99_999), 22_050, 0, "hop of 0"),
        (np.zeros(99_999), 22_050, np.nan, "hop of nan"),
    ],
)
def test_what_is_no_recording_is_a_value_error(
    predictor, samples, rate_hz, hop_s, words
):
    with pytest.raises(ValueError, match=words):
        predictor(samples, rate_hz, hop_s)


def test_windows_of_several_files_share_a_batch(predictor, tmp_path, monkeypatch):
    sizes = []
    compute = shards.compute

    def counted(names, samples):
        sizes.append(len(samples))
        return compute(names, samples)

    monkeypatch.setattr(shards, "compute", counted)
    paths = [write(tmp_path / f"{k}.wav", seconds=5) for k in range(20)]
    paths.append(write(tmp_path / "long.wav", hz=622.25, seconds=90))
    paths.append(write(tmp_path / "last.wav", seconds=5))
    found = list(predictor.files(paths))
    assert sizes == [32, 7]
    assert [path for path, _ in found] == paths
    tops = [prediction.ranked[0][0] for _, prediction in found]
    assert tops == ["a tones"] * 20 + ["d sharp", "a tones"]


def test_files_are_answered_as_they_finish_and_in_their_order(predictor, tmp_path):
    paths = [write(tmp_path / f"{k}.wav", seconds=100) for k in range(3)]
    asked = []

    def given():
        for path in [*paths, tmp_path / "missing.wav"] * 20:
            asked.append(path)
            yield path

    answers = predictor.files(given())
    first, _ = next(answers)
    assert first == paths[0]
    assert len(asked) < 60
    answers.close()


def test_a_file_that_waits_for_no_window_is_answered_at_once():
    bad = windows.End(pathlib.Path("bad"), error=AudioError("bad"))
    window = windows.Window(0, np.zeros(SEGMENT_SAMPLES, np.float32))
    good = windows.End(pathlib.Path("good"), SEGMENT_SAMPLES)
    stream = iter([bad, window, good, bad, window, window, good, window, good])
    batches = windows.in_batches(stream, 3)
    assert next(batches) == [bad]
    assert list(batches) == [
        [window, good, bad, window, window],
        [good],
        [window, good],
    ]


def test_a_bad_file_between_good_ones_takes_nothing_from_them(predictor, tmp_path):
    good = write(tmp_path / "good.wav")
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(200_000), 22_050)
    text = tmp_path / "text.mp3"
    text.write_text("no audio")
    found = dict(predictor.files([good, silent, text, tmp_path / "none.wav"]))
    assert found[good].ranked[0][0] == "a tones"
    for path, reason in ((silent, "silence"), (text, "decoded"), (None, "No such")):
        error = found[path or tmp_path / "none.wav"]
        assert isinstance(error, AudioError) and reason in str(error)
    with pytest.raises(AudioError, match="silence"):
        predictor.file(silent)


def test_a_run_serves_without_its_data_from_anywhere(run, tmp_path):
    """Feature, rate, labels and normalisation are the run's own."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    config = json.loads((moved / "config.json").read_text())
    gone = {"data_dir": "/gone", "features_dir": "/gone/f", "workdir": "/gone/run"}
    (moved / "config.json").write_text(json.dumps(config | gone))
    found = predict.load(moved)(tone(440, 12), 22_050)
    assert found.ranked[0][0] == "a tones"


def test_a_run_on_a_feature_that_is_computed_otherwise_now_is_refused(run, monkeypatch):
    params = predict.FEATURES["chroma"].params
    other = dataclasses.replace(
        predict.FEATURES["chroma"], params={**params, "version": 99}
    )
    monkeypatch.setitem(predict.FEATURES, "chroma", other)
    with pytest.raises(UserError, match=r"was trained on chroma.*train it anew"):
        predict.load(run)


@pytest.mark.parametrize("mode", ["predict", "evaluate", "train"])
def test_a_run_that_heard_more_or_less_is_refused(run, monkeypatch, mode):
    louder = dataclasses.replace(predict.FEATURES["chroma"], least=0.5)
    monkeypatch.setitem(predict.FEATURES, "chroma", louder)
    config = workdir.read_config(run)
    ask = {
        "predict": lambda: predict.load(run),
        "evaluate": lambda: evaluate.evaluate(config),
        "train": lambda: train.train(config, input_pipeline.prepared_folder(config)),
    }
    with pytest.raises(UserError, match=r"by another version.*chroma; train it anew"):
        ask[mode]()


def test_predicting_needs_neither_tensorflow_nor_matplotlib(run):
    script = (
        "import sys, numpy as np\n"
        "from mgr_jax import predict\n"
        f"found = predict.load({str(run)!r})(np.random.randn(99_999), 22_050)\n"
        "print({'tensorflow', 'matplotlib', 'librosa', 'sklearn'} & {*sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "set()\n", done.stderr


def test_the_baseline_predicts_too_and_cannot_be_exported(music_folder, tmp_path):
    run = make_run(music_folder, tmp_path, model="svm")
    svm = predict.load(run)
    path = music_folder / "d sharp" / "track 2.wav"
    assert svm.file(path).ranked[0][0] == "d sharp"
    with pytest.raises(UserError, match=r"svm is no JAX function.*cnn or crnn"):
        export.export(svm, tmp_path / "out")


# Formats.

ENCODINGS = [
    ("wav", {"subtype": "PCM_16"}, 0.02),
    ("flac", {}, 0.02),
    ("ogg", {}, 0.02),
    ("mp3", {}, 0.05),
]


@pytest.mark.parametrize("extension, settings, tolerance", ENCODINGS)
def test_the_same_music_in_any_format_rate_and_channel_count_is_judged_alike(
    predictor, tmp_path, music_folder, extension, settings, tolerance
):
    import soxr

    samples, rate = soundfile.read(music_folder / "a tones" / "track 1.wav")
    expected = predictor(samples, rate)
    for rate_hz in (22_050, 44_100, 48_000):
        for channels in (1, 2):
            again = soxr.resample(samples, rate, rate_hz)
            path = tmp_path / f"{rate_hz}-{channels}.{extension}"
            soundfile.write(
                path, np.stack([again] * channels, axis=1), rate_hz, **settings
            )
            found = predictor.file(path)
            assert found.ranked[0][0] == expected.ranked[0][0] == "a tones"
            np.testing.assert_allclose(
                found.overall, expected.overall, atol=tolerance, err_msg=str(path)
            )


# The program.


@pytest.fixture
def mixed(tmp_path):
    """A folder of good and bad files."""
    root = tmp_path / "mixed"
    (root / "sub").mkdir(parents=True)
    write(root / "b.wav")
    write(root / "a.flac", hz=622.25)
    write(root / "sub" / "two\nlines.ogg")
    (root / "c.mp3").write_text("no audio")
    (root / "notes.txt").write_text("no audio either, and not named as such")
    (root / ".hidden.wav").write_text("")
    return root


EXPECTED = ["a.flac", "b.wav", "c.mp3", "sub/two\nlines.ogg"]


def test_a_table_shows_each_file_and_what_was_skipped(run, mixed):
    done = program(run, mixed, cwd=mixed)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    names = [line.split(f"{mixed}/")[1] for line in lines]
    assert names == ["a.flac", "b.wav", "sub/two\\nlines.ogg"]
    assert re.match(r"d sharp +\d+\.\d %  a tones +\d+\.\d %  /", lines[0])
    reason = "cannot be decoded (Format not recognised)"
    assert f"skipped: {mixed / 'c.mp3'}: {reason}" in done.stderr
    assert "Traceback" not in done.stderr
    assert program(run, mixed, cwd=mixed).stdout == done.stdout


def test_json_is_an_object_a_line(run, mixed):
    done = program(run, "--format=json", "--timeline", mixed, cwd=mixed)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"].removeprefix(f"{mixed}/") for row in rows] == EXPECTED
    assert rows[0]["genre"] == "d sharp"
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert [w["start_s"] for w in rows[0]["timeline"]] == [0, 5, 7]
    assert [w["end_s"] for w in rows[0]["timeline"]] == [5, 10, 12]
    assert "cannot be decoded" in rows[2]["error"]


@pytest.mark.parametrize("timeline, count", [(False, 4), (True, 3 * 3 + 1)])
def test_csv_has_a_column_a_genre(run, mixed, timeline, count):
    flag = f"--timeline={timeline}".lower()
    done = program(run, "--format=csv", flag, mixed, cwd=mixed)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == count
    for row in rows:
        if not row["error"]:
            both = float(row["a tones"]), float(row["d sharp"])
            assert sum(both) == pytest.approx(1, abs=1e-5)
            assert row["genre"] == ["a tones", "d sharp"][both[1] > both[0]]


def test_a_timeline_stands_below_its_file(run, tmp_path):
    path = write(tmp_path / "a.wav", seconds=70)
    done = program(run, "--timeline", "--hop_s=30", "--top=1", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    times = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert times == ["0:00.0", "0:30.0", "1:00.0", "1:05.0"]


def test_a_playlist_is_read_by_its_lines(run, tmp_path):
    (tmp_path / "music").mkdir()
    write(tmp_path / "music" / "ü one.wav")
    write(tmp_path / "two.wav", hz=622.25)
    lines = [
        "#EXTM3U",
        "#EXTINF:12,One",
        "music/ü one.wav",
        "",
        str(tmp_path / "two.wav"),
    ]
    for encoding, name in (("utf-8-sig", "a.m3u8"), ("cp1252", "b.m3u")):
        (tmp_path / name).write_bytes("\r\n".join(lines).encode(encoding))
        done = program(run, "--format=json", tmp_path / name, cwd="/")
        assert done.returncode == 0, done.stderr
        genres = [json.loads(line)["genre"] for line in done.stdout.splitlines()]
        assert genres == ["a tones", "d sharp"]


def test_addresses_and_missing_files_of_a_playlist_are_told(run, tmp_path):
    write(tmp_path / "two.wav", hz=622.25)
    (tmp_path / "list.m3u").write_text("https://x.org/a.mp3\ntwo.wav\ngone.wav\n")
    done = program(run, tmp_path / "list.m3u", cwd=tmp_path)
    assert done.returncode == 1
    assert "line 1 is no file" in done.stderr
    assert "gone.wav: cannot be read (No such file" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_word_that_names_nothing_takes_nothing_from_the_others(run, tmp_path):
    good = write(tmp_path / "good.wav")
    words = ["x" * 300 + ".mp3", tmp_path / "gone.m3u", good]
    done = program(run, *words, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.endswith(str(good))
    assert "File name too long" in done.stderr
    assert done.stderr.count("gone.m3u") == 1
    assert "Traceback" not in done.stderr


def test_an_address_is_told_and_takes_nothing_from_the_others(run, tmp_path):
    good = write(tmp_path / "good.wav")
    done = program(run, "gs://bucket/a.mp3", good, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.endswith(str(good))
    assert "gs://bucket/a.mp3: is no file; what is on the net must be" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pipe_that_is_closed_ends_it_quietly(run, tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.wav")
    command = (
        f"{sys.executable} -m mgr_jax.predict --workdir={run} {tmp_path} | head -1"
    )
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words, told",
    [
        ([], "no audio is named"),
        (["--hop_s=0", "x.wav"], "--hop_s=0.0: must be 0.1 or more"),
        (["--format=xml", "x.wav"], "format"),
        (["empty"], "holds no audio"),
        (["list.m3u"], "list.m3u: cannot be read (No such file"),
        (["--export=out", "x.wav"], "--export judges nothing"),
        (["--workdir=~nobody_here/run", "x.wav"], "user of this machine"),
        (["~nobody_here/x.wav"], "user of this machine"),
    ],
)
def test_a_mistake_gets_a_line_that_says_what_to_do(run, tmp_path, words, told):
    (tmp_path / "empty").mkdir()
    done = program(run, *words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings are not here")
def test_real_clips_of_any_kind_are_judged_in_order(run, tmp_path):
    clips = SHARED / "cc_clips"
    done = program(run, "--format=json", clips, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [
        str(p) for p in sorted(clips.glob("*.ogg"))
    ]
    (bird,) = (row for row in rows if "bird" in row["file"])
    assert "repeated" in bird["note"]


# The exported model.


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    done = program(run, f"--export={folder}", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(folder / name)
        for name in ("model.jaxexport", "model.json", "MODEL_CARD.md")
    ]
    return folder


@pytest.mark.parametrize("windows", [1, 3, 40])
def test_the_exported_model_agrees_with_the_live_one(exported, predictor, windows):
    import jax.export

    samples = np.random.default_rng(0).normal(0, 0.1, windows * 110_250)
    samples = samples.astype(np.float32)
    expected = predictor(samples, 22_050).probabilities
    data = bytearray((exported / "model.jaxexport").read_bytes())
    model = jax.export.deserialize(data)
    found = model.call(samples.reshape(windows, 110_250))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(model.platforms) == {"cpu", "cuda", "tpu"}


def test_the_loader_of_the_readme_needs_jax_and_numpy_alone(exported, predictor):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(
        r"    import json\n(?:    .*\n|\n)*?        return genres\n", text
    )
    code = "".join(f"{line[4:]}\n" for line in code.splitlines())
    assert len(code.splitlines()) < 20
    script = (
        f"{code}\n"
        "import sys\n"
        "t = numpy.arange(12 * 22_050) / 22_050\n"
        "samples = (0.5 * numpy.sin(2 * numpy.pi * 440 * t)).astype('float32')\n"
        f"print(json.dumps(load({str(exported)!r})(samples)))\n"
        "assert not {'mgr_jax', 'flax', 'optax', 'soundfile'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first = predictor(tone(440, 10), 22_050).ranked
    assert found == pytest.approx(dict(first), abs=1e-4)


def test_the_card_says_what_a_stranger_must_know(exported):
    card = (exported / "MODEL_CARD.md").read_text()
    for words in (
        "# cnn on chroma, trained on folder",
        "a tones, d sharp",
        "mono, 22,050 Hz",
        "`track` split",
        "95 % interval",
        "The split leaks: tracks by one artist",
        "## Licence of the data",
        "python -m mgr_jax.main --feature=chroma",
    ):
        assert words in card
    assert "data_dir" not in card
    labels = json.loads((exported / "model.json").read_text())["labels"]
    assert labels == ["a tones", "d sharp"]
