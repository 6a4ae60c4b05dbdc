"""The training loop: epochs, validation, checkpoints, early stop.

A config and a prepared folder enter; a run folder with checkpoints and metrics leaves.
Batch order is a function of (seed, epoch) and dropout of (seed, step), and a checkpoint
holds all else, so a run that was killed and resumed ends with the same bits as one left
alone. How many devices train it changes no more than a step's last bits; on CPUs, how
processes share these, nothing. All processes of a job run this loop alike; process 0
writes. main calls `train`.
"""

import dataclasses
import functools
import json
import math
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from mgr_jax import config as config_lib
from mgr_jax import hosts, input_pipeline, memory, splits, steps, workdir
from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints, DamagedError
from mgr_jax.config import Config, UserError
from mgr_jax.events import Events
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import Prepared, Side

# How often the loop looks at its loss, and many processes at each other.
_REFRESH_S = 0.5


@dataclasses.dataclass
class Progress:
    """How far a run has come; it is saved beside every checkpoint.

    Attributes:
      epoch: epochs finished.
      batch: batches done of the epoch after that, where a signal interrupted it.
      best_epoch: epoch of the best checkpoint, 0 before there is one.
      best_loss: its validation loss.
      finished: whether training has come to its end.
      train_s: seconds spent training and validating, over all starts of the run.
      history: one row an epoch, as in metrics.jsonl.
    """

    epoch: int = 0
    batch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    finished: bool = False
    train_s: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same from the first step of a run to the last."""

    config: Config
    workdir: pathlib.Path
    prepared: Prepared
    train: Side
    validation: Side
    batch_size: int
    steps_per_epoch: int
    checkpoints: Checkpoints

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all epochs."""
        return self.config.num_epochs * self.steps_per_epoch

    @functools.cached_property
    def learning_rate(self) -> Callable[[int], jax.Array]:
        """A step's learning rate, compiled as a whole: op by op takes longer."""
        rate = steps.learning_rate(self.config, self.total_steps, self.steps_per_epoch)
        return jax.jit(rate)


def assignment_for(config: Config, prepared: Prepared) -> splits.Assignment:
    """Which side each segment of a prepared folder is on, in this run."""
    return splits.assign(
        prepared.tracks,
        prepared.segment_counts,
        config.split,
        ratios=config.split_ratios,
        seed=config.seed,
    )


