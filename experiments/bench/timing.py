"""Times of several ways to do one thing, taken in turn, and the table that they make.

Functions enter; medians leave, and a table with what is measured, its peer, its limit
and the ratios. The ways take turns within each round, so that all of them share what
else the machine does: times here are as noisy as the machine, ratios are not. Every
script of this folder measures with it.
"""

import dataclasses
import json
import os
import pathlib
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from mgr_jax import cli, config, tables

Way = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing that was measured, beside what it is compared with.

    Attributes:
      what: its name.
      unit: of the three values.
      ours: this program's.
      peer: the peer's; None where there is none.
      limit: what cannot be passed; None where none is known.
      more_is_better: whether the unit is a speed, and not a time or a size.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    limit: float | None = None
    more_is_better: bool = False

    @property
    def times_peer(self) -> float | None:
        """How many times as fast as the peer."""
        return self._ratio(self.peer)

    @property
    def of_limit(self) -> float | None:
        """How many times as long as the limit; 1 is the limit itself."""
        ratio = self._ratio(self.limit)
        return None if ratio is None else 1 / ratio

    def _ratio(self, other: float | None) -> float | None:
        if not other or not self.ours:
            return None
        return self.ours / other if self.more_is_better else other / self.ours


def seconds(
    ways: Mapping[str, Way], rounds: int, in_a_row: int = 1
) -> dict[str, float]:
    """Median seconds of each way over so many rounds, in which they take turns.

    Each has a turn before, so that what is compiled or cached is. Who is first in a
    round is drawn: after a pause, or after the same other each time, one would have
    another time.

    Args:
      ways: what to measure.
      rounds: how many turns each has.
      in_a_row: how often a way is done in its turn. Right after another's turn, a short
        one finds its caches full of other things, and shares the cores with threads of
        the other's that still wait for more.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    drawn = random.Random(0)
    for turn in range(rounds + 1):
        for name in drawn.sample(list(ways), len(ways)):
            began = time.perf_counter()
            for _ in range(in_a_row):
                ways[name]()
            if turn:
                took[name].append((time.perf_counter() - began) / in_a_row)
    return {name: statistics.median(values) for name, values in took.items()}


def show(title: str, peer: str, limit: str, rows: Sequence[Row]) -> None:
    """Prints the table, or with --json one object.

    Args:
      title: what was measured, and how.
      peer: what the peer is; "" for none.
      limit: what the limit is; "" for none.
      rows: what was found.
    """
    given = flags.FLAGS
    if given.json:
        facts = {"title": title, "peer": peer, "limit": limit, "machine": machine()}
        found = [
            dataclasses.asdict(row)
            | {"times_peer": row.times_peer, "of_limit": row.of_limit}
            for row in rows
        ]
        print(json.dumps(facts | {"rows": found}, indent=2))
        return
    columns = {
        "what": [row.what for row in rows],
        "unit": [row.unit for row in rows],
        "ours": [number(row.ours) for row in rows],
    }
    if peer:
        columns[peer] = [number(row.peer) for row in rows]
        columns["times as fast"] = [number(row.times_peer) for row in rows]
    if limit:
        columns[limit] = [number(row.limit) for row in rows]
        columns["of the limit"] = [number(row.of_limit) for row in rows]
    cells = list(zip(*columns.values(), strict=True))
    title = f"{title}; {machine()}"
    print(tables.as_text(tables.Table(tuple(columns), cells, title)))


def number(value: float | None) -> str:
    """A value to three digits; "" for none."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def machine() -> str:
    """What a time was measured on."""
    import jax

    device = jax.devices()[0]
    kind = "" if device.platform == "cpu" else f"{device.device_kind}, "
    return (
        f"{kind}{_processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, jax {jax.__version__}"
    )


def _processor() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        return next(
            line.split(":", 1)[1].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def start(run: Callable[[], None], rounds: int) -> None:
    """Defines the flags that all scripts share, and runs one.

    Args:
      run: the script.
      rounds: how often each way is done.
    """
    flags.DEFINE_integer("rounds", rounds, "Times that each is done.", lower_bound=1)
    flags.DEFINE_bool("quick", False, "Measure less, in under a minute.")
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
    cli.start(run)


def missing(package: str) -> config.UserError:
    """That a peer is not installed."""
    return config.UserError(
        f"{package} is not installed: pip install -e '.[bench]' brings the peers"
    )
