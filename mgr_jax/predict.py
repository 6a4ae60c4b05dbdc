"""Audio to genres, by a trained run: as a library, and for files of one's own.

    python -m mgr_jax.predict --workdir=runs/RUN song.mp3 MY_MUSIC playlist.m3u

A run's folder and samples, or paths, enter; a `Prediction` a recording leaves. All
that the model needs comes from the run: feature, sample rate, labels, normalisation.
Audio is decoded and cut into windows while it is judged, and windows of several files
share a batch.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from absl import flags

from mgr_jax import (
    answers,
    audio,
    cli,
    input_pipeline,
    listing,
    restore,
    shards,
    windows,
    workdir,
)
from mgr_jax import config as config_lib
from mgr_jax.audio import SAMPLE_RATE_HZ, SEGMENT_S, AudioError
from mgr_jax.config import Config, UserError
from mgr_jax.features import FEATURES
from mgr_jax.restore import Restored
from mgr_jax.windows import Window

# Windows that are decoded while others are judged.
_AHEAD = 4 * shards.FEATURE_BATCH


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one recording.

    Attributes:
      labels: the genres.
      probabilities: (windows, genres) float32; each row sums to 1.
      times_s: (windows,) where each window of 5 s starts.
      duration_s: of the recording.
      note: what is odd about it, such as that it was cut off; "" for nothing.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    times_s: np.ndarray
    duration_s: float
    note: str = ""

    @property
    def overall(self) -> np.ndarray:
        """(genres,) of the whole recording: the mean over its windows."""
        return self.probabilities.mean(axis=0)

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """(label, probability) of the whole recording, the likeliest first."""
        return self._rank(self.overall)

    @property
    def windows(self) -> list[tuple[float, list[tuple[str, float]]]]:
        """(start in s, (label, probability) as in `ranked`) of each window."""
        rows = zip(self.times_s, self.probabilities, strict=True)
        return [(float(start_s), self._rank(row)) for start_s, row in rows]

    def _rank(self, probabilities: np.ndarray) -> list[tuple[str, float]]:
        order = np.argsort(-probabilities, kind="stable")
        return [(self.labels[k], float(probabilities[k])) for k in order]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained run, ready to be asked; `load` makes it.

    Attributes:
      config: the run's own.
      model: its best checkpoint.
    """

    config: Config
    model: Restored

    @property
    def labels(self) -> tuple[str, ...]:
        """The genres that it knows, in the order of its probabilities."""
        return self.model.genres

    def __call__(
        self, samples: np.ndarray, sample_rate_hz: float, hop_s: float = SEGMENT_S
    ) -> Prediction:
        """Judges a recording that is in memory.

        Args:
          samples: (samples,) or (samples, channels), full scale 1.0.
          sample_rate_hz: their rate; they are resampled to the run's.
          hop_s: seconds from the start of one window to the next.

        Raises:
          ValueError: there are no samples, some are not finite, or the rate or the hop
            is none.
        """
        mono = audio.converted(samples, sample_rate_hz)
        stream = windows.of_samples(mono, windows.hop_samples(hop_s))
        ((_, found),) = self._judged(stream)
        return found

    def files(
        self,
        paths: Iterable[pathlib.Path],
        hop_s: float = SEGMENT_S,
        decode: windows.Decode = audio.stream,
    ) -> Iterator[tuple[pathlib.Path, Prediction | AudioError]]:
        """Judges files, each as soon as it and the ones before it are done.

        Args:
          paths: any number; they are asked for as they are needed.
          hop_s: seconds from the start of one window to the next.
          decode: what reads a file; another thread calls it.

        Yields:
          Each path with its prediction, or with why there is none, in the given order.

        Raises:
          ValueError: the hop is none.
        """
        hop = windows.hop_samples(hop_s)
        items = itertools.chain.from_iterable(
            windows.of_file(path, hop, decode) for path in paths
        )
        with windows.in_background(items, _AHEAD) as stream:
            yield from self._judged(stream)

    def file(
        self,
        path: str | pathlib.Path,
        hop_s: float = SEGMENT_S,
        decode: windows.Decode = audio.stream,
    ) -> Prediction:
        """Judges a file; see `files`.

        Raises:
          AudioError: it cannot be read, or holds no usable audio.
          ValueError: the hop is none.
        """
        ((_, found),) = self.files([pathlib.Path(path)], hop_s, decode)
        if isinstance(found, AudioError):
            raise found
        return found

    def _judged(
        self, items: Iterable[windows.Item]
    ) -> Iterator[tuple[pathlib.Path | None, Prediction | AudioError]]:
        """Windows to predictions, a batch at a time, whatever files they are of."""
        times_s: list[float] = []
        rows: list[np.ndarray] = []
        for batch in windows.in_batches(items, shards.FEATURE_BATCH):
            heard = [item.samples for item in batch if isinstance(item, Window)]
            judged = iter(self._probabilities(heard))
            for item in batch:
                if isinstance(item, Window):
                    times_s.append(item.start / SAMPLE_RATE_HZ)
                    rows.append(next(judged))
                    continue
                yield (
                    item.path,
                    item.error
                    or Prediction(
                        self.labels,
                        np.stack(rows),
                        np.array(times_s),
                        item.samples / SAMPLE_RATE_HZ,
                        item.note,
                    ),
                )
                times_s, rows = [], []

    def _probabilities(self, heard: Sequence[np.ndarray]) -> np.ndarray:
        """(windows, genres) float32 of the samples of up to a batch of windows."""
        if not heard:
            return np.zeros((0, len(self.labels)), np.float32)
        name = self.config.feature
        feature = shards.compute([name], heard)[name]
        batch = {"feature": feature, "label": np.zeros(len(feature), np.int64)}
        # One shape, so that the network is compiled once.
        devices = jax.local_device_count()
        rows = math.ceil(shards.FEATURE_BATCH / devices) * devices
        found = self.model.predict([input_pipeline.padded(batch, rows)])
        return np.asarray(found["probabilities"], np.float32)


