import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgr_jax import features, models, steps
from mgr_jax.config import Config

SHAPE = (16, 24)


def make_state(**settings) -> steps.TrainState:
    config = Config(
        **{"feature": "chroma", "learning_rate": 1e-2, "warmup_epochs": 0, **settings}
    )
    rows = np.arange(16, dtype=np.float32)[:, None]
    return steps.create_state(
        config, 3, SHAPE, (rows, rows + 1), total_steps=100, steps_per_epoch=10
    )


def make_gained_state(model: str) -> steps.TrainState:
    state = make_state(model=model, random_gain_db=3.0)
    return with_levels(state, np.ones(SHAPE[0]))


def with_levels(state: steps.TrainState, level: np.ndarray) -> steps.TrainState:
    return state.replace(feature=dataclasses.replace(state.feature, level=level))


def make_batch(rows: int = 8) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    features = random.standard_normal((rows, *SHAPE)) + labels[:, None, None]
    return {"feature": features.astype(np.float16), "label": labels}


@pytest.mark.parametrize("model", models.MODELS)
def test_a_pattern_to_restore_by_is_a_state_without_its_numbers(model):
    config = Config(feature="chroma", model=model, warmup_epochs=0)
    blank = np.zeros((SHAPE[0], 1)), np.ones((SHAPE[0], 1))
    schedule = {"total_steps": 100, "steps_per_epoch": 10}
    state = steps.create_state(config, 3, SHAPE, blank, **schedule)
    like = steps.like_state(config, 3, SHAPE, **schedule)

    def kinds(tree):
        return [
            (jax.tree_util.keystr(path), leaf.shape, leaf.dtype, leaf.sharding)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        ]

    assert kinds(like) == kinds(state)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(like))
    assert (like.seed, like.feature) == (state.seed, state.feature)


def test_features_are_normalised_bin_by_bin():
    state = make_state()
    features = np.ones((2, *SHAPE), np.float16)
    normalised = steps.normalise(state, features)
    assert normalised.shape == (2, *SHAPE, 1)
    # Bin 3 has mean 3 and deviation 4.
    np.testing.assert_allclose(normalised[:, 3], (1 - 3) / 4)


def test_steps_learn_the_batch_and_count_what_they_saw():
    state, batch = make_state(dropout=0.0, label_smoothing=0.0), make_batch()
    step = steps.data_parallel(steps.train_step, donate=True)
    for _ in range(30):
        state = step(state, batch)
    # An epoch has 10 steps here; the sums are those of the third.
    assert int(state.step) == 30
    assert float(state.sums["count"]) == 80
    assert float(state.sums["correct"]) == 80
    assert float(state.sums["loss"]) / 80 < 0.4


@pytest.mark.parametrize("model", models.MODELS)
def test_bfloat16_answers_nearly_alike_and_learns_in_float32(model):
    settings = {"model": model, "dropout": 0.0, "label_smoothing": 0.0}
    whole = make_state(**settings)
    half, batch = make_state(**settings, precision="bfloat16"), make_batch()
    answer = steps.data_parallel(steps.eval_step)
    one, another = (np.asarray(answer(state, batch)) for state in (whole, half))
    # It has 8 bits: 2 in 1000, over three convolutions.
    np.testing.assert_allclose(one, another, atol=0.02)
    assert (one != another).any()
    step = steps.data_parallel(steps.train_step, donate=True)
    for _ in range(30):
        half = step(half, batch)
    kept = (half.params, half.batch_stats, half.opt_state)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(kept)} == {"float32", "int32"}
    assert float(half.sums["correct"]) == 80
    assert float(half.sums["loss"]) / 80 < 0.4


def test_a_step_is_a_function_of_state_and_batch():
    batch = make_batch()
    step = steps.data_parallel(steps.train_step, donate=True)
    states = [make_state(), make_state(), make_state(seed=1)]
    first, second, other = (step(state, batch).params for state in states)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), first, other)
    assert any(jax.tree.leaves(differ))


