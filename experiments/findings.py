"""What a grid of runs found, in sentences, each no stronger than its paired interval.

Groups of runs and their comparisons enter; plain sentences leave: what is higher than
what, what the data are, what leaks and what is missing. paper_report calls it.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from experiments.groups import (
    PAPER_TRACKS,
    Comparison,
    Group,
    by_protocol,
    line_of,
    spoken,
)
from mgr_jax import page

if TYPE_CHECKING:
    from experiments.grid import Outcome

PAPER_NOTE = (
    "Paper: its Fig. 8, one number a feature, under a split protocol that it does not "
    "state; in brackets where it is of other data than the row. Its text gives FMA a "
    "maximum of 40 %, its Fig. 8 gives 43 %."
)


def findings(
    groups: Sequence[Group], comparisons: Sequence[Comparison]
) -> dict[str, list[str]]:
    """What the numbers say, of whole tracks: a heading to its sentences.

    A difference is spoken of where its paired interval excludes zero.
    """
    found = {}
    for heading, part in by_protocol(groups).items():
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
        f"With {spoken(model)}, {best.config.feature}{others}: "
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


def about_missing(outcomes: Sequence["Outcome"], groups: Sequence[Group]) -> list[str]:
    """What these numbers are not, where runs are missing; [] where none is."""
    counts = by_status(outcomes)
    missing = counts["failed"] + counts["not run"]
    if not missing:
        return []
    asked = collections.Counter(line_of(outcome.config) for outcome in outcomes)
    fewer = sum(len(one.outcomes) < asked[line_of(one.config)] for one in groups)
    return [
        f"These numbers are not of the whole grid: {missing} of {len(outcomes)} runs "
        f"are missing ({counts['failed']} failed, {counts['not run']} not run). "
        f"Rows without a number: {len(asked) - len(groups)} of {len(asked)}; rows over "
        f"fewer seeds than were asked for: {fewer}."
    ]


def by_status(outcomes: Sequence["Outcome"]) -> dict[str, int]:
    """How many runs are finished, failed and not run."""
    states = [outcome.status for outcome in outcomes]
    return {name: states.count(name) for name in ("finished", "failed", "not run")}


def about_data(groups: Sequence[Group]) -> list[str]:
    """What the data are and what the protocols leak."""
    notes = []
    for one in {one.name: one for one in groups}.values():
        notes.append(_about_one(one))
    for one in groups:
        leaks = f"The protocol {one.config.split} leaks: {one.leaks}."
        warnings = one.outcomes[0].results["split_warnings"]
        notes += [f"{one.name}, {one.config.split}: {line}." for line in warnings]
        notes += [leaks] if one.leaks else []
    return list(dict.fromkeys(notes))


def about_paper(groups: Sequence[Group]) -> list[str]:
    """What to know of the paper's numbers; [] where none is beside the groups'."""
    return [PAPER_NOTE] if any(one.paper is not None for one in groups) else []


def _about_one(one: Group) -> str:
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
