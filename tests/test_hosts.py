"""Several processes of one job, over loopback, driven as the program is."""

import functools
import json
import pathlib
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from conftest import run_module

from mgr_jax import input_pipeline, prepare, splits
from mgr_jax.config import Config, complete
from mgr_jax.datasets import DATASETS

# What a job takes at the most; one that hangs fails.
LONGEST_S = 240
LOST = (
    "error: a process of the job was lost; the same command, on as many processes as "
    "there are then, goes on from the newest checkpoint\n"
)


@pytest.fixture(scope="module")
def features(music_folder, tmp_path_factory) -> Config:
    """A config whose features are prepared, in six shards of 3, 3, 3, 3, 3 and 1."""
    folder = DATASETS["folder"]
    config = Config(
        dataset="folder",
        feature="chroma",
        data_dir=str(music_folder),
        features_dir=str(tmp_path_factory.mktemp("features")),
        tracks_per_shard=3,
    )
    config = complete(config, folder.default_split, folder.splits)
    prepare.prepare(config)
    return config


def start(
    config: Config, workdir: pathlib.Path, processes: int, devices: int, *flags: str
) -> list[subprocess.Popen]:
    """Starts the processes of a job that trains, each with so many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    names = ("dataset", "feature", "data_dir", "features_dir", "tracks_per_shard")
    words = [f"--{name}={getattr(config, name)}" for name in names]
    words += [f"--workdir={workdir}", "--batch_size=4", "--patience=0", *flags]
    started = []
    for k in range(processes):
        job = []
        if processes > 1:
            job = [f"--coordinator_address={address}", f"--num_processes={processes}"]
            job += [f"--process_id={k}", "--lost_after_s=10"]
        command = run_module(
            "mgr_jax.main",
            *words,
            *job,
            cwd=workdir.parent,
            start_only=True,
            XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
        )
        started.append(command)
    return started


def end(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Status, output and errors of each; kills what is left after LONGEST_S."""
    until = time.monotonic() + LONGEST_S
    found = []
    try:
        for process in started:
            left = max(until - time.monotonic(), 1)
            output, errors = process.communicate(timeout=left)
            found.append((process.returncode, output, errors))
    finally:
        for process in started:
            process.kill()
    return found


def without_warnings(errors: str) -> str:
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("warning: "))


def parameters(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's parameters and statistics, whatever devices made it."""
    import orbax.checkpoint as ocp

    newest = workdir / "checkpoints" / "newest"
    step = max(int(path.name) for path in newest.iterdir() if path.name.isdigit())
    with ocp.PyTreeCheckpointer() as reader:
        path = newest / str(step) / "state"
        tree = reader.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            tree,
            is_leaf=lambda x: not isinstance(x, dict | list | tuple),
        )
        state = reader.restore(path, restore_args=as_numpy)
    found = {"params": state["params"], "batch_stats": state["batch_stats"]}
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]
    }