def train(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """Trains a run to its end, from where it stands.

    SIGTERM and SIGINT save and leave the process; the same call goes on from there.

    Args:
      config: the run, its paths spelled out.
      folder: the prepared features.

    Returns:
      The run's folder, which holds the best checkpoint.

    Raises:
      UserError: the folder belongs to another run, a side of the split is empty, or
        the loss is no longer a number.
    """
    memory.keep_freed()
    run_folder = config.run_path
    hosts.first(lambda: workdir.open_workdir(config))
    if not hosts.is_first():
        # It has to be the same folder.
        workdir.check_same_run(workdir.read_config(run_folder), config)
    with _SignalWatch() as stop:
        run, saved = _begin(config, run_folder, input_pipeline.open_prepared(folder))
        state, progress = _restore_or_create(run, saved)
        if hosts.is_first():
            workdir.write_config(config)
        if progress.finished:
            print(f"training had finished: {run_folder}", flush=True)
        else:
            _train_epochs(run, state, progress, stop)
        run.checkpoints.close()
    return run_folder


def open_sides(config: Config, prepared: Prepared) -> dict[str, Side]:
    """What a run trains and validates on; what its split leaks is said.

    Returns:
      Sides "train" and "validation", of which this host has a share; neither is empty.

    Raises:
      UserError: a side is empty.
    """
    assignment = assignment_for(config, prepared)
    if assignment.leaks:
        config_lib.warn(f"--split={config.split} leaks: {assignment.leaks}")
    for warning in assignment.warnings:
        config_lib.warn(warning)
    host = {"process_index": hosts.index(), "process_count": hosts.count()}
    sides = {
        side: input_pipeline.load_side(prepared, assignment, side, **host)
        for side in ("train", "validation")
    }
    for name, side in sides.items():
        if not side.total:
            raise UserError(
                f"--split={config.split}: no segment is left for {name}; choose "
                "another --split or other --split_ratios"
            )
    return sides


def _begin(
    config: Config, run_folder: pathlib.Path, prepared: Prepared
) -> tuple[_Run, "_Saved"]:
    sides = open_sides(config, prepared)
    if config.random_gain_db and not FEATURES[config.feature].level.any():
        config_lib.warn(
            f"--random_gain_db={config.random_gain_db:g}: changes nothing of "
            f"--feature={config.feature}, which does not depend on gain"
        )
    checkpoints = Checkpoints(run_folder)
    saved = _checkpoint_to_go_on_from(checkpoints)
    begun = saved.about and saved.about.get("batch_size")
    batch_size = _batch_size(config, sides["train"].total, begun)
    run = _Run(
        config=config,
        workdir=run_folder,
        prepared=prepared,
        **sides,
        batch_size=batch_size,
        steps_per_epoch=sides["train"].total // batch_size,
        checkpoints=checkpoints,
    )
    if saved.about is not None:
        _check_same_data(run, saved.about)
        if saved.about["progress"]["finished"]:
            return run, saved
    return dataclasses.replace(run, **_in_memory(run)), saved


def _in_memory(run: _Run) -> dict[str, Side]:
    """The sides, held in memory as far as they fit; training comes first."""
    left_mb, sides = run.config.shuffle_buffer_mb, {}
    for name, side in (("train", run.train), ("validation", run.validation)):
        sides[name] = input_pipeline.in_memory(side, left_mb)
        if sides[name].held is not None:
            left_mb -= side.share_mb
    return sides


def _batch_size(config: Config, num_examples: int, begun: int | None) -> int:
    """Rows a step over all devices: those a run began with, or what fits now.

    Args:
      config: the run.
      num_examples: training segments, over all hosts.
      begun: the batch size of the checkpoint to go on from, None where there is none.

    Raises:
      UserError: the devices cannot share them.
    """
    devices = jax.device_count()
    if begun is not None:
        if begun % devices:
            raise UserError(
                f"{config.run_path}: was begun with batches of {begun}, which "
                f"{devices} devices cannot share evenly; go on with a number of "
                f"devices that divides {begun} (--cpu_devices), or name another "
                "--workdir"
            )
        return begun
    size = min(config.batch_size, num_examples) // devices * devices
    if not size:
        raise UserError(
            f"--batch_size={config.batch_size}: {devices} devices need at least one of "
            f"the {num_examples} training segments each"
        )
    if size != config.batch_size:
        print(
            f"using batches of {size} ({num_examples} training segments, {devices} "
            "devices)",
            flush=True,
        )
    return size


@dataclasses.dataclass(frozen=True)
class _Saved:
    """The checkpoint to go on from: its kind, and what is beside it; None for none."""

    kind: str
    about: dict[str, Any] | None


def _restore_or_create(run: _Run, saved: _Saved) -> tuple[steps.TrainState, Progress]:
    about = saved.about
    genres, shape = len(run.prepared.genres), run.prepared.shape
    schedule = {
        "total_steps": run.total_steps,
        "steps_per_epoch": run.steps_per_epoch,
    }
    if about is None:
        feature = FEATURES[run.config.feature]
        normalisation = input_pipeline.normalisation(run.train, feature)
        state = steps.create_state(run.config, genres, shape, normalisation, **schedule)
        progress = Progress()
    else:
        like = steps.like_state(run.config, genres, shape, **schedule)
        try:
            state = run.checkpoints.restore(saved.kind, like)
        except DamagedError as error:
            raise error.remedied from None
        progress = Progress(**about["progress"])
        if not progress.finished:
            print(
                f"going on after epoch {progress.epoch}"
                + (f", batch {progress.batch}" if progress.batch else ""),
                flush=True,
            )
    run.checkpoints.mend()
    _write_metrics(run, progress)
    return state, progress


def _checkpoint_to_go_on_from(checkpoints: Checkpoints) -> _Saved:
    """The newest checkpoint; the best is second best.

    Going on from an earlier epoch ends with the same bits.

    Raises:
      UserError: there are some, and all are damaged.
    """
    damage = None
    try:
        about = checkpoints.about(NEWEST)
        if about is not None:
            return _Saved(NEWEST, about)
    except DamagedError as error:
        damage = error
    # A kill may have come between the saves of a first epoch, or after a damaged newest
    # was deleted.
    try:
        about = checkpoints.about(BEST)
    except DamagedError as error:
        damage, about = damage or error, None
    if about is None:
        if damage is None:
            return _Saved(NEWEST, None)
        raise damage.remedied
    if damage is not None:
        config_lib.warn(f"{damage}; going back to the best checkpoint")
        checkpoints.delete(NEWEST)
    return _Saved(BEST, about)


def _check_same_data(run: _Run, about: dict[str, Any]) -> None:
    """Refuses to go on with a checkpoint on what it was not trained on."""
    check_same_config(run.config, about)
    now = _about(run)
    for key in ("feature_spec", "genres"):
        if about[key] != now[key]:
            raise UserError(
                f"{run.workdir}: was trained on other data (its {key} is not that of "
                f"{run.prepared.folder}); name another --workdir, or start it anew "
                "with --overwrite"
            )


def _train_epochs(
    run: _Run, state: steps.TrainState, progress: Progress, stop: "_SignalWatch"
) -> None:
    examples = steps.on_accelerators(run.train.held)
    train_step = steps.data_parallel(steps.train_step, donate=True, examples=examples)
    eval_step = steps.data_parallel(steps.eval_step)
    events = None
    if hosts.is_first():
        events = Events(run.workdir / "tensorboard", first_step=int(state.step) + 1)
    started = time.monotonic() - progress.train_s
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(
        f"training {run.config.model} ({parameters} parameters) on {run.train.total} "
        f"segments, validating on {run.validation.total}: {run.workdir}",
        flush=True,
    )
    while not progress.finished:
        epoch = progress.epoch + 1
        epoch_started, steps_before = time.monotonic(), int(state.step)
        batches = input_pipeline.training_batches(
            run.train,
            seed=run.config.seed,
            epoch=epoch,
            batch_size=run.batch_size,
            shuffle_buffer_mb=run.config.shuffle_buffer_mb,
            skip=progress.batch,
            rows_alone=examples is not None,
        )
        for after_step in _epoch_steps(run, train_step, state, batches, progress, stop):
            state = after_step
            # Counted here: to look at the state's own count is to wait for the device.
            progress.batch += 1
            if stop.agreed and progress.batch < run.steps_per_epoch:
                progress.train_s = time.monotonic() - started
                _save(run, NEWEST, state, progress)
                stop.leave(f"at epoch {epoch}, batch {progress.batch}")
        row = _row(run, state, epoch)
        row["seconds"] = round(time.monotonic() - epoch_started, 3)
        row["segments_per_s"] = round(
            (int(state.step) - steps_before) * run.batch_size / row["seconds"], 1
        )
        row |= _validate(run, eval_step, state)
        progress.train_s = round(time.monotonic() - started, 3)
        _finish_epoch(run, state, progress, row)
        if events:
            events.write(row["step"], row)
        if stop.agree():
            stop.leave(f"after epoch {epoch}")
    if events:
        events.close()


def _epoch_steps(
    run: _Run,
    train_step: Any,
    state: steps.TrainState,
    batches: Iterable[steps.Batch],
    progress: Progress,
    stop: "_SignalWatch",
) -> Iterator[steps.TrainState]:
    """Yields the state after each step of what is left of an epoch."""
    import tqdm

    with tqdm.tqdm(
        total=run.steps_per_epoch * run.batch_size,
        initial=progress.batch * run.batch_size,
        desc=f"epoch {progress.epoch + 1}/{run.config.num_epochs}",
        unit=" segments",
        leave=False,
        disable=None,
    ) as bar:
        for batch in batches:
            state = train_step(state, batch)
            bar.update(run.batch_size)
            # Looking at a number waits for the device, so it is done now and then.
            if stop.agree_now_and_then():
                loss, accuracy = _means(run, state)
                bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.3f}")
            yield state


