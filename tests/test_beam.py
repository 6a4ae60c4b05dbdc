"""Preparing on Beam's runners: what local leaves, whatever becomes of a worker.

What needs Beam is skipped where it is not installed.
"""

import concurrent.futures
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, SHARED, config_for, contents

from mgr_jax import beam, input_pipeline, prepare, shards
from mgr_jax import config as config_lib
from mgr_jax.config import Config, UserError

TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam is not installed: pip install -e '.[test,beam]'",
)


@pytest.fixture(scope="module")
def local(music_folder, tmp_path_factory) -> dict[str, bytes]:
    """What --runner=local makes of the music folder, in six shards."""
    config = config_for(music_folder, tmp_path_factory.mktemp("local"))
    return contents(prepare.prepare(config))


def words(config: Config) -> list[str]:
    """The config as flags of the program, which makes nothing but features."""
    names = ("dataset", "data_dir", "features_dir", "feature", "tracks_per_shard")
    flags = [f"--{name}={getattr(config, name)}" for name in names]
    return ["--mode=prepare", f"--runner={config.runner}", *flags]


@needs_beam
def test_two_processes_leave_the_bytes_of_one(local, music_folder, tmp_path, program):
    config = config_for(music_folder, tmp_path, runner="DirectRunner")
    done = program(*words(config), "--", *TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    assert "prepared 32 segments of 16 tracks, 0 skipped" in done.stdout
    assert contents(input_pipeline.prepared_folder(config)) == local


@needs_beam
def test_two_processes_leave_the_bytes_of_one_of_mp3s(tmp_path, program):
    data = SHARED / "fma_like"
    if not data.is_dir():
        pytest.skip(f"needs {data}")
    settings = {"dataset": "fma", "tracks_per_shard": 32}
    expected = prepare.prepare(config_for(data, tmp_path / "local", **settings))
    settings["runner"] = "DirectRunner"
    config = config_for(data, tmp_path / "beam", **settings)
    done = program(*words(config), "--", *TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    found = contents(input_pipeline.prepared_folder(config))
    assert len([name for name in found if ".tfrecord-" in name]) == 8
    assert found == contents(expected)


def break_first(monkeypatch, times: int) -> list[int]:
    """Has shard 1 fail so many times when half of it is written.

    Returns:
      The numbers of the shards that are begun from here on.
    """
    begun = []
    write, serialise = shards.write_shard, shards._serialise

    def failing(job, k):
        begun.append(k)
        with monkeypatch.context() as patched:
            if k == 1 and begun.count(1) <= times:
                patched.setattr(shards, "_serialise", _break_at(3, serialise))
            write(job, k)

    monkeypatch.setattr(shards, "write_shard", failing)
    return begun


def _break_at(count, function):
    calls = []

    def called(*args):
        calls.append(args)
        if len(calls) > count:
            raise OSError(5, "Input/output error")
        return function(*args)

    return called


@needs_beam
@pytest.mark.parametrize("runner", ["DirectRunner", "BundleBasedDirectRunner"])
def test_a_bundle_that_fails_twice_leaves_the_same_bytes(
    local, music_folder, tmp_path, monkeypatch, runner
):
    """Beam's own second runner tries a bundle again; for DirectRunner we do."""
    begun = break_first(monkeypatch, times=2)
    folder = prepare.prepare(config_for(music_folder, tmp_path, runner=runner))
    assert begun.count(1) == 3
    assert set(begun) == set(range(6))
    assert contents(folder) == local


@needs_beam
def test_features_of_one_decoding_have_the_bytes_of_each_alone(
    local, music_folder, tmp_path
):
    alone = config_for(music_folder, tmp_path / "alone", feature="loudness")
    config = config_for(music_folder, tmp_path, runner="BundleBasedDirectRunner")
    chroma, loudness = prepare.prepare_all(config, ["chroma", "loudness"])
    assert contents(chroma) == local
    assert contents(loudness) == contents(prepare.prepare(alone))


@needs_beam
def test_a_bundle_that_always_fails_is_one_line_and_another_run_goes_on(
    local, music_folder, tmp_path, monkeypatch, capsys
):
    config = config_for(music_folder, tmp_path, runner="DirectRunner")
    with monkeypatch.context() as patched:
        begun = break_first(patched, times=100)
        with pytest.raises(UserError) as error:
            prepare.prepare(config)
    assert begun.count(1) == 4
    assert str(error.value) == (
        "--runner=DirectRunner: has failed (OSError: [Errno 5] Input/output error); "
        "the shards that are finished stay, and the same command goes on"
    )
    assert capsys.readouterr().err.count("; trying again what is missing\n") == 3
    folder = input_pipeline.prepared_folder(config)
    assert not input_pipeline.is_complete(folder)
    finished = {path.name for path in folder.glob("*.tfrecord-*")}
    assert 0 < len(finished) < 6
    begun = break_first(monkeypatch, times=0)
    assert prepare.prepare(config) == folder
    assert len(begun) == 6 - len(finished)
    assert contents(folder) == local


@needs_beam
def test_every_bundle_done_twice_leaves_the_same_bytes(
    local, music_folder, tmp_path, monkeypatch
):
    begun = break_first(monkeypatch, times=0)
    folder = prepare.prepare(
        config_for(music_folder, tmp_path, runner="DirectRunner"),
        ["--direct_runner_bundle_repeat=1"],
    )
    assert sorted(begun) == sorted([*range(6), *range(6)])
    assert contents(folder) == local


def test_a_shard_written_by_two_at_once_is_one_of_them(
    local, music_folder, tmp_path, monkeypatch
):
    """Both are at their last batch before either renames anything."""
    config = config_for(music_folder, tmp_path)
    folder = input_pipeline.prepared_folder(config)
    folder.mkdir(parents=True)
    job = prepare._job(config, folder, tuple(prepare.load_tracks(config)))
    both, compute = threading.Barrier(2), shards.compute

    def together(*args):
        both.wait(timeout=60)
        return compute(*args)

    monkeypatch.setattr(shards, "compute", together)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = [pool.submit(shards.write_shard, [job], 4) for _ in range(2)]
    assert [future.result() for future in done] == [None, None]
    found = contents(folder)
    assert len(found) == 2
    assert found == {name: local[name] for name in found}
    assert shards.is_done(job, 4)


@needs_beam
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_worker_that_is_killed_half_way_leaves_the_same_bytes(
    local, music_folder, tmp_path, program
):
    config = config_for(music_folder, tmp_path, runner="DirectRunner")
    folder = input_pipeline.prepared_folder(config)
    # As `nohup ... &` in a script has it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = program(*words(config), "--", *TWO_PROCESSES, start_only=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        while not list(folder.glob(".writing-*/shard")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    lost = "has failed (Worker subprocess exited with return code 137); trying again"
    assert lost in errors
    assert contents(folder) == local


def workers_of(ancestor: int) -> list[int]:
    """The processes of Beam's workers that a process has started."""
    parents, workers = {}, []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().split(b"\0")
            status = (place / "status").read_text()
        except OSError:  # it has ended
            continue
        number = int(place.name)
        parents[number] = int(status.partition("PPid:")[2].split()[0])
        # The shell that starts it names it, too, within one word.
        if b"apache_beam.runners.worker.sdk_worker_main" in command:
            workers.append(number)
    return [worker for worker in workers if ancestor in _line(worker, parents)]


def _line(process: int, parents: dict[int, int]) -> list[int]:
    found = []
    while process in parents:
        process = parents[process]
        found.append(process)
    return found


@needs_beam
def test_workers_that_write_elsewhere_are_told(music_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "write_shard", lambda job, k: None)
    config = config_for(music_folder, tmp_path, runner="DirectRunner")
    with pytest.raises(UserError, match=r"00000-of-00006 is not there.*--features_dir"):
        prepare.prepare(config)
    assert not input_pipeline.is_complete(input_pipeline.prepared_folder(config))


@needs_beam
@pytest.mark.parametrize(
    "options, reason",
    [
        (["--direct_num_workers=many"], "invalid int value: 'many'"),
        (
            ["--direct_num_wrkers=2"],
            "--direct_num_wrkers: --runner=DirectRunner has no",
        ),
        (["--direct_running_mode=fast"], "invalid choice: 'fast'"),
    ],
)
def test_options_that_beam_does_not_take_are_one_line(options, reason):
    with pytest.raises(UserError, match=reason):
        beam.check("DirectRunner", options)


@pytest.mark.parametrize(
    "runner, options, reason",
    [
        (
            "local",
            ["--direct_num_workers=2"],
            "options of Apache Beam; name one of its",
        ),
        ("local", ["feature=chroma"], "feature=chroma: flags are written --name=value"),
        ("Directrunner", [], r"choose one of local, .*\(did you mean DirectRunner\?\)"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(runner, options, reason):
    with pytest.raises(UserError, match=reason):
        beam.check(runner, options)


def test_the_package_is_named_where_beam_is_missing(
    music_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(beam.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed; pip install"):
        prepare.prepare(config_for(music_folder, tmp_path, runner="FlinkRunner"))
    assert not list(tmp_path.iterdir())


@needs_beam
def test_local_does_not_import_beam(music_folder, tmp_path):
    config = config_for(music_folder, tmp_path, mode="prepare")
    script = (
        "import sys\n"
        "from mgr_jax import main\n"
        "from mgr_jax.config import Config\n"
        f"main.run({config!r})\n"
        "assert 'apache_beam' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_the_runner_is_no_part_of_a_run():
    config = Config(feature="chroma", runner="DirectRunner")
    assert config_lib.command(config) == ("python -m mgr_jax.main --feature=chroma")
