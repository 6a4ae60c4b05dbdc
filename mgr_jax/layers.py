"""Parts of a network that XLA does not make fast by itself, and what makes them so.

Pictures (batch, bins, frames, channels) enter and leave. The numbers are those of the
plain operations, which the tests hold them to; only the order of the work differs. What
decides on a CPU is how often the first block's full resolution is read and written.
models builds with them.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mgr_jax import collectives

EPSILON = 1e-5  # as nn.BatchNorm's

# An addition waits for the one before. So many make a sum of its own.
_SUM_OF = 8

Window = tuple[int, int]
Residuals = tuple[jax.Array, ...]


# Convolution.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def strided_conv(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
    """Convolution of pictures of one channel, padded to SAME, with large steps.

    With one channel, there is little for a matrix product to do, which a convolution is
    made of. On a CPU it is a sum over the kernel instead; elsewhere, blocks as large as
    a step are made channels first (space to depth), so that a kernel of 8 x 4 over one
    channel becomes one of 2 x 2 over eight.

    Args:
      x: (batch, bins, frames, 1).
      kernel: (bins, frames, 1, channels).
      strides: (bins, frames) of a step.

    Returns:
      (batch, ceil(bins / step), ceil(frames / step), channels).
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_by_taps, strides),
        default=functools.partial(_in_blocks, strides),
    )


