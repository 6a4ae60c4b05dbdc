"""Predictions in the forms in which they leave the program, for people and programs.

A path and its prediction, or why there is none, enter; lines of text leave, as each
file is finished. predict calls it.
"""

import csv
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mgr_jax.audio import SEGMENT_S, AudioError
from mgr_jax.config import as_text, shown

if TYPE_CHECKING:
    from mgr_jax.predict import Prediction

# (path, what was found) to lines.
Format = Callable[[pathlib.Path, "Prediction | AudioError"], Iterator[str]]


def as_table(labels: Sequence[str], top: int, timeline: bool) -> Format:
    """A line a file: its likeliest genres, and its name; a line a window below it.

    Args:
      labels: the genres, for the columns to be wide enough.
      top: how many genres to show.
      timeline: whether windows are shown.
    """
    width = max(map(len, labels))

    def cells(ranked: Sequence[tuple[str, float]]) -> str:
        return "  ".join(f"{k:<{width}} {100 * p:5.1f} %" for k, p in ranked[:top])

    def lines(path: pathlib.Path, found: "Prediction | AudioError") -> Iterator[str]:
        if isinstance(found, AudioError):
            return
        note = f"  ({found.note})" if found.note else ""
        yield f"{cells(found.ranked)}  {shown(path)}{note}"
        if timeline:
            for start_s, ranked in found.windows:
                minutes, seconds = divmod(start_s, 60)
                yield f"  {int(minutes):3d}:{seconds:04.1f}  {cells(ranked)}"

    return lines


def as_json(labels: Sequence[str], top: int, timeline: bool) -> Format:
    """A JSON object a line, a line a file; one that cannot be read has an "error"."""

    def lines(path: pathlib.Path, found: "Prediction | AudioError") -> Iterator[str]:
        answer: dict = {"file": as_text(path)}
        if isinstance(found, AudioError):
            yield json.dumps(answer | {"error": str(found)}, ensure_ascii=False)
            return
        answer |= {
            "genre": found.ranked[0][0],
            "probabilities": _rounded(found.ranked),
            "duration_s": round(found.duration_s, 3),
            "note": found.note,
        }
        if timeline:
            answer["timeline"] = [
                {
                    "start_s": round(start_s, 3),
                    "end_s": round(min(start_s + SEGMENT_S, found.duration_s), 3),
                    "probabilities": _rounded(ranked),
                }
                for start_s, ranked in found.windows
            ]
        yield json.dumps(answer, ensure_ascii=False)

    return lines


def as_csv(labels: Sequence[str], top: int, timeline: bool) -> Format:
    """A row a file, or a row a window; a column a genre; a header before the first."""
    header = ["file", "start_s", "duration_s", "genre", *labels, "note", "error"]
    begun = False

    def lines(path: pathlib.Path, found: "Prediction | AudioError") -> Iterator[str]:
        nonlocal begun
        if not begun:
            begun = True
            yield _row(header)
        name = as_text(path)
        if isinstance(found, AudioError):
            yield _row([name, *[""] * (len(header) - 2), str(found)])
            return
        rows = found.windows if timeline else [("", found.ranked)]
        for start_s, ranked in rows:
            shares = dict(ranked)
            yield _row(
                [
                    name,
                    start_s if start_s == "" else round(start_s, 3),
                    round(found.duration_s, 3),
                    ranked[0][0],
                    *(f"{shares[label]:.6f}" for label in labels),
                    found.note,
                    "",
                ]
            )

    return lines


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv}


def _rounded(ranked: Sequence[tuple[str, float]]) -> dict[str, float]:
    return {label: round(share, 6) for label, share in ranked}


def _row(cells: Sequence[object]) -> str:
    line = io.StringIO()
    # A name may hold a line break: the writer quotes what holds its own line end.
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().removesuffix("\n")