def _means(run: _Run, state: steps.TrainState) -> tuple[float, float]:
    """Loss and accuracy over the epoch so far; a loss that is no number is an error."""
    sums = jax.device_get(state.sums)
    loss = float(sums["loss"] / sums["count"])
    accuracy = float(sums["correct"] / sums["count"])
    if not math.isfinite(loss):
        raise _diverged(run, "loss", loss, state)
    return loss, accuracy


def _diverged(run: _Run, what: str, value: float, state: steps.TrainState) -> UserError:
    return UserError(
        f"the {what} is {value} by step {int(state.step)}: training has diverged; "
        f"lower --learning_rate (now {run.config.learning_rate}) and start anew with "
        f"--overwrite; {run.workdir} keeps its last good checkpoint, if it has one"
    )


def _row(run: _Run, state: steps.TrainState, epoch: int) -> dict[str, Any]:
    loss, accuracy = _means(run, state)
    step = int(state.step)
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": loss,
        "train_accuracy": accuracy,
        "learning_rate": float(run.learning_rate(step)),
    }


def _validate(run: _Run, eval_step: Any, state: steps.TrainState) -> dict[str, float]:
    """Cross entropy and accuracy over the validation segments, each counted once."""
    batches = input_pipeline.evaluation_batches(
        run.validation, run.batch_size // hosts.count()
    )
    rows = steps.probabilities(eval_step, state, batches)
    rows = input_pipeline.in_shard_order(hosts.gather(rows))
    chosen = rows["probabilities"][np.arange(len(rows["label"])), rows["label"]]
    correct = rows["probabilities"].argmax(-1) == rows["label"]
    loss = float(-np.log(np.maximum(chosen, 1e-12)).mean())
    if not math.isfinite(loss):
        raise _diverged(run, "validation loss", loss, state)
    return {
        "validation_loss": loss,
        "validation_accuracy": float(correct.mean()),
    }


