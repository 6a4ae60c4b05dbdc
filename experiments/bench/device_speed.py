"""One device's part: features, the train step and an epoch, against what it can do.

    python -m experiments.bench.device_speed [--quick] [--segments=40000]

Noise enters; a table leaves, for the first device that JAX finds. Features are computed
of segments that lie on the device, 512 at once; the limit is their Fourier transforms
alone, in the precision that they are computed in. A step trains on a batch that lies
there, too. Its limit is the device's own: the more of its operations by the rate of a
large matrix product, and its bytes by the speed of a copy, which are both measured
first. An epoch is as `mgr_jax.train` runs it, over as many segments as FMA's small set
has, which lie in memory; its limit is its steps alone. Where those take longer than it
takes to start them, as they do with large batches, one over "of the limit" is the share
of the time in which the device has work. It takes all devices, and so is to be read
where there is one.

A GPU or TPU is what this is for. Where there is none, a CPU does less of it, and the
title says so.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.bench import features_speed, timing, train_speed
from mgr_jax import steps
from mgr_jax.config import PRECISIONS, Config

# FMA's small set: 8,000 tracks of five segments.
SEGMENTS = 40_000
_IN_A_ROW = 10
_BATCHES = (32, 512)


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """What a device can do.

    Attributes:
      operations: of a matrix product, floating-point operations a second, by precision.
      bytes: read and written by a copy, a second.
    """

    operations: dict[str, float]
    bytes: float

    def seconds(self, cost: "Cost", precision: str) -> float:
        """The least that work takes."""
        return max(
            cost.operations / self.operations[precision], cost.bytes / self.bytes
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work: floating-point operations, and bytes that are read and written."""

    operations: float
    bytes: float


def run() -> None:
    """Measures what the flags say."""
    on_cpu = jax.default_backend() == "cpu"
    small = flags.FLAGS.quick or on_cpu
    names = train_speed.PAPER[:1] if flags.FLAGS.quick else train_speed.PAPER
    precisions = PRECISIONS[:1] if on_cpu else PRECISIONS
    sizes = _BATCHES[:1] if small else _BATCHES
    ceiling = measure_ceiling(512 if on_cpu else 8192, 2**22 if on_cpu else 2**28)
    rows = [
        timing.Row(f"matrix product, {name}", "TFLOP/s", rate / 1e12)
        for name, rate in ceiling.operations.items()
    ]
    rows.append(timing.Row("copy", "GB/s", ceiling.bytes / 1e9))
    rows += [feature_row(name, 32 if small else 512) for name in (*names, "all three")]
    segments = flags.FLAGS.segments or (320 if small else SEGMENTS)
    kinds = [(size, PRECISIONS[0]) for size in sizes]
    kinds += [(sizes[-1], precision) for precision in precisions[1:]]
    for name in names:
        for size, precision in kinds:
            config = Config(feature=name, precision=precision, batch_size=size)
            rows.append(step_row(config, ceiling))
            if precision == PRECISIONS[0]:
                rows.append(epoch_row(config, segments, rows[-1].ours / 1e3))
    title = "a device's part"
    if on_cpu:
        title += ", in small, for there is neither GPU nor TPU"
    timing.show(title, "", "the least", rows)


def measure_ceiling(side: int, count: int) -> Ceiling:
    """What the device can do, by a matrix of `side` rows and an array of `count`."""
    ways = {}
    for precision in PRECISIONS:
        # Random, for zeros are faster.
        matrix = jax.random.normal(jax.random.key(0), (side, side), precision)
        ways[precision] = _several(jax.jit(jnp.matmul), matrix, matrix)
    ways["copy"] = _several(jax.jit(lambda x: x + 1), jnp.ones(count, jnp.float32))
    took = timing.seconds(ways, flags.FLAGS.rounds)
    each = {name: s / _IN_A_ROW for name, s in took.items()}
    moved = 2 * 4 * count / each.pop("copy")
    return Ceiling({name: 2 * side**3 / s for name, s in each.items()}, moved)


