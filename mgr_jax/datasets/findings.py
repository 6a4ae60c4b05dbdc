"""What the check of a data set found, in words: tables, lists and a verdict.

Rows, one a file, and repeats enter; a text for the terminal leaves. verify calls it.
"""

import collections
import dataclasses
import itertools
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

from mgr_jax import config as config_lib
from mgr_jax import tables
from mgr_jax.audio import SEGMENT_S
from mgr_jax.config import Config, shown
from mgr_jax.datasets import expected, measure, search
from mgr_jax.datasets.measure import USABLE, Measurement
from mgr_jax.datasets.repeats import Repeat

EXTRA = "extra"

LISTED = 20
MOST_GENRES = 20
MOST_FORMATS = 12
MOST_MEMBERS = 5

# From this share of its samples on, a file counts as clipped in the table.
CLIPPED = 0.01

# What a state is called in the table, in the order of the table and of the lists.
_STATES = {
    measure.MISSING: "missing",
    measure.UNREADABLE: "unreadable",
    measure.SILENT: "nothing but silence",
    measure.SHORT: f"shorter than {SEGMENT_S:g} s",
    measure.TRUNCATED: "cut off",
    measure.DAMAGED: "damaged",
    measure.ODD_LENGTH: "of an odd length",
}

# What ends the program with status 1, unless it is known of the published data.
WRONG = tuple(state for state in _STATES if state != measure.ODD_LENGTH)

_BIN_EDGES_S = (0, 5, 10, 20, 29, 31, 60, 300, 600)


@dataclasses.dataclass(frozen=True)
class Row:
    """One file, or a track that should have one.

    Attributes:
      id: of the track; "" for an extra file.
      genre: likewise.
      source: the data set that it is from.
      path: None where no path is known.
      found: what the file holds.
      known: what is known to be wrong with it in the published data; "" for nothing.
    """

    id: str
    genre: str
    source: str
    path: pathlib.Path | None
    found: Measurement
    known: str = ""


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that is known of a data set's files.

    Attributes:
      config: names the data set.
      rows: tracks first, as the loader lists them, then missing and extra files.
      repeats: groups of rows, by position.
    """

    config: Config
    rows: Sequence[Row]
    repeats: Sequence[Repeat]

    def of(self, state: str) -> list[Row]:
        """The rows of a state."""
        return [row for row in self.rows if row.found.state == state]

    @property
    def tracks(self) -> list[Row]:
        """The rows that are no extra files."""
        return [row for row in self.rows if row.found.state != EXTRA]

    @property
    def wrong(self) -> dict[str, list[Row]]:
        """State to the rows that it is wrong with, what is known left out."""
        found = {
            state: [row for row in self.of(state) if not row.known] for state in WRONG
        }
        return {state: rows for state, rows in found.items() if rows}

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong but what is known."""
        return not self.wrong and not self.repeats


def as_text(findings: Findings) -> str:
    """Everything for the terminal but the verdict: tables, then lists."""
    parts = [_summary(findings), _genres(findings), _formats(findings)]
    parts += [_lengths(findings), *_lists(findings)]
    return "\n\n".join(part for part in parts if part)


def _summary(findings: Findings) -> str:
    config, tracks, repeats = findings.config, findings.tracks, findings.repeats
    usable = sum(row.found.state in USABLE for row in tracks)
    clipped = sum((row.found.clipped_share or 0) > CLIPPED for row in tracks)
    contradicting = sum(len(repeat.genres) > 1 for repeat in repeats)
    leaking = sum(bool(repeat.sides) for repeat in repeats)
    listed = sum(row.path is not None for row in tracks)
    full = expected.full_count(config)
    rows = [
        ("tracks", listed, "-", "-" if full is None else full),
        ("tracks that can be used", usable, "-", len(tracks)),
        *(_state_row(findings.of(state), name) for state, name in _STATES.items()),
        ("recordings there more than once", len(repeats), "-", 0),
        ("of these, under several genres", contradicting, "-", 0),
        ("of these, on several sides of a split", leaking, "-", 0),
        ("extra files", len(findings.of(EXTRA)), "-", 0),
        (f"clipped in more than {CLIPPED:.0%} of the samples", clipped, "-", "-"),
    ]
    title = f"{config.dataset} in {shown(config.data_path)}"
    header = ("what", "found", "known", "expected")
    return tables.as_text(tables.Table(header, rows, title))


def _state_row(rows: Sequence[Row], name: str) -> tuple[str, int, int, int]:
    return name, len(rows), sum(bool(row.known) for row in rows), 0


def _genres(findings: Findings) -> str:
    """Tracks of each genre, and how many of them can be used."""
    by_genre = collections.defaultdict(collections.Counter)
    for row in findings.tracks:
        by_genre[row.genre].update(
            expected=1,
            there=row.found.state != measure.MISSING,
            usable=row.found.state in USABLE,
        )
    columns = ("expected", "there", "usable")
    rows = [
        (shown(genre), *(counts[column] for column in columns))
        for genre, counts in sorted(by_genre.items())
    ]
    more = len(rows) - MOST_GENRES
    total = ("all", *(sum(n[c] for n in by_genre.values()) for c in columns))
    if more > 0:
        rows = [*rows[:MOST_GENRES], (f"and {more} more genres", "-", "-", "-")]
    return tables.as_text(tables.Table(("genre", *columns), [*rows, total]))


