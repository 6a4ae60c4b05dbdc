"""Where arrays begin in memory."""

import jax
import numpy as np
import pytest

from mgr_jax import memory


@pytest.mark.parametrize("shape", [(), (3,), (32, 7, 5)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_an_aligned_array_is_an_array_that_begins_where_it_should(shape, dtype):
    array = memory.aligned(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.flags.c_contiguous and array.flags.writeable
    assert array.ctypes.data % 64 == 0
    array[...] = 2
    assert (array == 2).all()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU reads it there")
def test_xla_on_a_cpu_reads_an_aligned_array_where_it_lies():
    array = memory.aligned((32, 500), np.float32)
    array[:] = 1
    assert jax.device_put(array).unsafe_buffer_pointer() == array.ctypes.data
