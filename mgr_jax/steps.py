"""The state of training, the pure steps on it, and how these run on all devices.

A config and a feature's shape make a `TrainState`; a step takes state and batch, and
returns the next state, or probabilities. Dropout is a function of (seed, step), and a
step's outcome does not depend on how many devices share the batch. train and evaluate
call this; it needs neither TensorFlow nor librosa.
"""

import collections
import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mgr_jax import collectives, cores, hosts, models
from mgr_jax.config import Config
from mgr_jax.features import FEATURES, Feature

Batch = dict[str, np.ndarray]

DEVICE_AXIS = "devices"

_TRAINED_ON = ("feature", "label")
# The rest of a device's memory is for the network.
_SHARE_OF_MEMORY = 0.5

# How many training steps a CPU is given before they are done. Of more than 32, a thread
# of JAX's waits for one to be done, which then may lack just that thread, for ever.
_BEGUN = 2

# First weights are drawn once. With all of LLVM's passes, that takes as long to compile
# as a train step; they change no bit of the weights.
_ONCE_ON_CPU = {"xla_backend_optimization_level": 1}


class TrainState(flax.struct.PyTreeNode):
    """All that a step reads and writes.

    Attributes:
      step: optimiser steps done, int32 ().
      params: the network's parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: optax's state.
      normalisation: mean and deviation per bin, float32 (bins, 1) each; constant.
      sums: loss, correct and count since the epoch began, float32 () each.
      apply_fn: the network's apply.
      optimizer: the gradient transformation.
      seed: the run's seed.
      label_smoothing: share of the target spread over all genres.
      random_gain_db: each training segment's gain is drawn from -this to this.
      feature: what is known of its numbers.
      steps_per_epoch: after so many steps the sums begin anew.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    normalisation: dict[str, jax.Array]
    sums: dict[str, jax.Array]
    apply_fn: Callable[..., Any] = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    seed: int = flax.struct.field(pytree_node=False)
    label_smoothing: float = flax.struct.field(pytree_node=False)
    random_gain_db: float = flax.struct.field(pytree_node=False)
    feature: Feature = flax.struct.field(pytree_node=False)
    steps_per_epoch: int = flax.struct.field(pytree_node=False)


def create_state(
    config: Config,
    num_genres: int,
    shape: tuple[int, int],
    normalisation: tuple[np.ndarray, np.ndarray],
    total_steps: int,
    steps_per_epoch: int,
) -> TrainState:
    """A state before its first step.

    Args:
      config: the run.
      num_genres: number of outputs.
      shape: (bins, frames) of the feature.
      normalisation: mean and deviation, (bins, 1) each.
      total_steps: length of the learning-rate schedule.
      steps_per_epoch: to turn warm-up epochs into steps.

    Returns:
      The state; its initial weights are a function of the config's seed.
    """
    initial = functools.partial(
        _initial, config, num_genres, shape, total_steps, steps_per_epoch
    )
    # Compiled as a whole: op by op, the first call would take many times longer.
    options = _ONCE_ON_CPU if jax.default_backend() == "cpu" else None
    state = jax.jit(initial, compiler_options=options)(
        jax.random.key(config.seed), *map(np.float32, normalisation)
    )
    # Placed as a step returns it; placed otherwise, the first step would compile twice.
    return jax.device_put(state, _everywhere())


def like_state(
    config: Config,
    num_genres: int,
    shape: tuple[int, int],
    total_steps: int,
    steps_per_epoch: int,
) -> TrainState:
    """A pattern to restore a state by: what `create_state` makes, but for the numbers.

    Its arguments are those of `create_state`. In the state that it returns, a
    jax.ShapeDtypeStruct stands in place of each array.
    """
    bins = jax.ShapeDtypeStruct((shape[0], 1), np.float32)
    initial = functools.partial(
        _initial, config, num_genres, shape, total_steps, steps_per_epoch
    )
    state = jax.eval_shape(initial, jax.random.key(0), bins, bins)
    everywhere = _everywhere()
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
    )


def _initial(
    config: Config,
    num_genres: int,
    shape: tuple[int, int],
    total_steps: int,
    steps_per_epoch: int,
    key: jax.Array,
    mean: jax.Array,
    deviation: jax.Array,
) -> TrainState:
    model = models.build(config, num_genres, shape, DEVICE_AXIS)
    variables = model.init(key, jnp.zeros((1, *shape, 1)), train=False)
    optimizer = optax.adamw(
        learning_rate(config, total_steps, steps_per_epoch),
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        normalisation={"mean": mean, "deviation": deviation},
        sums={name: jnp.zeros(()) for name in ("loss", "correct", "count")},
        apply_fn=model.apply,
        optimizer=optimizer,
        seed=config.seed,
        label_smoothing=config.label_smoothing,
        random_gain_db=config.random_gain_db,
        feature=FEATURES[config.feature],
        steps_per_epoch=steps_per_epoch,
    )


def _everywhere() -> jax.sharding.Sharding:
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def learning_rate(
    config: Config, total_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Linear warm-up, then cosine decay to zero at the last step."""
    warmup = min(int(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate,
        config.learning_rate,
        warmup,
        total_steps,
    )


def train_step(state: TrainState, batch: Batch) -> TrainState:
    """One optimiser step on one device's rows of the batch, inside a pmap.

    Args:
      state: the same on every device.
      batch: feature (rows, bins, frames) and label (rows,).

    Returns:
      The next state, the same on every device: gradients, batch statistics and sums
      are averaged or summed over the devices.
    """
    labels = batch["label"]
    key = jax.random.fold_in(jax.random.key(state.seed + 1), state.step)

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            normalise(state, _at_random_gain(state, batch["feature"], key)),
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, logits.shape[-1]), state.label_smoothing
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (updates["batch_stats"], logits)

    gradients, (batch_stats, logits) = jax.grad(loss_fn, has_aux=True)(state.params)
    gradients, batch_stats = collectives.mean((gradients, batch_stats), DEVICE_AXIS)
    updates, opt_state = state.optimizer.update(
        gradients, state.opt_state, state.params
    )

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    seen = {
        "loss": cross_entropy.sum(),
        "correct": (logits.argmax(-1) == labels).sum().astype(jnp.float32),
        "count": jnp.float32(len(labels)),
    }
    seen = collectives.total(seen, DEVICE_AXIS)
    kept = jnp.where(state.step % state.steps_per_epoch == 0, 0.0, 1.0)
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        sums=jax.tree.map(lambda old, new: kept * old + new, state.sums, seen),
    )


