"""Did the network learn "how loud on average" a track is, as the paper concludes?

    python -m experiments.loudness --dataset=fma --data_dir=DIR

Three tests of that: the spectrogram's model on test audio that is turned up and down;
a classifier that is told nothing but a segment's average loudness; and the same model
trained with random gain, to which level means little. The answer is in
OUT/loudness-DATASET-FEATURE-MODEL.md, a curve and a table (.png, .csv) beside it.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import grid
from mgr_jax import (
    audio,
    baselines,
    charts,
    cli,
    compare,
    evaluate,
    figures,
    input_pipeline,
    prepare,
    shards,
    splits,
    tables,
    train,
    workdir,
)
from mgr_jax import config as config_lib
from mgr_jax.config import BASELINES, Config, UserError
from mgr_jax.datasets import DATASETS, dataset_key, load_tracks
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import Prepared
from mgr_jax.scores import Predictions, read_predictions_csv

TRAIN_GAIN_DB = 20.0
GAINS_DB = (-20, -15, -10, -5, 0, 5, 10, 15, 20)

_BATCH = 64
_OWN = ("mode", "workdir", "random_gain_db")

# By gain: what each seed's model answers.
Curve = dict[float, list[Predictions]]


class _Cut(NamedTuple):
    """A test segment: its track's place in `Prepared.tracks`, and its place in that."""

    track: int
    segment: int
    label: int
    samples: np.ndarray


def run() -> None:
    """Trains with and without random gain, turns the test set up and down, tells."""
    given = flags.FLAGS
    out = config_lib.expanded("out", given.out).absolute()
    base = config_lib.from_flags(given)
    plain = _configs(base, out, given.seeds)
    _check(base)
    grid.check_data(plain, named_splits=True)
    # The test turns the audio itself up and down: its features will not do.
    load_tracks(base)
    loud = dataclasses.replace(base, random_gain_db=given.train_gain_db)
    gained = _configs(loud, out, given.seeds)
    runs = grid.finished_runs([*plain, *gained], out, given.jobs)
    runs = {outcome.config: outcome for outcome in runs}
    # Of a seed that failed in one way of training, neither counts.
    pairs = [pair for pair in zip(plain, gained, strict=True) if runs.keys() >= {*pair}]
    if not pairs:
        raise UserError(f"no seed has both of its runs; {out / 'logs'} says why")
    plain, gained = zip(*pairs, strict=True)
    majorities = [runs[config].results["majority_accuracy"] for config in plain]
    answers = Answers(
        plain=curve(plain),
        gained=curve(gained),
        loudness_alone=[loudness_alone(config) for config in plain],
        constant=float(np.mean(majorities)),
        config=plain[0],
        train_gain_db=given.train_gain_db,
    )
    name = f"loudness-{dataset_key(base)}-{base.feature}-{base.model}-{plain[0].split}"
    if given.train_gain_db != TRAIN_GAIN_DB:
        name += f"-random_gain_{given.train_gain_db:g}_db"
    print(write(answers, out / name))


def _configs(base: Config, out: pathlib.Path, seeds: int) -> list[Config]:
    """One run a seed, under the split that is given or the data set's own."""
    config_lib.check_choices(base, {"dataset": DATASETS})
    return grid.expand(
        base,
        out,
        datasets=[base.dataset],
        features=[base.feature],
        models=[base.model],
        splits=[base.split or DATASETS[base.dataset].default_split],
        seeds=seeds,
    )


def _check(base: Config) -> None:
    """Refuses, before anything is begun, what could not be tested at its end."""
    if not FEATURES[base.feature].level.any():
        raise UserError(
            f"--feature={base.feature}: does not depend on gain, so there is nothing "
            "to test; take spectrogram, mel, mfcc or loudness"
        )
    if base.model in BASELINES:
        raise UserError(
            f"--model={base.model}: is fitted without random gain; take cnn or crnn"
        )


@dataclasses.dataclass(frozen=True)
class Answers:
    """All that was measured.

    Attributes:
      plain: the model as it is, by gain of the test audio.
      gained: the model trained with random gain.
      loudness_alone: the classifier that hears average loudness, one a seed.
      constant: accuracy of always answering the test tracks' most frequent genre.
      config: one of the plain runs.
      train_gain_db: bound of the random gain.
    """

    plain: Curve
    gained: Curve
    loudness_alone: list[Predictions]
    constant: float
    config: Config
    train_gain_db: float


