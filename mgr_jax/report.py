"""Results to what a person reads: one HTML page, and the terminal's last lines.

The results dict of a run, the rows of its metrics.jsonl and its figures enter;
report.html and a short text leave. evaluate calls it. Nothing here computes a score:
every number is in results.json too, and page knows how a page is made.
"""

import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mgr_jax import page

_LEVELS = {"track": "tracks", "segment": "segments"}
_CAPTIONS = {
    "curves": "Loss and accuracy after each epoch",
    "confusion_track": "Test tracks: true genre against predicted",
    "confusion_segment": "Test segments: true genre against predicted",
    "examples": "What the network sees: one segment per genre",
}


def write_html(
    workdir: str | pathlib.Path,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    figures: Sequence[str | pathlib.Path],
) -> pathlib.Path:
    """Writes workdir/report.html: one page that needs no other file and no network.

    Args:
      workdir: the run's folder.
      results: as in results.json; what is missing is left out.
      history: rows of metrics.jsonl.
      figures: the PNG files of `write_figures`, which go into the page.

    Returns:
      The page's path.
    """
    title = f"{results.get('feature', '?')} on {results.get('dataset', '?')}"
    parts = [
        _headline(title, results),
        page.section("Scores on the test set", _score_table(results)),
        *(_picture(pathlib.Path(path)) for path in figures),
        *(_genre_section(results, level) for level in _LEVELS),
        page.section(
            "The run", page.facts(_run_facts(results, history)) + _sides(results)
        ),
        page.section("Command", _command(results)),
        page.folded("Settings", page.facts(results.get("config", {}))),
        page.folded("Versions", page.facts(results.get("versions", {}))),
    ]
    path = pathlib.Path(workdir) / "report.html"
    # A file name need not be UTF-8; the page must be.
    text = page.frame(title, "\n".join(parts))
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def _headline(title: str, results: Mapping[str, Any]) -> str:
    cards = []
    for level, noun in _LEVELS.items():
        scores = results.get(level, {})
        cards.append(
            page.card(
                f"test {noun} right",
                page.percent(scores.get("accuracy")),
                f"95 % interval {page.interval(scores.get('interval_95'))}",
                f"n = {page.count(scores.get('n'))}",
            )
        )
    if results.get("majority_accuracy") is not None:
        majority = page.percent(results["majority_accuracy"])
        below = "what a constant answer scores"
        cards.append(page.card("most frequent genre alone", majority, below))
    protocol = page.escape(results.get("protocol", "?"))
    about = f"model {results.get('model', '?')}, seed {results.get('seed', '?')}, "
    about += f"{len(results.get('genres', []))} genres."
    leaks = results.get("protocol_leaks")
    leaks = f"This protocol leaks: {leaks}" if leaks else ""
    warnings = [leaks, *results.get("split_warnings", [])]
    return (
        f"<h1>{page.escape(title)}</h1>"
        f"<p>Split protocol <b>{protocol}</b>, {page.escape(about)}</p>"
        + "".join(page.paragraph(line, "warning") for line in warnings if line)
        + page.cards(cards)
    )


def _picture(path: pathlib.Path) -> str:
    return page.picture(path.read_bytes(), _CAPTIONS.get(path.stem, path.stem))


def _score_table(results: Mapping[str, Any]) -> str:
    levels = [results.get(level, {}) for level in _LEVELS]
    rows = [
        [name, *(shown(scores.get(key)) for scores in levels)]
        for name, key, shown in (
            ("Examples", "n", page.count),
            ("Accuracy", "accuracy", page.percent),
            ("95 % interval", "interval_95", page.interval),
            ("Among the first 3", "top_3", page.percent),
            ("Macro F1", "macro_f1", page.decimal),
            ("Cross entropy (nats)", "cross_entropy", page.decimal),
            ("Expected calibration error", "expected_calibration_error", page.decimal),
        )
    ]
    methods = [
        f"of {noun} by {scores['interval_method']}"
        for noun, scores in zip(_LEVELS.values(), levels, strict=True)
        if "interval_method" in scores
    ]
    note = page.paragraph(f"Intervals {'; '.join(methods)}.", "note")
    return page.table(["", *_LEVELS.values()], rows) + (note if methods else "")


