import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from conftest import write_music_folder

from mgr_jax import evaluate, input_pipeline, prepare, steps, train
from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints
from mgr_jax.config import Config, UserError
from mgr_jax.workdir import open_workdir, read_config


@pytest.fixture(scope="module")
def folder(music_folder, tmp_path_factory) -> pathlib.Path:
    features = tmp_path_factory.mktemp("features")
    return prepare.prepare(base_config(music_folder, features, "unused"))


def base_config(data, features, workdir, **settings) -> Config:
    return Config(
        **{
            "dataset": "folder",
            "feature": "chroma",
            "split": "track",
            "data_dir": str(data),
            "features_dir": str(features),
            "workdir": str(workdir),
            "batch_size": 4,
            "num_epochs": 4,
            "widths": (4, 4, 8),
            "hidden_units": 8,
            **settings,
        }
    )


@pytest.fixture
def config(music_folder, folder, tmp_path) -> Config:
    return base_config(music_folder, folder.parents[1], tmp_path / "run")


@pytest.fixture(scope="module")
def whole_run(music_folder, folder, tmp_path_factory) -> pathlib.Path:
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return train.train(base_config(music_folder, folder.parents[1], workdir), folder)


def history(workdir: pathlib.Path) -> list[dict]:
    """The rows of metrics.jsonl, without what a clock decides."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "segments_per_s")}
        for row in rows
    ]


def saved(workdir: pathlib.Path, kind: str):
    return Checkpoints(workdir).restore(kind, None)


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    assert history(one) == history(other)
    for kind in (NEWEST, BEST):
        jax.tree.map(
            np.testing.assert_array_equal, saved(one, kind), saved(other, kind)
        )


def test_a_run_folder_holds_config_metrics_events_and_both_checkpoints(whole_run):
    rows = history(whole_run)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    best = min(rows, key=lambda row: row["validation_loss"])
    assert best["best"]
    assert int(saved(whole_run, BEST)["step"]) == best["step"]
    assert int(saved(whole_run, NEWEST)["step"]) == rows[-1]["step"]
    assert list((whole_run / "tensorboard").glob("events*"))
    assert json.loads((whole_run / "config.json").read_text())["feature"] == "chroma"


def test_what_a_checkpoint_needs_travels_with_it(whole_run, folder):
    about = Checkpoints(whole_run).about(BEST)
    assert about["genres"] == ["a tones", "d sharp"]
    assert about["config"]["feature"] == "chroma"
    assert about["feature_spec"]["feature_params"]
    normalisation = saved(whole_run, BEST)["normalisation"]
    assert normalisation["mean"].shape == (12, 1)
    assert float(np.abs(normalisation["mean"]).max()) > 0


class Killed(BaseException):
    """Stands in for a signal that cannot be caught."""


def interrupt_at(monkeypatch, step: int, action) -> None:
    """Calls `action` right before the given optimiser step of the next run."""
    whole = steps.data_parallel

    def data_parallel(function, **how):
        inner = whole(function, **how)

        def run(state, batch):
            if how.get("donate") and int(state.step) == step:
                action()
            return inner(state, batch)

        return run

    monkeypatch.setattr(steps, "data_parallel", data_parallel)


def kill():
    raise Killed


@pytest.mark.parametrize("step", [2, 5, 8, 13])
def test_killed_and_resumed_ends_with_the_same_bits(
    config, folder, whole_run, monkeypatch, step
):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_at(patched, step, kill)
        train.train(config, folder)
    assert_same_run(train.train(config, folder), whole_run)


def test_segments_that_lie_on_the_devices_end_with_the_same_bits(
    config, folder, whole_run, monkeypatch
):
    """As on an accelerator: a batch is then the places of its rows."""
    monkeypatch.setattr(steps, "_has_room", lambda device, size: True)
    seen = watch_batches(monkeypatch)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        interrupt_at(patched, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train.train(config, folder)
    assert_same_run(train.train(config, folder), whole_run)
    # Interrupted after two batches of the second epoch.
    assert [(x["skip"], x["rows_alone"]) for _, x in seen] == [
        (skip, True) for skip in (0, 0, 3, 0, 0)
    ]


def watch_batches(monkeypatch) -> list:
    """What `training_batches` is called with, as it is called."""
    seen = []
    own = input_pipeline.training_batches

    def training_batches(side, **settings):
        seen.append((side, settings))
        return own(side, **settings)

    monkeypatch.setattr(input_pipeline, "training_batches", training_batches)
    return seen


def test_segments_beyond_the_memory_are_read_in_every_epoch(
    config, folder, whole_run, monkeypatch
):
    config = dataclasses.replace(config, shuffle_buffer_mb=1)
    monkeypatch.setattr(input_pipeline.Side, "share_mb", 1.1)
    seen = watch_batches(monkeypatch)
    assert history(train.train(config, folder)) == history(whole_run)
    assert [(x.held, of["rows_alone"]) for x, of in seen] == 4 * [(None, False)]


@pytest.mark.parametrize("kind", [BEST, NEWEST])
def test_killed_around_a_save_ends_with_the_same_bits(
    config, folder, whole_run, monkeypatch, kind
):
    """Right after the best is saved, the newest is not; and before metrics.jsonl."""
    save = Checkpoints.save

    def save_then_die(self, saved_kind, step, *rest):
        save(self, saved_kind, step, *rest)
        if saved_kind == kind:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoints, "save", save_then_die)
        train.train(config, folder)
    assert_same_run(train.train(config, folder), whole_run)


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_within_the_epoch_and_the_run_goes_on_from_there(
    config, folder, whole_run, monkeypatch, capsys, number, status
):
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
        interrupt_at(patched, 8, lambda: os.kill(os.getpid(), number))
        train.train(config, folder)
    assert stopped.value.code == status
    assert "the same command goes on" in capsys.readouterr().out
    assert int(saved(pathlib.Path(config.workdir), NEWEST)["step"]) == 9
    assert_same_run(train.train(config, folder), whole_run)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("step, said", [(9, "after epoch 2"), (19, "after epoch 4")])
def test_a_signal_at_an_epochs_last_batch_keeps_the_epochs_outcome(
    config, folder, whole_run, monkeypatch, capsys, step, said
):
    """An epoch has 5 batches, the run 4 epochs."""
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        interrupt_at(patched, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train.train(config, folder)
    assert said in capsys.readouterr().out
    assert_same_run(train.train(config, folder), whole_run)


def test_a_run_does_not_go_on_with_other_data(config, folder, tmp_path):
    train.train(dataclasses.replace(config, num_epochs=1), folder)
    other = write_music_folder(tmp_path / "my music", tracks_per_genre=9)
    elsewhere = dataclasses.replace(
        config, num_epochs=1, data_dir=str(other), features_dir=str(tmp_path / "f")
    )
    with pytest.raises(UserError, match=r"was trained on other data.*--overwrite"):
        train.train(elsewhere, prepare.prepare(elsewhere))
    found = json.loads((pathlib.Path(config.workdir) / "config.json").read_text())
    assert found["data_dir"] == config.data_dir


def damage(workdir: pathlib.Path, kind: str) -> pathlib.Path:
    """Flips a bit of a checkpoint's weights; returns the file."""
    files = (workdir / "checkpoints" / kind).rglob("d/*")
    path = max(files, key=lambda path: path.stat().st_size)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("after", [10, 15])
