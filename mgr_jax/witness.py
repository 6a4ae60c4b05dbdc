"""What is said of a process whose libraries end it: one line, in place of their dump.

Where a process of a job is lost, JAX's C++ aborts the others, and Python has no word in
it. So each has a witness, a process that outlives it: what the libraries write to the C
standard output and error passes through it, but for what they say of connections. Where
its process ends without having told how, the witness tells. It is this file, run as a
script, and imports nothing of the package. hosts starts it.
"""

import os
import re
import signal
import subprocess
import sys
from typing import BinaryIO

LOST = (
    "a process of the job was lost; the same command, on as many processes as there "
    "are then, goes on from the newest checkpoint"
)

_TOLD = b"mgr_jax: this process has told how it ends\n"
# Gloo tells of every connection that it makes, in pieces: two that it makes at once can
# have a line begin with what belongs to another. Others tell of connections that break.
_CHATTER = re.compile(
    rb"^\[Gloo\] Rank |preemption_sync_manager|UNAVAILABLE: |Socket closed"
    rb"|Connection (reset|refused)"
    rb"|^(\[Gloo\] Rank |\d| is connected to | peer ranks\. "
    rb"|Expected number of connected peer ranks is : )*$"
)
# From here on, the coordination service tells how it dies.
_DUMP = re.compile(rb"coordination_service|distributed service detected fatal errors")


class Witness:
    """A witness of this process, from its making until `told`."""

    def __init__(self):
        """Starts it; Python's own output goes past it."""
        reads, self._writes = os.pipe()
        kept = [os.dup(number) for number in (1, 2)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=reads,
            stdout=kept[0],
            stderr=kept[1],
            # A terminal's Ctrl-C is not for it.
            start_new_session=True,
        )
        os.close(reads)
        sys.stdout.flush()
        sys.stdout = os.fdopen(kept[0], "w", buffering=1)
        sys.stderr = os.fdopen(kept[1], "w", buffering=1)
        for number in (1, 2):
            os.dup2(self._writes, number)

    def told(self) -> None:
        """Says that this process tells by itself how it ends."""
        os.write(self._writes, _TOLD)
        os.close(self._writes)
        for number, stream in enumerate((sys.stdout, sys.stderr), 1):
            stream.flush()
            os.dup2(stream.fileno(), number)
        self._process.wait()


def _listen(source: BinaryIO, words: BinaryIO) -> None:
    """Passes words on until the process ends, and says so where it did not."""
    dumps = False
    for line in source:
        if line == _TOLD:
            return
        dumps = dumps or bool(_DUMP.search(line))
        if not dumps and not _CHATTER.search(line):
            words.write(line)
            words.flush()
    words.write(f"error: {LOST}\n".encode())
    words.flush()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _listen(sys.stdin.buffer, sys.stderr.buffer)
