"""What the devices of a step tell each other, alike however processes share them.

Values of each device enter, inside a pmap; sums and means over all devices leave, or a
device's own rows. An all-reduce between processes adds in an order of its own, so its
last bit depends on which devices share a process, and AdamW makes whole steps of such
bits. In a job of many processes, the values are therefore gathered and added in the
order of the devices; and on a CPU, where that takes little longer, in one process, too.
steps and layers call it.
"""

import functools
import operator
from typing import Any

import jax
from jax import lax
from jax.flatten_util import ravel_pytree


def total(values: Any, axis_name: str) -> Any:
    """Sums of a tree's arrays over all devices.

    They are of one type, and travel as one array: devices wait for each other once for
    each.
    """
    if lax.axis_size(axis_name) == 1:
        return values
    flat, as_given = ravel_pytree(values)
    if jax.process_count() == 1 and jax.default_backend() != "cpu":
        return as_given(lax.psum(flat, axis_name))
    return as_given(_added(lax.all_gather(flat, axis_name)))


def mean(values: Any, axis_name: str) -> Any:
    """Means of a tree's arrays over all devices."""
    count = lax.axis_size(axis_name)
    return jax.tree.map(lambda x: x / count, total(values, axis_name))


def _added(parts: jax.Array) -> jax.Array:
    return functools.reduce(operator.add, list(parts))


def dealt(rows: Any, hosts: int, devices: int) -> Any:
    """A batch as one process sees it, cut for its devices.

    Args:
      rows: a tree of arrays (batch, ...).
      hosts: number of processes.
      devices: devices of each process.

    Returns:
      (devices, batch / devices, ...) each, for one process; for several, (devices,
      hosts, rows of a device, ...), for `own_rows`.
    """
    if hosts == 1:
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), rows)
    return jax.tree.map(
        lambda x: x.reshape(hosts, devices, -1, *x.shape[1:]).swapaxes(0, 1), rows
    )


def own_rows(rows: Any, axis_name: str, hosts: int, devices: int) -> Any:
    """The rows of a batch that are this device's, from the processes that read them.

    Each process has a batch with the rows that it read, and zeros in the others'
    places. So the sum over the processes is the batch, bit for bit.

    Args:
      rows: a tree of what `dealt` gave each device: (hosts, rows of a device, ...).
      axis_name: the device axis.
      hosts: number of processes.
      devices: devices of each process.

    Returns:
      Arrays (rows of a device, ...); device k has rows [k * n, (k + 1) * n).
    """
    groups = [list(range(k, hosts * devices, devices)) for k in range(devices)]
    return jax.tree.map(
        lambda x: lax.psum_scatter(x, axis_name, axis_index_groups=groups), rows
    )
