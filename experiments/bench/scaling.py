"""What larger data would cost: core-hours, gigabytes, euros, and what workers bring.

    python -m experiments.bench.scaling

Nothing enters but the constants below, most of them measured by the other scripts of
this folder; the tables of docs/scaling.md leave, as Markdown. That times grow as the
data do is what `growth` shows; what is an assumption is called one.
"""

import dataclasses
import math

from mgr_jax import cli, tables
from mgr_jax.config import Config
from mgr_jax.features import FEATURES

# Measured, on the machine of experiments/bench/README.md. Milliseconds of one core: to
# decode and resample a second of MP3; to compute a segment's feature and write it; to
# train on a segment. Seconds until a process has imported and compiled.
DECODE_MS = 0.96
FEATURE_MS = {"tempogram": 1.9, "chroma": 1.5, "spectrogram": 0.88}
TRAIN_MS = {"tempogram": 2.0, "chroma": 0.67, "spectrogram": 1.4}
START_S = 4.0

# Assumed.
EUROS_A_CORE_HOUR = 0.04
EUROS_A_GB_MONTH = 0.02
TRAINING_SHARE = 0.8  # of the segments, as in FMA's own split
EPOCHS = Config().num_epochs

SEGMENTS = Config().segments_per_track
TRACKS_PER_SHARD = Config().tracks_per_shard


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set's size.

    Attributes:
      name: as users know it.
      tracks: how many.
      audio_s: seconds of audio in all.
      audio_gb: size of the files, 1e9 bytes.
    """

    name: str
    tracks: int
    audio_s: float
    audio_gb: float


_GIB = 2**30 / 1e9
FULL = Data("fma_full", 106_574, 343 * 86_400, 879 * _GIB)
DATA = (
    Data("fma_small", 8_000, 8_000 * 30, 7.2 * _GIB),
    Data("fma_medium", 25_000, 25_000 * 30, 22 * _GIB),
    Data("fma_large", 106_574, 106_574 * 30, 93 * _GIB),
    FULL,
    # As long, and as large, a track as in fma_full.
    Data(
        "ten million tracks",
        10_000_000,
        FULL.audio_s * 10_000_000 / FULL.tracks,
        FULL.audio_gb * 10_000_000 / FULL.tracks,
    ),
)
WORKERS = (1, 2, 4, 16, 64, 256, 1024)


def prepare_core_s(data: Data, feature: str) -> float:
    """Seconds of one core to prepare a feature."""
    decoding = data.audio_s * DECODE_MS
    return (decoding + data.tracks * SEGMENTS * FEATURE_MS[feature]) / 1e3


def shards_gb(data: Data, feature: str) -> float:
    """Size of a feature's shards."""
    bins, frames = FEATURES[feature].shape()
    return data.tracks * SEGMENTS * bins * frames * 2 / 1e9


def train_core_s(data: Data, feature: str) -> float:
    """Seconds of one core to train a run of EPOCHS epochs."""
    segments = data.tracks * SEGMENTS * TRAINING_SHARE
    return EPOCHS * segments * TRAIN_MS[feature] / 1e3


def makespan_s(data: Data, feature: str, workers: int) -> float:
    """Seconds that so many workers, of one core each, take to prepare a feature.

    Assumed: a worker takes the next shard when it is done with one, all shards take
    equally long, and storage and network are as fast as they need to be.
    """
    count = math.ceil(data.tracks / TRACKS_PER_SHARD)
    shard_s = prepare_core_s(data, feature) / count
    return START_S + math.ceil(count / workers) * shard_s


def run() -> None:
    """Prints the tables."""
    for table in (_preparing(), _training(), _workers(FULL, "spectrogram")):
        print(tables.as_markdown(table))


def _preparing() -> tables.Table:
    rows = []
    for data in DATA:
        hours = [prepare_core_s(data, feature) / 3600 for feature in FEATURE_MS]
        sizes = [shards_gb(data, feature) for feature in FEATURE_MS]
        euros = sum(hours) * EUROS_A_CORE_HOUR, sum(sizes) * EUROS_A_GB_MONTH
        cells = [data.audio_s / 3600, data.audio_gb, *hours, *sizes, *euros]
        rows.append((data.name, *map(_number, cells)))
    header = ["data", "audio, h", "audio, GB"]
    header += [f"{feature}, core-h" for feature in FEATURE_MS]
    header += [f"{feature}, GB" for feature in FEATURE_MS]
    header += ["the three, EUR", "the three, EUR a month"]
    return tables.Table(header, rows, "Preparing")


def _training() -> tables.Table:
    rows = []
    for data in DATA:
        hours = [train_core_s(data, feature) / 3600 for feature in TRAIN_MS]
        euros = sum(hours) * EUROS_A_CORE_HOUR
        segments = data.tracks * SEGMENTS * TRAINING_SHARE
        rows.append((data.name, *map(_number, [segments, *hours, euros])))
    header = ["data", "training segments"]
    header += [f"{feature}, core-h" for feature in TRAIN_MS]
    return tables.Table([*header, "the three, EUR"], rows, f"{EPOCHS} epochs on a CPU")


def _workers(data: Data, feature: str) -> tables.Table:
    alone = makespan_s(data, feature, 1)
    rows = []
    for workers in WORKERS:
        took = makespan_s(data, feature, workers)
        cells = took / 3600, alone / took / workers, 1e3 * data.audio_gb / took
        rows.append((f"{workers:,}", *map(_number, cells)))
    header = ["workers", "hours", "efficiency", "audio read, MB/s"]
    return tables.Table(header, rows, f"{feature} of {data.name} on many workers")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Runs; there are no flags."""
    cli.start(run)


if __name__ == "__main__":
    main()
