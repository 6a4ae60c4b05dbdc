"""Results to what a person reads: one HTML page, and the terminal's last lines.

The results dict of a run, the rows of its metrics.jsonl and its figures enter;
report.html and a short text leave. evaluate calls it. Nothing here computes a score:
every number is in results.json too.
"""

import base64
import html
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mgr_jax.figures import DPI

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
        _section("Scores on the test set", _score_table(results)),
        *(_picture(pathlib.Path(path)) for path in figures),
        *(_genre_section(results, level) for level in _LEVELS),
        _section("The run", _facts(_run_facts(results, history)) + _sides(results)),
        _section("Command", _command(results)),
        _folded("Settings", _facts(results.get("config", {}))),
        _folded("Versions", _facts(results.get("versions", {}))),
    ]
    page = _PAGE.format(title=_escape(title), style=_STYLE, body="\n".join(parts))
    path = pathlib.Path(workdir) / "report.html"
    # A file name need not be UTF-8; the page must be.
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def _headline(title: str, results: Mapping[str, Any]) -> str:
    cards = []
    for level, noun in _LEVELS.items():
        scores = results.get(level, {})
        cards.append(
            f'<div class="card"><div>test {noun} right</div>'
            f"<strong>{_percent(scores.get('accuracy'))}</strong>"
            f"<div>95 % interval {_interval(scores)}</div>"
            f"<div>n = {_count(scores.get('n'))}</div></div>"
        )
    if results.get("majority_accuracy") is not None:
        cards.append(
            '<div class="card"><div>most frequent genre alone</div>'
            f"<strong>{_percent(results['majority_accuracy'])}</strong>"
            "<div>what a constant answer scores</div></div>"
        )
    about = f"model {results.get('model', '?')}, seed {results.get('seed', '?')}, "
    protocol = _escape(results.get("protocol", "?"))
    about = f"<p>Split protocol <b>{protocol}</b>, {_escape(about)}"
    about += f"{len(results.get('genres', []))} genres.</p>"
    leaks = results.get("protocol_leaks")
    leaks = f"This protocol leaks: {leaks}" if leaks else ""
    warnings = [leaks, *results.get("split_warnings", [])]
    notes = [f'<p class="warning">{_escape(line)}</p>' for line in warnings if line]
    return (
        f"<h1>{_escape(title)}</h1>{about}{''.join(notes)}"
        f'<div class="cards">{"".join(cards)}</div>'
    )


def _picture(path: pathlib.Path) -> str:
    caption = _escape(_CAPTIONS.get(path.stem, path.stem))
    png = path.read_bytes()
    # The header's width, at the size in which the figure's 10 pt are 10 pt.
    width_px = round(int.from_bytes(png[16:20], "big") * 96 / DPI)
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="scroll">'
        f'<img alt="{caption}" style="--width:{width_px}px" '
        f'src="data:image/png;base64,{data}"></div></figure>'
    )


def _score_table(results: Mapping[str, Any]) -> str:
    levels = [results.get(level, {}) for level in _LEVELS]
    rows = [
        ["Examples", *(_count(scores.get("n")) for scores in levels)],
        ["Accuracy", *(_percent(scores.get("accuracy")) for scores in levels)],
        ["95 % interval", *(_interval(scores) for scores in levels)],
        ["Among the first 3", *(_percent(scores.get("top_3")) for scores in levels)],
    ]
    for name, key in (
        ("Macro F1", "macro_f1"),
        ("Cross entropy (nats)", "cross_entropy"),
        ("Expected calibration error", "expected_calibration_error"),
    ):
        rows.append([name, *(_decimal(scores.get(key)) for scores in levels)])
    methods = [
        f"of {noun} by {scores['interval_method']}"
        for noun, scores in zip(_LEVELS.values(), levels, strict=True)
        if "interval_method" in scores
    ]
    note = f'<p class="note">Intervals {_escape("; ".join(methods))}.</p>'
    return _table(["", *_LEVELS.values()], rows) + (note if methods else "")


