"""How many points does each step of honesty cost?

    python -m experiments.leakage --dataset=gtzan --data_dir=DIR

The same model under every split of a data set, from the leakiest to the most honest:
segments at random, tracks, artists, and the curated split. The answer is in
OUT/leakage-DATASET-FEATURE-MODEL.md, with a figure and a table (.png, .csv) beside it.
`python -m mgr_jax.splits --audit` lists what each split has on both sides.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from experiments import grid
from mgr_jax import (
    charts,
    cli,
    compare,
    figures,
    input_pipeline,
    splits,
    tables,
    train,
)
from mgr_jax import config as config_lib
from mgr_jax.config import UserError
from mgr_jax.datasets import DATASETS, dataset_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# These are the experiment's own, or are gone through.
_OWN = ("mode", "split", "workdir")
_LEVELS = {"segment": "segments", "track": "tracks"}


@dataclasses.dataclass(frozen=True)
class Rung:
    """One split of the ladder: its finished runs, and what is on both sides.

    Attributes:
      split: its name.
      runs: the outcomes, by seed.
      shared_tracks: tracks on more than one side, in the first seed's draw.
      shared_artists: artists on more than one side.
    """

    split: str
    runs: Sequence[grid.Outcome]
    shared_tracks: int
    shared_artists: int

    def summary(self, level: str) -> compare.Summary:
        """Accuracy over the seeds."""
        return compare.summarise([run.predictions for run in self.runs], level)


def run() -> None:
    """Climbs the ladder, and writes what it cost."""
    given = flags.FLAGS
    out = config_lib.expanded("out", given.out).absolute()
    config = config_lib.from_flags(given)
    configs = grid.expand(
        config,
        out,
        datasets=[config.dataset],
        features=[config.feature],
        models=[config.model],
        seeds=given.seeds,
    )
    configs = grid.check_data(configs, named_splits=False)
    ladder = _ladder(grid.finished_runs(configs, out, given.jobs))
    if len(ladder) < 2:
        raise UserError(
            f"--dataset={config.dataset}: runs of two splits are needed to compare; "
            f"{out / 'logs'} says why they failed"
        )
    name = f"leakage-{dataset_key(config)}-{config.feature}-{config.model}"
    name += f"-random_gain_{config.random_gain_db:g}_db" * bool(config.random_gain_db)
    print(write(ladder, out / name))


def _ladder(outcomes: Sequence[grid.Outcome]) -> list[Rung]:
    """The splits that have runs, from the leakiest to the most honest."""
    runs = {
        split: [o for o in outcomes if o.config.split == split]
        for outcome in outcomes[:1]
        for split in reversed(DATASETS[outcome.config.dataset].splits)
    }
    return [_rung(of_split) for of_split in runs.values() if of_split]


def _rung(runs: Sequence[grid.Outcome]) -> Rung:
    config = runs[0].config
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(config))
    assignment = train.assignment_for(config, prepared)
    tracks, artists = splits.shared(assignment, prepared.tracks)
    return Rung(config.split, runs, len(tracks), len(artists))


def write(ladder: Sequence[Rung], path: pathlib.Path) -> str:
    """Writes path.md, path.csv and path.png; returns what a terminal shows."""
    rungs, steps, tests = _rung_table(ladder), _step_table(ladder), _mcnemar(ladder)
    said = _findings(ladder)
    config = ladder[0].runs[0].config
    title = f"What each split is worth: {config.model} on {config.feature}"
    title += f" of {dataset_key(config)}"
    image = path.with_name(f"{path.name}.png")
    image.write_bytes(figures.as_png(_figure(ladder)))
    tables.as_csv(_values(ladder), path.with_name(f"{path.name}.csv"))
    page = path.with_name(f"{path.name}.md")
    parts = [
        f"# {title}\n",
        tables.as_markdown(rungs),
        f"![Accuracy under each split]({image.name})\n",
        tables.as_markdown(steps),
        tables.as_markdown(tests),
        "\n".join(f"- {line}" for line in said) + "\n",
        f"Made by `{config_lib.command(config)}` and its like.\n",
    ]
    page.write_text("\n".join(parts), encoding="utf-8", errors="replace")
    shown = [tables.as_text(table) for table in (rungs, steps, tests)]
    return "\n\n".join([title, *shown, "\n".join(said), f"  {page}"])


def _rung_table(ladder: Sequence[Rung]) -> tables.Table:
    rows = []
    for rung in ladder:
        sides = rung.runs[0].results["num_tracks"]
        row = [rung.split, len(rung.runs), sides["train"], rung.summary("track").n]
        for level in _LEVELS:
            found = rung.summary(level)
            row += [found.spread(), _interval(found.interval_95)]
        rows.append([*row, rung.shared_tracks, rung.shared_artists])
    header = ["split", "seeds", "trained on", "tested", "segments %", "95 % interval"]
    header += ["tracks %", "95 % interval", "tracks shared", "artists shared"]
    return tables.Table(header, rows)


def _step_table(ladder: Sequence[Rung]) -> tables.Table:
    rows = []
    for before, after in itertools.pairwise(ladder):
        for level, noun in _LEVELS.items():
            found = _difference(after, before, level)
            rows.append(
                [
                    f"{before.split} to {after.split}",
                    noun,
                    f"{100 * found.difference:+.1f}",
                    _interval(found.interval_95, sign="+"),
                    "yes" if found.excludes_zero else "no",
                    found.n_tracks,
                    found.n_shared,
                ]
            )
    header = ["step", "of", "points", "95 % interval", "shown", "tracks", "in both"]
    return tables.Table(header, rows, "Each step of honesty, paired by track")


def _mcnemar(ladder: Sequence[Rung]) -> tables.Table:
    """Run against run, on the tracks that both happened to test."""
    rows = []
    for before, after in itertools.pairwise(ladder):
        for run, other in itertools.product(before.runs, after.runs):
            # A baseline has one run, of the first seed, where the split draws nothing.
            if run.config.seed != other.config.seed:
                continue
            found = compare.mcnemar(run.predictions, other.predictions)
            rows.append(
                [
                    f"{before.split} to {after.split}",
                    run.config.seed,
                    found.n,
                    found.only_a,
                    found.only_b,
                    f"{found.p:.3g}",
                ]
            )
    header = ["step", "seed", "tracks in both", "right before", "right after", "p"]
    return tables.Table(header, rows, "McNemar's test of two runs, on tracks")


def _difference(a: Rung, b: Rung, level: str) -> compare.Difference:
    runs = [[run.predictions for run in rung.runs] for rung in (a, b)]
    return compare.paired_difference(*runs, level)


def _findings(ladder: Sequence[Rung]) -> list[str]:
    pairs = [*itertools.pairwise(ladder)]
    if len(ladder) > 2:
        pairs.append((ladder[0], ladder[-1]))
    lines = [
        compare.verdict(after.split, before.split, _difference(after, before, "track"))
        for before, after in pairs
    ]
    warnings = [
        line for rung in ladder for line in rung.runs[0].results["split_warnings"]
    ]
    return [
        *lines,
        *warnings,
        "The splits differ in what they train on too: see the numbers of tracks.",
        "Intervals are not corrected for their number; what another seed would change "
        "is in the deviation over seeds.",
    ]


def _values(ladder: Sequence[Rung]) -> tables.Table:
    header = ["split", "level", "seeds", "test_tracks", "accuracy", "deviation"]
    header += ["low", "high", "shared_tracks", "shared_artists"]
    rows = []
    for rung in ladder:
        for level in _LEVELS:
            found = rung.summary(level)
            measured = [found.runs, found.n, found.mean, found.deviation]
            shared = [rung.shared_tracks, rung.shared_artists]
            rows.append([rung.split, level, *measured, *found.interval_95, *shared])
    return tables.Table(header, rows)


def _figure(ladder: Sequence[Rung]) -> "Figure":
    bars = [
        charts.Bar(rung.split, noun, found.mean, found.interval_95)
        for level, noun in _LEVELS.items()
        for rung in ladder
        for found in [rung.summary(level)]
    ]
    config = ladder[0].runs[0].config
    title = f"{config.model} on {config.feature} of {dataset_key(config)}"
    return charts.accuracy_figure([charts.Panel(title, bars)])


def _interval(low_high: Sequence[float], sign: str = "") -> str:
    low, high = (format(100 * share, f"{sign}.1f") for share in low_high)
    return f"{low} to {high}"


if __name__ == "__main__":
    grid.define_flags(leave_out=_OWN)
    flags.adopt_module_key_flags(grid)
    cli.start(run)
