"""Runs to groups, and groups against each other: the numbers of a grid's report.

The outcomes of a grid enter (a run each: finished, failed or not run); groups of runs
that differ in their seed alone, and comparisons of groups, leave. Every number is read
from the runs' own files, every comparison is compare's. findings makes sentences of
them; paper_report and paper_figures show them.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgr_jax import compare
from mgr_jax.compare import Difference, Summary
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS, dataset_key
from mgr_jax.features import FEATURES
from mgr_jax.scores import Predictions
from mgr_jax.splits import CURATED

if TYPE_CHECKING:
    from experiments.grid import Outcome

# Fig. 8, and the size of the data that it is of.
PAPER = {
    "gtzan": {"tempogram": 0.49, "spectrogram": 0.70, "chroma": 0.42},
    "fma": {"tempogram": 0.38, "spectrogram": 0.43, "chroma": 0.33},
}
PAPER_TRACKS = {"gtzan": 1000, "fma": 8000}

_MODELS = ("cnn", "crnn", "svm")  # in this order; others after them
_FEATURES = tuple(dict.fromkeys([*PAPER["gtzan"], *FEATURES]))
LEVELS = {"segment": "segments", "track": "tracks"}
CONSTANT = "most frequent genre"


@dataclasses.dataclass(frozen=True)
class Group:
    """The finished runs of one line of the table, which differ in their seed alone.

    Attributes:
      outcomes: the runs, sorted by seed.
      tracks: how many the protocols use of its data set, at the most.
      summaries: "segment" and "track" to the accuracy over the runs.
    """

    outcomes: tuple["Outcome", ...]
    tracks: int
    summaries: Mapping[str, Summary]

    @property
    def config(self) -> Config:
        """The settings of the run with the lowest seed."""
        return self.outcomes[0].config

    @property
    def name(self) -> str:
        """Of the data, such as "fma_small (236 tracks)"."""
        return f"{dataset_key(self.config)} ({self.tracks:,} tracks)"

    @property
    def model(self) -> str:
        """The model, and the gain it was trained with where there is any."""
        return model_name(self.config)

    @property
    def leaks(self) -> str:
        """What the protocol leaks, "" for nothing."""
        return self.outcomes[0].results["protocol_leaks"]

    @property
    def majority(self) -> float:
        """What always answering the most frequent genre scores, of tracks."""
        return float(np.mean([o.results["majority_accuracy"] for o in self.outcomes]))

    @property
    def is_papers_size(self) -> bool:
        """Whether the data may be the paper's, by their number of tracks."""
        paper = PAPER_TRACKS.get(self.config.dataset, math.inf)
        return 0.9 <= self.tracks / paper <= 1.1

    @property
    def paper(self) -> float | None:
        """The paper's number for this feature and its network, where there is one."""
        known = PAPER.get(self.config.dataset, {}) if self.model == "cnn" else {}
        return known.get(self.config.feature)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two groups on the same data under the same protocol.

    Attributes:
      kind: "features", "models" or "constant": what they differ in.
      level: "segment" or "track".
      a: the first group.
      b: the second; None for always answering the most frequent genre.
      difference: accuracy of a minus that of b.
      p: McNemar's of the first runs of both.
    """

    kind: str
    level: str
    a: Group
    b: Group | None
    difference: Difference
    p: float

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called."""
        if self.kind == "features":
            return self.a.config.feature, self.b.config.feature
        if self.kind == "models":
            return spoken(self.a.model), spoken(self.b.model)
        a = f"{spoken(self.a.model)} on {self.a.config.feature}"
        return a, f"the {CONSTANT} alone"

    @property
    def verdict(self) -> str:
        """What the difference shows, in one sentence, the higher one first."""
        names, shown = self.names, self.difference
        if shown.difference < 0:
            low, high = shown.interval_95
            names = names[::-1]
            shown = dataclasses.replace(
                shown, difference=-shown.difference, interval_95=[-high, -low]
            )
        what = LEVELS[self.level]
        sentence = compare.verdict(*names, shown, what).removeprefix(f"{what}: ")
        if self.kind == "models":
            sentence = f"on {self.a.config.feature}, {sentence}"
        return f"{sentence[0].upper()}{sentence[1:]}."


def in_order(outcomes: Sequence["Outcome"]) -> list["Outcome"]:
    """The outcomes in the page's order; a run that cannot be read counts as failed."""
    checked = []
    for outcome in outcomes:
        try:
            if outcome.status == "finished":
                _ = outcome.results["segment"], outcome.predictions
        except (UserError, OSError, ValueError, KeyError) as error:
            reason = f"its results cannot be read ({error}); run it again"
            outcome = dataclasses.replace(outcome, status="failed", error=reason)
        checked.append(outcome)
    return sorted(checked, key=lambda outcome: _place(outcome.config))


