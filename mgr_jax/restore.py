"""A run folder to a model that answers: its best checkpoint, and what belongs to it.

A run's config enters; a `Restored` leaves, which needs nothing of the run any more, and
neither the data nor the prepared features. evaluate and predict call it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from mgr_jax import baselines, hosts, steps
from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints, DamagedError
from mgr_jax.config import BASELINES, Config, UserError, warn
from mgr_jax.features import FEATURES, Feature
from mgr_jax.train import check_same_config


@dataclasses.dataclass(frozen=True)
class Restored:
    """A run's best model, ready to answer.

    Attributes:
      predict: masked batches to their rows with "probabilities", padding left out (see
        `steps.probabilities`).
      probabilities: (rows, bins, frames) to (rows, genres), a pure JAX function, to be
        exported; None for a baseline.
      batch_size: rows a batch, on each host.
      genres: label names, in the order of the probabilities.
      shape: (bins, frames) of the feature.
      feature_spec: what the features were made from.
      parameters: numbers that training found.
      progress: how far the run has come, as train keeps it.
      best_epoch: the model's epoch; None for one that has none.
    """

    predict: Callable[[Iterable[steps.Batch]], dict[str, np.ndarray]]
    probabilities: Callable[[jax.Array], jax.Array] | None
    batch_size: int
    genres: tuple[str, ...]
    shape: tuple[int, int]
    feature_spec: Mapping[str, Any]
    parameters: int
    progress: dict[str, Any]
    best_epoch: int | None


def restore(config: Config) -> Restored:
    """Restores the best checkpoint of a run.

    Args:
      config: the run's own.

    Raises:
      UserError: there is no checkpoint, it is damaged, or it is of another run.
    """
    workdir = config.run_path
    checkpoints = Checkpoints(workdir)
    try:
        about = checkpoints.about(BEST)
        if about is None:
            raise UserError(f"{workdir}: holds no checkpoint yet; train it first")
        check_same_config(config, about)
        if config.model in BASELINES:
            model = baselines.restore(checkpoints, about)
        else:
            model = _restore_state(config, about, checkpoints)
    except DamagedError as error:
        raise error.remedied from None
    probabilities = None
    if config.model in BASELINES:
        predict = functools.partial(_predict, model, FEATURES[config.feature])
        parameters = sum(value.size for value in model.values())
    else:
        step = steps.data_parallel(steps.eval_step)
        predict = functools.partial(steps.probabilities, step, model)
        probabilities = functools.partial(_probabilities, model)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    progress = _progress(checkpoints, about)
    checkpoints.close()
    devices = jax.device_count()
    return Restored(
        predict=predict,
        probabilities=probabilities,
        batch_size=max(config.batch_size // devices, 1) * devices // hosts.count(),
        genres=tuple(about["genres"]),
        shape=tuple(about["shape"]),
        feature_spec=about["feature_spec"],
        parameters=parameters,
        progress=progress,
        best_epoch=about["progress"]["best_epoch"],
    )


def _predict(
    svm: baselines.Svm, feature: Feature, batches: Iterable[steps.Batch]
) -> dict[str, np.ndarray]:
    return baselines.predict(svm, baselines.heard(feature, batches))


def _probabilities(state: steps.TrainState, features: jax.Array) -> jax.Array:
    return steps.eval_step(state, {"feature": features})


def _progress(checkpoints: Checkpoints, best: dict[str, Any]) -> dict[str, Any]:
    """How far the run has come: the newest checkpoint says, or else the best."""
    try:
        # A kill between the two saves of a first epoch leaves the best alone.
        return (checkpoints.about(NEWEST) or best)["progress"]
    except DamagedError as error:
        warn(f"{error}; the best checkpoint is whole, and is what is used")
        return best["progress"]


def _restore_state(
    config: Config, about: dict[str, Any], checkpoints: Checkpoints
) -> steps.TrainState:
    like = steps.like_state(
        config,
        len(about["genres"]),
        tuple(about["shape"]),
        total_steps=1,
        steps_per_epoch=1,
    )
    return checkpoints.restore(BEST, like)