def curve(configs: Sequence[Config]) -> Curve:
    """What finished runs answer to their test audio at each gain, a list over runs.

    The audio is decoded and turned up or down before the feature is computed. Nothing
    is clipped: samples are floats, so this is level alone and no distortion.
    """
    found: Curve = {gain_db: [] for gain_db in GAINS_DB}
    for config in configs:
        answers = _answers(config)
        for gain_db, predictions in answers.items():
            found[gain_db].append(predictions)
        _check_unmoved(config, answers[0])
        print(f"turned up and down: {config.run_path.name}", flush=True)
    return found


def _answers(config: Config) -> dict[float, Predictions]:
    """One run's answers to its test audio, by gain."""
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(config))
    model = evaluate.restore(config, prepared)
    parts: dict[float, list[dict[str, Any]]] = {gain_db: [] for gain_db in GAINS_DB}
    cuts = _test_cuts(config, prepared)
    size = min(model.batch_size, shards.FEATURE_BATCH)
    while some := list(itertools.islice(cuts, size)):
        samples = np.stack([cut.samples for cut in some])
        names = {
            "track": np.array([cut.track for cut in some]),
            "segment": np.array([cut.segment for cut in some]),
            "label": np.array([cut.label for cut in some]),
        }
        for gain_db in GAINS_DB:
            heard = samples * np.float32(10 ** (gain_db / 20))
            feature = shards.compute([config.feature], heard)[config.feature]
            batch = names | {"feature": feature}
            batch = input_pipeline.padded(batch, model.batch_size)
            parts[gain_db].append(model.predict([batch]))
    ids = np.array([track.id for track in prepared.tracks])
    return {gain_db: _joined(rows, ids) for gain_db, rows in parts.items()}


def _test_cuts(config: Config, prepared: Prepared) -> Iterator[_Cut]:
    """The test segments' audio, in the shards' order."""
    files = {track.id: track.path for track in load_tracks(config)}
    sides = train.assignment_for(config, prepared).sides
    for number, track in enumerate(prepared.tracks):
        if "test" not in sides[track.id]:
            continue
        label = prepared.genres.index(track.genre)
        found, _ = audio.read_segments(files[track.id], config.segments_per_track)
        cut = list(found)
        for segment, side in enumerate(sides[track.id]):
            if side == "test":
                yield _Cut(number, segment, label, cut[segment])


def _joined(parts: Sequence[dict[str, Any]], ids: np.ndarray) -> Predictions:
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Predictions(
        track_ids=ids[rows["track"]],
        segments=rows["segment"],
        labels=rows["label"],
        probabilities=rows["probabilities"],
    )


def _check_unmoved(config: Config, answer: Predictions) -> None:
    """At 0 dB, the audio must give what the shards gave."""
    path = config.run_path / workdir.PREDICTIONS_FILE
    of_shards, _ = read_predictions_csv(path)
    same = np.array_equal(answer.track_ids, of_shards.track_ids) and np.allclose(
        answer.probabilities, of_shards.probabilities, atol=1e-3
    )
    if not same:
        raise UserError(
            f"{config.run_path}: its audio no longer gives the answers that its "
            "features gave; prepare and train it anew with --overwrite"
        )


def loudness_alone(config: Config) -> Predictions:
    """An SVM that is told one number: a segment's average loudness.

    That is BS.1770's momentary loudness, K-weighted, averaged over the segment. It
    trains, and is tested, on the sides of the given run.
    """
    config = dataclasses.replace(config, feature="loudness")
    prepared = input_pipeline.open_prepared(prepare.prepare(config))
    assignment = train.assignment_for(config, prepared)
    batches = {
        side: [
            batch | {"feature": _average(batch["feature"])}
            for batch in input_pipeline.evaluation_batches(
                input_pipeline.load_side(prepared, assignment, side), _BATCH
            )
        ]
        for side in splits.SIDES
    }
    svm = baselines.fit_svm(
        baselines.pooled(batches["train"]),
        baselines.pooled(batches["validation"]),
        len(prepared.genres),
    )
    ids = np.array([track.id for track in prepared.tracks])
    return _joined([baselines.predict(svm, batches["test"])], ids)


def _average(loudness: np.ndarray) -> np.ndarray:
    """The feature's first row, all bands together, averaged over time: (n, 1, 1)."""
    return loudness[:, :1].astype(np.float32).mean(axis=2, keepdims=True)