def test_a_damaged_newest_checkpoint_is_made_again_from_the_best(
    config, folder, whole_run, monkeypatch, capsys, after
):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_at(patched, after + 2, kill)
        train.train(config, folder)
    workdir = pathlib.Path(config.workdir)
    path = damage(workdir, NEWEST)
    train.train(config, folder)
    warning = capsys.readouterr().err
    assert f"{path}: is damaged; going back to the best checkpoint" in warning
    assert_same_run(workdir, whole_run)


def test_a_finished_runs_damaged_newest_is_made_again_once(
    config, folder, whole_run, monkeypatch, capsys
):
    """Also where a kill comes after it was deleted, and before it is there again."""
    # The best is an earlier one.
    losses = iter([0.5, 0.4, 0.6, 0.7] * 2)
    validate = {"validation_accuracy": 0.5}
    monkeypatch.setattr(
        train, "_validate", lambda *_: validate | {"validation_loss": next(losses)}
    )
    workdir = train.train(config, folder)
    before = history(workdir)
    damage(workdir, NEWEST)
    losses = iter([0.6, 0.7] * 2)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_at(patched, 12, kill)
        train.train(config, folder)
    assert "going back to the best checkpoint" in capsys.readouterr().err
    train.train(config, folder)
    said = capsys.readouterr()
    assert "going on after epoch 2" in said.out
    assert history(workdir) == before
    train.train(config, folder)
    said = capsys.readouterr()
    assert "training had finished" in said.out and "damaged" not in said.err


def test_without_a_whole_checkpoint_nothing_is_trained_over(config, folder):
    workdir = train.train(config, folder)
    before = history(workdir)
    for kind in (NEWEST, BEST):
        damage(workdir, kind)
    with pytest.raises(UserError, match=r"is damaged; put back a copy.*--overwrite"):
        train.train(config, folder)
    assert history(workdir) == before
    train.train(dataclasses.replace(config, overwrite=True), folder)
    assert history(workdir) == before


def test_a_checkpoint_of_another_run_is_refused(config, folder, tmp_path):
    """As where the folder of checkpoints was copied from elsewhere."""
    other = dataclasses.replace(
        config, widths=(8, 8, 8), workdir=str(tmp_path / "other")
    )
    train.train(dataclasses.replace(config, num_epochs=1), folder)
    elsewhere = train.train(dataclasses.replace(other, num_epochs=1), folder)
    workdir = pathlib.Path(config.workdir)
    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(elsewhere / "checkpoints", workdir / "checkpoints")
    for step in (train.train, lambda config, _: evaluate.evaluate(config)):
        with pytest.raises(
            UserError, match=r"--widths was \(8, 8, 8\), is \(4, 4, 8\)"
        ):
            step(dataclasses.replace(config, num_epochs=1), folder)


