"""The paper's results, remade from a grid of runs: one page, one table, three CSVs.

The outcomes of a grid enter (a run each: finished, failed or not run); report.html,
table.md, table.csv, comparisons.csv and runs.csv leave, and a text for the terminal.
Every number is read from the runs' own files, every comparison is compare's, and every
sentence is made of them. paper calls it.
"""

import collections
import dataclasses
import itertools
import math
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mgr_jax import compare, config, figures, page, tables
from mgr_jax.compare import Difference, Summary
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS, dataset_key
from mgr_jax.features import FEATURES
from mgr_jax.scores import Predictions
from mgr_jax.splits import CURATED, SIDES
from mgr_jax.tables import Table

if TYPE_CHECKING:
    from experiments.grid import Outcome

# Fig. 8, and the size of the data that it is of.
PAPER = {
    "gtzan": {"tempogram": 0.49, "spectrogram": 0.70, "chroma": 0.42},
    "fma": {"tempogram": 0.38, "spectrogram": 0.43, "chroma": 0.33},
}
PAPER_TRACKS = {"gtzan": 1000, "fma": 8000}
PAPER_NOTE = (
    "Paper: its Fig. 8, one number a feature, under a split protocol that it does not "
    "state; in brackets where it is of other data than the row. Its text gives FMA a "
    "maximum of 40 %, its Fig. 8 gives 43 %."
)

_MODELS = ("cnn", "crnn", "svm")  # in this order; others after them
_FEATURES = tuple(dict.fromkeys([*PAPER["gtzan"], *FEATURES]))
_LEVELS = {"segment": "segments", "track": "tracks"}
_CONFUSIONS, _LOSSES = {"fma": "Fig. 5", "gtzan": "Fig. 7"}, {"gtzan": "Fig. 6"}
_CONSTANT = "most frequent genre"


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
        return _model(self.config)

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
            return _spoken(self.a.model), _spoken(self.b.model)
        a = f"{_spoken(self.a.model)} on {self.a.config.feature}"
        return a, f"the {_CONSTANT} alone"

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
        what = _LEVELS[self.level]
        sentence = compare.verdict(*names, shown, what).removeprefix(f"{what}: ")
        if self.kind == "models":
            sentence = f"on {self.a.config.feature}, {sentence}"
        return f"{sentence[0].upper()}{sentence[1:]}."


def write(out: pathlib.Path, outcomes: Sequence["Outcome"]) -> list[pathlib.Path]:
    """Writes report.html, table.md, table.csv, comparisons.csv and runs.csv.

    Args:
      out: the folder, which is made where it is missing.
      outcomes: one or more runs; of those that are not finished, that is said.

    Returns:
      The files, in that order.
    """
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    outcomes = _checked(outcomes)
    groups = group(outcomes)
    comparisons = compare_all(groups)
    html = _page(outcomes, groups, comparisons)
    paths = [out / "report.html", out / "table.md"]
    paths[0].write_text(html, encoding="utf-8", errors="replace")
    notes = [*_reading(groups), *_notes(groups), *_missing(outcomes, groups)]
    notes = "".join(f"\n{line}\n" for line in notes)
    markdown = tables.as_markdown(_accuracy_table(groups)) + notes
    paths[1].write_text(markdown, encoding="utf-8", errors="replace")
    return paths + [
        tables.as_csv(table, out / name)
        for name, table in (
            ("table.csv", _accuracy_values(groups)),
            ("comparisons.csv", _comparison_values(comparisons)),
            ("runs.csv", _run_values(outcomes)),
        )
    ]


def terminal(outcomes: Sequence["Outcome"]) -> str:
    """The table of Fig. 8 for a terminal, and what the default protocols found.

    Args:
      outcomes: as for `write`.

    Returns:
      Lines; the sentences are wrapped at 80 columns.
    """
    outcomes = _checked(outcomes)
    groups = group(outcomes)
    parts = [
        tables.as_text(_terminal_table(name, part))
        for name, part in _by_protocol(groups).items()
    ]
    shown = _default_protocol(groups)
    for heading, lines in findings(shown, compare_all(shown, ["track"])).items():
        wrapped = (textwrap.fill(x, 80, subsequent_indent="  ") for x in lines)
        parts.append("\n".join([heading, *wrapped]))
    closing = [*_about_paper(groups), *_notes(groups), *_missing(outcomes, groups)]
    parts += [textwrap.fill(line, 80, subsequent_indent="  ") for line in closing]
    return "\n\n".join(parts)


