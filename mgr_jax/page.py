"""Building blocks of a page: one HTML file that needs no other file and no network.

Texts, numbers and PNG bytes enter; pieces of HTML leave, and `frame` makes a page of
them. All text is escaped here. report and the experiments' pages are built of it.
"""

import base64
import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mgr_jax.figures import DPI

_LEAST_SCALE = 0.55  # of a figure, as the style has it; smaller, it could not be read
_PHONE_PX = 350


class Markup(str):
    """Text that is HTML already: `escape` leaves it as it is."""


def frame(title: str, body: str, script: str = "", width_rem: int = 62) -> str:
    """A whole page.

    Args:
      title: of the window; escaped here.
      body: HTML of the blocks below.
      script: JavaScript that may run, such as `SORT_SCRIPT`. Without one the page's
        policy lets no script run at all.
      width_rem: widest that the page gets, in the font's size.

    Returns:
      The page's text.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        policy += "; script-src 'unsafe-inline'"
        script = f"<script>{script}</script>\n"
    style = _STYLE.replace("62rem", f"{width_rem}rem", 1)
    return _PAGE.format(
        title=escape(title), policy=policy, style=style, body=body, script=script
    )


def section(heading: str, body: str) -> str:
    """A heading and what belongs to it; "" where there is nothing."""
    return f"<section><h2>{escape(heading)}</h2>{body}</section>" if body else ""


def folded(heading: str, body: str) -> str:
    """As `section`, closed until it is clicked."""
    if not body:
        return ""
    return f"<details><summary>{escape(heading)}</summary>{body}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of escaped text; kind "warning" or "note" sets its look."""
    kind = f' class="{kind}"' if kind else ""
    return f"<p{kind}>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list of escaped lines; "" without any."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def card(above: str, number: str, *below: str) -> str:
    """A number that is seen first, with a line above and lines below it."""
    lines = "".join(f"<div>{escape(line)}</div>" for line in below)
    return (
        f'<div class="card"><div>{escape(above)}</div>'
        f"<strong>{escape(number)}</strong>{lines}</div>"
    )


def cards(blocks: Sequence[str]) -> str:
    """Cards side by side, as many as fit."""
    return f'<div class="cards">{"".join(blocks)}</div>'


def picture(png: bytes, caption: str) -> str:
    """A figure inside the page.

    Args:
      png: the file's bytes, drawn at `figures.DPI`.
      caption: stands above it, and for it where pictures are not seen.
    """
    caption = escape(caption)
    # The header's width, at the size in which the figure's 10 pt are 10 pt.
    width_px = round(int.from_bytes(png[16:20], "big") * 96 / DPI)
    data = base64.b64encode(png).decode("ascii")
    wide = ' class="wide"' if _LEAST_SCALE * width_px > _PHONE_PX else ""
    return (
        f'<figure{wide}><figcaption>{caption}</figcaption><div class="scroll">'
        f'<img alt="{caption}" style="--width:{width_px}px" '
        f'src="data:image/png;base64,{data}"></div></figure>'
    )


def facts(pairs: Mapping[str, Any]) -> str:
    """Names and values, a row each; a list's items stand between commas."""
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value]
        for name, value in pairs.items()
    ]
    return table([], rows, "facts")


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    kind: str = "numbers",
    *,
    sort_by: Sequence[Sequence[Any]] | None = None,
    text_columns: Collection[int] = (0,),
) -> str:
    """A table in a box of its own that scrolls where the window is narrow.

    Args:
      header: a name a column; empty for none.
      rows: cells, which are escaped (but for `Markup`); the first of a row heads it.
      kind: "numbers" has its cells to the right, "facts" to the left.
      sort_by: the values behind the cells, in the same shape. Where given, a click or
        Enter on a header sorts by them, numbers as numbers; None goes last. The page
        then needs `SORT_SCRIPT`.
      text_columns: places of the columns that stand to the left all the same; a table
        with more than one is set small, and its text is not broken.

    Returns:
      HTML; "" without rows.
    """
    if not rows:
        return ""
    body = ""
    for k, row in enumerate(rows):
        values = sort_by[k] if sort_by else None
        cells = (
            _cell(column, cell, values, _side(column, text_columns))
            for column, cell in enumerate(row)
        )
        body += f"<tr>{''.join(cells)}</tr>"
    head = "".join(
        f'<th scope="col"{_side(column, text_columns)}>{escape(cell)}</th>'
        for column, cell in enumerate(header)
    )
    head = f"<thead><tr>{head}</tr></thead>" if header else ""
    kind += " wide" if len(text_columns) > 1 else ""
    kind += " sortable" if sort_by else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody>'
        "</table></div>"
    )