def _formats(findings: Findings) -> str:
    """Rates, channels and formats, the commonest first."""
    counts = collections.Counter(
        (row.found.rate_hz, row.found.channels, row.found.format)
        for row in findings.tracks
        if row.found.rate_hz
    )
    rows = [(*key, count) for key, count in counts.most_common(MOST_FORMATS)]
    others = sum(counts.values()) - sum(row[-1] for row in rows)
    if others:
        rows.append(("-", "-", "others", others))
    header = ("rate in Hz", "channels", "format", "files")
    return tables.as_text(tables.Table(header, rows)) if rows else ""


def _lengths(findings: Findings) -> str:
    """How many files are of which length."""
    counts = collections.Counter(
        max(edge for edge in _BIN_EDGES_S if edge <= row.found.duration_s)
        for row in findings.tracks
        if row.found.duration_s is not None
    )
    ends = dict(itertools.pairwise(_BIN_EDGES_S))
    rows = [
        (f"{edge} to {ends[edge]}" if edge in ends else f"{edge} or more", count)
        for edge, count in sorted(counts.items())
    ]
    header = ("length in s", "files")
    return tables.as_text(tables.Table(header, rows)) if rows else ""


def _lists(findings: Findings) -> Iterator[str]:
    """Each kind of problem with the files that have it, the first few."""
    for state, name in _STATES.items():
        yield _list(name, [_line(row) for row in findings.of(state)])
    # Those that spoil results come first.
    repeats = sorted(findings.repeats, key=lambda repeat: not repeat.harm)
    groups = [_group(findings, repeat) for repeat in repeats]
    yield _list("there more than once", groups)
    extra = findings.of(EXTRA)
    yield _list("extra files, which are not used", [_line(row) for row in extra])
    if any(row.found.reason == expected.FORK for row in extra):
        root = shlex.quote(shown(findings.config.data_path))
        yield f"remove the forks: find {root} -name '._*' -type f -delete"


def _group(findings: Findings, repeat: Repeat) -> str:
    names = [_name(findings.rows[k]) for k in repeat.members]
    if len(names) > MOST_MEMBERS:
        names[MOST_MEMBERS:] = [f"{len(names) - MOST_MEMBERS} more"]
    harm = f", {repeat.harm}" if repeat.harm else ""
    return f"{', '.join(names)}: {repeat.kind}{harm}"


def _list(name: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shortened = [f"  {line}" for line in lines[:LISTED]]
    if len(lines) > LISTED:
        shortened.append(f"  and {len(lines) - LISTED} more, all in the CSV")
    return "\n".join([f"{name} ({len(lines)}):", *shortened])


def _line(row: Row) -> str:
    if row.found.state == measure.ODD_LENGTH:
        reason = f"{row.found.duration_s:.2f} s, where {row.found.reason}"
    else:
        reason = row.found.reason
    known = f" (known: {row.known})" if row.known else ""
    return f"{_name(row)}: {reason}{known}"


def _name(row: Row) -> str:
    return shown(row.id) if row.id else shown(row.path)


def verdict(findings: Findings) -> str:
    """One line: whether the data set is right, and what to do."""
    known = sum(
        bool(row.known) and row.found.state != measure.OK for row in findings.tracks
    )
    skips = "prepare skips what cannot be used and goes on"
    if findings.is_right:
        if not known:
            return "verdict: nothing is wrong; prepare can go on"
        return (
            f"verdict: nothing is wrong but what is known of this data set ({known} "
            f"of the files); {skips}"
        )
    counts = [f"{len(rows)} {_STATES[s]}" for s, rows in findings.wrong.items()]
    if findings.repeats:
        counts.append(f"{len(findings.repeats)} there more than once")
    steps = [*_mending(findings)]
    if findings.repeats:
        steps.append(_keep_one(findings))
    if findings.wrong:
        steps.append(f"or leave it: {skips}")
    return f"verdict: {', '.join(counts)}; {'; '.join(steps)}"


def _mending(findings: Findings) -> Iterator[str]:
    """How to get the files that are missing or bad."""
    bad = [row for rows in findings.wrong.values() for row in rows]
    sources = {row.source for row in bad}
    if sources & {"gtzan", "fma"}:
        commands = [
            _download(findings.config, name, [row for row in bad if row.source == name])
            for name in ("gtzan", "fma")
            if name in sources
        ]
        yield f"download again: {' and '.join(commands)}"
    elif "synth" in sources:
        yield "delete them: they are rendered anew"
    elif sources:
        yield "replace or delete them"


def _download(config: Config, source: str, bad: Sequence[Row]) -> str:
    anew = any(row.found.state != measure.MISSING for row in bad)
    return search.download_command(config, source) + (" --overwrite" if anew else "")


def _keep_one(findings: Findings) -> str:
    config = findings.config
    one = "of what is there more than once, delete all but one"
    if config.dataset == "gtzan":
        return f"{one}, or use --split=filtered, which leaves most of it out"
    return one


def columns(findings: Findings) -> Iterator[Mapping[str, object]]:
    """A row a file for the CSV, all of the same keys."""
    numbers = {
        k: (number, repeat)
        for number, repeat in enumerate(findings.repeats, 1)
        for k in repeat.members
    }
    for k, row in enumerate(findings.rows):
        number, repeat = numbers.get(k, (None, None))
        found = dataclasses.asdict(dataclasses.replace(row.found, shape=None))
        del found["shape"], found["state"], found["reason"]
        yield {
            "id": row.id,
            "genre": row.genre,
            "state": row.found.state,
            "reason": row.found.reason,
            "known": row.known,
            "path": "" if row.path is None else config_lib.as_text(row.path),
            **found,
            "repeat": number,
            "repeat_kind": repeat.kind if repeat else None,
            "repeat_harm": repeat.harm if repeat else None,
        }
