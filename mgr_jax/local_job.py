"""The processes of one job on this machine, as many hosts would start one each.

    python -m mgr_jax.local_job --local_processes=2 --dataset=synth --feature=chroma

A number of processes and main's flags enter; the processes run `mgr_jax.main`, and meet
on a free port of this machine. Where one fails, all end, with its status. Signals are
passed on. launch.sh calls it, for trying out what a cluster would do.
"""

import functools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from mgr_jax import cli
from mgr_jax import config as config_lib
from mgr_jax import main as main_lib

_LOOK_S = 0.1
# How long the others may take to end by themselves, once one has failed.
_GO_S = 60


def run(count: int, words: Sequence[str]) -> int:
    """Runs a job of so many processes, and waits for all of them.

    Args:
      count: number of processes.
      words: of main's command line.

    Returns:
      0, or the status of the first that failed; 128 and its number after a signal.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = [f"--coordinator_address={address}", f"--num_processes={count}"]
    started: list[subprocess.Popen] = []
    # Before there is a process, so that none is left when a signal comes this early.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, functools.partial(_pass_on, started))
    for k in range(count):
        command = [sys.executable, "-m", "mgr_jax.main", *job, f"--process_id={k}"]
        # A terminal's Ctrl-C comes here, and is passed on once.
        started.append(subprocess.Popen([*command, *words], start_new_session=True))
    return _wait(started)


def _pass_on(started: Sequence[subprocess.Popen], number: int, frame: Any) -> None:
    for process in started:
        process.send_signal(number)


def _wait(started: Sequence[subprocess.Popen]) -> int:
    failed, since = 0, 0.0
    while any(process.poll() is None for process in started):
        ends = [process.returncode for process in started if process.returncode]
        if ends and not failed:
            failed, since = ends[0], time.monotonic()
            _pass_on(started, signal.SIGTERM, None)
        if failed and time.monotonic() - since > _GO_S:
            _pass_on(started, signal.SIGKILL, None)
        time.sleep(_LOOK_S)
    failed = failed or next((x.returncode for x in started if x.returncode), 0)
    return failed if failed >= 0 else 128 - failed


def _from_flags(words: Sequence[str]) -> None:
    # A mistake is told here, and not by each of the processes.
    main_lib.configure(flags.FLAGS)
    given = flags.FLAGS
    said = [given[name] for name in given if given[name].present]
    again = [flag.serialize() for flag in said if flag.name != "local_processes"]
    sys.exit(run(given.local_processes, [*again, "--", *words]))


def main() -> None:
    """Defines the flags and runs."""
    # Where they meet and which is which is said here.
    own = ("coordinator_address", "num_processes", "process_id")
    config_lib.define_flags(main_lib.CHOICES, flags.FLAGS, own)
    flags.adopt_module_key_flags(config_lib)
    flags.DEFINE_integer("local_processes", 2, "How many.", lower_bound=1)
    cli.start(_from_flags, takes_words=True)


if __name__ == "__main__":
    main()
