"""The best checkpoint on the test set: results.json, predictions.csv, the pictures.

A run folder enters, and nothing else: its config says which shards and which split.
The test set is read here, once training has chosen its checkpoint; the processes of a
job read a share each, and process 0 counts all that they found. main calls `evaluate`;
the experiments `restore` a model to ask it further.
"""

import dataclasses
import importlib.metadata
import json
import platform
import time
from typing import Any

import jax
import numpy as np

from mgr_jax import config as config_lib
from mgr_jax import figures, hosts, input_pipeline, report, splits
from mgr_jax import restore as restore_lib
from mgr_jax.config import Config, UserError, replace_text, warn
from mgr_jax.features import FEATURES
from mgr_jax.input_pipeline import Prepared
from mgr_jax.restore import Restored
from mgr_jax.scores import Predictions, score, write_predictions_csv
from mgr_jax.train import assignment_for
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
      What was written to results.json; nothing in a process that is not the first of
      its job.

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
    if not hosts.is_first():
        return {}
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


def restore(config: Config, prepared: Prepared) -> Restored:
    """Restores the best checkpoint of a run, for the features that it was trained on.

    Raises:
      UserError: there is no checkpoint, or it was trained on other features.
    """
    model = restore_lib.restore(config)
    if model.genres != prepared.genres or model.feature_spec != prepared.spec:
        raise UserError(
            f"{config.run_path}: was trained on other features than {prepared.folder} "
            "holds; name the folder that it was trained on with --features_dir"
        )
    return model


def _predict(
    config: Config,
    prepared: Prepared,
    assignment: splits.Assignment,
    model: Restored,
) -> Predictions:
    host = {"process_index": hosts.index(), "process_count": hosts.count()}
    side = input_pipeline.load_side(prepared, assignment, "test", **host)
    if not side.total:
        raise UserError(f"--split={config.split}: no segment is left for the test set")
    rows = model.predict(input_pipeline.evaluation_batches(side, model.batch_size))
    rows = input_pipeline.in_shard_order(hosts.gather(rows))
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
