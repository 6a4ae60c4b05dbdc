"""The program on bad days: signals, full disks, folders that cannot be written.

Each test runs it as a user would, in a process of its own. What goes on after a bad day
may be the test's process.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import (
    ROOT,
    run_here,
    run_module,
    run_without_privileges,
    write_music_folder,
)

MAIN = [sys.executable, "-m", "mgr_jax.main"]
SMALL = ("--num_epochs=3", "--widths=4,4,8", "--hidden_units=8", "--batch_size=4")


def flags(data: pathlib.Path, place: pathlib.Path, *others: str) -> list[str]:
    """Of a small job on a music folder, whose results go into one place."""
    return [
        "--dataset=folder",
        "--feature=chroma",
        "--tracks_per_shard=4",
        f"--data_dir={data}",
        f"--features_dir={place / 'features'}",
        f"--workdir={place / 'run'}",
        *SMALL,
        *others,
    ]


def files(place: pathlib.Path) -> dict[str, bytes]:
    """What a job left, but for what a clock decides."""
    timed = {"metrics.jsonl", "results.json", "report.html", "config.json"}
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
        and path.name not in timed
        and not {"tensorboard", "checkpoints"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def whole(program, music_folder, tmp_path_factory) -> pathlib.Path:
    """What is left of a job that nothing interrupted."""
    place = tmp_path_factory.mktemp("whole")
    done = program(*flags(music_folder, place))
    assert done.returncode == 0, done.stderr
    return place


def one_line(errors: str) -> str:
    """The one line that a mistake, or a bad day, gets from the program."""
    # TensorFlow's C++ now and then logs a failed read, and no setting keeps it quiet.
    others = ("--split=track leaks", "absl::InitializeLog", "local_rendezvous.cc")
    lines = [x for x in errors.splitlines() if not any(o in x for o in others)]
    assert len(lines) == 1, errors
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_prepares_is_one_line_and_the_same_command_goes_on(
    program, music_folder, whole, tmp_path, number
):
    command = flags(music_folder, tmp_path, "--mode=prepare", "--tracks_per_shard=4")
    # Compiling the feature anew gives the signal time to come.
    victim = program(*command, start_only=True, JAX_COMPILATION_CACHE_DIR="")
    for line in victim.stdout:
        if line.startswith("preparing"):
            victim.send_signal(number)
            break
    _, errors = victim.communicate(timeout=300)
    assert victim.returncode == 130, errors
    assert one_line(errors) == "error: interrupted; the same command goes on"
    run_here(*command)
    assert files(tmp_path / "features") == files(whole / "features")


@pytest.mark.parametrize("module", ["numpy", "jax"])
def test_an_interrupt_while_modules_load_is_one_line(module, tmp_path):
    """A module of that name that interrupts stands in for good timing.

    numpy is imported before flags are parsed, jax after.
    """
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [*MAIN, "--dataset=synth"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert one_line(done.stderr) == "error: interrupted; the same command goes on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_garbage_is_collected_is_not_lost(number):
    """What is raised in a callback of the collector, as JAX has one, goes nowhere."""
    script = (
        "import gc, os, time\n"
        "from mgr_jax import cli\n"
        "def callback(phase, info):\n"
        "    gc.callbacks.remove(callback)\n"
        f"    os.kill(os.getpid(), {number})\n"
        "def body():\n"
        "    gc.callbacks.append(callback)\n"
        "    gc.collect()\n"
        "    print('went on', flush=True)\n"
        "    time.sleep(60)\n"
        "cli.start(body)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "went on\n"
    assert one_line(done.stderr) == "error: interrupted; the same command goes on"
    assert done.returncode == 130


@pytest.fixture
def small_disk(tmp_path):
    """Makes a disk of so many kilobytes."""
    mounted = []

    def make(kilobytes: int) -> pathlib.Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user cannot mount a disk of memory")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def make_room(folder: pathlib.Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)


def ends_for_want_of_room(done, disk: pathlib.Path) -> None:
    """The program ended with one line that names the disk and the remedy."""
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert line.startswith(f"error: {disk}"), line
    assert "No space left on device" in line
    assert "make room, and the same command goes on" in line


@pytest.mark.parametrize("kilobytes", [12, 100])
def test_a_disk_that_is_full_while_it_prepares_is_one_line_and_loses_nothing(
    program, music_folder, whole, small_disk, kilobytes
):
    disk = small_disk(kilobytes)
    command = flags(music_folder, disk, "--mode=prepare")
    ends_for_want_of_room(program(*command), disk)
    kept = {path: path.stat().st_mtime_ns for path in disk.rglob("*.tfrecord-*")}
    make_room(disk)
    run_here(*command)
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    expected = files(whole / "features")
    assert files(disk / "features") == expected


@pytest.mark.parametrize("kilobytes", [8, 120, 500])
def test_a_disk_that_is_full_while_it_trains_is_one_line_and_loses_nothing(
    program, music_folder, whole, small_disk, tmp_path, kilobytes
):
    """The sizes let it come to the config, a later checkpoint, the figures."""
    shutil.copytree(whole / "features", tmp_path / "features")
    disk = small_disk(kilobytes)
    command = flags(music_folder, tmp_path, f"--workdir={disk / 'run'}")
    ends_for_want_of_room(program(*command), disk)
    make_room(disk)
    run_here(*command)
    assert files(disk / "run") == files(whole / "run")


def test_a_limit_on_the_length_of_files_is_one_line_too(music_folder, tmp_path):
    command = [*MAIN, *flags(music_folder, tmp_path, "--mode=prepare")]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", *command]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in one_line(done.stderr)
    assert not list(tmp_path.rglob(".writing-*"))


def test_a_data_folder_that_may_only_be_read_names_the_flag(tmp_path):
    music = write_music_folder(tmp_path / "music", tracks_per_genre=4)
    command = [*MAIN, "--dataset=folder", "--feature=chroma", f"--data_dir={music}"]
    command += [f"--workdir={tmp_path / 'run'}", *SMALL]
    music.chmod(0o555)
    try:
        done = run_without_privileges(command)
        assert done.returncode == 1
        line = one_line(done.stderr)
        assert f"{music / 'features'}" in line
        assert "Permission denied" in line and "--features_dir" in line
        elsewhere = f"--features_dir={tmp_path / 'features'}"
        done = run_without_privileges([*command, elsewhere])
        assert done.returncode == 0, done.stderr
    finally:
        music.chmod(0o755)
    assert sorted(path.name for path in music.iterdir()) == ["a tones", "d sharp"]


def test_a_run_folder_that_may_not_be_written_names_the_flag(
    music_folder, whole, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [*MAIN, "--mode=evaluate", f"--workdir={run}"]
    try:
        done = run_without_privileges(command)
    finally:
        for path in [run, *run.rglob("*")]:
            path.chmod(0o755)
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert str(run) in line and "Permission denied" in line and "--workdir" in line


def test_a_checkpoint_that_was_damaged_is_one_line(program, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    victim = next((run / "checkpoints" / "best").rglob("manifest.ocdbt"))
    victim.write_bytes(victim.read_bytes()[:20])
    done = program("--mode=evaluate", f"--workdir={run}")
    assert done.returncode == 1
    assert one_line(done.stderr) == (
        f"error: {victim}: is damaged; put back a copy of the run's folder, or train "
        "it anew with --overwrite"
    )


def test_a_shard_whose_bits_fell_over_is_deleted_and_made_again_as_the_line_says(
    program, music_folder, whole, tmp_path
):
    shutil.copytree(whole / "features", tmp_path / "features")
    shard = next(tmp_path.rglob("*.tfrecord-00001-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    done = program(*flags(music_folder, tmp_path))
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert line.startswith(f"error: {shard}: is damaged")
    shard.unlink()
    run_here(*flags(music_folder, tmp_path))
    assert files(tmp_path) == files(whole)


WATCH = """
import os, sys
def watch(event, arguments):
    if event == "pickle.find_class":
        os.write(2, f"unpickled {arguments}\\n".encode())
        os._exit(9)
