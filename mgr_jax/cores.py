"""The cores of a CPU as devices of JAX, which share a batch as several GPUs would.

A config enters; what JAX will find as its devices is set, and how XLA compiles in a job
of many processes. XLA shares out work within an operation, and leaves cores idle
wherever one is too small, or made for one thread; a device has work all the time. main
calls it before JAX looks for devices, and so do the experiments' workers. shards and
steps ask how XLA is to compile for cores; shards and verify how many there are for
their threads, which needs no JAX.
"""

import contextlib
import os
from typing import Any

from mgr_jax.config import Config

# Fewer than so many rows each are not worth another device.
_ROWS = 8
# Of AVX-512, LLVM would use half the width.
_FULL_WIDTH = {"xla_cpu_prefer_vector_width": 512}
# Giving small operations to another core takes longer than they do.
_NOTHING_SHARED = {
    "xla_disable_hlo_passes": "cpu-parallel-task-assigner",
    "xla_cpu_multi_thread_eigen": False,
}


def show(config: Config, sharers: int = 1) -> None:
    """Has JAX show a CPU as several devices, where nothing else was asked for.

    It comes too late, and does nothing, once JAX has looked for its devices. GPUs and
    TPUs stay what they are. For a process of a job of many, whose steps take no
    `compiler_options`, it has XLA compile everything for the CPU's whole width.

    Args:
      config: its `cpu_devices` says how many; 0 leaves it to its batch size and the
        number of cores. A process of a job of many then has one.
      sharers: how many such processes share the cores.
    """
    import jax

    from mgr_jax import hosts

    one_of_many = hosts.is_one_of_many(config)
    if one_of_many:
        widths = (f"--{name}={value}" for name, value in _FULL_WIDTH.items())
        # What stands last counts.
        os.environ["XLA_FLAGS"] = " ".join([*widths, os.environ.get("XLA_FLAGS", "")])
    count = config.cpu_devices
    if not count:
        asked = "xla_force_host_platform_device_count" in os.environ.get(
            "XLA_FLAGS", ""
        )
        if asked or jax.config.jax_num_cpu_devices > 0 or one_of_many:
            return
        count = fitting(config.batch_size, available() // sharers)
    with contextlib.suppress(RuntimeError):  # devices were looked for
        jax.config.update("jax_num_cpu_devices", count)


def fitting(batch_size: int, cores: int) -> int:
    """How many devices share a batch evenly, at most one a core, with rows enough."""
    most = max(min(cores, batch_size // _ROWS), 1)
    return next(n for n in range(most, 0, -1) if batch_size % n == 0)


def compiler_options(*, alone: bool) -> dict[str, Any] | None:
    """How XLA is to compile for a CPU; None where JAX computes elsewhere.

    Args:
      alone: whether what is compiled has one core to itself.
    """
    import jax

    if jax.default_backend() != "cpu":
        return None
    return _FULL_WIDTH | _NOTHING_SHARED if alone else _FULL_WIDTH


def available() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only some systems can say
        return os.cpu_count() or 1