def load(run_folder: str | pathlib.Path) -> Predictor:
    """Loads a trained run.

    Args:
      run_folder: what --workdir was when it was trained, or a copy of it.

    Raises:
      UserError: it holds no run, no checkpoint, or one that this version of the program
        cannot compute the feature of.
    """
    folder = config_lib.expanded("workdir", run_folder).absolute()
    config = dataclasses.replace(workdir.read_config(folder), workdir=str(folder))
    model = restore.restore(config)
    made_of = model.feature_spec["feature_params"]
    computed = json.loads(json.dumps(dict(FEATURES[config.feature].params)))
    if made_of != computed:
        raise UserError(
            f"{folder}: was trained on {config.feature} with {made_of}, and this "
            f"version of the program computes {computed}; train it anew"
        )
    return Predictor(config, model)


def run(words: Sequence[str]) -> None:
    """Judges what the words of the command line name, and prints each answer.

    Raises:
      UserError: there is no such run, nothing to judge, or a flag is off.
      SystemExit: something could not be judged, of status 1; all else was.
    """
    import tqdm

    given = flags.FLAGS
    if not 0.1 <= given.hop_s < math.inf:
        raise UserError(f"--hop_s={given.hop_s}: must be 0.1 or more")
    if not given.workdir:
        raise UserError("--workdir: name the folder of a trained run")
    if given.export:
        _export(load(given.workdir), given.export, words)
        return
    paths, failed = listing.expand(words)
    predictor = load(given.workdir)
    show = answers.FORMATS[given.format](predictor.labels, given.top, given.timeline)
    bar = tqdm.tqdm(total=len(paths), desc="predicting", unit="file", disable=None)
    with bar:
        for path, found in predictor.files(paths, given.hop_s):
            if isinstance(found, AudioError):
                failed += 1
                bar.write(f"skipped: {found}", file=sys.stderr)
            for line in show(path, found):
                bar.write(line, file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    if failed:
        sys.exit(1)


def _export(predictor: Predictor, folder: str, words: Sequence[str]) -> None:
    from mgr_jax import export

    if words:
        raise UserError(f"{words[0]}: --export judges nothing; leave the paths out")
    for path in export.export(predictor, config_lib.expanded("export", folder)):
        print(path)


def main() -> None:
    """Defines the flags and runs: the program `python -m mgr_jax.predict`."""
    flags.DEFINE_string("workdir", "", "Folder of a trained run.")
    flags.DEFINE_float(
        "hop_s", SEGMENT_S, "Seconds from one window of 5 s to the next."
    )
    flags.DEFINE_integer("top", 3, "Genres to show a file, in a table.", lower_bound=1)
    flags.DEFINE_bool("timeline", False, "Show each window, too.")
    flags.DEFINE_enum(
        "format",
        "table",
        list(answers.FORMATS),
        "table for people; json (an object a line) or csv for programs.",
    )
    flags.DEFINE_string(
        "export",
        "",
        "Folder to write the model to: one file that needs jax and numpy alone, its "
        "labels, and a model card.",
    )
    cli.start(run, takes_words=True, goes_on=False)


if __name__ == "__main__":
    main()