# --- runs to groups to comparisons to sentences


def _checked(outcomes: Sequence["Outcome"]) -> list["Outcome"]:
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
    return *places, dataset_key(of), _model(of), of.seed


def _model(of: Config) -> str:
    gain = f", random gain {of.random_gain_db:g} dB" if of.random_gain_db else ""
    return of.model + gain


def _spoken(model: str) -> str:
    name, *rest = model.split(",")
    return f"the {','.join([name.upper(), *rest])}"


def group(outcomes: Sequence["Outcome"]) -> list[Group]:
    """Finished runs to the lines of the table, in the page's order."""
    finished = [o for o in _checked(outcomes) if o.status == "finished"]
    parts: dict[tuple[str, ...], list[Outcome]] = {}
    tracks: dict[str, int] = {}
    for outcome in finished:
        data, *_ = line = _line(outcome.config)
        parts.setdefault(line, []).append(outcome)
        tracks[data] = max(tracks.get(data, 0), _tracks_used(outcome))
    return [
        Group(
            tuple(part),
            tracks[data],
            {
                level: compare.summarise([o.predictions for o in part], level)
                for level in _LEVELS
            },
        )
        for (data, *_), part in parts.items()
    ]


def _line(of: Config) -> tuple[str, str, str, str]:
    """What the runs of one line have in common."""
    return dataset_key(of), of.split, _model(of), of.feature


def _tracks_used(outcome: "Outcome") -> int:
    counts = outcome.results["num_tracks"].values()
    # That protocol has most tracks on every side.
    return max(counts) if outcome.config.split == "segment" else sum(counts)