def eval_step(state: TrainState, batch: Batch) -> jax.Array:
    """Genre probabilities (rows, genres) of one device's rows, inside a pmap."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    features = normalise(state, batch["feature"])
    return jax.nn.softmax(state.apply_fn(variables, features, train=False))


def normalise(state: TrainState, features: jax.Array) -> jax.Array:
    """(rows, bins, frames) of any float type to normalised float32 (..., 1).

    The network is shown what `Feature.heard` leaves of them. One that is trained with
    random gain sees nothing within that gain of the floor, either: a power that lies on
    the floor may be any below it, so what gain makes of it is not known, and would tell
    the gain.
    """
    constants, feature = state.normalisation, state.feature
    heard = feature.heard(features)
    if state.random_gain_db and feature.level.any():
        level = feature.level[:, None]
        least = np.where(
            level > 0, feature.floor + state.random_gain_db * level, -np.inf
        )
        heard = jnp.maximum(heard, np.float32(least))
    return ((heard - constants["mean"]) / constants["deviation"])[..., None]


def _at_random_gain(
    state: TrainState, features: jax.Array, key: jax.Array
) -> jax.Array:
    """Features as if each row's audio had been turned up or down.

    `normalise` then makes that exact for a feature with a floor in each bin; of mfcc
    and of loudness's deviation and peak, it is off where a frame is nearly silent.
    """
    most, level = state.random_gain_db, state.feature.level
    if not most or not level.any():
        return features
    keys = models.row_keys(jax.random.fold_in(key, 0), len(features), DEVICE_AXIS)
    gains_db = jax.vmap(lambda k: jax.random.uniform(k, (1, 1), minval=-1))(keys) * most
    return features + gains_db * jnp.asarray(level, jnp.float32)[:, None]


def on_accelerators(examples: Batch | None) -> Batch | None:
    """A training set on each device, where these are accelerators with room for it.

    A GPU trains on a batch in less time than copying the batch to it takes.

    Args:
      examples: feature (n, bins, frames) and label (n,) of all examples, and what else
        is known of them; None where they are not all at hand.

    Returns:
      The two, on all devices; None where batches are to be copied there.
    """
    if examples is None or hosts.count() > 1:
        return None
    examples = {key: examples[key] for key in _TRAINED_ON}
    size = sum(value.nbytes for value in examples.values())
    if not all(_has_room(device, size) for device in jax.local_devices()):
        return None
    return jax.device_put(examples, _everywhere())


def _has_room(device: jax.Device, size: int) -> bool:
    """Whether it is an accelerator that can hold so many bytes beside the network."""
    memory = device.memory_stats() or {}  # a CPU has none
    return size <= _SHARE_OF_MEMORY * memory.get("bytes_limit", 0)


def data_parallel(
    step: Callable[..., Any], *, donate: bool = False, examples: Batch | None = None
) -> Callable[..., Any]:
    """Runs a step over all devices: the one place where the program is parallel.

    The state is the same everywhere (`in_axes=None`), the rows of the batch are dealt
    out in order. A step that returns a state must make it equal on all devices itself
    (`pmean`): with `out_axes=None`, device 0's is what comes back.

    Of many processes, each gives a training step the whole batch, with zeros in place
    of the rows that others read; they change hands here. What is not trained on stays
    with its process.

    Args:
      step: (state, batch) to a state where `donate` is set, else to (rows, ...).
      donate: whether the state's memory may be reused for the next.
      examples: what each device has already, as `on_accelerators` puts it there.

    Returns:
      (state, batch) to the step's next state, or to its result for all rows that this
      process gave. With examples, a batch holds "rows" alone, their places among them.
      It does not wait for that state; on a CPU, for that of two steps before.
    """
    count, processes = jax.local_device_count(), hosts.count()
    handed_round = donate and processes > 1
    keys = _TRAINED_ON if examples is None else ("rows",)

    def on_device(state: TrainState, batch: Batch, examples: Batch | None) -> Any:
        if examples is not None:
            batch = jax.tree.map(lambda x: x[batch["rows"]], examples)
        # The state is donated to the next step, but for the number one can wait.
        return step(state, batch), jnp.int32(0)

    everywhere = functools.partial(
        jax.pmap,
        axis_name=DEVICE_AXIS,
        devices=hosts.devices() if processes > 1 else None,
    )
    # A program of its own, so that the step's is the same, and rounds alike, however
    # processes share the devices.
    hand_round = everywhere(
        lambda batch: collectives.own_rows(batch, DEVICE_AXIS, processes, count)
    )
    donated = (0,) if donate else ()
    parallel = everywhere(
        on_device,
        in_axes=(None, 0, None),
        out_axes=(None if donate else 0, None),
        donate_argnums=donated,
    )
    options = cores.compiler_options(alone=count >= cores.available())
    # Only jit takes options, and only of one process: of many, each gives its own rows.
    if options is not None and processes == 1:
        parallel = jax.jit(parallel, donate_argnums=donated, compiler_options=options)

    begun: collections.deque[jax.Array] = collections.deque()
    on_cpu = jax.default_backend() == "cpu"

    def run(state: TrainState, batch: Batch) -> Any:
        arrays = {key: batch[key] for key in keys}
        dealt = collectives.dealt(arrays, processes if handed_round else 1, count)
        if handed_round:
            dealt = hand_round(dealt)
        result, done = parallel(state, dealt, examples)
        if donate:
            if on_cpu:
                begun.append(done)
            if len(begun) > _BEGUN:
                begun.popleft().block_until_ready()
            return result
        # By numpy, for which nothing has to be compiled.
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), result)

    return run


def probabilities(
    step: Callable[..., Any], state: TrainState, batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Runs the network over masked batches, leaving the padding out.

    Args:
      step: `data_parallel(eval_step)`.
      state: the network.
      batches: dicts of feature, label, mask and whatever else names a row.

    Returns:
      The batches' other arrays and "probabilities" (n, genres), n real rows each.
    """
    parts = []
    for batch in batches:
        rows = {key: value for key, value in batch.items() if key != "feature"}
        rows["probabilities"] = np.asarray(step(state, batch))
        mask = rows.pop("mask")
        parts.append({key: value[mask] for key, value in rows.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