def _several(start: Callable[..., Any], *arguments: jax.Array) -> timing.Way:
    """Starts one after the other without waiting, which would count as work."""

    def way() -> None:
        for _ in range(_IN_A_ROW):
            found = start(*arguments)
        jax.block_until_ready(found)

    return way


def feature_row(name: str, size: int) -> timing.Row:
    """Microseconds a segment of a feature, or of all three."""
    parts = train_speed.PAPER if name == "all three" else (name,)
    samples = jax.device_put(_music(size))
    ways = {
        "ours": _several(features_speed.together(parts), samples),
        "limit": _several(features_speed.transforms(parts, size, np.float64)),
    }
    found = timing.seconds(ways, flags.FLAGS.rounds)
    each = {way: 1e6 * s / size / _IN_A_ROW for way, s in found.items()}
    return timing.Row(f"{name}, {size} at once", "us a segment", **each)


@functools.cache
def _music(size: int) -> np.ndarray:
    few = features_speed.music(min(size, 64))  # more take seconds to make
    return np.resize(few, (size, few.shape[1]))


def step_row(config: Config, ceiling: Ceiling) -> timing.Row:
    """Milliseconds of a step on a batch that lies on the device."""
    held, batch = [train_speed.fresh_state(config)], train_speed.noise(config)
    batch = jax.device_put(batch)
    compiled, cost = alone(held[0], batch)

    def several() -> None:
        for _ in range(_IN_A_ROW):
            held[0] = compiled(held[0], batch)
        jax.block_until_ready(held[0])

    took = timing.seconds({"ours": several}, flags.FLAGS.rounds)["ours"] / _IN_A_ROW
    least = ceiling.seconds(cost, config.precision)
    work = f"{cost.operations / 1e9:.3g} GFLOP, {cost.bytes / 1e9:.3g} GB"
    what = f"step on {_name(config)}: {work}"
    return timing.Row(what, "ms", 1e3 * took, limit=1e3 * least)


def alone(state: steps.TrainState, batch: steps.Batch) -> tuple[Callable, Cost]:
    """The train step of one device, compiled, and what it has to do."""
    compiled = _on(jax.local_devices()[0]).trace(state, batch).lower().compile()
    # Counted as for a GPU, since a CPU's step has loops, whose operations count once;
    # and on a CPU, since others count none, before convolutions become calls.
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, batch)
    )
    traced = _on(jax.local_devices(backend="cpu")[0]).trace(*shapes)
    counted = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return compiled, Cost(counted["flops"], compiled.cost_analysis()["bytes accessed"])


def _on(device: jax.Device) -> Callable:
    """The train step, jitted for a device."""
    everywhere = jax.sharding.PartitionSpec()
    step = jax.shard_map(
        steps.train_step,
        mesh=jax.sharding.Mesh(np.array([device]), (steps.DEVICE_AXIS,)),
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(step, donate_argnums=0)


def epoch_row(config: Config, segments: int, step_s: float) -> timing.Row:
    """Seconds of an epoch as training has it, with segments in memory."""
    side = train_speed.generated(config.feature, segments)
    examples = steps.on_accelerators(side.held)
    ways = {"ours": train_speed.our_epoch(config, side, examples)}
    took = timing.seconds(ways, min(flags.FLAGS.rounds, 3))["ours"]
    what = f"epoch of {segments:,} on {_name(config)}"
    where = "on the device" if examples is not None else "in memory"
    least = segments // config.batch_size * step_s
    return timing.Row(f"{what}, {where}", "s", took, limit=least)


def _name(config: Config) -> str:
    return f"{config.feature}, {config.precision}, {config.batch_size} at once"


def main() -> None:
    """Defines the flags and runs."""
    flags.DEFINE_integer(
        "segments", 0, "Segments of an epoch; 0 is 40,000, or 320 on a CPU.", 0
    )
    timing.start(run, rounds=5)


if __name__ == "__main__":
    main()
