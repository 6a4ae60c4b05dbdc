"""The input pipeline alone, against a plain read of the same files, and the train step.

    python -m experiments.bench.input_speed [--quick]

Shards of rendered clips enter; a table leaves: segments and megabytes a second that
`input_pipeline.training_batches` gives, shuffled and in batches, from the shards and
from memory. The limit is reading the shards' bytes from end to end and doing nothing
with them; the peer is the CPU's, or the accelerator's, train step, which the pipeline
has to feed.
"""

import contextlib
import io
import pathlib
import tempfile
from collections.abc import Callable

from absl import flags

from experiments.bench import timing, train_speed
from mgr_jax import cores, input_pipeline, prepare
from mgr_jax.config import Config, complete
from mgr_jax.datasets import DATASETS
from mgr_jax.splits import Assignment

BATCH = 32
_STEPS_IN_A_ROW = 10


def run() -> None:
    """Measures what the flags say."""
    quick = flags.FLAGS.quick
    cores.show(Config())  # as main does
    rows = []
    for feature in (
        ("spectrogram",) if quick else ("spectrogram", "tempogram", "chroma")
    ):
        rows += feature_rows(feature, clips=16 if quick else 320)
    timing.show("input pipeline", "the train step", "a plain read", rows)


def feature_rows(feature: str, clips: int) -> list[timing.Row]:
    """A feature's pipeline, reading and from memory."""
    with tempfile.TemporaryDirectory(prefix="mgr_jax_bench_") as folder:
        config = Config(
            dataset="synth", feature=feature, synth_clips=clips, data_dir=folder
        )
        synth = DATASETS["synth"]
        config = complete(config, synth.default_split, synth.splits)
        with contextlib.redirect_stdout(io.StringIO()):
            prepared = input_pipeline.open_prepared(prepare.prepare(config))
        side = _everything(prepared)
        kept = input_pipeline.in_memory(side, budget_mb=10_000)
        step = train_speed.our_step(Config(feature=feature))
        ways = {
            "from shards": _epoch(side),
            "from memory": _epoch(kept),
            "plain read": lambda: [pathlib.Path(f).read_bytes() for f in side.files],
            "step": lambda: [step() for _ in range(_STEPS_IN_A_ROW)],
        }
        found = timing.seconds(ways, flags.FLAGS.rounds)
    segments = side.size // BATCH * BATCH
    megabytes = segments * side.example_bytes / 1e6
    return [
        timing.Row(
            f"{feature} {way}, {megabytes / found[way]:,.0f} MB/s",
            "segments/s",
            segments / found[way],
            peer=_STEPS_IN_A_ROW * BATCH / found["step"],
            limit=side.size / found["plain read"],
            more_is_better=True,
        )
        for way in ("from shards", "from memory")
    ]


def _everything(prepared: input_pipeline.Prepared) -> input_pipeline.Side:
    """All segments, as if all were for training."""
    counts = prepared.segment_counts
    sides = {track.id: ("train",) * counts[track.id] for track in prepared.tracks}
    return input_pipeline.load_side(prepared, Assignment(sides, "all"), "train")


def _epoch(side: input_pipeline.Side) -> Callable[[], None]:
    def read() -> None:
        batches = input_pipeline.training_batches(
            side, seed=0, epoch=1, batch_size=BATCH, shuffle_buffer_mb=1000
        )
        for _ in batches:
            pass

    return read


def main() -> None:
    """Defines the flags and runs."""
    timing.start(run, rounds=7)


if __name__ == "__main__":
    main()
