"""The layers that are computed otherwise, held to the plain ones of Flax and JAX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mgr_jax import layers

# (bins, frames), kernel and step of every feature's first block, and odd ones.
CONVOLUTIONS = [
    ((1025, 57), (8, 4), (4, 2)),
    ((384, 216), (8, 8), (4, 4)),
    ((12, 216), (3, 8), (1, 4)),
    ((33, 46), (4, 4), (2, 2)),
    ((20, 17), (3, 3), (1, 1)),
    ((13, 11), (3, 5), (2, 3)),
    ((7, 3), (3, 7), (2, 5)),
]


class Plain(nn.Module):
    """What `NormPool` stands for."""

    window: tuple[int, int]

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.max_pool(x, self.window, self.window)


class Ours(nn.Module):
    """The same, by `NormPool`."""

    window: tuple[int, int]

    @nn.compact
    def __call__(self, x, *, train):
        return layers.NormPool(self.window, 0.9, name="norm")(x, train=train)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape, kernel, strides", CONVOLUTIONS)
def test_a_strided_convolution_is_a_convolution(shape, kernel, strides):
    x, weights = normal(2, *shape, 1), normal(*kernel, 1, 5, seed=1)

    def ours(x, weights):
        return layers.strided_conv(x, weights, strides)

    hold_same_convolution(ours, x, weights, strides)
    # As it is computed on other devices than a CPU.
    in_blocks = functools.partial(layers._in_blocks, strides)
    hold_same_convolution(in_blocks, x, weights, strides)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 5)])
@pytest.mark.parametrize("shape", [(16, 7), (5, 1), (1, 4)])
def test_a_convolution_is_a_convolution(shape, kernel):
    x, weights = normal(3, *shape, 4), normal(*kernel, 4, 6, seed=1)
    hold_same_convolution(layers.conv, x, weights, (1, 1))


# A GPU would round the factors to 11 bits, and in its own way in each of the two.
@jax.default_matmul_precision("highest")
def hold_same_convolution(ours, x, weights, strides):
    """Holds values and gradients of a convolution to JAX's."""

    def plain(x, weights):
        return lax.conv_general_dilated(
            x, weights, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def both(convolve):
        value, back = jax.vjp(convolve, x, weights)
        return value, back(normal(*value.shape, seed=2))

    for one, another in zip(
        *map(jax.tree.leaves, (both(ours), both(plain))), strict=True
    ):
        np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "convolve",
    [layers.conv, functools.partial(layers.strided_conv, strides=(1, 1))],
)
def test_a_kernels_gradient_in_bfloat16_is_summed_in_float32(convolve):
    # 1 / 256 added to 1 is lost in bfloat16: the sum would stay at 1.
    x = jnp.full((512, 1, 1, 1), 1 / 256, jnp.bfloat16).at[0].set(1)
    kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    _, back = jax.vjp(lambda kernel: convolve(x, kernel), kernel)
    (gradient,) = back(jnp.ones_like(x))
    assert gradient.item() == pytest.approx(1 + 511 / 256, rel=0.01)


@pytest.mark.parametrize(
    "ours, flax",
    [
        (
            layers.StridedConv(5, (4, 4), (2, 2)),
            nn.Conv(5, (4, 4), (2, 2), use_bias=False),
        ),
        (layers.Conv(5, (3, 3)), nn.Conv(5, (3, 3), use_bias=False)),
    ],
)
def test_a_convolution_begins_as_flax_begins_one(ours, flax):
    x, key = normal(2, 20, 17, 1), jax.random.key(3)
    ours, flax = ours.init(key, x), flax.init(key, x)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, flax))


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (4, 2), (1, 3)])
@pytest.mark.parametrize("train", [True, False])
def test_norm_and_pool_is_normalising_and_pooling(window, train):
    x = 3 * normal(4, 9, 11, 6) + 5
    # A channel whose scale is negative, and one whose scale is zero.
    scale = jnp.array([1.0, -2.0, 0.5, 3.0, 0.0, -0.1])
    variables = {
        "params": {"norm": {"scale": scale, "bias": normal(6, seed=1)}},
        "batch_stats": {
            "norm": {"mean": normal(6, seed=2), "var": 1 + np.abs(normal(6, seed=3))}
        },
    }

    def all_of(module):
        def run(x, params):
            return module(window).apply(
                variables | {"params": params},
                x,
                train=train,
                mutable=["batch_stats"],
            )

        value, back, statistics = jax.vjp(run, x, variables["params"], has_aux=True)
        of_x, of_params = back(normal(*value.shape, seed=4))
        return value, of_x, of_params, statistics

    ours, plain = all_of(Ours), all_of(Plain)
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    # At a scale of zero all is equally large, and the gradient may go to any.
    ours[2]["norm"]["scale"] = ours[2]["norm"]["scale"].at[4].set(0)
    plain[2]["norm"]["scale"] = plain[2]["norm"]["scale"].at[4].set(0)
    for one, another in zip(*map(jax.tree.leaves, (ours, plain)), strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-4)


def test_norm_and_pool_begin_as_flax_begins_them():
    x, key = normal(2, 8, 8, 3), jax.random.key(0)
    ours = Ours((2, 2)).init(key, x, train=True)
    plain = Plain((2, 2)).init(key, x, train=True)
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, plain))


def test_of_equals_the_first_gets_the_gradient():
    x = jnp.zeros((1, 2, 2, 1)).at[0, 0, 1, 0].set(1.0).at[0, 1, 0, 0].set(1.0)

    def pooled(x):
        value, _, _ = layers.norm_and_pool(x, jnp.ones(1), jnp.zeros(1), (2, 2), None)
        return value.sum()

    gradient = np.asarray(jax.grad(pooled)(x))[0, :, :, 0]
    # By hand: mean 1/2, variance 1/4; a quarter of the gradient goes back through the
    # mean from all, and through the variance from each by how far it is off.
    factor = 1 / np.sqrt(0.25 + 1e-5)
    shared = factor / 4
    slope = factor**3 * 0.5 / 4 * 0.5
    expected = [[slope, 1 * factor - slope], [-slope, slope]]
    np.testing.assert_allclose(gradient + shared, expected, rtol=1e-4)