def test_a_cpu_is_not_given_steps_without_end():
    def slow(state, batch):
        for _ in range(20):
            state = jnp.sin(state @ state)
        return state + batch["label"].sum()

    step = steps.data_parallel(slow, donate=True)
    batch = {"feature": np.zeros((8, 1, 1), np.float16), "label": np.zeros(8)}
    states = [jnp.ones((500, 500)) for _ in range(12)]
    begun, waiting = [], []
    for state in states:
        begun.append(step(state, batch))
        waiting.append(sum(not after.is_ready() for after in begun))
    # Two, and one that is done and about to be called so. Without an end, all twelve:
    # to give one takes a hundredth of the time that it takes to be done.
    assert max(waiting) <= 3, waiting


def test_probabilities_leave_the_padding_out():
    batch = make_batch(4) | {"mask": np.array([True, True, True, False])}
    rows = steps.probabilities(
        steps.data_parallel(steps.eval_step), make_state(), [batch, batch]
    )
    assert rows["probabilities"].shape == (6, 3)
    np.testing.assert_allclose(rows["probabilities"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(rows["label"], [0, 1, 2, 0, 1, 2])


def test_the_learning_rate_rises_then_falls_to_zero():
    config = Config(learning_rate=0.5, warmup_epochs=2)
    rate = steps.learning_rate(config, total_steps=100, steps_per_epoch=10)
    assert float(rate(0)) == 0
    assert float(rate(20)) == pytest.approx(0.5)
    assert float(rate(10)) == pytest.approx(0.25)
    assert float(rate(100)) == pytest.approx(0, abs=1e-6)


def test_random_gain_moves_each_row_by_its_own_gain_within_the_bound(monkeypatch):
    state = make_state(random_gain_db=6.0)
    monkeypatch.setattr(steps, "DEVICE_AXIS", None)
    state = with_levels(state, np.repeat([1.0, 0.0], 8))
    features = np.zeros((400, *SHAPE), np.float16)
    moved = np.asarray(steps._at_random_gain(state, features, jax.random.key(3)))
    assert (moved[:, 8:] == 0).all()
    gains_db = moved[:, 0, 0]
    assert (moved[:, :8] == gains_db[:, None, None]).all()
    # Uniform from -6 to 6: within the bound, and near it on both sides.
    assert -6 <= gains_db.min() < -5.5
    assert 5.5 < gains_db.max() <= 6
    assert abs(gains_db.mean()) < 0.6


@pytest.mark.parametrize("name", ["spectrogram", "mel"])
@pytest.mark.parametrize("factor", [1 / 8, 2.0, 8.0])  # floats scale exactly by these
def test_gain_of_the_feature_is_gain_of_the_audio_on_the_floor_too(name, factor):
    """A tone, nearly silent noise, and silence: bins on the floor and off it."""
    gain_db = 20 * np.log10(factor)
    random = np.random.default_rng(0)
    t = np.arange(30_000) / 22_050
    samples = np.sin(2 * np.pi * 440 * t) * (t < 0.4)
    samples += 1e-7 * random.standard_normal(len(t)) * (t < 0.9)
    feature = features.FEATURES[name]
    plain, gained = (
        np.asarray(feature.fn(np.float32(gain) * samples.astype(np.float32)[None]))
        for gain in (1.0, factor)
    )
    on_floor = plain <= feature.floor + 1e-3
    assert 0.05 < on_floor.mean() < 0.95
    assert (gained <= feature.floor + 1e-3).mean() != on_floor.mean()
    blank = np.zeros((feature.bins, 1), np.float32), np.ones((feature.bins, 1))
    config = Config(feature=name, random_gain_db=20.0)
    state = steps.create_state(config, 2, plain.shape[1:], blank, 10, 10)
    # Else nothing so quiet would be heard at all.
    all_heard = dataclasses.replace(feature, least=-np.inf, most=np.inf)
    state = state.replace(feature=all_heard)
    np.testing.assert_allclose(
        steps.normalise(state, plain + gain_db * feature.level[:, None]),
        steps.normalise(state, gained),
        atol=1e-3,
    )


def test_neither_training_nor_answering_depends_on_what_is_not_heard():
    shape = (1025, 8)
    blank = np.zeros((1025, 1), np.float32), np.ones((1025, 1), np.float32)
    config = Config(feature="spectrogram", widths=(4, 4, 8), hidden_units=8)
    state = steps.create_state(config, 2, shape, blank, 10, 10)
    random = np.random.default_rng(0)
    plain = random.uniform(-39, 40, (8, *shape)).astype(np.float32)
    plain[:, :, 5] = -100
    other = plain.copy()
    other[:, 929:] = random.uniform(-100, 40, (8, 96, 8))  # above 10 kHz
    other[:, :, 5] = random.uniform(-100, -40, (8, 1025))
    labels = np.arange(8) % 2
    after = [
        (
            steps.data_parallel(steps.train_step)(state, batch),
            steps.data_parallel(steps.eval_step)(state, batch),
        )
        for batch in ({"feature": x, "label": labels} for x in (plain, other, -plain))
    ]
    for one, another in zip(*map(jax.tree.leaves, after[:2]), strict=True):
        np.testing.assert_array_equal(one, another)
    assert (np.asarray(after[0][1]) != after[2][1]).all()


def test_a_feature_that_gain_does_not_move_is_left_alone():
    state = make_state(random_gain_db=6.0, feature="chroma")
    features = np.ones((2, *SHAPE), np.float16)
    assert steps._at_random_gain(state, features, jax.random.key(3)) is features


@pytest.mark.parametrize("model", models.MODELS)
def test_two_devices_give_the_step_of_one(model):
    """Dropout and random gain are on, and BatchNorm sees all devices' rows.

    Each gives the CNN's to the bit, whether it is handed its rows or has them already.
    """
    one, two = (_steps_on(count, model) for count in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert {name.split("[")[0] for name in one} == {"adamw", "sgd"}


# The examples lie on the devices, from the last to the first.
_LYING = (
    "lying = {k: v[::-1] for k, v in batch.items()}\n"
    "lying = jax.device_put(lying, steps._everywhere())\n"
    "lie = steps.data_parallel(steps.train_step, donate=True, examples=lying)\n"
    "rows = {'rows': np.arange(8)[::-1]}\n"
    "same = np.testing.assert_array_equal\n"
    "jax.tree.map(same, *map(jax.tree.leaves, (lie(state(), rows), adamw)))\n"
)


def _steps_on(count: int, model: str) -> dict[str, list]:
    """What steps leave, computed by a process that sees `count` devices.

    One step of AdamW with its moments; and three steps of plain gradient descent, for
    AdamW turns the sign of a gradient that is rounding error into a whole step. These
    are short: at ten times the length, the third brings an activation so near to 0 that
    rounding decides on which side of it, and so the fourth digit of gradients.
    """
    script = (
        "import json, jax, numpy as np, optax, test_steps\n"
        "from mgr_jax import steps\n"
        f"assert jax.local_device_count() == {count}\n"
        "step = steps.data_parallel(steps.train_step, donate=True)\n"
        f"state = lambda: test_steps.make_gained_state({model!r})\n"
        "batch = test_steps.make_batch()\n"
        "adamw = step(state(), batch)\n"
        f"{_LYING if model == 'cnn' else ''}"
        "sgd = state()\n"
        "plain = optax.sgd(0.01)\n"
        "sgd = sgd.replace(optimizer=plain, opt_state=plain.init(sgd.params))\n"
        "for _ in range(3):\n"
        "    sgd = step(sgd, test_steps.make_batch())\n"
        "kept = {'adamw': (adamw.opt_state, adamw.batch_stats, adamw.sums),\n"
        "        'sgd': (sgd.params, sgd.batch_stats, sgd.sums)}\n"
        "print(json.dumps({name + jax.tree_util.keystr(k): np.asarray(v).tolist()\n"
        "    for name, tree in kept.items()\n"
        "    for k, v in jax.tree_util.tree_leaves_with_path(tree)}))\n"
    )
    flags = f"--xla_force_host_platform_device_count={count}"
    return json.loads(_run(script, XLA_FLAGS=flags).stdout)


def test_the_step_needs_neither_tensorflow_nor_librosa():
    _run(
        "import sys\n"
        "from mgr_jax import features, models, steps\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'librosa'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def _run(script: str, **environment: str) -> subprocess.CompletedProcess:
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.path.dirname(here)])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done