def _genre_section(results: Mapping[str, Any], level: str) -> str:
    per_genre = results.get(level, {}).get("per_genre", {})
    rows = [
        [
            genre,
            _count(row["n"]),
            _percent(row["precision"]),
            _percent(row["recall"]),
            _decimal(row["f1"]),
        ]
        for genre, row in per_genre.items()
    ]
    table = _table(["genre", "n", "precision", "recall", "F1"], rows)
    heading = f"Genre by genre: {_LEVELS[level]}"
    return _section(heading, table) if level == "track" else _folded(heading, table)


def _run_facts(
    results: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    best, run = results.get("best_epoch", "-"), results.get("epochs_run", len(history))
    facts = {
        "best epoch": f"{best} of {run}, chosen by validation",
        "parameters": _count(results.get("parameters")),
    }
    if "device" in results:
        facts["device"] = results["device"]
    for name, seconds in results.get("wall_s", {}).items():
        facts[f"time: {name}"] = _duration(seconds)
    return facts


def _sides(results: Mapping[str, Any]) -> str:
    tracks, segments = results.get("num_tracks", {}), results.get("num_segments", {})
    rows = [
        [side, _count(tracks.get(side)), _count(segments.get(side))]
        for side in dict.fromkeys([*tracks, *segments])
    ]
    return _table(["side", "tracks", "segments"], rows)


def _command(results: Mapping[str, Any]) -> str:
    command = results.get("command")
    return f"<pre>{_escape(command)}</pre>" if command else ""


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{_escape(heading)}</h2>{body}</section>" if body else ""


def _folded(heading: str, body: str) -> str:
    if not body:
        return ""
    return f"<details><summary>{_escape(heading)}</summary>{body}</details>"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value]
        for name, value in facts.items()
    ]
    return _table([], rows, "facts")


def _table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "numbers"
) -> str:
    """A table of escaped cells, the first of each row its heading; "" without rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{_escape(first)}</th>'
        + "".join(f"<td>{_escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody>'
        "</table></div>"
    )


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
        numbers = _percent(accuracy), _interval(scores), _decimal(macro_f1)
        lines.append(row(noun, _count(scores.get("n")), *numbers))
    best, run = results.get("best_epoch", "-"), results.get("epochs_run", "-")
    constant = _percent(results.get("majority_accuracy"))
    lines.append(f"best epoch {best} of {run}; most frequent genre alone: {constant}")
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


def _escape(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(scores: Mapping[str, Any]) -> str:
    if not scores.get("interval_95"):
        return "-"
    low, high = scores["interval_95"]
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


_STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c1e21;--soft:#5c6370;--line:#d9dde3;
--card:#f4f6f8;--warn:#fff3cd;--warn-ink:#664d03}
@media (prefers-color-scheme:dark){:root{--page:#15181c;--ink:#e6e8eb;--soft:#a0a7b3;
--line:#343a42;--card:#1f242a;--warn:#3d3214;--warn-ink:#ffe08a}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}
h2,summary,figcaption{font-size:1.15rem;font-weight:600;margin:1.8rem 0 .6rem}
summary{cursor:pointer}
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.card{flex:1 1 15rem;padding:.8rem 1rem;border-radius:.5rem;background:var(--card);
color:var(--soft)}
.card strong{display:block;font-size:2.1rem;line-height:1.2;color:var(--ink)}
.warning{padding:.6rem .9rem;border-radius:.5rem;background:var(--warn);
color:var(--warn-ink)}
figure{margin:0}
.scroll{overflow-x:auto}
img{display:block;width:var(--width);max-width:max(100%,.65*var(--width));
height:auto;background:#fff;border-radius:.5rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin-bottom:1rem}
th,td{padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);
text-align:left;font-weight:400;vertical-align:top}
thead th{color:var(--soft)}
.numbers td,.numbers thead th+th{text-align:right;padding:.3rem 0 .3rem 1.2rem;
white-space:nowrap}
.note{color:var(--soft);font-size:.9rem;margin-top:0}
@media (max-width:40rem){.numbers{font-size:.85rem;overflow-wrap:normal}
.numbers td,.numbers thead th+th{padding-left:.8rem}}
.facts th{color:var(--soft);white-space:nowrap}
pre{overflow-x:auto;padding:.8rem 1rem;border-radius:.5rem;background:var(--card)}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
