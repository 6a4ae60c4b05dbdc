"""The experiments as their users run them, on small synthesised music."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT, run_module

from experiments import grid, leakage
from mgr_jax import scores, workdir
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS
from mgr_jax.scores import Predictions

SMALL = ("--num_epochs=2", "--widths=4,4,8", "--hidden_units=8", "--batch_size=4")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where this file's runs and features go."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture
def experiment(place, music_folder):
    """Runs `python -m experiments.NAME` on the music folder."""
    common = [
        f"--data_dir={music_folder}",
        f"--features_dir={place / 'features'}",
        f"--out={place / 'out'}",
        *SMALL,
    ]

    def run(name: str, *flags: str, start_only: bool = False):
        module = f"experiments.{name}"
        return run_module(module, *common, *flags, cwd=place, start_only=start_only)

    return run


def test_the_grid_survives_an_interruption_and_a_failure(experiment, place):
    flags = ("--datasets=folder", "--features=chroma,loudness", "--splits=track")
    # The networks come last, so that the signal finds one in training.
    flags = (*flags, "--models=svm,cnn", "--seeds=1")
    started = experiment("paper", *flags, start_only=True)
    lines = []
    for line in started.stdout:
        lines.append(line)
        if line.startswith("[2/4]"):
            started.send_signal(signal.SIGTERM)
            break
    rest, said = started.communicate(timeout=120)
    assert started.returncode == 130, said
    assert "the same command goes on" in said
    assert "4 runs: 0 finished before, 4 to do" in lines[0]
    assert "FAILED" not in "".join(lines) + rest
    assert lines[1].startswith("prepared chroma, loudness of folder, ")

    # A shard with a bit that fell over fails the runs that need it, and no other.
    [shard] = (place / "features").glob("*/loudness/*.tfrecord*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    done = experiment("paper", *flags)
    shard.write_bytes(whole)
    assert done.returncode == 1
    # The one at hand may have come to its end just before the signal.
    assert re.search("4 runs: [23] finished before, [12] to do", done.stdout), rest
    assert "1 of 4 runs failed" in done.stderr, done.stdout
    assert "Traceback" not in done.stderr
    rows = [*csv.DictReader((place / "out/runs.csv").open())]
    status = {(row["model"], row["feature"]): row["status"] for row in rows}
    assert status == {
        ("cnn", "chroma"): "finished",
        ("cnn", "loudness"): "failed",
        ("svm", "chroma"): "finished",
        ("svm", "loudness"): "finished",
    }
    assert "a checksum in it does not fit" in (place / "out/report.html").read_text()
    assert "cnn" in (place / "out/table.md").read_text()


def test_leakage_tells_each_step_and_what_is_shared(experiment, place):
    done = experiment(
        "leakage", "--dataset=folder", "--feature=chroma", "--model=svm", "--seeds=2"
    )
    assert done.returncode == 0, done.stderr
    [table] = (place / "out").glob("leakage-*.csv")
    rows = [*csv.DictReader(table.open())]
    by_split = {row["split"]: row for row in rows if row["level"] == "track"}
    assert list(by_split) == ["segment", "track"]
    assert int(by_split["segment"]["shared_tracks"]) > 0
    assert int(by_split["track"]["shared_tracks"]) == 0
    # Tones that a chroma tells apart: there is nothing to gain by leaking.
    assert {float(row["accuracy"]) for row in rows} == {1.0}
    assert "no difference shown between track and segment" in done.stdout
    # Nobody named the artists.
    assert "warning: folder without artist" in done.stderr


@pytest.fixture(scope="module")
def loud_and_quiet(tmp_path_factory) -> pathlib.Path:
    """Two genres of the same noise, 20 dB apart."""
    root = tmp_path_factory.mktemp("music") / "loud and quiet"
    random = np.random.default_rng(0)
    for genre, level in (("loud", 0.3), ("quiet", 0.03)):
        (root / genre).mkdir(parents=True)
        for number in range(12):
            noise = level * random.standard_normal(11 * 22_050)
            soundfile.write(root / genre / f"{number}.wav", noise, 22_050)
    return root


def test_a_model_that_hears_level_alone_is_found_out(experiment, place, loud_and_quiet):
    done = experiment(
        "loudness",
        "--dataset=folder",
        f"--data_dir={loud_and_quiet}",
        f"--out={place / 'loud'}",
        "--feature=loudness",
        "--seeds=1",
        "--num_epochs=12",
        "--learning_rate=0.01",
    )
    assert done.returncode == 0, done.stderr
    [table] = (place / "loud").glob("loudness-*.csv")
    rows = [row for row in csv.DictReader(table.open()) if row["level"] == "track"]
    found = {(row["model"], row["gain_db"]): float(row["accuracy"]) for row in rows}
    # 20 dB up, quiet is as loud as loud was, and the other way round.
    assert found["average loudness alone", ""] == 1.0
    assert found["plain", "0"] == 1.0
    assert found["plain", "20"] == 0.5
    assert found["plain", "-20"] == 0.5
    gains = {gain for model, gain in found if model == "plain"}
    assert gains == {*map(str, range(-20, 25, 5))}
    assert found["trained with random gain of 20 dB", "20"] == 0.5
    [page] = (place / "loud").glob("loudness-*.md")
    assert "an SVM is right on 100.0 % of test tracks" in page.read_text()
    assert "most frequent genre alone is 50.0 %" in page.read_text()


def test_a_feature_that_gain_does_not_move_is_refused(experiment):
    done = experiment("loudness", "--dataset=folder", "--feature=chroma")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "does not depend on gain" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--feature=chrome",), "did you mean chroma?"),
        (("--dataset=gtzn",), "did you mean gtzan?"),
        (("--dataset=folder", "--feature=mel", "--model=svm"), "take cnn or crnn"),
    ],
)
def test_a_mistake_is_told_in_one_line(experiment, flags, words):
    done = experiment("loudness", *flags)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_missing_data_is_told_before_anything_is_begun(experiment, place):
    done = experiment("paper", "--datasets=folder,gtzan", "--splits=track")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "or leave gtzan out" in done.stderr


def outcome(tmp_path, split="track", seed=0, answers=3, counted=3) -> grid.Outcome:
    """A run on disk, without a model; its results may have counted more answers."""
    config = Config(dataset="gtzan", split=split, seed=seed, data_dir="nowhere")
    config = dataclasses.replace(config, workdir=str(tmp_path / f"{split}{seed}"))
    config.run_path.mkdir()
    workdir.write_config(config)
    found = {"training_finished": True, "segment": {"n": counted}, "wall_s": {}}
    (config.run_path / "results.json").write_text(json.dumps(found))
    names = np.array([f"t{k}" for k in range(answers)])
    zeros = np.zeros(answers, int)
    predictions = Predictions(names, zeros, zeros, np.full((answers, 2), 0.5))
    scores.write_predictions_csv(
        config.run_path / "predictions.csv", predictions, ["a", "b"]
    )
    return grid.Outcome(config, grid.FINISHED)


def test_a_run_whose_predictions_were_cut_off_is_not_finished(tmp_path):
    whole, cut = outcome(tmp_path), outcome(tmp_path, seed=1, answers=2)
    gone = outcome(tmp_path, seed=2)
    (gone.config.run_path / "predictions.csv").unlink()
    statuses = [grid._found(run.config).status for run in (whole, cut, gone)]
    assert statuses == [grid.FINISHED, grid.NOT_RUN, grid.NOT_RUN]


def test_the_ladder_goes_from_the_leakiest_split_whatever_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(leakage, "_rung", lambda runs: runs[0].config.split)
    # The first seed of filtered has failed, so it comes last.
    runs = [outcome(tmp_path, split) for split in ("artist", "track", "segment")]
    runs.append(outcome(tmp_path, "filtered", seed=1))
    assert leakage._ladder(runs) == ["segment", "track", "artist", "filtered"]


def test_a_worker_that_dies_fails_its_run_and_the_next_gets_another(tmp_path):
    """The runs are of a program that kills itself in the first of them."""
    script = tmp_path / "deadly.py"
    script.write_text(
        "import os, pathlib, signal, sys\n"
        "from experiments import workers\n"
        "from mgr_jax import main\n"
        "from mgr_jax.config import Config, UserError\n"
        "def run(config):\n"
        "    if config.seed == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if config.seed == 1:\n"
        "        raise ValueError('odd\\nvalue')\n"
        "    if config.seed == 2:\n"
        "        raise UserError('a mistake')\n"
        "main.run = run\n"
        "if __name__ == '__main__':\n"
        "    configs = [Config(seed=k, workdir=f'run{k}') for k in range(4)]\n"
        "    tell = lambda config, error, _: print(config.seed, error or 'made')\n"
        "    workers.make_runs(configs, pathlib.Path(sys.argv[1]), 1, tell)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.splitlines() == [
        "0 its process was killed, as the system does where memory runs out",
        "1 ValueError: odd value",
        "2 a mistake",
        "3 made",
    ], done.stderr


def expand(**lists) -> list[Config]:
    base = {"datasets": ["fma"], "features": ["chroma"], "models": ["cnn"]}
    return grid.expand(Config(), pathlib.Path("out"), **(base | lists))


def test_the_grid_goes_seed_by_seed_and_the_honest_splits_come_first():
    configs = expand(datasets=["gtzan", "fma"], seeds=2)
    assert [(c.seed, c.dataset, c.split) for c in configs[:8]] == [
        (0, "gtzan", "filtered"),
        (0, "gtzan", "artist"),
        (0, "gtzan", "track"),
        (0, "gtzan", "segment"),
        (0, "fma", "official"),
        (0, "fma", "artist"),
        (0, "fma", "track"),
        (0, "fma", "segment"),
    ]
    assert len(configs) == 16
    assert len({c.workdir for c in configs}) == 16


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_names_its_splits_from_the_most_honest_to_the_leakiest(name):
    splits = DATASETS[name].splits
    order = [["filtered", "official", "filtered+official"], ["artist"], ["track"]]
    order.append(["segment"])
    ranks = [next(k for k, names in enumerate(order) if s in names) for s in splits]
    assert ranks == sorted(ranks)


def test_a_baseline_needs_one_seed_where_the_split_draws_nothing():
    configs = expand(models=["svm"], splits=["official", "track"], seeds=3)
    seeds = np.unique([c.split for c in configs], return_counts=True)
    assert dict(zip(*seeds, strict=True)) == {"official": 1, "track": 3}


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"features": ["chrome"]}, "--feature=chrome: choose one of"),
        ({"splits": ["filtered"]}, "--dataset=fma has none of them"),
        ({"datasets": []}, "name at least one"),
        ({"seeds": 0}, "must be 1 or more"),
    ],
)
def test_a_typing_error_is_one_line(lists, words):
    with pytest.raises(UserError, match=words):
        expand(**lists)


def test_random_gain_has_a_folder_of_its_own():
    plain, gained = (
        grid.expand(
            Config(random_gain_db=gain_db),
            pathlib.Path("out"),
            datasets=["synth"],
            features=["spectrogram"],
            models=["cnn"],
            splits=["track"],
        )
        for gain_db in (0.0, 12.0)
    )
    assert plain[0].workdir != gained[0].workdir
