"""Many processes as one job: how they join, agree, hand rows round and end together.

What a process was told of its job enters, by flags or by the environment; a block in
which `jax.devices()` are those of all processes leaves. Process 0 alone writes and
prints. All else that the processes must do alike, they do through this module: main
joins them, train and evaluate gather, checkpoints shares. A job of one process passes
through every function as it came.
"""

import atexit
import contextlib
import importlib.util
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mgr_jax.config import Config, UserError
from mgr_jax.witness import Witness

# How long processes wait for the last of them to come, and for each other at the end.
_COME_S = 300
_GO_S = 30
# How long one may work alone. One that is lost is told of after `lost_after_s`.
_ALONE_S = 14 * 24 * 3600

# A barrier that was passed must not be named again; all processes count alike.
_meetings = itertools.count()

# The words of the collectives, on CPU and GPU, and of the coordination service.
_LOSS = re.compile(
    r"gloo|nccl|coordination|heartbeat|barrier|UNAVAILABLE|DEADLINE_EXCEEDED"
    r"|connection (closed|reset|refused)|socket closed",
    re.IGNORECASE,
)


def count() -> int:
    """Number of processes in the job."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """This process's number in the job, from 0."""
    return 0 if count() == 1 else jax.process_index()


def is_first() -> bool:
    """Whether this is process 0, which writes and prints."""
    return index() == 0


@contextlib.contextmanager
def joined(config: Config) -> Iterator[None]:
    """Makes this process one of a job's, where it was started as one.

    Within, what Python prints is process 0's alone. An error within ends this process
    at once, so that the others, which cannot go on, learn of it.

    Args:
      config: its JOB_FIELDS say which process of which job.

    Raises:
      UserError: the processes did not find each other, or the flags fit no job.
    """
    if not is_one_of_many(config):
        yield
        return
    witness = Witness()
    try:
        _join(config)
        with contextlib.ExitStack() as silence:
            if not is_first():
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(contextlib.redirect_stdout(nowhere))
                silence.enter_context(contextlib.redirect_stderr(nowhere))
            yield
        _meet()
        jax.distributed.shutdown()
    except BaseException as error:
        _end(witness, error)
        raise
    witness.told()


def is_one_of_many(config: Config) -> bool:
    """Whether flags or environment say that this process is one of a job's."""
    told = [config.coordinator_address, config.num_processes, config.process_id >= 0]
    if config.num_processes == 1:
        return False
    if any(told):
        return True
    many = (
        int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1
        or int(os.environ.get("OMPI_COMM_WORLD_SIZE") or 1) > 1
        or "JOB_COMPLETION_INDEX" in os.environ
        or "JAX_COORDINATOR_ADDRESS" in os.environ
    )
    # A TPU VM knows by itself whether it is one of a pod's.
    return many or importlib.util.find_spec("libtpu") is not None


def _join(config: Config) -> None:
    address = config.coordinator_address
    if address and not re.fullmatch(r".+:\d+", address):
        raise UserError(
            f"--coordinator_address={address}: has no port; write HOST:PORT, such as "
            f"{address.rstrip(':')}:8476, alike for each process"
        )
    before = signal.getsignal(signal.SIGTERM)
    told = config.coordinator_address or config.num_processes or config.process_id >= 0
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator_address or None,
            num_processes=config.num_processes or None,
            process_id=None if config.process_id < 0 else config.process_id,
            initialization_timeout=_COME_S,
            heartbeat_timeout_seconds=config.lost_after_s,
            shutdown_timeout_seconds=_GO_S,
        )
    except (ValueError, TypeError) as error:
        if not told and "coordinator_address" in str(error):
            return  # A machine with a TPU library, and no job.
        raise UserError(
            "--coordinator_address, --num_processes and --process_id: this is no job "
            f"({_short(error)}); give all three, with another --process_id from 0 on "
            "for each process"
        ) from None
    except RuntimeError as error:
        raise UserError(
            f"--coordinator_address={config.coordinator_address}: the processes of the "
            f"job did not find each other ({_short(error)}); start them all within "
            f"{_COME_S} s, with the same address and --num_processes"
        ) from None
    # JAX has put a handler of its own there.
    signal.signal(signal.SIGTERM, before)