def _by_protocol(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups under a heading for each data set and protocol."""
    parts: dict[str, list[Group]] = {}
    for one in groups:
        leaks = " (leaks)" if one.leaks else ""
        parts.setdefault(f"{one.name}, {one.config.split}{leaks}", []).append(one)
    return parts


def compare_all(
    groups: Sequence[Group], levels: Sequence[str] = ("track", "segment")
) -> list[Comparison]:
    """All pairs of features, all pairs of models, and each against the constant."""
    return [
        _compare(kind, level, a, b)
        for part in _by_protocol(groups).values()
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


def findings(
    groups: Sequence[Group], comparisons: Sequence[Comparison]
) -> dict[str, list[str]]:
    """What the numbers say, of whole tracks: a heading to its sentences.

    A difference is spoken of where its paired interval excludes zero.
    """
    found = {}
    for heading, part in _by_protocol(groups).items():
        about = [c for c in comparisons if c.level == "track" and c.a in part]
        found[heading] = [
            *_about_features(part, about),
            *_about_models([c for c in about if c.kind == "models"]),
            *_about_constant([c for c in about if c.kind == "constant"]),
        ]
    if comparisons:
        found["How far this goes"] = [
            f"The intervals are not corrected for the number of comparisons "
            f"({len(comparisons)}): of 20 differences that do not exist, about one "
            "is expected to look as if it did.",
            "An interval is about these trained networks and other test tracks; what "
            "another seed changes is in the deviation beside each mean.",
        ]
    return found


def _about_features(
    part: Sequence[Group], comparisons: Sequence[Comparison]
) -> Iterator[str]:
    models = list(dict.fromkeys(one.model for one in part))
    model = "cnn" if "cnn" in models else models[0]
    part = [one for one in part if one.model == model]
    best = max(part, key=lambda one: one.summaries["track"].mean)
    summary = best.summaries["track"]
    others = f" has the highest mean of {len(part)} features" if len(part) > 1 else ""
    yield (
        f"With {_spoken(model)}, {best.config.feature}{others}: "
        f"{page.percent(summary.mean)} of {summary.n:,} test tracks, 95 % interval "
        f"{page.interval(summary.interval_95)}."
    )
    pairs = [c for c in comparisons if c.kind == "features" and c.a.model == model]
    yield from (c.verdict for c in pairs if c.difference.excludes_zero)
    alike = [" and ".join(c.names) for c in pairs if not c.difference.excludes_zero]
    if alike:
        yield f"No difference shown between {'; '.join(alike)}."


def _about_models(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for c in comparisons:
        if c.difference.interval_95[0] > 0:
            yield c.verdict
            continue
        a, b = (name.removeprefix("the ") for name in c.names)
        _, shown = c.verdict.split(", ", 1)
        yield f"The {a} does not beat the {b} on {c.a.config.feature}: {shown}"


def _about_constant(comparisons: Sequence[Comparison]) -> Iterator[str]:
    above = [c for c in comparisons if c.difference.interval_95[0] > 0]
    if above:
        named = ", ".join(c.names[0] for c in above)
        shares = sorted({page.percent(c.a.majority) for c in above})
        yield f"Higher than {above[0].names[1]} ({' or '.join(shares)}): {named}."
    yield from (c.verdict for c in comparisons if c not in above)


def _missing(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> list[str]:
    """What these numbers are not, where runs are missing; [] where none is."""
    counts = _count(outcomes)
    missing = counts["failed"] + counts["not run"]
    if not missing:
        return []
    asked = collections.Counter(_line(outcome.config) for outcome in outcomes)
    fewer = sum(len(one.outcomes) < asked[_line(one.config)] for one in groups)
    return [
        f"These numbers are not of the whole grid: {missing} of {len(outcomes)} runs "
        f"are missing ({counts['failed']} failed, {counts['not run']} not run). "
        f"Rows without a number: {len(asked) - len(groups)} of {len(asked)}; rows over "
        f"fewer seeds than were asked for: {fewer}."
    ]


def _count(outcomes: Sequence["Outcome"]) -> dict[str, int]:
    states = [outcome.status for outcome in outcomes]
    return {name: states.count(name) for name in ("finished", "failed", "not run")}


def _notes(groups: Sequence[Group]) -> list[str]:
    """What the data are and what the protocols leak."""
    notes = []
    for one in {one.name: one for one in groups}.values():
        notes.append(_about_data(one))
    for one in groups:
        leaks = f"The protocol {one.config.split} leaks: {one.leaks}."
        warnings = one.outcomes[0].results["split_warnings"]
        notes += [f"{one.name}, {one.config.split}: {line}." for line in warnings]
        notes += [leaks] if one.leaks else []
    return list(dict.fromkeys(notes))


def _about_paper(groups: Sequence[Group]) -> list[str]:
    return [PAPER_NOTE] if any(one.paper is not None for one in groups) else []


def _about_data(one: Group) -> str:
    """Whether the data are the paper's, in a sentence."""
    data = one.config.dataset
    if data == "synth":
        return (
            f"{one.name} is music that this program renders itself, with known answers;"
            " it is not data of the paper and says nothing about recorded music."
        )
    if data not in PAPER_TRACKS:
        return f"{one.name} is not a data set of the paper."
    paper = PAPER_TRACKS[data]
    note = f"{one.name} is {data} as found in --data_dir; the paper had {paper:,}."
    if not one.is_papers_size:
        note += " These are other data: the paper's numbers are no yardstick for them."
    return note


# --- the tables


def _accuracy_table(groups: Sequence[Group]) -> Table:
    """Fig. 8 for readers."""
    header = ("data", "protocol", "model", "feature", "seeds", "test tracks")
    header += ("segments %", "95 % interval", "tracks %", "95 % interval")
    header += ("paper %", "most frequent %")
    rows = [
        [
            one.name,
            one.config.split + " (leaks)" * bool(one.leaks),
            one.model,
            one.config.feature,
            len(one.outcomes),
            page.count(one.summaries["track"].n),
            *_shown(one, "segment", "±"),
            *_shown(one, "track", "±"),
            _published(one),
            f"{100 * one.majority:.1f}",
        ]
        for one in groups
    ]
    return Table(header, rows)


def _shown(one: Group, level: str, sign: str) -> tuple[str, str]:
    """Mean with deviation, and interval, in percent."""
    summary = one.summaries[level]
    mean = f"{100 * summary.mean:.1f}"
    if summary.deviation is not None:
        mean += f" {sign} {100 * summary.deviation:.1f}"
    return mean, page.interval(summary.interval_95).removesuffix(" %")


def _published(one: Group) -> str:
    """The paper's percent, in brackets where it is of other data than these."""
    if one.paper is None:
        return "-"
    return (
        f"{100 * one.paper:.0f}" if one.is_papers_size else f"({100 * one.paper:.0f})"
    )


def _accuracy_values(groups: Sequence[Group]) -> Table:
    """Fig. 8 as shares."""
    header = ["data", "protocol", "leaks", "model", "feature", "seeds", "test_tracks"]
    for level in _LEVELS:
        header += [f"{level}_{x}" for x in ("mean", "deviation", "low", "high")]
    rows = []
    for one in groups:
        data, split, model, feature = _line(one.config)
        n = one.summaries["track"].n
        row = [data, split, bool(one.leaks), model, feature, len(one.outcomes), n]
        for summary in (one.summaries[level] for level in _LEVELS):
            row += [summary.mean, summary.deviation, *summary.interval_95]
        rows.append([*row, one.paper, one.majority])
    return Table([*header, "paper", "most_frequent"], rows)


def _terminal_table(title: str, part: Sequence[Group]) -> Table:
    header = ("model", "feature", "seeds", "n", "segments %", "tracks %")
    rows = []
    for one in part:
        segments, _ = _shown(one, "segment", "+-")
        mean, interval = _shown(one, "track", "+-")
        n, runs = one.summaries["track"].n, len(one.outcomes)
        paper = _published(one)
        feature = one.config.feature
        rows.append([one.model, feature, runs, n, segments, mean, interval, paper])
    return Table((*header, "95 % interval", "paper"), rows, title)


def _comparison_values(comparisons: Sequence[Comparison]) -> Table:
    header = ("data", "protocol", "level", "model_a", "feature_a", "model_b")
    header += ("feature_b", "difference", "low", "high", "excludes_zero", "tracks")
    rows = []
    for c in comparisons:
        data, split, *a = _line(c.a.config)
        _, _, *b = _line(c.b.config) if c.b else (None, None, _CONSTANT, None)
        d = c.difference
        numbers = d.difference, *d.interval_95, d.excludes_zero, d.n_tracks, d.n_shared
        rows.append([data, split, c.level, *a, *b, *numbers, c.p])
    return Table((*header, "shared_tracks", "mcnemar_p"), rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    header = ("data", "protocol", "level", "first", "second", "points")
    header += ("95 % interval", "excludes zero", "tracks (shared)", "McNemar p")
    rows, values = [], []
    for raw in _comparison_values(comparisons).rows:
        *about, model_a, feature_a, model_b, feature_b = raw[:7]
        difference, low, high, excludes, n, shared, p = raw[7:]
        text = [*about, f"{feature_a}, {model_a}"]
        text.append(f"{feature_b}, {model_b}" if feature_b else model_b)
        interval = f"{100 * low:+.1f} to {100 * high:+.1f}"
        says, tracks = "yes" if excludes else "no", f"{n:,} ({shared:,})"
        small = "<0.0001" if p < 1e-4 else f"{p:.4f}"
        rows.append([*text, f"{100 * difference:+.1f}", interval, says, tracks, small])
        values.append([*text, difference, low, says, n, p])
    return page.table(header, rows, sort_by=values, text_columns=range(5))


_RUN_HEADER = ("data", "protocol", "feature", "model", "seed", "status", "best epoch")


def _run_values(outcomes: Sequence["Outcome"]) -> Table:
    header = (*_RUN_HEADER, "segment", "track", "train_s", "command", "error", "log")
    rows = []
    for outcome in outcomes:
        of = outcome.config
        row = [dataset_key(of), of.split, of.feature, _model(of), of.seed]
        row += [outcome.status, None, None, None, None]
        if outcome.status == "finished":
            found = outcome.results
            accuracies = [found[level]["accuracy"] for level in _LEVELS]
            row[6:] = [found["best_epoch"], *accuracies, found["wall_s"]["train"]]
        rows.append([*row, config.command(of), outcome.error, outcome.log])
    return Table(header, rows)


def _run_table(outcomes: Sequence["Outcome"]) -> str:
    raw = _run_values(outcomes).rows
    rows = []
    for *about, epoch, segment, track, seconds, command, _, _ in raw:
        best = "-" if epoch is None else epoch
        accuracies = (page.percent(share) for share in (segment, track))
        time = "-" if seconds is None else f"{seconds:,.0f}"
        rows.append([*about, best, *accuracies, time, page.code(command)])
    header = (*_RUN_HEADER, "segments right", "tracks right", "training s", "command")
    values = [row[:-2] for row in raw]
    return page.table(header, rows, sort_by=values, text_columns=(*range(4), 5, 10))


# --- the page


def _page(
    outcomes: Sequence["Outcome"],
    groups: Sequence[Group],
    comparisons: Sequence[Comparison],
) -> str:
    title = "Which feature tells genres apart best?"
    accuracies = _accuracy_table(groups)
    found = findings(groups, comparisons)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    parts = [
        _headline(title, outcomes, groups),
        page.section("Findings", "".join(map(_finding, found.items()))),
        page.section(
            "Fig. 8: accuracy by data set, protocol, model and feature",
            page.table(accuracies.header, accuracies.rows, text_columns=range(4))
            + "".join(page.paragraph(line, "note") for line in _reading(groups)),
        ),
        page.section("Figures", "".join(_figures(outcomes, groups))),
        page.section("Comparisons", _comparison_table(comparisons)),
        page.section("Runs that failed", _failures(failed)),
        page.section("The runs", _run_table(outcomes)),
    ]
    script = page.SORT_SCRIPT
    return page.frame(title, "\n".join(filter(None, parts)), script, width_rem=78)


def _headline(
    title: str, outcomes: Sequence["Outcome"], groups: Sequence[Group]
) -> str:
    configs = [outcome.config for outcome in outcomes]
    ran = {
        "data": [dataset_key(of) for of in configs],
        "protocols": [of.split for of in configs],
        "models": [_model(of) for of in configs],
        "features": [of.feature for of in configs],
        "seeds": [of.seed for of in configs],
    }
    counts = _count(outcomes).items()
    rows = []
    for heading, (one, *_) in _by_protocol(groups).items():
        tracks = one.outcomes[0].results["num_tracks"]
        genres = len(one.outcomes[0].results["genres"])
        rows.append([heading, genres, *(page.count(tracks[side]) for side in SIDES)])
    header = ("tracks of", "genres", *SIDES)
    return (
        f"<h1>{page.escape(title)}</h1>"
        + page.cards([page.card(f"runs {name}", f"{n:,}") for name, n in counts])
        + "".join(page.paragraph(x, "warning") for x in _missing(outcomes, groups))
        + page.facts({name: list(dict.fromkeys(x)) for name, x in ran.items()})
        + page.table(header, rows)
        + "".join(page.paragraph(line) for line in _notes(groups))
    )


def _finding(finding: tuple[str, list[str]]) -> str:
    heading, lines = finding
    if heading.endswith("(leaks)"):
        return page.folded(heading, page.bullets(lines))
    return f"<h3>{page.escape(heading)}</h3>{page.bullets(lines)}"


def _reading(groups: Sequence[Group]) -> list[str]:
    if not groups:
        return []
    return [
        "Mean over the seeds ± sample deviation. The interval of the mean is a "
        "bootstrap over the test tracks. Most frequent: what always answering the "
        "genre with the most test tracks scores, of tracks.",
        *_about_paper(groups),
    ]


def _failures(failed: Sequence["Outcome"]) -> str:
    rows = [
        [outcome.config.run_name, outcome.error or "-", outcome.log or "-"]
        for outcome in failed
    ]
    return page.table(("run", "error", "log"), rows, "facts")


# --- the figures


def _figures(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> Iterator[str]:
    """Every figure of the paper as a block of the page, or why it is not there."""
    yield from _networks(outcomes, groups)
    for number, feature in ((2, "tempogram"), (3, "chroma"), (4, "spectrogram")):
        yield _example(f"Fig. {number}", feature, outcomes)
    shown = _default_protocol(groups)
    drawings = [
        *((k, _confusion(k, x)) for k, x in _wanted(shown, "spectrogram", _CONFUSIONS)),
        *((k, _losses(k, x)) for k, x in _wanted(shown, "tempogram", _LOSSES)),
    ]
    # The paper's own numbers first.
    drawings.sort(key=lambda drawing: (drawing[0].startswith("As"), drawing[0]))
    yield from (block for _, block in drawings)
    if shown:
        caption = "Fig. 8, drawn: accuracy by feature, and the paper's on its data"
        panels = [
            _panel(heading, part, level)
            for heading, part in _by_protocol(shown).items()
            for level in reversed(_LEVELS)
        ]
        yield _drawing(figures.accuracy_figure(panels), caption)


def _drawing(figure: Any, caption: str) -> str:
    return page.picture(figures.as_png(figure), caption)


def _default_protocol(groups: Sequence[Group]) -> list[Group]:
    """The groups of each data set's default protocol, or of the first that was run."""
    shown: dict[str, str] = {}
    for one in groups:
        default = DATASETS[one.config.dataset].default_split
        if one.config.split == default or one.name not in shown:
            shown[one.name] = one.config.split
    return [one for one in groups if one.config.split == shown[one.name]]


def _wanted(
    groups: Sequence[Group], feature: str, numbers: Mapping[str, str]
) -> Iterator[tuple[str, Group]]:
    """A network's group for each data set, with its number in the paper."""
    like = " and ".join(sorted(numbers.values()))
    for one in groups:
        if one.config.feature == feature and one.model == "cnn":
            yield numbers.get(one.config.dataset, f"As {like}"), one


def _networks(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> Iterator[str]:
    from mgr_jax.models import MODELS

    genres = {
        dataset_key(x.config): len(x.outcomes[0].results["genres"]) for x in groups
    }
    for model in MODELS:
        configs = [o.config for o in outcomes if o.config.model == model]
        if not configs:
            continue
        data = dataset_key(configs[0])
        count = genres.get(data, 10)
        drawn = {
            of.feature: network_layers(of, count)
            for of in configs
            if dataset_key(of) == data
        }
        number = "Fig. 1" if model == "cnn" else "As Fig. 1"
        caption = f"{number}. {model.upper()}, as it is fitted to each feature"
        yield _drawing(figures.network_figure(drawn), caption)
        yield page.paragraph(
            f"For the {count} genres of {data}. Blue layers learn. Each convolution is "
            "followed by batch normalisation and, after pooling, by ReLU. The paper's "
            "own drawing did not survive; these sizes are this program's.",
            "note",
        )


def network_layers(of: Config, num_genres: int) -> list[figures.Layer]:
    """The layers of a network as it is built, read while it is traced with no data.

    Args:
      of: names the model and the feature.
      num_genres: number of outputs.

    Returns:
      Input first. What is no layer of its own, such as pooling, is told by the shapes
      that differ between one layer's output and the next one's input.
    """
    import flax.linen as nn
    import jax

    from mgr_jax import models

    shape = FEATURES[of.feature].shape()
    network = models.build(of, num_genres, shape)
    layers = [figures.Layer("input", (*shape, 1))]
    nesting = []

    def watch(call, args, kwargs, context):
        module, own = context.module, context.method_name == "__call__"
        if not own or isinstance(module, type(network)) or nesting:
            return call(*args, **kwargs)
        nesting.append(module)
        output = call(*args, **kwargs)
        nesting.pop()
        learned = getattr(module, "cell", module).variables.get("params", {})
        parameters = sum(leaf.size for leaf in jax.tree.leaves(learned))
        _add_layer(layers, module, args[0].shape[1:], output.shape[1:], parameters)
        return output

    def trace(x):
        with nn.intercept_methods(watch):
            return network.init(jax.random.key(0), x, train=False)

    jax.eval_shape(trace, jax.ShapeDtypeStruct((1, *shape, 1), np.float32))
    layers[-1] = dataclasses.replace(layers[-1], name="dense, softmax")
    return layers


def _add_layer(
    layers: list[figures.Layer],
    module: Any,
    before: tuple[int, ...],
    after: tuple[int, ...],
    parameters: int,
) -> None:
    """Adds a module's call, and before it what made its input of the last output."""
    kind, last = type(module).__name__, layers[-1]
    if kind == "BatchNorm":
        total = last.parameters + parameters
        layers[-1] = dataclasses.replace(last, parameters=total)
        return
    if before != last.shape:
        between = {3: "max pool", 2: "frames in order", 1: "mean over frames"}
        windows = [a // b for a, b in zip(last.shape[:2], before[:2], strict=False)]
        window = _times(windows) if len(before) == 3 else ""
        layers.append(figures.Layer(between[len(before)], before, window))
    names = {"Conv": "convolution", "Dense": "dense", "RNN": "LSTM"}
    detail = ""
    if kind == "Conv":
        detail = _times(module.kernel_size)
        if max(module.strides) > 1:
            detail += f", step {_times(module.strides)}"
    name = names.get(kind, kind)
    layers.append(figures.Layer(name, after, detail, parameters))


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def _example(number: str, feature: str, outcomes: Sequence["Outcome"]) -> str:
    """A training segment's feature, of the first data set whose shards are there."""
    configs = [o.config for o in outcomes if o.config.feature == feature]
    caption = f"{number}. {feature.capitalize()} of one training segment"
    reason = f"no run has --feature={feature}"
    firsts: dict[str, Config] = {}
    for of in configs:
        firsts.setdefault(dataset_key(of), of)
    for of in firsts.values():
        try:
            examples = _training_examples(of)
        except (UserError, OSError) as error:
            reason = str(error)
            continue
        genre = next((g for g in examples if g.lower() == "blues"), min(examples))
        one = {genre: examples[genre]}
        figure = figures.examples_figure(one, FEATURES[feature], title=feature)
        return _drawing(figure, f"{caption}: {genre}, {dataset_key(of)}")
    return page.paragraph(f"{caption} is not shown: {reason}.", "note")


def _training_examples(of: Config) -> dict[str, np.ndarray]:
    from mgr_jax import input_pipeline, train

    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(of))
    assignment = train.assignment_for(of, prepared)
    side = input_pipeline.load_side(prepared, assignment, "train")
    return input_pipeline.example_per_genre(side, prepared.genres)


def _confusion(number: str, one: Group) -> str:
    results = [outcome.results for outcome in one.outcomes]
    counts = sum(np.array(found["segment"]["confusion"]) for found in results)
    seeds = f"{len(results)} seeds" if len(results) > 1 else f"seed {one.config.seed}"
    mean = page.percent(one.summaries["segment"].mean)
    figure = figures.confusion_figure(
        counts, results[0]["genres"], f"Test segments, {seeds} together: {mean} right"
    )
    return _drawing(
        figure,
        f"{number}. Confusion matrix of spectrogram on {one.name}, {one.config.split}",
    )


def _losses(number: str, one: Group) -> str:
    of = one.config
    about = f"{number}. Loss of tempogram on {one.name}, {of.split}, seed {of.seed}"
    try:
        figure = figures.curves_figure(one.outcomes[0].history)
    except (OSError, ValueError) as error:
        return page.paragraph(f"{about} is not shown: {error}.", "note")
    return _drawing(figure, about)


def _panel(heading: str, part: Sequence[Group], level: str) -> figures.Panel:
    bars = []
    for one in part:
        summary = one.summaries[level]
        point = one.config.feature, one.model, summary.mean, summary.interval_95
        bars.append(figures.Bar(*point))
    published = {x.config.feature: x.paper for x in part if x.paper is not None}
    constant = part[0].majority if level == "track" else None
    title = f"{heading}: {_LEVELS[level]}"
    return figures.Panel(title, bars, published, constant)
