"""Baselines: what a network has to beat. An SVM on each bin's mean and deviation.

A config and a prepared folder enter; a run folder with a checkpoint leaves, as from
train, and evaluate tests it in the same way. The SVM sees no order of frames and no
pattern: what it gets right needs neither. scikit-learn fits it; it is kept as arrays,
not as a pickle, so that a run folder from elsewhere is safe to open.
"""

import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mgr_jax import config as config_lib
from mgr_jax import hosts, input_pipeline, train, workdir
from mgr_jax.checkpoints import BEST, Checkpoints, DamagedError
from mgr_jax.config import PRECISIONS, Config, UserError
from mgr_jax.features import FEATURES, Feature
from mgr_jax.input_pipeline import Batch, Prepared

COMPONENTS = 128  # principal components that the SVM sees at the most
_COSTS = (0.1, 1.0, 10.0, 100.0)
_SHARPNESSES = np.geomspace(0.1, 30, 26)
_READ_BATCH = 64
_KERNEL_ROWS = 4096  # rows whose kernel is held at a time

Svm = dict[str, np.ndarray]
Examples = tuple[np.ndarray, np.ndarray]


def fit(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """Fits a baseline's run to its end; a run that has come there is left as it is.

    Args:
      config: the run, its paths spelled out.
      folder: the prepared features.

    Returns:
      The run's folder, which holds the checkpoint.

    Raises:
      UserError: the folder belongs to another run, a side of the split is empty, or
        training holds one genre only.
    """
    if config.random_gain_db:
        raise UserError(
            f"--random_gain_db={config.random_gain_db:g}: --model={config.model} is "
            "fitted once, to the segments as they are; leave it out"
        )
    if config.precision != PRECISIONS[0]:
        raise UserError(
            f"--precision={config.precision}: --model={config.model} has no "
            "convolutions; leave it out"
        )
    if hosts.count() > 1:
        raise UserError(
            f"--model={config.model}: is fitted by one process; start it without others"
        )
    run_folder = workdir.open_workdir(config)
    prepared = input_pipeline.open_prepared(folder)
    checkpoints = Checkpoints(run_folder)
    try:
        fitted = checkpoints.about(BEST)
    except DamagedError as error:
        raise error.remedied from None
    if fitted is None:
        _fit_and_save(config, prepared, checkpoints)
    else:
        print(f"training had finished: {run_folder}", flush=True)
    checkpoints.close()
    workdir.write_config(config)
    return run_folder


def _fit_and_save(config: Config, prepared: Prepared, checkpoints: Checkpoints) -> None:
    started = time.monotonic()
    sides = train.open_sides(config, prepared)
    examples = {
        name: pooled(
            heard(
                FEATURES[config.feature],
                input_pipeline.evaluation_batches(side, _READ_BATCH),
            )
        )
        for name, side in sides.items()
    }
    print(
        f"fitting {config.model} to {sides['train'].size} segments, choosing by "
        f"{sides['validation'].size}: {config.run_path}",
        flush=True,
    )
    svm = fit_svm(examples["train"], examples["validation"], len(prepared.genres))
    about = train.about_data(config, prepared) | {
        "shapes": {name: list(value.shape) for name, value in svm.items()},
        "progress": {
            "finished": True,
            "best_epoch": None,
            "train_s": round(time.monotonic() - started, 3),
            "history": [],
        },
    }
    # Evaluation looks for the rows of a history.
    config_lib.replace_text(config.run_path / workdir.METRICS_FILE, "")
    checkpoints.save(BEST, 0, svm, about)


def restore(checkpoints: Checkpoints, about: dict[str, Any]) -> Svm:
    """The SVM that `fit` kept."""
    blank = {name: np.zeros(shape) for name, shape in about["shapes"].items()}
    return checkpoints.restore(BEST, blank)


def heard(feature: Feature, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches with what a model is shown of their features."""
    for batch in batches:
        yield batch | {"feature": feature.heard(batch["feature"])}


def predict(svm: Svm, batches: Iterable[Batch]) -> dict[str, Any]:
    """The SVM over masked batches of what is `heard`; else as `steps.probabilities`."""
    parts = []
    for batch in batches:
        rows = {key: batch[key][batch["mask"]] for key in batch.keys() - {"mask"}}
        x = pool(rows.pop("feature"))
        parts.append(rows | {"probabilities": probabilities(svm, x)})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def pool(features: np.ndarray) -> np.ndarray:
    """Mean and deviation of every bin over time.

    Args:
      features: (n, bins, frames).

    Returns:
      (n, 2 * bins) float64: the means, then the deviations.
    """
    values = np.asarray(features, np.float64)
    return np.concatenate([values.mean(axis=2), values.std(axis=2)], axis=1)


def pooled(batches: Iterable[Batch]) -> Examples:
    """The rows of masked batches, pooled (n, 2 * bins), and their labels (n,)."""
    parts = [(pool(b["feature"][b["mask"]]), b["label"][b["mask"]]) for b in batches]
    x, labels = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(labels)


def fit_svm(training: Examples, validation: Examples, num_genres: int) -> Svm:
    """Fits an SVM with a Gaussian kernel; its cost is chosen on the validation set.

    Columns are scaled to deviation 1 and turned onto at most 128 principal components.
    How sharp its probabilities are is chosen on the validation set too, after the cost.

    Args:
      training: (n, columns) and labels (n,), of two genres at the least.
      validation: the same, at least one row.
      num_genres: number of labels there are.

    Returns:
      Arrays, for `probabilities`.

    Raises:
      UserError: training holds one genre only.
    """
    from sklearn import decomposition, pipeline, preprocessing, svm

    x, labels = training
    if len(np.unique(labels)) < 2:
        raise UserError("--model=svm: training holds one genre only; add others")
    components = min(COMPONENTS, *x.shape)
    scale = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        decomposition.PCA(components, svd_solver="full"),
    )
    seen = scale.fit_transform(x)
    best = {"accuracy": -1.0}
    for cost in _COSTS:
        fitted = svm.SVC(C=cost, cache_size=1000).fit(seen, labels)
        found = _as_arrays(scale, fitted, num_genres)
        predicted = scores(found, validation[0]).argmax(axis=1)
        accuracy = np.mean(predicted == validation[1])
        if accuracy > best["accuracy"]:
            best = {"accuracy": accuracy, "svm": found}
    return best["svm"] | {"sharpness": _sharpness(best["svm"], validation)}


def _as_arrays(scale: Any, fitted: Any, num_genres: int) -> Svm:
    """A fitted scaler, PCA and SVC as what it takes to compute their answer."""
    scaler, pca = scale[0], scale[1]
    count = len(fitted.classes_)
    ends = np.cumsum(fitted.n_support_)
    pairs, duals = [], []
    for i in range(count):
        for j in range(i + 1, count):
            # libsvm keeps, for each vector, its weight against each other class.
            dual = np.zeros(len(fitted.support_vectors_))
            of_i = slice(ends[i] - fitted.n_support_[i], ends[i])
            of_j = slice(ends[j] - fitted.n_support_[j], ends[j])
            dual[of_i] = fitted.dual_coef_[j - 1, of_i]
            dual[of_j] = fitted.dual_coef_[i, of_j]
            pairs.append((i, j))
            duals.append(dual)
    # For two classes, scikit-learn turns the sign round.
    sign = -1.0 if count == 2 else 1.0
    genres = np.eye(num_genres)[fitted.classes_]
    return {
        "centre": scaler.mean_,
        "scale": scaler.scale_,
        "components": pca.components_.T,
        "component_centre": pca.mean_ @ pca.components_.T,
        "vectors": fitted.support_vectors_,
        "duals": sign * np.stack(duals, axis=1),
        "intercepts": sign * fitted.intercept_,
        "inverse_width": np.array(fitted._gamma),
        "for": np.stack([genres[i] for i, _ in pairs]),
        "against": np.stack([genres[j] for _, j in pairs]),
    }


def scores(svm: Svm, x: np.ndarray) -> np.ndarray:
    """Votes of the pairs of genres, ties broken by how sure they are.

    Source: sklearn.svm.SVC.decision_function, one against the rest.

    Args:
      svm: as `fit_svm` makes it.
      x: (n, columns) pooled features.

    Returns:
      (n, genres) float64; a genre that training did not hold has -1.
    """
    parts = []
    for start in range(0, len(x), _KERNEL_ROWS):
        z = (x[start : start + _KERNEL_ROWS] - svm["centre"]) / svm["scale"]
        z = z @ svm["components"] - svm["component_centre"]
        distance = (
            np.square(z).sum(1)[:, None]
            + np.square(svm["vectors"]).sum(1)
            - 2 * z @ svm["vectors"].T
        )
        kernel = np.exp(-svm["inverse_width"] * np.maximum(distance, 0))
        decision = kernel @ svm["duals"] + svm["intercepts"]
        sure = decision @ (svm["for"] - svm["against"])
        votes = (decision > 0) @ svm["for"] + (decision <= 0) @ svm["against"]
        parts.append(votes + sure / (3 * (np.abs(sure) + 1)))
    known = (svm["for"] + svm["against"]).any(axis=0)
    return np.where(known, np.concatenate(parts), -1.0)


def probabilities(svm: Svm, x: np.ndarray) -> np.ndarray:
    """Softmax of the scores, made sharp or blunt to fit the validation set.

    Args:
      svm: as `fit_svm` makes it.
      x: (n, columns) pooled features.

    Returns:
      (n, genres), rows that sum to one.
    """
    return _softmax(svm["sharpness"] * scores(svm, x))


def _sharpness(svm: Svm, validation: Examples) -> np.ndarray:
    """The factor that gives the validation labels the least cross entropy."""
    x, labels = validation
    found = scores(svm, x)

    def cross_entropy(sharpness):
        chosen = _softmax(sharpness * found)[np.arange(len(labels)), labels]
        return -np.log(np.maximum(chosen, 1e-12)).mean()

    return np.array(min(_SHARPNESSES, key=cross_entropy))


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
