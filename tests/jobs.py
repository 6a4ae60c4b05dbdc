"""What the tests of jobs of several processes share: one is started, and ends."""

import json
import pathlib
import socket
import subprocess
import time

from conftest import run_module, write_music_folder

from mgr_jax import prepare
from mgr_jax.config import Config, complete
from mgr_jax.datasets import DATASETS

# What a job takes at the most; one that hangs fails.
LONGEST_S = 240


def prepared_config(place: pathlib.Path) -> Config:
    """A config whose features are prepared, in six shards of 3, 3, 3, 3, 3 and 1."""
    folder = DATASETS["folder"]
    config = Config(
        dataset="folder",
        feature="chroma",
        data_dir=str(write_music_folder(place / "music")),
        features_dir=str(place / "features"),
        tracks_per_shard=3,
    )
    config = complete(config, folder.default_split, folder.splits)
    prepare.prepare(config)
    return config


def words(config: Config) -> list[str]:
    """The flags that name a config's features."""
    names = ("dataset", "feature", "data_dir", "features_dir", "tracks_per_shard")
    return [f"--{name}={getattr(config, name)}" for name in names]


def start(
    config: Config, workdir: pathlib.Path, processes: int, devices: int, *flags: str
) -> list[subprocess.Popen]:
    """Starts the processes of a job that trains, each with so many devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    given = words(config)
    given += [f"--workdir={workdir}", "--batch_size=4", "--patience=0", *flags]
    started = []
    for k in range(processes):
        job = []
        if processes > 1:
            job = [f"--coordinator_address={address}", f"--num_processes={processes}"]
            job += [f"--process_id={k}", "--lost_after_s=10"]
        command = run_module(
            "mgr_jax.main",
            *given,
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


def metrics(workdir: pathlib.Path) -> list[dict]:
    try:
        text = (workdir / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines()]
