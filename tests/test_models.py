import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgr_jax import models
from mgr_jax.config import Config

SHAPES = {
    "spectrogram": (1025, 57),
    "tempogram": (384, 216),
    "chroma": (12, 216),
    "loudness": (33, 46),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_takes_every_feature_to_one_logit_a_genre(name, shape):
    model = models.build(Config(model=name), 10, shape)
    x = jnp.zeros((2, *shape, 1))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), x[:1], train=False)
    )
    logits = jax.eval_shape(lambda v: model.apply(v, x, train=False), variables)
    assert logits.shape == (2, 10)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("shape", [*SHAPES.values(), (1, 1), (64, 5), (2049, 500)])
def test_the_reduction_fits_the_shape(shape):
    reduction = models.reduction_for(shape)
    for axis, size in enumerate(shape):
        factors = [reduction.stride[axis], *(pool[axis] for pool in reduction.pools)]
        assert np.prod(factors) <= size


def test_dropped_units_are_the_rate_and_the_rest_is_scaled():
    dropped = models.drop_units(jnp.ones((500, 40)), 0.25, jax.random.key(0), None)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((dropped == 0).mean()) - 0.25) < 0.02


def test_a_rows_dropout_does_not_depend_on_the_other_rows():
    x = jnp.ones((6, 40))
    key = jax.random.key(1)
    whole = models.drop_units(x, 0.5, key, None)
    np.testing.assert_array_equal(whole[:2], models.drop_units(x[:2], 0.5, key, None))
    assert (whole[0] != whole[1]).any()


def test_an_unstepped_short_axis_keeps_its_size():
    reduction = models.reduction_for(SHAPES["chroma"])
    assert reduction.stride[0] == 1
    assert [pool[0] for pool in reduction.pools] == [1, 1]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_crnn_reads_five_seconds_in_at_least_27_frames(shape):
    reduction = models.reduction_for(shape, (8, 27))
    factor = reduction.stride[1] * np.prod([pool[1] for pool in reduction.pools])
    assert shape[1] // factor >= 27
