"""Networks: Flax linen modules from (batch, bins, frames, 1) to (batch, genres) logits.

A feature's shape and the config enter `build`; a module leaves, which train and
evaluate apply. A further network is one module, a line of MODELS, and its name in
config.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mgr_jax.config import Config
from mgr_jax.layers import Conv, NormPool, StridedConv

# Flax's default of 0.99 is an average over some 100 steps: too many for data sets of a
# thousand segments, whose epochs have 20.
BATCH_NORM_MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Reduction:
    """How a network shrinks a feature's (bins, frames) on its way to the output.

    Attributes:
      stride: (bins, frames) step of the first convolution.
      pools: (bins, frames) of the max pooling after the first and second block.
    """

    stride: tuple[int, int]
    pools: tuple[tuple[int, int], tuple[int, int]]


def reduction_for(
    shape: tuple[int, int], target: tuple[int, int] = (16, 7)
) -> Reduction:
    """Fits strides and pooling to a feature's shape.

    A long axis is stepped over by the first convolution, so that the costly full
    resolution is never stored; pooling does the rest. Chroma keeps its 12 bins.

    Args:
      shape: (bins, frames).
      target: about how many (bins, frames) to leave: at least so many of an axis that
        has them.

    Returns:
      The reduction; its product along an axis never exceeds that axis.
    """
    bins, frames = map(_factors, shape, target)
    return Reduction(
        stride=(bins[0], frames[0]),
        pools=((bins[1], frames[1]), (bins[2], frames[2])),
    )


def _factors(size: int, target: int) -> tuple[int, int, int]:
    """Three factors, each 1, 2 or 4, that bring `size` near `target` from above."""
    factors = [1, 1, 1]
    for _ in range(2):
        for place in (0, 1, 2):
            if size // 2 >= target:
                factors[place] *= 2
                size //= 2
    return factors[0], factors[1], factors[2]


class _Convolutional(nn.Module):
    """What the networks have in common: their sizes, and the convolutional blocks.

    Attributes:
      num_genres: number of outputs.
      reduction: strides and pooling.
      widths: filters of the three blocks.
      hidden_units: units of the dense layer, or of the LSTM.
      dropout: share dropped in training of what enters the last layers.
      precision: dtype of the convolutions; parameters and statistics are float32.
      axis_name: name of the device axis in a pmapped step, None outside of one.
    """

    num_genres: int
    reduction: Reduction
    widths: tuple[int, ...]
    hidden_units: int
    dropout: float
    precision: DTypeLike
    axis_name: str | None = None

    def _blocks(self, x: jax.Array, train: bool) -> jax.Array:
        """Convolution, BatchNorm, max pooling, ReLU, once a width.

        Args:
          x: (batch, bins, frames, channels).
          train: whether BatchNorm uses the batch's own statistics.

        Returns:
          (batch, fewer bins, fewer frames, widths[-1]), float32.
        """
        x = x.astype(self.precision)
        stride = self.reduction.stride
        first_kernel = tuple(max(3, 2 * step) for step in stride)
        windows = [*self.reduction.pools, (1, 1)]
        for block, (width, window) in enumerate(zip(self.widths, windows, strict=True)):
            # Named as Flax names what it comes with, whatever does it here.
            name = f"Conv_{block}"
            if block == 0:
                x = StridedConv(width, first_kernel, stride, name=name)(x)
            else:
                x = Conv(width, (3, 3), name=name)(x)
            norm = NormPool(
                window, BATCH_NORM_MOMENTUM, self.axis_name, name=f"BatchNorm_{block}"
            )
            # Computed once, and not again wherever it is read.
            x = jax.lax.optimization_barrier(nn.relu(norm(x, train=train)))
        return x.astype(jnp.float32)

    def _drop(self, x: jax.Array, train: bool) -> jax.Array:
        if not train or not self.dropout:
            return x
        return drop_units(x, self.dropout, self.make_rng("dropout"), self.axis_name)


class CNN(_Convolutional):
    """The paper's network: three convolutional blocks, one dense layer, the output.

    Fig. 1 of the paper did not survive; filters, kernels and pooling are ours.

    The widths of 16, 32, 64 were chosen on 236 General-MIDI clips of 4 genres in FMA's
    layout (official split, 235 validation segments, seed 0, 30 epochs). Cross entropy
    and accuracy of validation segments at the best epoch, and parameters (measured when
    networks were still shown all of a spectrogram):

    ============  ===================  ===================  ===================
    widths        spectrogram          tempogram            chroma
    ============  ===================  ===================  ===================
    8, 16, 32     0.542  79.1 %   39k  0.840  60.0 %   56k  0.841  63.4 %   31k
    16, 32, 64    0.497  78.7 %   90k  0.842  61.7 %  123k  0.717  71.9 %   73k
    32, 64, 128   not measured         not measured         0.668  74.9 %  192k
    ============  ===================  ===================  ===================

    Wider gains on chroma, for three times the time. On one seed, differences of a few
    percent prove nothing.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits.

        Args:
          x: (batch, bins, frames, 1) normalised features.
          train: whether to drop units and to use the batch's own statistics.

        Returns:
          (batch, genres) float32.
        """
        x = self._blocks(x, train).mean(axis=2).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden_units)(self._drop(x, train)))
        return nn.Dense(self.num_genres)(self._drop(x, train))


class CRNN(_Convolutional):
    """Convolutions, then an LSTM over time: the paper's future work, its section 4.

    The blocks are the CNN's, but pooling leaves some 27 to 54 frames of 5 s; the LSTM
    reads them in order, and the mean of its outputs goes to the output layer.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes logits; arguments and result as of `CNN`."""
        x = self._blocks(x, train).swapaxes(1, 2)
        x = x.reshape(*x.shape[:2], -1)
        x = nn.RNN(nn.OptimizedLSTMCell(self.hidden_units))(x).mean(axis=1)
        return nn.Dense(self.num_genres)(self._drop(x, train))


def row_keys(key: jax.Array, rows: int, axis_name: str | None) -> jax.Array:
    """A random key for each row of a batch, however it is spread over devices.

    Args:
      key: the step's random key, the same on all devices.
      rows: this device's share of the batch.
      axis_name: the device axis, None for one device.

    Returns:
      (rows,) keys; row k of the whole batch always gets the same one.
    """
    numbers = jnp.arange(rows)
    if axis_name is not None:
        numbers = numbers + jax.lax.axis_index(axis_name) * rows
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def drop_units(
    x: jax.Array, rate: float, key: jax.Array, axis_name: str | None
) -> jax.Array:
    """Dropout whose mask does not depend on how a batch is spread over devices.

    Args:
      x: (batch, units), this device's rows of the whole batch.
      rate: share of units set to zero.
      key: the step's random key, the same on all devices.
      axis_name: the device axis, None for one device.

    Returns:
      x with its kept units scaled by 1 / (1 - rate).
    """
    keys = row_keys(key, x.shape[0], axis_name)
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


Builder = Callable[[Config, int, tuple[int, int], str | None], nn.Module]


def _builder(module: type[nn.Module], target: tuple[int, int]) -> Builder:
    """Sizes a module by the config, its reduction fitted to (bins, frames)."""

    def build_module(config, num_genres, shape, axis_name):
        return module(
            num_genres=num_genres,
            reduction=reduction_for(shape, target),
            widths=config.widths,
            hidden_units=config.hidden_units,
            dropout=config.dropout,
            precision=config.precision,
            axis_name=axis_name,
        )

    return build_module


MODELS: dict[str, Builder] = {
    "cnn": _builder(CNN, target=(16, 7)),
    "crnn": _builder(CRNN, target=(8, 27)),
}


def build(
    config: Config,
    num_genres: int,
    shape: tuple[int, int],
    axis_name: str | None = None,
) -> nn.Module:
    """The network that --model names.

    Args:
      config: its model and the fields that size it.
      num_genres: number of outputs.
      shape: (bins, frames) of the feature.
      axis_name: the device axis of a pmapped step.

    Returns:
      A module that is called with (batch, bins, frames, 1) and train=.
    """
    return MODELS[config.model](config, num_genres, shape, axis_name)