def _side(column: int, text_columns: Collection[int]) -> str:
    """The attribute of a column of text; the first stands to the left without it."""
    return ' class="text"' if column and column in text_columns else ""


def _cell(column: int, cell: Any, values: Sequence[Any] | None, about: str) -> str:
    if values is not None:
        value = "" if values[column] is None else values[column]
        about += f' data-sort="{escape(value)}"'
    if column == 0:
        return f'<th scope="row"{about}>{escape(cell)}</th>'
    return f"<td{about}>{escape(cell)}</td>"


def code(text: str) -> Markup:
    """Text to copy: one click selects all of it."""
    return Markup(f'<code class="copy">{escape(text)}</code>')


def escape(value: Any) -> str:
    """A value's text, safe in HTML; `Markup` as it is."""
    if isinstance(value, Markup):
        return value
    return html.escape(str(value), quote=True)


def count(value: int | None) -> str:
    """1234 as 1,234; "-" for None, as below."""
    return "-" if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """0.705 as 70.5 %."""
    return "-" if share is None else f"{100 * share:.1f} %"


def decimal(value: float | None) -> str:
    """Three places."""
    return "-" if value is None else f"{value:.3f}"


def interval(low_high: Sequence[float] | None) -> str:
    """[0.645, 0.75] as 64.5 to 75.0 %."""
    if not low_high:
        return "-"
    low, high = low_high
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as 1 h 2 min, 3 min 4 s or 5.0 s."""
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
@media (max-width:30rem){.wide figcaption::after{content:" \\2194  swipe";
color:var(--soft);font-weight:400;white-space:nowrap}}
.scroll{overflow-x:auto}
img{display:block;width:var(--width);max-width:max(100%,.55*var(--width));
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
.numbers .text,.numbers thead th.text{text-align:left}
.wide{font-size:.85rem}
.wide td,.wide thead th+th{padding-left:.8rem}
.wide th{white-space:nowrap}
.sortable thead th{cursor:pointer}
.sortable thead th:hover,.sortable thead th:focus{color:var(--ink)}
[aria-sort=ascending]::after{content:" \\25B2"}
[aria-sort=descending]::after{content:" \\25BC"}
.copy{user-select:all;font-size:.85em}
p,ul{max-width:62rem}
h3,section summary{font-size:1rem;font-weight:600;margin:1.2rem 0 .3rem}
ul{padding-left:1.3rem;margin:.3rem 0}
.facts th{color:var(--soft);white-space:nowrap}
pre{overflow-x:auto;padding:.8rem 1rem;border-radius:.5rem;background:var(--card)}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
{script}</body>
</html>
"""

# A header sorts downwards at the second click. Sorting is stable, so that two clicks
# on two headers sort by both.
SORT_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.sort;
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  const sort = (column) => {
    const down = headers[column].getAttribute("aria-sort") === "ascending";
    headers.forEach((header) => header.setAttribute("aria-sort", "none"));
    headers[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, other) => {
      const a = value(one, column), b = value(other, column);
      if (a === "" || b === "") return (a === "") - (b === "");
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
  };
  headers.forEach((header, column) => {
    header.tabIndex = 0;
    header.setAttribute("aria-sort", "none");
    header.addEventListener("click", () => sort(column));
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(column);
    });
  });
}
"""
