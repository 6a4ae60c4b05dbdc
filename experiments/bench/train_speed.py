"""The train step, against PyTorch; and the whole loop, against the step alone.

    python -m experiments.bench.train_speed [--quick]

Noise enters, as float16 features in memory, and a table leaves: segments a second of
one optimiser step on the paper's network, for each of the paper's features, beside the
same step of the same network in PyTorch (channels last, its faster layout). Before it
is measured, the peer is given our weights and has to answer the same. The loop is an
epoch of segments in memory: shuffled, made into batches, trained on; its limit is as
many steps alone, on one batch, each waited for.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from experiments.bench import timing
from mgr_jax import cores, input_pipeline, memory, models, steps
from mgr_jax.config import PRECISIONS, Config, UserError
from mgr_jax.features import FEATURES

PAPER = ("spectrogram", "tempogram", "chroma")
GENRES = 8
_IN_A_ROW = 10
# How far the peer's answer may be off ours.
_SAME = 1e-3


def run() -> None:
    """Measures what the flags say."""
    # As training does; PyTorch gains more by it than ours.
    memory.keep_freed()
    cores.show(Config())
    quick = flags.FLAGS.quick
    names = PAPER[:1] if quick else PAPER
    # No CPU is fast in bfloat16, and the peer has float32 everywhere.
    on_cpu = jax.default_backend() == "cpu"
    precisions = PRECISIONS[:1] if on_cpu else PRECISIONS
    rows = [step_row(name, precision) for name in names for precision in precisions]
    rows += [loop_row(name, batches=10 if quick else 75) for name in names]
    timing.show("training", "PyTorch", "the step alone", rows)


def step_row(name: str, precision: str = PRECISIONS[0]) -> timing.Row:
    """Segments a second of a feature's train step, ours and PyTorch's in float32."""
    config = Config(feature=name, batch_size=flags.FLAGS.batch_size)
    ours = our_step(dataclasses.replace(config, precision=precision))
    peer = _peer_step(config)
    found = timing.seconds({"ours": ours, "peer": peer}, flags.FLAGS.rounds, _IN_A_ROW)
    speeds = {way: config.batch_size / took for way, took in found.items()}
    what = f"step on {name}, {precision}, {config.batch_size} at once"
    return timing.Row(what, "segments/s", **speeds, more_is_better=True)


def noise(config: Config) -> steps.Batch:
    """Noise, as a feature's shards hold it."""
    random = np.random.default_rng(0)
    shape = (config.batch_size, *FEATURES[config.feature].shape())
    return {
        "feature": random.standard_normal(shape).astype(np.float16),
        "label": np.arange(config.batch_size) % GENRES,
    }


def fresh_state(config: Config) -> steps.TrainState:
    """A run's state before its first step."""
    shape = FEATURES[config.feature].shape()
    return steps.create_state(config, GENRES, shape, _blank(shape), 1000, 100)


def _blank(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    bins = (shape[0], 1)
    return np.zeros(bins, np.float32), np.ones(bins, np.float32)


def our_step(config: Config) -> timing.Way:
    """One optimiser step on a batch of noise."""
    step = steps.data_parallel(steps.train_step, donate=True)
    held, batch = [fresh_state(config)], noise(config)

    def once() -> None:
        held[0] = jax.block_until_ready(step(held[0], batch))

    return once


def _peer_step(config: Config) -> timing.Way:
    try:
        from experiments.bench import torch_cnn
    except ModuleNotFoundError:
        raise timing.missing("PyTorch") from None
    shape = FEATURES[config.feature].shape()
    network = torch_cnn.Cnn(config, GENRES, shape, models.reduction_for(shape))
    state, batch = fresh_state(config), noise(config)
    network.take_weights(state.params)
    trainer = torch_cnn.Trainer(network, config, _blank(shape))
    heard = np.asarray(FEATURES[config.feature].heard(batch["feature"]), np.float16)
    answers = jax.nn.softmax(trainer.logits(heard))
    # GPUs round the factors of a float32 convolution to 11 bits, unless they are asked.
    with jax.default_matmul_precision("highest"):
        ours = steps.data_parallel(steps.eval_step)(state, batch)
    if not np.allclose(answers, ours, atol=_SAME):
        raise UserError("the peer does not answer as ours does; compare the networks")
    return lambda: trainer.step(batch["feature"], batch["label"])


def loop_row(name: str, batches: int) -> timing.Row:
    """Segments a second of a feature's epoch, and of as many steps alone."""
    config = Config(feature=name, batch_size=flags.FLAGS.batch_size)
    segments = batches * config.batch_size
    step = our_step(config)
    side = generated(name, segments)
    ways = {
        "ours": our_epoch(config, side, steps.on_accelerators(side.held)),
        "limit": lambda: [step() for _ in range(batches)],
    }
    found = timing.seconds(ways, flags.FLAGS.rounds)
    speeds = {way: segments / took for way, took in found.items()}
    what = f"epoch of {segments:,} on {name}, {config.batch_size} at once"
    return timing.Row(what, "segments/s", **speeds, more_is_better=True)


def our_epoch(
    config: Config, side: input_pipeline.Side, examples: steps.Batch | None
) -> timing.Way:
    """An epoch of a side that is held, each time in another order, as training has it.

    Its batches are made and its steps taken. What training does besides, once a step
    and an epoch, it does beside the devices' work.

    Args:
      config: of the steps.
      side: what to train on.
      examples: `steps.on_accelerators` of what it holds.
    """
    step = steps.data_parallel(steps.train_step, donate=True, examples=examples)
    held, numbers = [fresh_state(config)], itertools.count(1)

    def epoch() -> None:
        for batch in batches(side, config, next(numbers), examples is not None):
            held[0] = step(held[0], batch)
        jax.block_until_ready(held[0])

    return epoch


def batches(
    side: input_pipeline.Side, config: Config, epoch: int, rows_alone: bool
) -> Iterator[input_pipeline.Batch]:
    """An epoch's batches, as `mgr_jax.train` has them."""
    return input_pipeline.training_batches(
        side,
        seed=config.seed,
        epoch=epoch,
        batch_size=config.batch_size,
        shuffle_buffer_mb=100_000,
        rows_alone=rows_alone,
    )


@functools.lru_cache(maxsize=1)
def generated(feature: str, segments: int) -> input_pipeline.Side:
    """Segments of noise as a side that was read into memory."""
    shape = FEATURES[feature].shape()
    random = np.random.default_rng(0)
    # The same few hundred, again and again: drawing them all would take minutes.
    few = random.standard_normal((min(segments, 400), *shape)).astype(np.float16)
    held = {
        "feature": np.resize(few, (segments, *shape)),
        "label": np.arange(segments) % GENRES,
    }
    return input_pipeline.Side(
        dataset=None,
        shares=(segments,),
        host=0,
        shape=shape,
        files=(),
        places=np.arange(segments),
        held=held,
    )


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_integer(
        "batch_size", Config().batch_size, "Segments a step.", lower_bound=1
    )
    timing.start(run, rounds=15)


if __name__ == "__main__":
    main()