def _finish_epoch(
    run: _Run, state: steps.TrainState, progress: Progress, row: dict[str, Any]
) -> None:
    """Judges the epoch, saves it, and says how it went."""
    progress.epoch, progress.batch = row["epoch"], 0
    row["best"] = row["validation_loss"] < progress.best_loss
    if row["best"]:
        progress.best_epoch, progress.best_loss = row["epoch"], row["validation_loss"]
    progress.history.append(row)
    patience = run.config.patience
    stale = progress.epoch - progress.best_epoch
    progress.finished = progress.epoch == run.config.num_epochs or (
        patience > 0 and stale >= patience
    )
    # The best goes first: the newest must never speak of a best that is not there.
    if row["best"]:
        _save(run, BEST, state, progress)
    _save(run, NEWEST, state, progress)
    _write_metrics(run, progress)
    print(
        f"epoch {row['epoch']:3d}/{run.config.num_epochs}"
        f"  loss {row['train_loss']:.3f}  accuracy {row['train_accuracy']:.3f}"
        f"  | validation loss {row['validation_loss']:.3f}"
        f"  accuracy {row['validation_accuracy']:.3f}"
        f"  | {row['segments_per_s']:.0f} segments/s{'  best' if row['best'] else ''}",
        flush=True,
    )
    if progress.finished and progress.epoch < run.config.num_epochs:
        print(
            f"stopping early: no better validation loss for {stale} epochs", flush=True
        )


def _save(run: _Run, kind: str, state: steps.TrainState, progress: Progress) -> None:
    about = _about(run) | {"progress": dataclasses.asdict(progress)}
    run.checkpoints.save(kind, int(state.step), state, about)


def about_data(config: Config, prepared: Prepared) -> dict[str, Any]:
    """What has to travel with the weights for them to be used, as JSON can hold it."""
    return {
        "genres": list(prepared.genres),
        "shape": list(prepared.shape),
        "feature_spec": dict(prepared.spec),
        "hearing": FEATURES[config.feature].hearing,
        "config": json.loads(config_lib.to_json(config)),
    }


def check_same_config(config: Config, about: dict[str, Any]) -> None:
    """Raises UserError where a checkpoint was made with other settings than a run's."""
    saved = config_lib.from_json(json.dumps(about["config"]))
    workdir.check_same_run(saved, config)
    if about.get("hearing", []) != FEATURES[config.feature].hearing:
        raise UserError(
            f"{config.run_path}: was trained by another version of the program, which "
            f"shows a model more or less of {config.feature}; train it anew with "
            "--overwrite"
        )


def _about(run: _Run) -> dict[str, Any]:
    return about_data(run.config, run.prepared) | {"batch_size": run.batch_size}


def _write_metrics(run: _Run, progress: Progress) -> None:
    """Writes the whole of metrics.jsonl: a resumed run must not keep undone epochs."""
    if not hosts.is_first():
        return
    text = "".join(json.dumps(row) + "\n" for row in progress.history)
    config_lib.replace_text(run.workdir / workdir.METRICS_FILE, text)


class _SignalWatch:
    """Remembers SIGTERM or SIGINT until the loop has saved and can leave.

    A signal to one process of a job is one to all: they agree on it, and leave together
    at the same step.

    Attributes:
      agreed: the signal that all have agreed to leave at; 0 for none.
    """

    def __init__(self):
        self.agreed = 0
        self._signal = 0
        self._meetings = hosts.Meetings(_REFRESH_S)

    def agree(self) -> int:
        """Asks all processes for signals."""
        self.agreed = hosts.largest(self._signal)
        return self.agreed

    def agree_now_and_then(self) -> bool:
        """Whether this call, made alike in all processes, was one to agree at."""
        found = self._meetings.largest(self._signal)
        if found is None:
            return False
        self.agreed = found
        return True

    def __enter__(self) -> "_SignalWatch":
        def remember(number: int, frame: Any) -> None:
            self._signal = number

        self._before = {
            number: signal.signal(number, remember)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self, where: str) -> None:
        """Ends the process, with status 0 after a SIGTERM."""
        name = signal.Signals(self.agreed).name
        print(f"stopped by {name} {where}; saved: the same command goes on", flush=True)
        sys.exit(0 if self.agreed == signal.SIGTERM else 130)
