"""Many runs from one command: each in its turn, whatever becomes of the others.

Lists of data sets, features, models, splits and seeds become configs; `run_all` makes
runs of those that are not finished, and one outcome a config leaves. A run that fails,
or takes its process with it, is an outcome too. The experiments call it.
"""

import collections
import dataclasses
import functools
import gc
import json
import multiprocessing
import os
import pathlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from absl import flags

from mgr_jax import config as config_lib
from mgr_jax import main, workdir
from mgr_jax.baselines import BASELINES
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS, load_tracks
from mgr_jax.input_pipeline import is_complete, prepared_folder
from mgr_jax.scores import Predictions, read_predictions_csv
from mgr_jax.splits import CURATED, assign

FINISHED, FAILED, NOT_RUN = "finished", "failed", "not run"

_LONGEST_ERROR = 400
_RUNS_A_WORKER = 25  # a process that compiles anew for each run grows with them
_PATIENCE_S = 60  # for a run to save itself once it is told to stop


def define_flags(leave_out: Iterable[str]) -> None:
    """Defines main's flags but for those left out, and the grid's own."""
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
    run_folder = str(out / "runs" / config.run_name)
    if config.random_gain_db:
        run_folder += f"-random_gain_{config.random_gain_db:g}_db"
    config = dataclasses.replace(config, workdir=run_folder)
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
        counts = {track.id: config.segments_per_track or 5 for track in tracks}
        for split in dict.fromkeys(c.split for c in of_dataset):
            try:
                assign(tracks, counts, split, config.split_ratios, config.seed)
            except UserError as error:
                if not named_splits:
                    config_lib.warn(f"{config.dataset} without {split}: {error}")
                    impossible.add((config.dataset, split))
    return [c for c in configs if (c.dataset, c.split) not in impossible]


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
    (out / "logs").mkdir(parents=True, exist_ok=True)
    outcomes = {config: _found(config) for config in configs}
    waiting = [c for c, outcome in outcomes.items() if outcome.status != FINISHED]
    progress = _Progress(outcomes, jobs)
    if waiting:
        _work_off(waiting, out / "logs", min(jobs, len(waiting)), progress)
    return [outcomes[config] for config in configs]


def _found(config: Config) -> Outcome:
    """The run as it is on disk: finished, with these settings, or not."""
    try:
        workdir.check_same_run(workdir.read_config(config.run_path), config)
        outcome = Outcome(config, FINISHED)
        if outcome.results["training_finished"] and not config.overwrite:
            return outcome
    except (UserError, OSError, ValueError, KeyError):
        pass
    return Outcome(config, NOT_RUN)


class _Progress:
    """Tells after each run how it went, and about how long the rest will take."""

    def __init__(self, outcomes: dict[Config, Outcome], jobs: int):
        self._outcomes = outcomes
        self._jobs = jobs
        self._lock = threading.Lock()
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

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """Takes note of a run that has just come to its end."""
        with self._lock:
            self._outcomes[outcome.config] = outcome
            self._ended += 1
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
        return f"; about {_duration(total / self._jobs)} left"


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


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


# The processes. A worker makes one run after another, so that starting up is paid for
# once; one that dies fails the run that it was at, and the next run gets a new worker.


class _Worker:
    """A process that makes the runs it is sent, and its end of the line to it."""

    def __init__(self, logs: pathlib.Path):
        context = multiprocessing.get_context("spawn")
        self._line, far_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(far_end, logs), daemon=True
        )
        self._process.start()
        far_end.close()
        self._made = 0

    def make(self, config: Config) -> str:
        """Makes a run; returns why it failed, or ""."""
        self._made += 1
        try:
            self._line.send(config)
            return self._line.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            what = signal.Signals(-code).name if code < 0 else f"status {code}"
            return f"its process ended with {what} (memory?)"

    @property
    def is_alive(self) -> bool:
        """Whether its process is."""
        return self._process.is_alive()

    @property
    def is_worn(self) -> bool:
        """Whether another should take its place."""
        return self._made >= _RUNS_A_WORKER

    def stop(self) -> None:
        """Lets the run at hand save itself, then ends."""
        self._process.terminate()
        self._process.join(_PATIENCE_S)
        self._process.kill()

    def dismiss(self) -> None:
        """Ends when no run is at hand."""
        self._line.close()
        self._process.join()


def _serve(line: Connection, logs: pathlib.Path) -> None:
    """The worker's side: makes runs until the other side hangs up."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    # Ctrl-C reaches every process of a terminal; the parent passes it on in its way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            config = line.recv()
        except EOFError:
            return
        line.send(_make(config, _log_path(config, logs)))


def _follow_parent() -> None:
    """A parent that was killed cannot say so; its runs must not go on without it."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _make(config: Config, log: pathlib.Path) -> str:
    import jax

    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        main.run(config)
        return ""
    except UserError as error:
        print(f"error: {error}", flush=True)
        return str(error)
    except Exception as error:  # a run's failure, whatever it is, is an outcome
        traceback.print_exc()
        words = " ".join(str(error).split())
        return f"{type(error).__name__}: {words}"[:_LONGEST_ERROR]
    finally:
        jax.clear_caches()
        gc.collect()


def _log_path(config: Config, logs: pathlib.Path) -> pathlib.Path:
    return logs / f"{config.run_path.name}.log"


def _work_off(
    configs: Sequence[Config], logs: pathlib.Path, jobs: int, progress: _Progress
) -> None:
    todo: queue.SimpleQueue[Config] = queue.SimpleQueue()
    for config in configs:
        todo.put(config)
    workers: dict[int, _Worker] = {}
    stopping = threading.Event()

    def work(number: int) -> None:
        while not stopping.is_set():
            try:
                config = todo.get_nowait()
            except queue.Empty:
                return
            worker = workers.get(number)
            if worker and worker.is_alive and worker.is_worn:
                worker.dismiss()
            if not worker or not worker.is_alive:
                workers[number] = _Worker(logs)
            started = time.monotonic()
            error = workers[number].make(config)
            # A worker may hear of the end before this process does.
            if stopping.wait(0 if workers[number].is_alive else 2):
                return
            log = _log_path(config, logs)
            outcome = Outcome(config, FAILED if error else FINISHED, error, log)
            progress.ended(outcome, time.monotonic() - started)

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    threads = [threading.Thread(target=work, args=(k,)) for k in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for worker in workers.values():
            worker.dismiss()
    except KeyboardInterrupt:
        stopping.set()
        print("stopping: the runs at hand save themselves", flush=True)
        for worker in list(workers.values()):
            worker.stop()
        for thread in threads:
            thread.join()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