def _genre_section(results: Mapping[str, Any], level: str) -> str:
    per_genre = results.get(level, {}).get("per_genre", {})
    rows = [
        [
            genre,
            page.count(row["n"]),
            page.percent(row["precision"]),
            page.percent(row["recall"]),
            page.decimal(row["f1"]),
        ]
        for genre, row in per_genre.items()
    ]
    table = page.table(["genre", "n", "precision", "recall", "F1"], rows)
    heading = f"Genre by genre: {_LEVELS[level]}"
    block = page.section if level == "track" else page.folded
    return block(heading, table)


def _run_facts(
    results: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    best, run = results.get("best_epoch", "-"), results.get("epochs_run", len(history))
    # A baseline has no epochs.
    epochs = {"best epoch": f"{best} of {run}, chosen by validation"}
    facts = (epochs if best is not None else {}) | {
        "parameters": page.count(results.get("parameters")),
    }
    if "device" in results:
        facts["device"] = results["device"]
    for name, seconds in results.get("wall_s", {}).items():
        facts[f"time: {name}"] = page.duration(seconds)
    return facts


def _sides(results: Mapping[str, Any]) -> str:
    tracks, segments = results.get("num_tracks", {}), results.get("num_segments", {})
    rows = [
        [side, page.count(tracks.get(side)), page.count(segments.get(side))]
        for side in dict.fromkeys([*tracks, *segments])
    ]
    return page.table(["side", "tracks", "segments"], rows)


def _command(results: Mapping[str, Any]) -> str:
    command = results.get("command")
    return f"<pre>{page.escape(command)}</pre>" if command else ""


def summary_table(
    results: Mapping[str, Any], paths: Sequence[str | pathlib.Path]
) -> str:
    """The last lines of a run, for a terminal: plain ASCII but for what paths hold.

    Args:
      results: as in results.json; what is missing shows as "-".
      paths: files that were written, in the order to print; of pictures, the folder.

    Returns:
      Lines of at most 80 columns; a path that is longer stays whole, since a cut one
      cannot be opened.
    """
    names = ("dataset", "feature", "model", "protocol", "seed")
    about = ", ".join(f"{name} {results.get(name, '-')}" for name in names)
    lines = textwrap.wrap(about, 80, max_lines=2, placeholder=" ...")
    if results.get("protocol_leaks"):
        leak = f"this protocol leaks: {results['protocol_leaks']}"
        lines += textwrap.wrap(leak, 80, max_lines=2, placeholder=" ...")
    row = "{:<10}{:>8}{:>11}{:>18}{:>10}".format
    lines.append(row("test", "n", "accuracy", "95 % interval", "macro F1"))
    for level, noun in _LEVELS.items():
        scores = results.get(level, {})
        accuracy, macro_f1 = scores.get("accuracy"), scores.get("macro_f1")
        numbers = (
            page.percent(accuracy),
            page.interval(scores.get("interval_95")),
            page.decimal(macro_f1),
        )
        lines.append(row(noun, page.count(scores.get("n")), *numbers))
    best, run = results.get("best_epoch", "-"), results.get("epochs_run", "-")
    constant = page.percent(results.get("majority_accuracy"))
    epochs = f"best epoch {best} of {run}; " if best is not None else ""
    lines.append(f"{epochs}most frequent genre alone: {constant}")
    for path in map(pathlib.Path, paths):
        line = f"  {_near(path.parent if path.suffix == '.png' else path)}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _near(path: str | pathlib.Path) -> str:
    """The shorter of the path from here and the absolute one, in printable UTF-8."""
    try:
        text = min(os.path.relpath(path), os.path.abspath(path), key=len)
    except ValueError:  # another drive
        text = str(path)
    return text.encode("utf-8", "replace").decode("utf-8")
