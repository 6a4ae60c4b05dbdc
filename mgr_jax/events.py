"""A run's curves for TensorBoard, written where they are known.

Rows of metrics enter; an event file in the run's folder leaves. tensorboardX's own
SummaryWriter hands them to a thread: where that dies, as of a full disk, it waits for
the thread for ever. train calls it.
"""

import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any

from mgr_jax import lean


class Events:
    """An event file; what was written of later steps by an earlier start is void."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        """Opens a new file in the folder, for steps from `first_step` on.

        Raises:
          OSError: it cannot be written; as all methods.
        """
        lean.tensorboardx()
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._writer = RecordWriter(str(folder / f"{name}.{os.getpid()}"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=start)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes the fractions of a row, each under its name; the rest has no curve."""
        from tensorboardX.proto import summary_pb2

        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if isinstance(value, float)
        ]
        self._write(step=step, summary=summary_pb2.Summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event(wall_time=time.time(), **fields)
        self._writer.write(event.SerializeToString())