def write(answers: Answers, path: pathlib.Path) -> str:
    """Writes path.md, path.csv and path.png; returns what a terminal shows."""
    config = answers.config
    title = f"Is it the level? {config.model} on {config.feature} of "
    title += f"{dataset_key(config)}, split {config.split}"
    values = _values(answers)
    tables.as_csv(values, path.with_name(f"{path.name}.csv"))
    image = path.with_name(f"{path.name}.png")
    image.write_bytes(figures.as_png(_figure(answers, title)))
    table, said = _table(answers), _findings(answers)
    page = path.with_name(f"{path.name}.md")
    parts = [
        f"# {title}\n",
        " ".join(said) + "\n",
        f"![Accuracy over the gain of the test audio]({image.name})\n",
        tables.as_markdown(table),
        f"Made with `{config_lib.command(config)}` and its like.\n",
    ]
    page.write_text("\n".join(parts), encoding="utf-8", errors="replace")
    return "\n\n".join([title, tables.as_text(table), "\n".join(said), f"  {page}"])


def _lines(answers: Answers) -> dict[str, Curve]:
    return {
        "plain": answers.plain,
        f"trained with random gain of {answers.train_gain_db:g} dB": answers.gained,
    }


def _table(answers: Answers) -> tables.Table:
    header = ["heard", "gain dB", "seeds", "tracks", "tracks %", "95 % interval"]
    rows = []
    for name, level, _, gain_db, seeds, n, mean, _, low, high in _values(answers).rows:
        if level == "track":
            gain = "-" if gain_db is None else f"{gain_db:+d}"
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            rows.append([name, gain, seeds, n, f"{100 * mean:.1f}", interval])
    return tables.Table(header, rows)


def _values(answers: Answers) -> tables.Table:
    header = ["model", "level", "split", "gain_db", "seeds", "test_tracks", "accuracy"]
    header += ["deviation", "low", "high"]
    groups = [
        (name, gain_db, group)
        for name, found in _lines(answers).items()
        for gain_db, group in found.items()
    ]
    groups.append(("average loudness alone", None, answers.loudness_alone))
    rows = []
    for name, gain_db, group in groups:
        for level in ("track", "segment"):
            found = compare.summarise(group, level)
            about = [name, level, answers.config.split, gain_db, found.runs, found.n]
            rows.append([*about, found.mean, found.deviation, *found.interval_95])
    return tables.Table(header, rows)


def _figure(answers: Answers, title: str) -> Any:
    lines = []
    for name, found in _lines(answers).items():
        summaries = [compare.summarise(group, "track") for group in found.values()]
        means = [one.mean for one in summaries]
        bands = [one.interval_95 for one in summaries]
        lines.append(charts.Line(name, list(found), means, bands))
    alone = compare.summarise(answers.loudness_alone, "track")
    bands = [alone.interval_95]
    lines.append(charts.Line("average loudness alone", (), [alone.mean], bands))
    x_label = "Gain of the test audio (dB)"
    return charts.lines_figure(lines, x_label, title, answers.constant)


def _findings(answers: Answers) -> list[str]:
    """Three sentences, each no stronger than its paired interval."""
    at_zero = answers.plain[0]
    moved, steady = (
        [
            _verdict(
                f"its accuracy at {end:+d} dB", "that at 0 dB", found[end], found[0]
            )
            for end in (GAINS_DB[0], GAINS_DB[-1])
        ]
        for found in (answers.plain, answers.gained)
    )
    alone = _verdict(
        "average loudness alone", "the model", answers.loudness_alone, at_zero
    )
    deaf = _verdict(
        "the model trained with random gain",
        "the plain one",
        answers.gained[0],
        at_zero,
    )
    return [
        f"The model, its test audio turned down and up: {'; '.join(moved)}.",
        f"Told nothing but a segment's average loudness, an SVM is right on "
        f"{100 * _accuracy(answers.loudness_alone):.1f} % of test tracks, where the "
        f"most frequent genre alone is {100 * answers.constant:.1f} % and the model "
        f"{100 * _accuracy(at_zero):.1f} %; {alone}.",
        f"Trained with random gain, which makes level a poor guide: {deaf}; "
        f"{'; '.join(steady)}.",
    ]


def _accuracy(group: Sequence[Predictions]) -> float:
    return compare.summarise(group, "track").mean


def _verdict(
    name_a: str, name_b: str, a: Sequence[Predictions], b: Sequence[Predictions]
) -> str:
    found = compare.verdict(name_a, name_b, compare.paired_difference(a, b, "track"))
    return found.removeprefix("tracks: ")


if __name__ == "__main__":
    grid.define_flags(leave_out=_OWN)
    flags.DEFINE_float(
        "train_gain_db",
        TRAIN_GAIN_DB,
        "Random gain of the second model's training segments.",
        lower_bound=0.1,
        upper_bound=60.0,
    )
    flags.adopt_module_key_flags(grid)
    cli.start(run)
