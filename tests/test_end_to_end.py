"""The program as a user runs it, from flags to pictures.

It starts in processes of its own, but for what comes after such a start, and for the
real recordings: these the test's process takes all the way.
"""

import json
import pathlib
import signal
import time

import filelock
import pytest
from conftest import SHARED, run_here

from mgr_jax.config import Config

SMALL = ("--num_epochs=3", "--widths=4,4,8", "--hidden_units=8", "--batch_size=4")
RUN_FILES = {
    "config.json",
    "metrics.jsonl",
    "results.json",
    "predictions.csv",
    "report.html",
    "figures",
    "tensorboard",
    "checkpoints",
}


def results(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def main_job(program, music_folder, tmp_path_factory):
    """One run of the whole road, its flags, and what it said."""
    tmp = tmp_path_factory.mktemp("main_job")
    flags = [
        "--dataset=folder",
        "--feature=chroma",
        f"--data_dir={music_folder}",
        f"--features_dir={tmp / 'features'}",
        f"--workdir={tmp / 'run'}",
        *SMALL,
        "--num_epochs=12",
        "--learning_rate=0.01",
    ]
    done = program(*flags)
    assert done.returncode == 0, done.stderr
    return tmp / "run", flags, done


def test_one_command_goes_from_audio_to_results(main_job):
    workdir, _, done = main_job
    assert {path.name for path in workdir.iterdir()} == RUN_FILES
    found = results(workdir)
    assert found["protocol"] == "track"
    assert found["num_segments"]["test"] == found["segment"]["n"]
    assert found["track"]["accuracy"] == 1.0
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert {"curves.png", "confusion_track.png", "examples.png"} <= figures
    assert "Traceback" not in done.stderr
    assert str(found["track"]["n"]) in done.stdout


def test_a_second_time_it_has_nothing_left_to_train(main_job, capsys):
    workdir, flags, _ = main_job
    before = results(workdir)
    run_here(*flags)
    assert "training had finished" in capsys.readouterr().out
    assert results(workdir)["segment"] == before["segment"]


def test_two_processes_do_not_make_one_run_at_once(main_job, program):
    folder, flags, _ = main_job
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):
        second = program(*flags, start_only=True)
        assert "another process is at" in second.stdout.readline()
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0
    assert "training had finished" in said


def test_evaluate_needs_only_the_run(main_job, program):
    workdir, _, _ = main_job
    before = results(workdir)
    (workdir / "results.json").unlink()
    done = program("--mode=evaluate", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    after = results(workdir)
    for key in ("segment", "track", "best_epoch", "protocol", "command"):
        assert after[key] == before[key]


def test_a_run_folder_that_was_moved_is_evaluated_where_it_is(main_job, tmp_path):
    import shutil

    workdir, _, _ = main_job
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    (moved / "results.json").unlink()
    run_here("--mode=evaluate", f"--workdir={moved}")
    assert results(moved)["track"] == results(workdir)["track"]


def test_a_run_that_is_not_finished_is_evaluated_with_a_warning(
    main_job, program, tmp_path, capsys
):
    _, flags, _ = main_job
    workdir = f"--workdir={tmp_path / 'run'}"
    victim = program(*flags, workdir, "--num_epochs=500", start_only=True)
    for line in victim.stdout:
        if line.startswith("epoch   2/"):
            victim.terminate()
            break
    output, errors = victim.communicate(timeout=120)
    assert victim.returncode == 0, errors
    assert "stopped by SIGTERM" in output
    assert not (tmp_path / "run" / "results.json").exists()
    run_here("--mode=evaluate", workdir)
    assert "training has not finished" in capsys.readouterr().err
    assert results(tmp_path / "run")["training_finished"] is False


def test_killed_while_it_trains_it_ends_with_the_same_bits(
    program, music_folder, tmp_path
):
    def flags(name):
        return [
            "--dataset=folder",
            "--feature=chroma",
            f"--data_dir={music_folder}",
            f"--features_dir={tmp_path / 'features'}",
            f"--workdir={tmp_path / name}",
            *SMALL,
            "--num_epochs=20",
        ]

    run_here(*flags("whole"))
    victim = program(*flags("killed"), start_only=True)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    rows = metrics.read_text().count("\n")
    assert 3 <= rows < 20
    victim.stdout.close()
    victim.stderr.close()

    done = program(*flags("killed"))
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    import jax
    import numpy as np

    from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints

    for kind in (NEWEST, BEST):
        one, other = (
            Checkpoints(tmp_path / name).restore(kind, None)
            for name in ("whole", "killed")
        )
        jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (tmp_path / "whole" / "predictions.csv").read_bytes() == (
        tmp_path / "killed" / "predictions.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    "flags, status, words",
    [
        (["--feature=spectogram"], 1, "did you mean spectrogram?"),
        (["--feature="], 1, "--feature=: choose one of"),
        (["--dataset=spotify"], 1, "choose one of"),
        (["--fetaure=chroma"], 2, "feature"),
        (["--batch_size=many"], 2, "batch_size"),
        (["--batch_size=0"], 1, "--batch_size=0: must be 1 or more"),
        (["--dataset=synth", "--split=official"], 1, "choose one of track, segment"),
        (["feature=chroma"], 1, "--name=value"),
        (["--mode=evaluate", "--workdir=/no/such"], 1, "--workdir"),
        (["--dataset=gtzan", "--data_dir=/no/such"], 1, "/no/such"),
        (["--dataset=fma", "--data_dir=/no/such"], 1, "/no/such"),
        (["--dataset=folder", "--data_dir=/no/such"], 1, "/no/such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_line_that_says_what_to_do(program, flags, status, words):
    done = program(*flags)
    assert done.returncode == status
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_help_explains_every_flag_without_jax_or_tensorflow(program):
    import dataclasses

    done = program("--help", PYTHONPROFILEIMPORTTIME="1")
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in done.stdout or f"--[no]{field.name}" in done.stdout
    assert "tempogram, chroma, spectrogram" in done.stdout
    assert "{choices}" not in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "absl" in imported
    assert not imported & {
        "jax", "flax", "tensorflow", "librosa", "pandas", "matplotlib"
    }  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings are not here")
@pytest.mark.parametrize(
    "flags, tracks, genres",
    [
        (["--dataset=gtzan", "--split=track", "gtzan_mini"], 50, 10),
        (["--dataset=fma", "fma_like"], 236, 4),
    ],
    ids=["gtzan", "fma"],
)
def test_real_recordings_go_all_the_way(tmp_path, flags, tracks, genres):
    *flags, folder = flags
    run_here(
        *flags,
        "--feature=chroma",
        f"--data_dir={SHARED / folder}",
        f"--features_dir={tmp_path / 'features'}",
        f"--workdir={tmp_path / 'run'}",
        "--num_epochs=2",
        "--widths=4,4,8",
    )
    found = results(tmp_path / "run")
    assert sum(found["num_tracks"].values()) == tracks
    assert len(found["genres"]) == genres
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
