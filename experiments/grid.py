"""Many runs from one command: each in its turn, whatever becomes of the others.

Lists of data sets, features, models, splits and seeds become configs; `run_all` makes
runs of those that are not finished, and one outcome a config leaves. A run that fails,
or takes its process with it, is an outcome too. The experiments call it.
"""

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from experiments import workers
from mgr_jax import config as config_lib
from mgr_jax import main, page, workdir
from mgr_jax.audit import count_segments
from mgr_jax.config import BASELINES, Config, UserError
from mgr_jax.datasets import DATASETS, load_tracks
from mgr_jax.input_pipeline import is_complete, prepared_folder
from mgr_jax.scores import Predictions, read_predictions_csv
from mgr_jax.splits import CURATED, assign

FINISHED, FAILED, NOT_RUN = "finished", "failed", "not run"


def define_flags(leave_out: Iterable[str]) -> None:
    """Defines main's flags but for those left out, and the grid's own."""
    leave_out = (*leave_out, *config_lib.JOB_FIELDS)
    config_lib.define_flags(main.CHOICES, flags.FLAGS, leave_out)
    flags.adopt_module_key_flags(config_lib)
    flags.DEFINE_integer("seeds", 5, "How many seeds, from --seed on.")
    flags.DEFINE_string("out", "runs/experiments", "Folder of the runs and reports.")
    flags.DEFINE_integer("jobs", 1, "Runs at a time; on a CPU about one a core.")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
      config: the run.
      status: FINISHED, FAILED or NOT_RUN.
      error: why it failed, in one line.
      log: the file that holds what it said; None where it said nothing.
    """

    config: Config
    status: str
    error: str = ""
    log: pathlib.Path | None = None

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """A finished run's results.json."""
        return json.loads((self.config.run_path / workdir.RESULTS_FILE).read_text())

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of its metrics.jsonl; none for a baseline."""
        text = (self.config.run_path / workdir.METRICS_FILE).read_text()
        return [json.loads(line) for line in text.splitlines()]

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Its answers on the test set."""
        return self._table[0]

    @functools.cached_property
    def genres(self) -> tuple[str, ...]:
        """Label names, in the order of the label numbers."""
        return self._table[1]

    @functools.cached_property
    def _table(self) -> tuple[Predictions, tuple[str, ...]]:
        return read_predictions_csv(self.config.run_path / workdir.PREDICTIONS_FILE)


def expand(
    base: Config,
    out: pathlib.Path,
    *,
    datasets: Sequence[str],
    features: Sequence[str],
    models: Sequence[str],
    splits: Sequence[str] = (),
    seeds: int = 1,
) -> list[Config]:
    """Every combination as a complete config, seed by seed.

    A baseline draws nothing: where the split draws nothing either, one seed will do.

    Args:
      base: what all have in common.
      out: the runs' folders are made in out/runs.
      datasets: values of --dataset.
      features: values of --feature.
      models: values of --model.
      splits: values of --split, of which each data set takes those that it supports,
        in its own order: the honest ones first. () takes all.
      seeds: how many, from base.seed on.

    Returns:
      The configs; the first of them tell the most.

    Raises:
      UserError: a value is unknown, or a data set supports none of the splits.
    """
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: must be 1 or more")
    named = {"dataset": datasets, "feature": features, "model": models, "split": splits}
    for field, values in named.items():
        if not values and field != "split":
            raise UserError(f"--{field}s=: name at least one")
        for value in values:
            config_lib.check_choices(
                dataclasses.replace(base, **{field: value}),
                {field: main.CHOICES[field]},
            )
    return [
        _complete(
            dataclasses.replace(
                base,
                dataset=dataset,
                split=split,
                model=model,
                feature=feature,
                seed=base.seed + number,
            ),
            out,
        )
        for number in range(seeds)
        for dataset in dict.fromkeys(datasets)
        for split in _supported(dataset, splits)
        for model in dict.fromkeys(models)
        for feature in dict.fromkeys(features)
        if not (number and model in BASELINES and split in CURATED)
    ]


def _supported(dataset: str, splits: Sequence[str]) -> list[str]:
    supported = DATASETS[dataset].splits
    chosen = [split for split in supported if split in (splits or supported)]
    if not chosen:
        raise UserError(
            f"--splits={','.join(splits)}: --dataset={dataset} has none of them; add "
            f"one of {', '.join(supported)}"
        )
    return chosen


def _complete(config: Config, out: pathlib.Path) -> Config:
    dataset = DATASETS[config.dataset]
    config = dataclasses.replace(config, workdir=str(out / "runs" / config.run_name))
    return config_lib.complete(config, dataset.default_split, dataset.splits)


def check_data(configs: Sequence[Config], named_splits: bool) -> list[Config]:
    """Looks, before anything is begun, whether the data allow of these runs.

    Args:
      configs: the runs.
      named_splits: whether the user named the splits; if not, one that the data do not
        allow of (artists of which none is known) is left out, with a warning.

    Returns:
      The configs that remain.

    Raises:
      UserError: a data set is not there.
    """
    impossible = set()
    for config in {c.dataset: c for c in configs}.values():
        of_dataset = [c for c in configs if c.dataset == config.dataset]
        try:
            tracks = load_tracks(config)
        except UserError as error:
            folders = {prepared_folder(c) for c in of_dataset}
            if not all(map(is_complete, folders)):
                raise UserError(f"{error}; or leave {config.dataset} out") from None
            continue
        counts, _ = count_segments(config, tracks)
        for split in dict.fromkeys(c.split for c in of_dataset):
            try:
                assign(tracks, counts, split, config.split_ratios, config.seed)
            except UserError as error:
                if not named_splits:
                    config_lib.warn(f"{config.dataset} without {split}: {error}")
                    impossible.add((config.dataset, split))
    return [c for c in configs if (c.dataset, c.split) not in impossible]


