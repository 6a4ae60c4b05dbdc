"""The paper's results, remade from a grid of runs: one page, one table, three CSVs.

The outcomes of a grid enter (a run each: finished, failed or not run); report.html,
table.md, table.csv, comparisons.csv and runs.csv leave, and a text for the terminal.
The numbers and the sentences are findings', the pictures paper_figures'. paper calls
it.
"""

import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments import findings, paper_figures
from experiments import groups as groups_lib
from experiments.groups import CONSTANT, LEVELS, Comparison, Group
from mgr_jax import config, page, tables
from mgr_jax.datasets import dataset_key
from mgr_jax.splits import SIDES
from mgr_jax.tables import Table

if TYPE_CHECKING:
    from experiments.grid import Outcome


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
    outcomes = groups_lib.in_order(outcomes)
    groups = groups_lib.group(outcomes)
    comparisons = groups_lib.compare_all(groups)
    html = _page(outcomes, groups, comparisons)
    paths = [out / "report.html", out / "table.md"]
    paths[0].write_text(html, encoding="utf-8", errors="replace")
    notes = [
        *_reading(groups),
        *findings.about_data(groups),
        *findings.about_missing(outcomes, groups),
    ]
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
    outcomes = groups_lib.in_order(outcomes)
    groups = groups_lib.group(outcomes)
    parts = [
        tables.as_text(_terminal_table(name, part))
        for name, part in groups_lib.by_protocol(groups).items()
    ]
    shown = groups_lib.default_protocol(groups)
    for heading, lines in findings.findings(
        shown, groups_lib.compare_all(shown, ["track"])
    ).items():
        wrapped = (textwrap.fill(x, 80, subsequent_indent="  ") for x in lines)
        parts.append("\n".join([heading, *wrapped]))
    closing = [
        *findings.about_paper(groups),
        *findings.about_data(groups),
        *findings.about_missing(outcomes, groups),
    ]
    parts += [textwrap.fill(line, 80, subsequent_indent="  ") for line in closing]
    return "\n\n".join(parts)


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


def _accuracy_tables(groups: Sequence[Group]) -> str:
    """Fig. 8 for the page: a table a protocol, first what a small screen shows."""
    header = ("feature, model", "tracks %", "95 % interval", "segments %")
    header += ("95 % interval", "paper %", "seeds", "test tracks")
    parts = []
    for name, part in groups_lib.by_protocol(groups).items():
        rows = [
            [
                f"{one.config.feature}, {one.model}",
                *_shown(one, "track", "±"),
                *_shown(one, "segment", "±"),
                _published(one),
                len(one.outcomes),
                page.count(one.summaries["track"].n),
            ]
            for one in part
        ]
        # The runs of a protocol test the same tracks, but for those that failed.
        rows.append([CONSTANT, f"{100 * part[0].majority:.1f}", *["-"] * 6])
        parts.append(f"<h3>{page.escape(name)}</h3>{page.table(header, rows)}")
    return "".join(parts)


def _shown(one: Group, level: str, sign: str) -> tuple[str, str]:
    """Mean with deviation, and interval, in percent."""
    summary = one.summaries[level]
    return summary.spread(sign), page.interval(summary.interval_95).removesuffix(" %")


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
    for level in LEVELS:
        header += [f"{level}_{x}" for x in ("mean", "deviation", "low", "high")]
    rows = []
    for one in groups:
        data, split, model, feature = groups_lib.line_of(one.config)
        n = one.summaries["track"].n
        row = [data, split, bool(one.leaks), model, feature, len(one.outcomes), n]
        for summary in (one.summaries[level] for level in LEVELS):
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
        data, split, *a = groups_lib.line_of(c.a.config)
        _, _, *b = (
            groups_lib.line_of(c.b.config) if c.b else (None, None, CONSTANT, None)
        )
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
        row = [
            dataset_key(of),
            of.split,
            of.feature,
            groups_lib.model_name(of),
            of.seed,
        ]
        row += [outcome.status, None, None, None, None]
        if outcome.status == "finished":
            found = outcome.results
            accuracies = [found[level]["accuracy"] for level in LEVELS]
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
    found = findings.findings(groups, comparisons)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    parts = [
        _headline(title, outcomes, groups),
        page.section("Findings", "".join(map(_finding, found.items()))),
        page.section(
            "Fig. 8: accuracy by data set, protocol, model and feature",
            _accuracy_tables(groups)
            + "".join(page.paragraph(line, "note") for line in _reading(groups)),
        ),
        page.section("Figures", "".join(paper_figures.blocks(outcomes, groups))),
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
        "models": [groups_lib.model_name(of) for of in configs],
        "features": [of.feature for of in configs],
        "seeds": [of.seed for of in configs],
    }
    counts = findings.by_status(outcomes).items()
    rows = []
    for heading, (one, *_) in groups_lib.by_protocol(groups).items():
        tracks = one.outcomes[0].results["num_tracks"]
        genres = len(one.outcomes[0].results["genres"])
        rows.append([heading, genres, *(page.count(tracks[side]) for side in SIDES)])
    header = ("tracks of", "genres", *SIDES)
    return (
        f"<h1>{page.escape(title)}</h1>"
        + page.cards([page.card(f"runs {name}", f"{n:,}") for name, n in counts])
        + "".join(
            page.paragraph(x, "warning")
            for x in findings.about_missing(outcomes, groups)
        )
        + page.facts({name: list(dict.fromkeys(x)) for name, x in ran.items()})
        + page.table(header, rows)
        + "".join(page.paragraph(line) for line in findings.about_data(groups))
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
        *findings.about_paper(groups),
    ]


def _failures(failed: Sequence["Outcome"]) -> str:
    rows = [
        [outcome.config.run_name, outcome.error or "-", outcome.log or "-"]
        for outcome in failed
    ]
    return page.table(("run", "error", "log"), rows, "facts")