def _place(of: Config) -> tuple:
    """Where a run stands: the registries' order, the honest protocols first."""
    splits = DATASETS[of.dataset].splits
    orders = (
        (of.dataset, tuple(DATASETS)),
        (of.split, splits),
        (of.model, _MODELS),
        (of.feature, _FEATURES),
    )
    places = ((k.index(x) if x in k else len(k), x) for x, k in orders)
    return *places, dataset_key(of), model_name(of), of.seed


def model_name(of: Config) -> str:
    """The model, and the gain it is trained with where there is any."""
    gain = f", random gain {of.random_gain_db:g} dB" if of.random_gain_db else ""
    return of.model + gain


def spoken(model: str) -> str:
    """A model's name as a sentence has it: "the CNN"."""
    name, *rest = model.split(",")
    return f"the {','.join([name.upper(), *rest])}"


def group(outcomes: Sequence["Outcome"]) -> list[Group]:
    """Finished runs to the lines of the table, in the page's order."""
    finished = [o for o in in_order(outcomes) if o.status == "finished"]
    parts: dict[tuple[str, ...], list[Outcome]] = {}
    tracks: dict[str, int] = {}
    for outcome in finished:
        data, *_ = line = line_of(outcome.config)
        parts.setdefault(line, []).append(outcome)
        tracks[data] = max(tracks.get(data, 0), _tracks_used(outcome))
    return [
        Group(
            tuple(part),
            tracks[data],
            {
                level: compare.summarise([o.predictions for o in part], level)
                for level in LEVELS
            },
        )
        for (data, *_), part in parts.items()
    ]


def line_of(of: Config) -> tuple[str, str, str, str]:
    """What the runs of one line have in common."""
    return dataset_key(of), of.split, model_name(of), of.feature


def _tracks_used(outcome: "Outcome") -> int:
    counts = outcome.results["num_tracks"].values()
    # That protocol has most tracks on every side.
    return max(counts) if outcome.config.split == "segment" else sum(counts)


def by_protocol(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups under a heading for each data set and protocol."""
    parts: dict[str, list[Group]] = {}
    for one in groups:
        leaks = " (leaks)" if one.leaks else ""
        parts.setdefault(f"{one.name}, {one.config.split}{leaks}", []).append(one)
    return parts


def default_protocol(groups: Sequence[Group]) -> list[Group]:
    """The groups of each data set's default protocol, or of the first that was run."""
    shown: dict[str, str] = {}
    for one in groups:
        default = DATASETS[one.config.dataset].default_split
        if one.config.split == default or one.name not in shown:
            shown[one.name] = one.config.split
    return [one for one in groups if one.config.split == shown[one.name]]


def compare_all(
    groups: Sequence[Group], levels: Sequence[str] = ("track", "segment")
) -> list[Comparison]:
    """All pairs of features, all pairs of models, and each against the constant."""
    return [
        _compare(kind, level, a, b)
        for part in by_protocol(groups).values()
        for level in levels
        for kind, a, b in _pairs(part)
    ]


def _pairs(part: Sequence[Group]) -> Iterator[tuple[str, Group, Group | None]]:
    pairs = list(itertools.combinations(part, 2))
    for a, b in pairs:
        if a.model == b.model:
            yield "features", a, b
    for a, b in pairs:
        if a.config.feature == b.config.feature:
            yield "models", a, b
    for a in part:
        yield "constant", a, None


def _compare(kind: str, level: str, a: Group, b: Group | None) -> Comparison:
    first, second = _paired_runs(a, b)
    return Comparison(
        kind,
        level,
        a,
        b,
        compare.paired_difference(first, second, level),
        compare.mcnemar(first[0], second[0], level).p,
    )


def _paired_runs(
    a: Group, b: Group | None
) -> tuple[list[Predictions], list[Predictions]]:
    """The runs to compare: where a seed draws the split, those whose seed both have."""
    runs = {o.config.seed: o.predictions for o in a.outcomes}
    if b is None:
        return list(runs.values()), [_constant(run) for run in runs.values()]
    others = {o.config.seed: o.predictions for o in b.outcomes}
    shared = [seed for seed in runs if seed in others]
    if a.config.split in CURATED or not shared:
        return list(runs.values()), list(others.values())
    return [runs[seed] for seed in shared], [others[seed] for seed in shared]


def _constant(run: Predictions) -> Predictions:
    """The answers of who always names the genre of most test tracks."""
    _, first = np.unique(run.track_ids, return_index=True)
    genre = np.bincount(run.labels[first]).argmax()
    probabilities = np.zeros_like(run.probabilities)
    probabilities[:, genre] = 1
    return dataclasses.replace(run, probabilities=probabilities)
