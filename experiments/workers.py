"""Processes that make runs: what one run does to its process, no other run feels.

Configs enter; for each, why its run failed (or "") and how long it took leave, as they
come to their end. A worker makes one run after another, so that starting up is paid for
once; one that dies fails the run that it was at. grid calls it.
"""

import collections
import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from mgr_jax import cores, main
from mgr_jax.config import Config, UserError

_LONGEST_ERROR = 400
_RUNS_A_WORKER = 25  # a process that compiles anew for each run grows with them
_PATIENCE_S = 60  # for the runs at hand to save themselves


def make_runs(
    configs: Sequence[Config],
    logs: pathlib.Path,
    jobs: int,
    ended: Callable[[Config, str, float], Any],
) -> None:
    """Makes runs, `jobs` at a time.

    Args:
      configs: the runs, in their order.
      logs: folder for what each says (see `log_path`).
      jobs: how many processes.
      ended: called with a config, why its run failed or "", and seconds.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; the runs at hand have saved themselves.
    """
    waiting = collections.deque(configs)
    workers: list[_Worker] = []
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt),
        signal.SIGINT: signal.getsignal(signal.SIGINT),
    }
    try:
        while waiting or any(worker.config for worker in workers):
            workers = [worker for worker in workers if worker.is_fit()]
            while waiting and len(workers) < jobs:
                workers.append(_Worker(logs, jobs))
            for worker in workers:
                if waiting and worker.config is None:
                    worker.begin(waiting.popleft())
            busy = {worker.line: worker for worker in workers if worker.config}
            for line in multiprocessing.connection.wait(busy):
                ended(*busy[line].end())
    finally:
        # Whatever ends the loop, no second signal may keep the runs from being saved.
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        if any(worker.config for worker in workers):
            print("stopping: the runs at hand save themselves", flush=True)
        _stop(workers)
        for number, handler in before.items():
            signal.signal(number, handler)


def log_path(config: Config, logs: pathlib.Path) -> pathlib.Path:
    """The file that holds what a run said."""
    return logs / f"{config.run_path.name}.log"


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


class _Worker:
    """A process that makes the runs it is sent, and this end of the line to it."""

    def __init__(self, logs: pathlib.Path, jobs: int):
        context = multiprocessing.get_context("spawn")
        self.line, far_end = context.Pipe()
        self.config: Config | None = None
        self._made = 0
        self.process = context.Process(
            target=_serve, args=(far_end, logs, jobs), daemon=True
        )
        # Ctrl-C reaches every process of a terminal. A worker inherits that it does not
        # listen: it is told by SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        far_end.close()

    def begin(self, config: Config) -> None:
        """Sends it a run."""
        self.config, self._started = config, time.monotonic()
        self._made += 1
        with contextlib.suppress(OSError):  # it has died; its end of the line tells
            self.line.send(config)

    def end(self) -> tuple[Config, str, float]:
        """The run that it was at, why that failed or "", and its seconds."""
        try:
            error = self.line.recv()
        except (EOFError, OSError):
            self.process.join()
            error = _death(self.process.exitcode)
        config, self.config = self.config, None
        return config, error, time.monotonic() - self._started

    def is_fit(self) -> bool:
        """Whether it can take another run; one that is worn is sent home."""
        if self.config is not None:
            return True
        if self.process.is_alive() and self._made < _RUNS_A_WORKER:
            return True
        _stop([self])
        return False


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does where memory runs out"
    what = signal.Signals(-code).name if code < 0 else f"status {code}"
    return f"its process ended with {what}"


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.config is None:
            worker.line.close()  # it goes of its own accord
        else:
            worker.process.terminate()
    last = time.monotonic() + _PATIENCE_S
    for worker in workers:
        worker.process.join(max(0.0, last - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.line.close()


def _serve(line: Connection, logs: pathlib.Path, jobs: int) -> None:
    """The worker's side: makes runs until the other side hangs up."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            config = line.recv()
        except EOFError:
            return
        cores.show(config, sharers=jobs)
        line.send(_make(config, log_path(config, logs)))


def _follow_parent() -> None:
    """A parent that was killed cannot say so; its runs must not go on without it."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _make(config: Config, log: pathlib.Path) -> str:
    """Makes a run; returns why it failed, or ""."""
    import jax

    try:
        with log.open("w") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        main.run(config)
        return ""
    except UserError as error:
        print(f"error: {error}", flush=True)
        return str(error)
    except Exception as error:  # a run's failure, whatever it is, is an outcome
        traceback.print_exc()
        words = " ".join(str(error).split())
        return f"{type(error).__name__}: {words}"[:_LONGEST_ERROR]
    finally:
        jax.clear_caches()
        gc.collect()
