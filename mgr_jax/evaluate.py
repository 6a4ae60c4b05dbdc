"""The best checkpoint on the test set: results.json, predictions.csv, the pictures.

A run folder enters, and nothing else: its config says which shards and which split.
The test set is read here, once training has chosen its checkpoint. main calls
`evaluate`; the experiments `restore` a model to ask it further.
"""

import dataclasses
import functools
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from mgr_jax import baselines, figures, input_pipeline, report, splits, steps
from mgr_jax import config as config_lib
from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints, DamagedError
from mgr_jax.config import Config, UserError, replace_text, warn
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import Prepared
from mgr_jax.models import BASELINES
from mgr_jax.scores import Predictions, score, write_predictions_csv
from mgr_jax.train import assignment_for, check_same_config
from mgr_jax.workdir import PREDICTIONS_FILE, RESULTS_FILE

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow-datasets",
    "soundfile",
    "soxr",
    "scikit-learn",
)


def evaluate(config: Config) -> dict[str, Any]:
    """Evaluates a run's best checkpoint on its test set, and writes what came of it.

    Args:
      config: the run's own, as `workdir.read_config` gives it.

    Returns:
      What was written to results.json.

    Raises:
      UserError: the checkpoint or the prepared features are not there, or the split
        has no test set.
    """
    started = time.monotonic()
    workdir = config.run_path
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(config))
    assignment = assignment_for(config, prepared)
    model = restore(config, prepared)
    progress = model.progress
    predictions = _predict(config, prepared, assignment, model)
    history = progress["history"]
    if not progress["finished"]:
        warn(f"{workdir}: training has not finished; these are not its final results")
    results = {
        **_about_run(config, prepared, assignment),
        "training_finished": progress["finished"],
        "best_epoch": model.best_epoch,
        "epochs_run": len(history),
        "parameters": model.parameters,
        **score(predictions, prepared.genres, seed=config.seed),
        "wall_s": {
            "train": progress["train_s"],
            "evaluate": round(time.monotonic() - started, 3),
        },
    }
    # The results go last: where they are, so is what they were counted from.
    write_predictions_csv(workdir / PREDICTIONS_FILE, predictions, prepared.genres)
    replace_text(workdir / RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    training = input_pipeline.load_side(prepared, assignment, "train")
    examples = input_pipeline.example_per_genre(training, prepared.genres)
    pictures = figures.write_figures(
        workdir, results, history, examples, FEATURES[config.feature]
    )
    page = report.write_html(workdir, results, history, pictures)
    paths = [workdir / RESULTS_FILE, page, workdir / PREDICTIONS_FILE, *pictures]
    print(report.summary_table(results, paths), flush=True)
    return results


def _about_run(
    config: Config, prepared: Prepared, assignment: splits.Assignment
) -> dict[str, Any]:
    """What the numbers are of, and what made them."""
    return {
        "feature": config.feature,
        "dataset": config.dataset,
        "model": config.model,
        "protocol": config.split,
        "protocol_leaks": assignment.leaks,
        "split_warnings": list(assignment.warnings),
        "seed": config.seed,
        "genres": list(prepared.genres),
        **_counts(assignment),
        "versions": _versions(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "command": config_lib.command(config),
        "config": dataclasses.asdict(config),
    }


@dataclasses.dataclass(frozen=True)
class Restored:
    """A run's best model, ready to answer.

    Attributes:
      predict: masked batches to their rows with "probabilities", padding left out (see
        `steps.probabilities`).
      batch_size: rows a batch.
      parameters: numbers that training found.
      progress: how far the run has come, as train keeps it.
      best_epoch: the model's epoch; None for one that has none.
    """

    predict: Callable[[Iterable[steps.Batch]], dict[str, np.ndarray]]
    batch_size: int
    parameters: int
    progress: dict[str, Any]
    best_epoch: int | None


def restore(config: Config, prepared: Prepared) -> Restored:
    """Restores the best checkpoint of a run.

    Args:
      config: the run's own.
      prepared: the features that it was trained on.

    Raises:
      UserError: there is no checkpoint, or it was trained on other features.
    """
    workdir = config.run_path
    checkpoints = Checkpoints(workdir)
    try:
        about = checkpoints.about(BEST)
    except DamagedError as error:
        raise UserError(
            f"{error}; put back a copy of the run's folder, or train it anew with "
            "--overwrite"
        ) from None
    if about is None:
        raise UserError(f"{workdir}: holds no checkpoint yet; train it first")
    check_same_config(config, about)
    if (
        about["genres"] != list(prepared.genres)
        or about["feature_spec"] != prepared.spec
    ):
        raise UserError(
            f"{workdir}: was trained on other features than {prepared.folder} "
            "holds; name the folder that it was trained on with --features_dir"
        )
    if config.model in BASELINES:
        svm = baselines.restore(checkpoints, about)
        predict = functools.partial(baselines.predict, svm)
        parameters = sum(value.size for value in svm.values())
    else:
        state = _restore_state(config, prepared, checkpoints)
        step = steps.data_parallel(steps.eval_step)
        predict = functools.partial(steps.probabilities, step, state)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    progress = _progress(checkpoints, about)
    checkpoints.close()
    devices = jax.local_device_count()
    return Restored(
        predict=predict,
        batch_size=max(config.batch_size // devices, 1) * devices,
        parameters=parameters,
        progress=progress,
        best_epoch=about["progress"]["best_epoch"],
    )


def _progress(checkpoints: Checkpoints, best: dict[str, Any]) -> dict[str, Any]:
    """How far the run has come: the newest checkpoint says, or else the best."""
    try:
        # A kill between the two saves of a first epoch leaves the best alone.
        return (checkpoints.about(NEWEST) or best)["progress"]
    except DamagedError as error:
        warn(f"{error}; the best checkpoint is whole, and is what is tested")
        return best["progress"]


def _restore_state(
    config: Config, prepared: Prepared, checkpoints: Checkpoints
) -> steps.TrainState:
    bins = prepared.shape[0]
    blank = (np.zeros((bins, 1), np.float32), np.ones((bins, 1), np.float32))
    like = steps.create_state(
        config,
        len(prepared.genres),
        prepared.shape,
        blank,
        total_steps=1,
        steps_per_epoch=1,
    )
    return checkpoints.restore(BEST, like)


def _predict(
    config: Config,
    prepared: Prepared,
    assignment: splits.Assignment,
    model: Restored,
) -> Predictions:
    side = input_pipeline.load_side(prepared, assignment, "test")
    if not side.size:
        raise UserError(f"--split={config.split}: no segment is left for the test set")
    rows = model.predict(input_pipeline.evaluation_batches(side, model.batch_size))
    ids = np.array([track.id for track in prepared.tracks])
    return Predictions(
        track_ids=ids[rows["track"]],
        segments=rows["segment"],
        labels=rows["label"],
        probabilities=rows["probabilities"],
    )


def _counts(assignment: splits.Assignment) -> dict[str, dict[str, int]]:
    return {
        "num_segments": {
            side: input_pipeline.count_segments(assignment, side)
            for side in splits.SIDES
        },
        "num_tracks": {
            side: sum(side in sides for sides in assignment.sides.values())
            for side in splits.SIDES
        },
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("mgr_jax", *_PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