def test_a_run_on_another_feature_is_refused(config, folder):
    train.train(dataclasses.replace(config, num_epochs=1), folder)
    other = dataclasses.replace(config, num_epochs=1, feature="loudness")
    with pytest.raises(UserError, match="--feature was chroma, is loudness"):
        train.train(other, prepare.prepare(other))


def test_a_clock_that_is_set_back_changes_nothing(
    config, folder, whole_run, monkeypatch
):
    now = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_at(patched, 12, kill)
        train.train(config, folder)
    assert_same_run(train.train(config, folder), whole_run)
    # What was finished in a future that is no more is still finished.
    workdir = pathlib.Path(config.workdir)
    for path in [*workdir.rglob("*"), *folder.rglob("*")]:
        os.utime(path, (4_000_000_000, 4_000_000_000))
    assert_same_run(train.train(config, folder), whole_run)


def test_overwrite_deletes_the_run_and_nothing_else(config, folder):
    short = dataclasses.replace(config, num_epochs=1)
    workdir = train.train(short, folder)
    (workdir / "song.wav").write_text("mine")
    train.train(dataclasses.replace(short, seed=1, overwrite=True), folder)
    assert (workdir / "song.wav").read_text() == "mine"
    assert Checkpoints(workdir).about(NEWEST)["config"]["seed"] == 1


def test_overwrite_touches_no_folder_whose_config_is_not_a_runs(config, folder):
    workdir = pathlib.Path(config.workdir)
    (workdir / "figures").mkdir(parents=True)
    (workdir / "config.json").write_text('{"some": "thing else"}')
    with pytest.raises(UserError, match=r"not a config\.json of this program"):
        train.train(dataclasses.replace(config, overwrite=True), folder)
    assert (workdir / "figures").is_dir()


def test_a_finished_run_is_not_trained_again(whole_run, folder, capsys):
    config = Config(**json.loads((whole_run / "config.json").read_text()) | _tuples())
    before = history(whole_run)
    train.train(config, folder)
    assert "training had finished" in capsys.readouterr().out
    assert history(whole_run) == before


def _tuples():
    return {"widths": (4, 4, 8), "split_ratios": (0.7, 0.15, 0.15)}


def test_other_settings_do_not_go_on_with_a_run_unless_it_is_overwritten(
    config, folder
):
    short = dataclasses.replace(config, num_epochs=1)
    train.train(short, folder)
    other = dataclasses.replace(short, learning_rate=0.5)
    with pytest.raises(UserError, match=r"--learning_rate was 0\.001, is 0\.5"):
        train.train(other, folder)
    train.train(dataclasses.replace(other, overwrite=True), folder)
    assert (
        json.loads((pathlib.Path(config.workdir) / "config.json").read_text())[
            "learning_rate"
        ]
        == 0.5
    )


def test_a_folder_with_a_config_alone_takes_other_settings(config, folder):
    # As a command leaves it whose --data_dir was mistyped.
    open_workdir(dataclasses.replace(config, num_epochs=77))
    train.train(dataclasses.replace(config, num_epochs=1), folder)
    assert read_config(pathlib.Path(config.workdir)).num_epochs == 1


def test_a_loss_that_is_no_number_stops_with_what_to_do(config, folder):
    wild = dataclasses.replace(config, learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(
        UserError, match=r"training has diverged; lower --learning_rate"
    ):
        train.train(wild, folder)


def test_training_stops_early_without_a_better_validation_loss(
    config, folder, capsys, monkeypatch
):
    flat = {"validation_loss": 1.0, "validation_accuracy": 0.5}
    monkeypatch.setattr(train, "_validate", lambda *_: flat)
    train.train(dataclasses.replace(config, patience=2, num_epochs=30), folder)
    assert len(history(pathlib.Path(config.workdir))) == 3
    assert "stopping early" in capsys.readouterr().out


def test_a_batch_larger_than_the_training_set_is_made_to_fit(config, folder, capsys):
    train.train(dataclasses.replace(config, batch_size=512, num_epochs=1), folder)
    opened = input_pipeline.open_prepared(folder)
    size = input_pipeline.count_segments(train.assignment_for(config, opened), "train")
    assert f"using batches of {size}" in capsys.readouterr().out


def test_a_leaking_protocol_says_so_in_one_line(config, folder, capsys):
    leaky = dataclasses.replace(config, split="segment", num_epochs=1)
    train.train(leaky, folder)
    lines = [line for line in capsys.readouterr().err.splitlines() if "leaks" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: --split=segment leaks:")
