"""How a job of several processes ends before its time, and goes on."""

import functools
import signal
import time

import pytest
from conftest import run_module
from jobs import end, metrics, prepared_config, start, without_warnings, words

from mgr_jax.config import Config

LOST = (
    "error: a process of the job was lost; the same command, on as many processes as "
    "there are then, goes on from the newest checkpoint\n"
)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Config:
    return prepared_config(tmp_path_factory.mktemp("features"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_job_and_another_number_goes_on(
    features, tmp_path, victim
):
    workdir = tmp_path / "run"
    flags = ("--mode=train", "--num_epochs=20")
    started = start(features, workdir, 2, 2, *flags)
    while len(metrics(workdir)) < 3:
        assert all(process.poll() is None for process in started), end(started)
        time.sleep(0.02)
    started[victim].send_signal(signal.SIGKILL)
    found = end(started)
    assert found[victim][0] == -signal.SIGKILL
    status, _, errors = found[1 - victim]
    # Python ends the process, or JAX does.
    assert status in (1, -signal.SIGABRT)
    assert without_warnings(errors) == LOST
    before = metrics(workdir)
    assert 3 <= len(before) < 20
    # One process now, with four devices.
    ((status, output, errors),) = end(start(features, workdir, 1, 4, *flags))
    assert status == 0, errors
    assert f"going on after epoch {len(before)}" in output
    after = metrics(workdir)
    assert after[: len(before)] == before
    assert [row["epoch"] for row in after] == list(range(1, 21))


def test_a_signal_to_one_is_a_signal_to_all(features, tmp_path):
    workdir = tmp_path / "run"
    flags = ("--mode=train", "--num_epochs=400")
    started = start(features, workdir, 2, 1, *flags)
    while len(metrics(workdir)) < 2:
        assert all(process.poll() is None for process in started), end(started)
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    found = end(started)
    assert [status for status, _, _ in found] == [0, 0], found
    assert not any(without_warnings(errors) for _, _, errors in found)
    assert "stopped by SIGTERM" in found[0][1]
    assert "the same command goes on" in found[0][1]
    assert len(metrics(workdir)) < 400


def test_local_job_runs_one_and_ends_it_with_the_status_of_its_failure(
    features, tmp_path
):
    job = functools.partial(run_module, "mgr_jax.local_job", cwd=tmp_path)
    given = words(features)
    given += ["--local_processes=2", "--num_epochs=1"]
    done = job(*given, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert len(metrics(tmp_path / "run")) == 1
    # A mistake that is found before there is a job, and one that is found in it.
    wrong = job(*given, "--model=cnnn")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "did you mean cnn?" in wrong.stderr
    wrong = job(*given, "--model=svm", f"--workdir={tmp_path / 'svm'}")
    assert wrong.returncode == 1
    # Each process tells of it.
    (line,) = set(wrong.stderr.splitlines())
    assert "start it without others" in line


def test_local_job_passes_signals_on(features, tmp_path):
    workdir = tmp_path / "run"
    given = words(features)
    given += ["--local_processes=2", "--num_epochs=400", "--patience=0"]
    started = run_module(
        "mgr_jax.local_job",
        *given,
        f"--workdir={workdir}",
        cwd=tmp_path,
        start_only=True,
    )
    while len(metrics(workdir)) < 1:
        assert started.poll() is None, end([started])
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    ((status, output, _),) = end([started])
    assert status == 130
    assert "stopped by SIGINT" in output
