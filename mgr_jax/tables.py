"""One table, in the forms in which it leaves the program: terminal, Markdown, CSV.

Rows of cells enter, text leaves. The experiments call it; page has the HTML form.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

_GAP = "  "
_NUMBER = re.compile(r"[-+]?\d|-$")


@dataclasses.dataclass(frozen=True)
class Table:
    """A header and rows of as many cells.

    Attributes:
      header: a name a column.
      rows: cells, shown as their `str`. For a reader they are formatted already; for
        `as_csv` they are the raw values.
      title: a line above the table; "" for none.

    Raises:
      ValueError: a row is longer or shorter than the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{len(row)} cells in a row of {len(self.header)}")


def as_text(table: Table) -> str:
    """A table for a terminal: columns aligned, nothing but ASCII added to the cells.

    A column whose cells all begin as numbers do (or are "-") stands to the right.

    Returns:
      Lines without trailing space.
    """
    lines = [[_one_line(cell) for cell in row] for row in (table.header, *table.rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [_is_number(column[1:]) for column in columns]
    lines.insert(1, ["-" * width for width in widths])
    text = [
        _GAP.join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *text] if table.title else text)


def as_markdown(table: Table) -> str:
    """A table in GitHub's Markdown; the pipes of its cells are escaped."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.header)
    marks = ["---:" if _is_number(column) else "---" for column in columns]
    lines = [
        "| " + " | ".join(cells) + " |"
        for cells in (
            map(_marked, table.header),
            marks,
            *(map(_marked, row) for row in table.rows),
        )
    ]
    title = [_one_line(table.title), ""] if table.title else []
    return "\n".join([*title, *lines]) + "\n"


def as_csv(table: Table, path: str | pathlib.Path) -> pathlib.Path:
    """Writes the values as they are: numbers in all their digits, None as nothing.

    Args:
      table: its title is not written.
      path: the file to write.

    Returns:
      The path.
    """
    path = pathlib.Path(path)
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([table.header, *table.rows])
    return path


def _one_line(cell: Any) -> str:
    return " ".join(str(cell).split())


def _marked(cell: Any) -> str:
    return _one_line(cell).replace("\\", "\\\\").replace("|", "\\|")


def _is_number(column: Sequence[Any]) -> bool:
    return all(_NUMBER.match(_one_line(cell)) for cell in column)
