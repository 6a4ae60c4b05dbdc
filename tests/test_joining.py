"""How the processes of one job find each other: by flags, or by what SLURM says."""

import os
import pathlib
import subprocess

import pytest

# A test whose processes wait for each other fails in the end.
LONGEST_S = 200


def flags(music: pathlib.Path, place: pathlib.Path) -> list[str]:
    return [
        "--dataset=folder",
        "--feature=chroma",
        f"--data_dir={music}",
        f"--features_dir={place / 'features'}",
        f"--workdir={place / 'run'}",
        "--tracks_per_shard=3",
        "--mode=train",
        "--num_epochs=1",
        "--widths=4,4,8",
    ]


def ends(started: list[subprocess.Popen]) -> list[tuple[str, str]]:
    """Output and errors of each; none is left after LONGEST_S."""
    try:
        return [process.communicate(timeout=LONGEST_S) for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize(
    "given, words",
    [
        (["--num_processes=2"], "give all three"),
        (["--process_id=1"], "give all three"),
        (["--coordinator_address=127.0.0.1:1"], "give all three"),
        (
            [
                "--coordinator_address=127.0.0.1:1",
                "--num_processes=2",
                "--process_id=2",
            ],
            "process_id=2",
        ),
        (
            ["--coordinator_address=127.0.0.1", "--num_processes=2", "--process_id=0"],
            "HOST:PORT",
        ),
        (["--num_processes=-1"], "must be 0 or more"),
        (["--lost_after_s=1"], "must be 5 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_are_no_job_get_one_line_that_says_what_to_do(program, given, words):
    done = program("--dataset=synth", *given)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_processes_that_slurm_started_find_each_other(program, music_folder, tmp_path):
    """SLURM's variables as `srun --ntasks=2` sets them; no flag tells of a job."""
    started = [
        program(
            *flags(music_folder, tmp_path),
            start_only=True,
            # JAX makes the port of the job's number.
            SLURM_JOB_ID=str(os.getpid()),
            SLURM_STEP_NODELIST="localhost",
            SLURM_NTASKS="2",
            SLURM_STEP_NUM_TASKS="2",
            SLURM_STEP_NUM_NODES="1",
            SLURM_PROCID=str(task),
            SLURM_LOCALID=str(task),
        )
        for task in range(2)
    ]
    (first, errors), (second, _) = ends(started)
    assert [process.returncode for process in started] == [0, 0], errors
    # One job, not two: process 0 speaks for both.
    assert first.count("training cnn") == 1
    assert second == ""
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1
