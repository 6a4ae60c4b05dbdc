"""How the process's memory is given back, and where arrays begin in it.

A shape enters, and an array leaves that XLA need not copy; or nothing does. train says
before its first step what becomes of freed memory, and so do the benchmarks; shards and
input_pipeline make such arrays.
"""

import contextlib
import ctypes
import math

import numpy as np
from numpy.typing import DTypeLike

# Parameters of glibc's mallopt, and what they are set to here.
_NO_MAPPING = (-4, 0)  # M_MMAP_MAX
_NEVER_TRIM = (-1, 2**31 - 1)  # M_TRIM_THRESHOLD
_GROW_BY = (-2, 2**28)  # M_TOP_PAD

# XLA on a CPU reads an array that begins at a multiple of so many bytes where it lies.
_ALIGNED_BYTES = 64


def keep_freed() -> None:
    """Lets glibc keep what is freed, so that big arrays are not mapped anew each time.

    On a CPU, a train step takes tens of megabytes and gives them back. Without this,
    the kernel clears them again for each step, which took a third of its time. The
    process stays as large as it once was. Where the C library is another, nothing
    changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in (_NO_MAPPING, _NEVER_TRIM, _GROW_BY):
            libc.mallopt(parameter, value)


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array for XLA to read on a CPU, which copies others first.

    Args:
      shape: its shape.
      dtype: its type.

    Returns:
      The array; what is in it is left open, as by np.empty.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNED_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNED_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)