sys.addaudithook(watch)
"""


def test_nothing_is_unpickled_and_nothing_written_outside(
    music_folder, whole, tmp_path
):
    """Python tells of each thing unpickled; the folders show what was written."""
    for name in ("home", "cwd", "tmp", "hook"):
        (tmp_path / name).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    place = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": f"{tmp_path / 'hook'}{os.pathsep}{ROOT}",
        "JAX_COMPILATION_CACHE_DIR": "",
    }
    pickled = "import pickle; pickle.loads(pickle.dumps(len))"
    hook = subprocess.run([sys.executable, "-c", pickled], env=os.environ | place)
    assert hook.returncode == 9
    before = {path: path.stat().st_mtime_ns for path in music_folder.rglob("*")}
    job = flags(music_folder, tmp_path / "results")
    for given in (
        job,
        ["--mode=evaluate", f"--workdir={tmp_path / 'results' / 'run'}"],
    ):
        done = run_module("mgr_jax.main", *given, cwd=tmp_path / "cwd", **place)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "results") == files(whole)
    assert before == {p: p.stat().st_mtime_ns for p in music_folder.rglob("*")}
    assert list((tmp_path / "cwd").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    at_home = [p for p in (tmp_path / "home").rglob("*") if p.is_file()]
    assert {path.relative_to(tmp_path / "home").parts[0] for path in at_home} <= {
        ".cache"
    }


def test_a_process_that_was_killed_holds_no_lock(
    program, music_folder, tmp_path, capsys
):
    victim = program(*flags(music_folder, tmp_path), start_only=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob(".chroma.lock")):
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    victim.kill()
    victim.communicate()
    run_here(*flags(music_folder, tmp_path))
    assert "waiting for it" not in capsys.readouterr().out