def _end(witness: Witness, error: BaseException) -> None:
    """Ends the process without waiting for others, once it has told why."""
    if is_loss(error):
        sys.stdout.flush()
        os._exit(1)  # The witness tells.
    status = 1
    if isinstance(error, KeyboardInterrupt):
        status = 130
    elif isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 1
    if status == 0:
        # All leave together, as after a SIGTERM.
        _meet()
        jax.distributed.shutdown()
    witness.told()

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # Registered last, it comes first: before JAX waits for the others.
    atexit.register(leave)


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process of the job cannot be reached."""
    if count() == 1 or isinstance(error, UserError):
        return False
    kinds = (jax.errors.JaxRuntimeError, ValueError, RuntimeError)
    return isinstance(error, kinds) and bool(_LOSS.search(str(error)))


def first(work: Callable[[], Any]) -> None:
    """Process 0 does it while the others wait; where it fails, they end quietly."""
    if count() == 1:
        work()
        return
    failed = b"1"
    try:
        if is_first():
            work()
        failed = b"0"
    finally:
        _meet()
        answers = _gather_bytes(failed)
    if answers[0] != b"0":
        sys.exit(1)


def gather(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of all processes, one process's after the other's.

    Args:
      rows: arrays (n, ...), n any number, that differ in n alone between processes.

    Returns:
      The same of all processes, bit for bit, in each of them.
    """
    if count() == 1:
        return dict(rows)
    return {
        name: np.concatenate(
            [
                np.frombuffer(part, value.dtype).reshape(-1, *value.shape[1:])
                for part in _gather_bytes(value.tobytes())
            ]
        )
        for name, value in sorted(rows.items())
    }


def add(values: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """Sums over all processes, in their order, of arrays or numbers."""
    _meet()
    rows = gather({str(k): np.asarray(value)[None] for k, value in enumerate(values)})
    return tuple(rows[str(k)].sum(axis=0) for k in range(len(values)))


def largest(value: Any) -> Any:
    """The largest of a number that each process gives."""
    return value if count() == 1 else gather({"": np.array([value])})[""].max().item()


def _gather_bytes(data: bytes) -> list[bytes]:
    """What each process gives, of any length, in the order of the processes."""
    from jax.experimental import multihost_utils

    # As bytes: 64-bit numbers would lose half of their bits.
    lengths = multihost_utils.process_allgather(np.array([len(data)], np.int32))
    padded = np.zeros(max(lengths.max(), 1), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    found = multihost_utils.process_allgather(padded)
    return [
        row[:length].tobytes() for row, length in zip(found, lengths[:, 0], strict=True)
    ]


def _meet() -> None:
    """Waits for all processes, however long one prepares, reads or draws alone.

    A collective would not: between CPUs, it gives up after half a minute.
    """
    if count() == 1:
        return
    from orbax.checkpoint import multihost

    meet = multihost.get_barrier_sync_fn()
    meet(key=f"mgr_jax_{next(_meetings)}", timeout_ms=_ALONE_S * 1000)


def shared(state: Any) -> Any:
    """A state that every process holds, as one that all hold together, to be saved."""
    if count() == 1:
        # Of several devices' copies, Orbax would cut a part out of each.
        return jax.tree.map(_on_one_device, state)
    return _convert(state, "host_local_array_to_global_array")


def _on_one_device(x: Any) -> Any:
    return x.addressable_data(0) if isinstance(x, jax.Array) else x


def awaited(like: Any) -> Any:
    """What is to be restored: arrays like these, held by all processes together."""
    if count() == 1:
        return like
    mesh = jax.sharding.Mesh(np.array(devices()), ("devices",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), like
    )


def local(state: Any) -> Any:
    """What was restored by `awaited`, as each process holds it."""
    return _convert(state, "global_array_to_host_local_array")


def _convert(state: Any, how: str) -> Any:
    if count() == 1:
        return state
    from jax.experimental import multihost_utils

    mesh = jax.sharding.Mesh(np.array(devices()), ("devices",))
    convert = getattr(multihost_utils, how)
    return convert(state, mesh, jax.sharding.PartitionSpec())


def devices() -> list[Any]:
    """All devices of the job, one process's after the other's."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


class Meetings:
    """Calls, as many in every process, at some of which the processes meet.

    They meet about `period_s` apart. When the next meeting is, they agree upon at each,
    for their clocks differ; in between they do not wait for each other.
    """

    def __init__(self, period_s: float):
        """The first call is a meeting."""
        self._period_s = period_s
        self._held = time.monotonic()
        self._calls = self._next = 1

    def largest(self, wish: int) -> int | None:
        """The largest wish of all processes, where they meet at this call, else None.

        A job of one process also meets whenever it has a wish other than 0.
        """
        since_s = time.monotonic() - self._held
        if count() == 1:
            if not wish and since_s <= self._period_s:
                return None
            self._held = time.monotonic()
            return wish
        self._next -= 1
        if self._next > 0:
            return None
        found, longest_s = largest(wish), largest(since_s)
        pace = self._calls / max(longest_s, 1e-3)
        # Steps may become slow again: twice as many calls at the most.
        self._calls = max(1, min(2 * self._calls, int(pace * self._period_s)))
        self._next = self._calls
        self._held = time.monotonic()
        return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