def finished_runs(
    configs: Sequence[Config], out: pathlib.Path, jobs: int
) -> list[Outcome]:
    """As `run_all`, with a warning for each run that failed, which is left out."""
    outcomes = run_all(configs, out, jobs)
    for outcome in outcomes:
        if outcome.status != FINISHED:
            name = outcome.config.run_path.name
            config_lib.warn(f"{name} is left out: {outcome.error}; see {outcome.log}")
    return [outcome for outcome in outcomes if outcome.status == FINISHED]


def run_all(
    configs: Sequence[Config], out: pathlib.Path, jobs: int = 1
) -> list[Outcome]:
    """Makes runs of the configs that are not finished.

    Runs are made in processes of their own; what they say goes to out/logs. An
    interrupt, or SIGTERM, lets them save and then ends this call.

    Args:
      configs: the runs, in their order.
      out: where logs go.
      jobs: how many run at a time.

    Returns:
      An outcome for each config.

    Raises:
      KeyboardInterrupt: it was told to stop; the same call goes on.
    """
    if jobs < 1:
        raise UserError(f"--jobs={jobs}: must be 1 or more")
    if any(config.overwrite for config in configs):
        config_lib.warn(
            "--overwrite starts all of these runs anew; leave it out to go on with "
            "them after an interruption"
        )
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    outcomes = {
        config: Outcome(config, NOT_RUN) if config.overwrite else _found(config)
        for config in configs
    }
    progress = _Progress(outcomes, jobs)

    waiting = [c for c, outcome in outcomes.items() if outcome.status != FINISHED]
    preparing = _preparing(waiting, out)

    def ended(config: Config, error: str, seconds: float) -> None:
        if config in preparing:
            if not error:  # what is wrong with the data, the runs tell
                what = f"{config.feature.replace(',', ', ')} of {config.dataset}"
                print(f"prepared {what}, {seconds:.0f} s", flush=True)
            return
        outcome = Outcome(config, FAILED, error) if error else _found(config)
        if outcome.status == NOT_RUN:
            error = "its results cannot be read"
            outcome = Outcome(config, FAILED, error)
        log = workers.log_path(config, logs)
        outcomes[config] = dataclasses.replace(outcome, log=log)
        progress.tell(outcomes[config], seconds)

    workers.make_runs([*preparing, *waiting], logs, jobs, ended)
    return [outcomes[config] for config in configs]


def _preparing(configs: Sequence[Config], out: pathlib.Path) -> list[Config]:
    """Configs that prepare what several features of a data set lack, as one."""
    missing: dict[str, dict[str, Config]] = collections.defaultdict(dict)
    for config in configs:
        if not is_complete(prepared_folder(config)):
            missing[config.dataset].setdefault(config.feature, config)
    return [
        dataclasses.replace(
            next(iter(lacking.values())),
            mode="prepare",
            feature=",".join(lacking),
            workdir=str(out / "runs" / f"{dataset}-preparing"),
        )
        for dataset, lacking in missing.items()
        if len(lacking) > 1
    ]


def _found(config: Config) -> Outcome:
    """The run as it is on disk: finished, with these settings, and whole; or not."""
    try:
        workdir.check_same_run(workdir.read_config(config.run_path), config)
        outcome = Outcome(config, FINISHED)
        answers = len(outcome.predictions.labels)
        if (
            outcome.results["training_finished"]
            and answers == outcome.results["segment"]["n"]
        ):
            return outcome
    except (UserError, OSError, ValueError, KeyError):
        pass
    return Outcome(config, NOT_RUN)


class _Progress:
    """Tells after each run how it went, and about how long the rest will take."""

    def __init__(self, outcomes: dict[Config, Outcome], jobs: int):
        self._outcomes = outcomes
        self._jobs = jobs
        self._seconds = collections.defaultdict(list)
        done = [o for o in outcomes.values() if o.status == FINISHED]
        for outcome in done:
            seconds = sum(outcome.results["wall_s"].values())
            self._seconds[_kind(outcome.config)].append(seconds)
        self._ended = len(done)
        left = len(outcomes) - len(done)
        print(
            f"{len(outcomes)} runs: {len(done)} finished before, {left} to do"
            + self._time_left(),
            flush=True,
        )

    def tell(self, outcome: Outcome, seconds: float) -> None:
        """Says how a run went that has just come to its end."""
        self._ended += 1
        if outcome.status == FINISHED:
            self._seconds[_kind(outcome.config)].append(seconds)
        width = len(str(len(self._outcomes)))
        print(
            f"[{self._ended:{width}}/{len(self._outcomes)}] "
            f"{outcome.config.run_path.name}: {_told(outcome)}, {seconds:.0f} s"
            + self._time_left(),
            flush=True,
        )

    def _time_left(self) -> str:
        left = [o.config for o in self._outcomes.values() if o.status == NOT_RUN]
        known = [s for seconds in self._seconds.values() for s in seconds]
        if not left or not known:
            return ""
        mean = sum(known) / len(known)
        total = 0.0
        for config in left:
            seconds = self._seconds.get(_kind(config), [mean])
            total += sum(seconds) / len(seconds)
        return f"; about {page.duration(total / self._jobs)} left"


def _kind(config: Config) -> tuple[str, ...]:
    """What decides how long a run takes."""
    return config.dataset, config.split, config.feature, config.model


def _told(outcome: Outcome) -> str:
    if outcome.status == FAILED:
        return f"FAILED: {outcome.error}; see {outcome.log}"
    levels = {"tracks": "track", "segments": "segment"}
    return ", ".join(
        f"{100 * outcome.results[level]['accuracy']:.1f} % of {noun}"
        for noun, level in levels.items()
    )