def _by_taps(strides: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`strided_conv`, as each number of the kernel times what lies under it.

    Of these sums, XLA makes one loop over places, whose innermost is over channels: of
    16, that is a vector or two, which stay in registers.
    """
    (down, right), (height, width) = strides, kernel.shape[:2]
    blocks, bins, frames = _under(x, kernel.shape, strides)
    sums = [jnp.float32(0)] * height
    for row in range(height):
        block, row_in_block = divmod(row, down)
        rows = blocks[:, block : block + bins, row_in_block]
        for column in range(width):
            tap = rows[..., column:][..., ::right][..., :frames, None]
            sums[row] += tap * kernel[row, column, 0].astype(jnp.float32)
    return sum(sums).astype(x.dtype)


def _under(
    x: jax.Array, shape: tuple[int, ...], strides: Window
) -> tuple[jax.Array, int, int]:
    """What lies under a kernel of a shape, zeros included, and the places it takes.

    Returns:
      float32 (batch, blocks, bins of a block, frames), blocks being as high as a step;
      and the number of places over bins, and over frames.
    """
    (down, right), (height, width) = strides, shape[:2]
    bins, frames = -(-x.shape[1] // down), -(-x.shape[2] // right)
    blocks = bins - 1 + -(-height // down)
    sizes = blocks * down, (frames - 1) * right + width
    pads = lax.padtype_to_pads(x.shape[1:3], shape[:2], strides, "SAME")
    # Both axes at once: one after the other would take far longer.
    edges = [
        (before, size - before - found, 0)
        for (before, _), size, found in zip(pads, sizes, x.shape[1:3], strict=True)
    ]
    rows = lax.pad(x[..., 0].astype(jnp.float32), 0.0, [(0, 0, 0), *edges])
    return rows.reshape(-1, blocks, down, sizes[1]), bins, frames


def _in_blocks(strides: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`strided_conv` where a GPU is; the gradient of its kernel comes of it, too."""
    down, right = strides
    height, width = kernel.shape[:2]
    over_bins, over_frames = lax.padtype_to_pads(
        x.shape[1:3], kernel.shape[:2], strides, "SAME"
    )
    # A kernel spans so many blocks.
    tall, wide = -(-height // down), -(-width // right)
    rows = -(-x.shape[1] // down) + tall - 1
    columns = -(-x.shape[2] // right) + wide - 1
    x = _fit(x, 1, over_bins[0], rows * down)
    x = _fit(x, 2, over_frames[0], columns * right)
    x = x.reshape(-1, rows, down, columns, right).swapaxes(2, 3)
    x = x.reshape(-1, rows, columns, down * right)
    kernel = _fit(_fit(kernel, 0, 0, tall * down), 1, 0, wide * right)
    kernel = kernel.reshape(tall, down, wide, right, -1).swapaxes(1, 2)
    return _conv(x, kernel.reshape(tall, wide, down * right, -1), (1, 1), "VALID")


def _fit(x: jax.Array, axis: int, before: int, size: int) -> jax.Array:
    """Zeros before and after an axis, up to a size; what is beyond it is cut."""
    after = size - before - x.shape[axis]
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _conv(x: jax.Array, kernel: jax.Array, strides: Window, padding: str) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _strided_conv_forward(
    x: jax.Array, kernel: jax.Array, strides: Window
) -> tuple[jax.Array, Residuals]:
    return strided_conv(x, kernel, strides), (x, kernel)


def _strided_conv_backward(
    strides: Window, residuals: Residuals, gradient: jax.Array
) -> tuple[jax.Array, ...]:
    x, kernel = residuals

    def in_blocks(x: jax.Array, gradient: jax.Array) -> jax.Array:
        convolve = functools.partial(_in_blocks, strides, x)
        return jax.vjp(convolve, kernel)[1](gradient)[0]

    of_x = jax.vjp(lambda x: _conv(x, kernel, strides, "SAME"), x)[1](gradient)[0]
    by_taps = functools.partial(_of_kernel_by_taps, strides, kernel.shape)
    return of_x, lax.platform_dependent(x, gradient, cpu=by_taps, default=in_blocks)


def _of_kernel_by_taps(
    strides: Window, shape: tuple[int, ...], x: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient of a kernel of a shape, as `_by_taps` has the convolution.

    The sum over frames is that one loop, for each of the places over bins; the sum over
    pictures is one around it, and leaves what is added up in the cache.
    """
    (down, right), (height, width) = strides, shape[:2]
    blocks, bins, frames = _under(x, shape, strides)
    # One for each block that a kernel spans.
    spanned = -(-height // down)
    totals = [jnp.zeros((bins, down, width, shape[3]), jnp.float32)] * spanned

    def add(
        totals: list[jax.Array], pair: tuple[jax.Array, jax.Array]
    ) -> tuple[list[jax.Array], None]:
        picture, slopes = pair
        for first in range(0, frames, _SUM_OF):
            sums = [jnp.float32(0)] * spanned
            for frame in range(first, min(first + _SUM_OF, frames)):
                under = picture[..., frame * right : frame * right + width, None]
                slope = slopes[:, None, None, frame]
                for k in range(spanned):
                    sums[k] += under[k : k + bins] * slope
            totals = [total + part for total, part in zip(totals, sums, strict=True)]
        return totals, None

    totals, _ = lax.scan(add, totals, (blocks, gradient.astype(jnp.float32)))
    total = jnp.concatenate([total.sum(0) for total in totals])[:height]
    return total.reshape(shape).astype(x.dtype)


strided_conv.defvjp(_strided_conv_forward, _strided_conv_backward)


class StridedConv(nn.Module):
    """`strided_conv` with a kernel of its own, named and drawn as nn.Conv's.

    Attributes:
      features: number of filters.
      kernel_size: (bins, frames) of a filter.
      strides: (bins, frames) of a step.
    """

    features: int
    kernel_size: Window
    strides: Window

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, bins, frames, 1) to (batch, fewer bins, fewer frames, features)."""
        shape = (*self.kernel_size, 1, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return strided_conv(x, kernel.astype(x.dtype), self.strides)


@jax.custom_vjp
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution by steps of one, padded to SAME.

    XLA makes the gradient of its kernel a convolution over the batch, for which a CPU
    has to turn both factors into another order, and which is half as fast as others.
    On a CPU it is a sum of matrix products instead, picture by picture.

    Args:
      x: (batch, bins, frames, channels).
      kernel: (bins, frames, channels, filters).

    Returns:
      (batch, bins, frames, filters).
    """
    return _conv(x, kernel, (1, 1), "SAME")


def _conv_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Residuals]:
    return conv(x, kernel), (x, kernel)


def _conv_backward(
    residuals: Residuals, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals

    def of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: _conv(x, k, (1, 1), "SAME"), kernel)[1](gradient)[0]

    of_x = jax.vjp(lambda x: _conv(x, kernel, (1, 1), "SAME"), x)[1](gradient)[0]
    by_picture = functools.partial(_of_kernel_by_picture, kernel.shape)
    return of_x, lax.platform_dependent(x, gradient, cpu=by_picture, default=of_kernel)


conv.defvjp(_conv_forward, _conv_backward)


def _of_kernel_by_picture(
    shape: tuple[int, ...], x: jax.Array, gradient: jax.Array
) -> jax.Array:
    """The gradient of a kernel of a shape."""
    height, width = shape[:2]
    bins, frames = x.shape[1:3]
    pads = lax.padtype_to_pads((bins, frames), (height, width), (1, 1), "SAME")
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])

    def add(
        total: jax.Array, picture: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        x, gradient = picture
        beside = jnp.concatenate([x[:, k : k + frames] for k in range(width)], axis=-1)
        products = [
            jnp.matmul(
                beside[k : k + bins].reshape(bins * frames, -1).T,
                gradient.reshape(bins * frames, -1),
                preferred_element_type=jnp.float32,
            )
            for k in range(height)
        ]
        return total + jnp.stack(products), None

    total = jnp.zeros((height, width * shape[2], shape[3]), jnp.float32)
    total, _ = lax.scan(add, total, (x, gradient))
    return total.reshape(shape).astype(x.dtype)


class Conv(nn.Module):
    """`conv` with a kernel of its own, named and drawn as nn.Conv's; without bias.

    Attributes:
      features: number of filters.
      kernel_size: (bins, frames) of a filter.
    """

    features: int
    kernel_size: Window

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, bins, frames, channels) to (batch, bins, frames, features)."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        return conv(x, kernel.astype(x.dtype))


# Batch normalisation and max pooling.


class NormPool(nn.Module):
    """Batch normalisation, then max pooling: their parameters and statistics.

    Those have the names and shapes of nn.BatchNorm's.

    Attributes:
      window: (bins, frames) of the max pooling; (1, 1) for none.
      momentum: share of the running statistics that a step keeps.
      axis_name: name of the device axis in a pmapped step, None outside of one.
    """

    window: Window
    momentum: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, bins, frames, channels) to (batch, fewer bins, fewer frames, ...).

        Args:
          x: what a convolution gave.
          train: whether to use, and to note, the batch's own statistics.
        """
        shape = (x.shape[-1],)
        running = {
            "mean": self.variable("batch_stats", "mean", jnp.zeros, shape),
            "var": self.variable("batch_stats", "var", jnp.ones, shape),
        }
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not train:
            factor = lax.rsqrt(running["var"].value + EPSILON)
            best, _ = _pool(x, _sign(scale), self.window)
            best = (best - running["mean"].value) * (factor * scale) + bias
            return best.astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        pooled, *found = norm_and_pool(x, scale, bias, self.window, axis_name)
        if not self.is_initializing():
            for held, value in zip(running.values(), found, strict=True):
                held.value = self.momentum * held.value + (1 - self.momentum) * value
        return pooled


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def norm_and_pool(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    window: Window,
    axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation by the batch's own statistics, then max pooling.

    The maximum of what is normalised is what is normalised of the maximum (of the
    minimum, where a channel's scale is negative). So pooling comes first here, and the
    rest has a fraction of the size; and the gradient is one pass over x. Where several
    in a window are the largest, the first gets it all.

    Args:
      x: (batch, bins, frames, channels).
      scale: (channels,).
      bias: (channels,).
      window: (bins, frames) of one window; what does not fill one at the end is cut,
        but counts in the statistics.
      axis_name: the device axis over which statistics are shared, None for one device.

    Returns:
      (batch, bins // window[0], frames // window[1], channels), and the batch's mean
      and variance, (channels,) each, through which no gradient goes.
    """
    return _norm_and_pool_forward(x, scale, bias, window, axis_name)[0]


def _pool(x: jax.Array, sign: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """The largest of each window, or the smallest where the sign is -1; and which."""
    down, right = window
    bins, frames = x.shape[1] // down * down, x.shape[2] // right * right
    best = place = None
    for row in range(down):
        for column in range(right):
            cell = sign * x[:, row:bins:down, column:frames:right]
            if best is None:
                best, place = cell, jnp.zeros(cell.shape, jnp.int8)
                continue
            better = cell > best
            best = jnp.where(better, cell, best)
            place = jnp.where(better, jnp.int8(row * right + column), place)
    return sign * best, place


def _sign(scale: jax.Array) -> jax.Array:
    return jnp.where(scale < 0, -1.0, 1.0)


def _mean(
    values: tuple[jax.Array, ...], axis_name: str | None
) -> tuple[jax.Array, ...]:
    """The means of values over all devices."""
    return values if axis_name is None else collectives.mean(values, axis_name)


def _norm_and_pool_forward(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    window: Window,
    axis_name: str | None,
) -> tuple[tuple[jax.Array, ...], Residuals]:
    full = x.astype(jnp.float32)
    moments = full.mean((0, 1, 2)), jnp.square(full).mean((0, 1, 2))
    mean, square = _mean(moments, axis_name)
    variance = jnp.maximum(square - jnp.square(mean), 0)
    factor = lax.rsqrt(variance + EPSILON)
    best, place = _pool(x, _sign(scale), window)
    normalised = (best - mean) * factor
    result = (normalised * scale + bias).astype(x.dtype), mean, variance
    return result, (x, scale, mean, factor, normalised, place)


def _norm_and_pool_backward(
    window: Window,
    axis_name: str | None,
    residuals: Residuals,
    gradients: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
    x, scale, mean, factor, normalised, place = residuals
    gradient = gradients[0].astype(jnp.float32)
    of_bias = gradient.sum((0, 1, 2))
    of_scale = (gradient * normalised).sum((0, 1, 2))
    # Through the statistics, all of x gets some, of all devices' windows.
    count = x.size // x.shape[-1]
    shared = _mean((of_bias / count, of_scale / count), axis_name)
    step = scale * factor
    slope = -step * factor * shared[1]
    offset = -step * shared[0] - slope * mean
    of_x = _unpool(step * gradient, place, window, x.shape) + (offset + slope * x)
    return of_x.astype(x.dtype), of_scale, of_bias


def _unpool(
    values: jax.Array, place: jax.Array, window: Window, shape: tuple[int, ...]
) -> jax.Array:
    """Values at their places within their windows, zeros elsewhere."""
    down, right = window
    batch, bins, frames, channels = values.shape
    places = jnp.arange(down * right, dtype=jnp.int8).reshape(down, 1, right, 1)
    here = place[:, :, None, :, None] == places
    spread = jnp.where(here, values[:, :, None, :, None], 0)
    spread = spread.reshape(batch, bins * down, frames * right, channels)
    return _fit(_fit(spread, 1, 0, shape[1]), 2, 0, shape[2])


norm_and_pool.defvjp(_norm_and_pool_forward, _norm_and_pool_backward)
