"""How the process's memory is given back.

Nothing enters or leaves. train calls it before its first step; so do the benchmarks.
"""

import contextlib
import ctypes

# Parameters of glibc's mallopt, and what they are set to here.
_NO_MAPPING = (-4, 0)  # M_MMAP_MAX
_NEVER_TRIM = (-1, 2**31 - 1)  # M_TRIM_THRESHOLD
_GROW_BY = (-2, 2**28)  # M_TOP_PAD


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