def metrics(workdir: pathlib.Path) -> list[dict]:
    try:
        text = (workdir / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def alone(features, tmp_path_factory) -> pathlib.Path:
    """The run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    ((status, _, errors),) = end(start(features, workdir, 1, 4, "--num_epochs=3"))
    assert status == 0, errors
    return workdir


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_and_count_as_one_with_as_many_devices(
    features, alone, tmp_path, processes
):
    workdir = tmp_path / "run"
    devices = 4 // processes
    found = end(start(features, workdir, processes, devices, "--num_epochs=3"))
    assert [status for status, _, _ in found] == [0] * processes, found
    expected = parameters(alone)
    trained = parameters(workdir)
    assert trained.keys() == expected.keys()
    for name, value in trained.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6)
    for row, one in zip(metrics(workdir), metrics(alone), strict=True):
        for key in ("epoch", "step", "train_accuracy", "validation_accuracy", "best"):
            assert row[key] == one[key]
        assert row["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-5)
    results, of_one = (
        json.loads((place / "results.json").read_text()) for place in (workdir, alone)
    )
    for level in ("segment", "track"):
        assert results[level]["n"] == of_one[level]["n"]
        assert results[level]["accuracy"] == of_one[level]["accuracy"]
    # The first speaks for all.
    assert "training cnn" in found[0][1]
    assert all(output == errors == "" for _, output, errors in found[1:])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_job_and_another_number_goes_on(
    features, tmp_path, victim
):
    workdir = tmp_path / "run"
    flags = ("--mode=train", "--num_epochs=40")
    started = start(features, workdir, 2, 2, *flags)
    while len(metrics(workdir)) < 3:
        assert all(process.poll() is None for process in started), end(started)
        time.sleep(0.02)
    started[victim].send_signal(signal.SIGKILL)
    found = end(started)
    assert found[victim][0] == -signal.SIGKILL
    status, _, errors = found[1 - victim]
    assert status == 1
    assert without_warnings(errors) == LOST
    before = metrics(workdir)
    assert 3 <= len(before) < 40
    # One process now, with four devices.
    ((status, output, errors),) = end(start(features, workdir, 1, 4, *flags))
    assert status == 0, errors
    assert f"going on after epoch {len(before)}" in output
    after = metrics(workdir)
    assert after[: len(before)] == before
    assert [row["epoch"] for row in after] == list(range(1, 41))


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


def test_flags_that_are_no_job_are_one_line(program):
    done = program("--dataset=synth", "--num_processes=2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "give all three" in done.stderr


def test_local_job_runs_one_and_ends_it_with_the_status_of_its_failure(
    features, tmp_path
):
    job = functools.partial(run_module, "mgr_jax.local_job", cwd=tmp_path)
    names = ("dataset", "feature", "data_dir", "features_dir", "tracks_per_shard")
    words = [f"--{name}={getattr(features, name)}" for name in names]
    words += ["--local_processes=2", "--num_epochs=1"]
    done = job(*words, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert len(metrics(tmp_path / "run")) == 1
    # A mistake that is found before there is a job, and one that is found in it.
    wrong = job(*words, "--model=cnnn")
    assert wrong.returncode == 1
    assert wrong.stderr.count("\n") == 1
    assert "did you mean cnn?" in wrong.stderr
    wrong = job(*words, "--model=svm", f"--workdir={tmp_path / 'svm'}")
    assert wrong.returncode == 1
    # Each process tells of it.
    (line,) = set(wrong.stderr.splitlines())
    assert "start it without others" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_local_job_passes_signals_on(features, tmp_path, number):
    workdir = tmp_path / "run"
    names = ("dataset", "feature", "data_dir", "features_dir", "tracks_per_shard")
    words = [f"--{name}={getattr(features, name)}" for name in names]
    words += ["--local_processes=2", "--num_epochs=400", "--patience=0"]
    started = run_module(
        "mgr_jax.local_job",
        *words,
        f"--workdir={workdir}",
        cwd=tmp_path,
        start_only=True,
    )
    while len(metrics(workdir)) < 1:
        assert started.poll() is None, end([started])
        time.sleep(0.02)
    started.send_signal(number)
    ((status, output, _),) = end([started])
    assert status == (130 if number == signal.SIGINT else 0)
    assert f"stopped by {number.name}" in output


@pytest.mark.parametrize("hosts", [2, 3, 7])
def test_hosts_batches_are_parts_of_the_batches_of_one(features, hosts):
    """Each row comes from one host, in its place, and zeros from all others."""
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(features))
    assignment = splits.assign(
        prepared.tracks, prepared.segment_counts, "track", seed=0
    )

    def batches(index, count):
        side = input_pipeline.load_side(
            prepared, assignment, "train", process_index=index, process_count=count
        )
        assert side.total == sum(side.shares)
        order = {"seed": 3, "epoch": 2, "shuffle_buffer_mb": 64}
        return side, list(input_pipeline.training_batches(side, batch_size=4, **order))

    one, expected = batches(0, 1)
    several = [batches(k, hosts) for k in range(hosts)]
    assert {side.total for side, _ in several} == {one.total}
    assert sum(side.size for side, _ in several) == one.total
    assert len({side.size for side, _ in several}) > 1  # the shares are uneven
    for number, batch in enumerate(expected):
        parts = [found[number] for _, found in several]
        given = sum((part["feature"] != 0).any((1, 2)).astype(int) for part in parts)
        np.testing.assert_array_equal(given, 1)
        for key in ("feature", "label"):
            np.testing.assert_array_equal(sum(part[key] for part in parts), batch[key])


def test_hosts_evaluate_each_example_once_in_as_many_batches(features):
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(features))
    assignment = splits.assign(
        prepared.tracks, prepared.segment_counts, "track", seed=0
    )
    seen, numbers = [], set()
    for k in range(5):
        side = input_pipeline.load_side(
            prepared, assignment, "train", process_index=k, process_count=5
        )
        found = list(input_pipeline.evaluation_batches(side, 2))
        numbers.add(len(found))
        for batch in found:
            assert len(batch["mask"]) == 2
            rows = zip(batch["track"], batch["segment"], batch["mask"], strict=True)
            seen += [
                (int(track), int(segment)) for track, segment, is_row in rows if is_row
            ]
    assert len(numbers) == 1
    assert len(seen) == len(set(seen)) == side.total
