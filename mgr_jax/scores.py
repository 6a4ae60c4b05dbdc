"""Predictions to scores: the numbers of a run's results.json.

A table of genre probabilities, one row a test segment, enters; a dict that json can
write leaves, with the same figures at segment and at track level. evaluate calls it,
and compare and the experiments read predictions through it. scikit-learn is its judge:
importing that takes longer than most evaluations, so the tests alone do.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgr_jax.config import UserError

CALIBRATION_BINS = 15
RESAMPLES = 2000
TOP_K = 3

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
_ID_COLUMNS = ("track_id", "segment", "genre", "predicted")
_PREFIX = "p_"  # keeps a genre called "segment" apart from the column of that name


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model answered for n segments.

    Attributes:
      track_ids: (n,) strings, the track that each segment was cut from.
      segments: (n,) integers, the segment's place in its track.
      labels: (n,) integers, the true genre as an index.
      probabilities: (n, genres), rows that sum to one.
    """

    track_ids: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def score(
    predictions: Predictions, genres: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Scores predictions segment by segment and track by track.

    A track's probabilities are the mean of its segments'. Of equal probabilities the
    first genre wins, in accuracy as in top-3.

    Args:
      predictions: at least one segment; a track's segments share one label.
      genres: at least two names, in label order.
      seed: for the bootstrap's resamples.

    Returns:
      {"segment": {...}, "track": {...}, "majority_accuracy": float}. The last is what
      always answering the test tracks' most frequent genre would score. Each of the
      first two holds
        n, accuracy;
        interval_95 [low, high] and interval_method: Wilson's for tracks; for segments
          a bootstrap over tracks, since segments of one track are not independent;
        macro_f1: mean over the genres that the test side holds;
        top_3: accuracy of the three likeliest; None for three genres or fewer, where
          it could only be 1;
        cross_entropy in nats, probabilities clipped to at least 2.2e-16;
        expected_calibration_error (see `calibration_error`);
        per_genre {genre: {n, precision, recall, f1}}: None for a genre without test
          examples, and for the precision of a genre that was never predicted;
        confusion: counts, a row for each true genre, a column for each predicted one.

    Raises:
      ValueError: arrays that do not fit together or are not probabilities.
    """
    _check(predictions, genres)
    labels = np.asarray(predictions.labels)
    probabilities = np.asarray(predictions.probabilities, np.float64)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    _, track_of, track_labels, track_probabilities = mean_over_tracks(
        predictions.track_ids, labels, probabilities
    )

    segment_level = _level(labels, probabilities, genres)
    track_level = _level(track_labels, track_probabilities, genres)
    correct = probabilities.argmax(axis=1) == labels
    segment_level["interval_95"], segment_level["interval_method"] = (
        bootstrap_over_tracks(correct, track_of, seed)
    )
    track_level["interval_95"] = wilson(track_level["accuracy"], track_level["n"])
    track_level["interval_method"] = "Wilson"
    return {
        "segment": segment_level,
        "track": track_level,
        "majority_accuracy": float(np.bincount(track_labels).max() / len(track_labels)),
    }


def wilson(accuracy: float, n: int) -> list[float]:
    """Wilson's 95 % score interval of a proportion.

    Args:
      accuracy: the share observed, 0 to 1.
      n: independent trials, at least one.

    Returns:
      [low, high], within 0 to 1 (Wilson 1927).
    """
    spread = _Z_95**2 / n
    centre = (accuracy + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (accuracy * (1 - accuracy) + spread / 4)) / (1 + spread)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def bootstrap_over_tracks(
    correct: np.ndarray, track_of: np.ndarray, seed: int = 0
) -> tuple[list[float], str]:
    """A 95 % interval of segment accuracy that treats tracks as the trials.

    Whole tracks are drawn with replacement, 2000 times, and the percentiles 2.5 and
    97.5 of the accuracies taken. Where every track has the same share of correct
    segments (all of them, for one) resampling shows no spread at all, and Wilson's
    interval with n = tracks stands in.

    Args:
      correct: (n,) booleans, one a segment.
      track_of: (n,) integers, each segment's track; every track from 0 occurs.
      seed: for the draws.

    Returns:
      [low, high], and the name of the method.
    """
    sizes = np.bincount(track_of)
    hits = np.bincount(track_of, weights=correct).astype(np.int64)
    # Tracks with equal (hits, size) are interchangeable: drawing how many of each kind
    # is the same draw as naming the tracks, and needs no (resamples, tracks) array.
    kinds, counts = np.unique(np.stack([hits, sizes]), axis=1, return_counts=True)
    tracks = len(sizes)
    if np.ptp(kinds[0] / kinds[1]) == 0:
        method = f"Wilson over {tracks} tracks, whose shares correct are all equal"
        return wilson(float(np.mean(correct)), tracks), method
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(tracks, counts / tracks, size=RESAMPLES)
    accuracies = (draws @ kinds[0]) / (draws @ kinds[1])
    low, high = np.percentile(accuracies, [2.5, 97.5])
    method = f"bootstrap over {tracks} tracks, {RESAMPLES} resamples, percentiles"
    return [float(low), float(high)], method


def mean_over_tracks(
    track_ids: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Takes tracks together: a track's probabilities are the mean of its segments'.

    Args:
      track_ids: (n,) strings, one a segment.
      labels: (n,) integers.
      probabilities: (n, genres).

    Returns:
      The tracks' ids, sorted; each segment's track (n,) as an index into them; the
      tracks' labels; their probabilities (tracks, genres).

    Raises:
      ValueError: segments of one track carry different labels.
    """
    ids, first, track_of, sizes = np.unique(
        track_ids, return_index=True, return_inverse=True, return_counts=True
    )
    track_labels = labels[first]
    if np.any(track_labels[track_of] != labels):
        raise ValueError("segments of one track carry different labels")
    sums = np.zeros((len(sizes), probabilities.shape[1]))
    np.add.at(sums, track_of, probabilities)
    return ids, track_of, track_labels, sums / sizes[:, np.newaxis]


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error over 15 equal-width bins of confidence.

    Confidence is the predicted genre's probability. Bin k holds confidences in
    (k / 15, (k + 1) / 15]; the result is the mean over examples of their bin's
    |accuracy - mean confidence| (Guo et al. 2017).

    Args:
      labels: (n,) integers.
      probabilities: (n, genres).

    Returns:
      0 (calibrated) to 1.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1
    bins = bins.clip(0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def write_predictions_csv(
    path: str | pathlib.Path, predictions: Predictions, genres: Sequence[str]
) -> None:
    """Writes a row a segment: track_id, segment, genre, predicted, p_GENRE...

    The file is written whole or not at all.
    Text is quoted always, so an id may hold commas, quotes and line breaks; a file
    name that is not UTF-8 keeps its bytes. Probabilities are float32, in digits that
    read back exactly.

    Args:
      path: the file to write.
      predictions: as given to `score`.
      genres: names, in label order.
    """
    predicted = np.argmax(predictions.probabilities, axis=1)
    probabilities = np.asarray(predictions.probabilities, np.float32)
    scratch = pathlib.Path(path).with_name(f".writing-{pathlib.Path(path).name}")
    with _open(scratch, "w") as file:
        # Without the quotes, Python 3.11 leaves a lone carriage return bare.
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow([*_ID_COLUMNS, *(_PREFIX + genre for genre in genres)])
        for k, track_id in enumerate(predictions.track_ids):
            genre = genres[predictions.labels[k]]
            answer = genres[predicted[k]]
            segment = int(predictions.segments[k])
            writer.writerow([str(track_id), segment, genre, answer, *probabilities[k]])
    scratch.replace(path)


def read_predictions_csv(
    path: str | pathlib.Path,
) -> tuple[Predictions, tuple[str, ...]]:
    """Reads what `write_predictions_csv` wrote.

    Args:
      path: a predictions.csv.

    Returns:
      The predictions (probabilities float32) and the genres in label order.

    Raises:
      UserError: the file cannot be read, or is not such a table.
    """
    count = len(_ID_COLUMNS)
    try:
        with _open(path, "r") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header[:count]) != _ID_COLUMNS:
            raise ValueError("other columns")
        genres = tuple(name.removeprefix(_PREFIX) for name in header[count:])
        predictions = Predictions(
            track_ids=np.array([row[0] for row in rows], str),
            segments=np.array([row[1] for row in rows], int),
            labels=np.array([genres.index(row[2]) for row in rows], int),
            probabilities=np.array([row[count:] for row in rows], np.float32),
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f"{path}: not a table of predictions ({error}); run --mode=evaluate again"
        ) from None
    return predictions, genres


def _open(path: str | pathlib.Path, mode: str) -> Any:
    return pathlib.Path(path).open(
        mode, newline="", encoding="utf-8", errors="surrogateescape"
    )


def _check(predictions: Predictions, genres: Sequence[str]) -> None:
    """Refuses arrays that would give numbers without meaning."""
    n = len(predictions.labels)
    shape = np.shape(predictions.probabilities)
    if n == 0:
        raise ValueError("no predictions: the test side is empty")
    if len(genres) < 2:
        raise ValueError(f"at least two genres are needed, not {list(genres)}")
    if shape != (n, len(genres)) or not (
        len(predictions.track_ids) == len(predictions.segments) == n
    ):
        raise ValueError(
            f"{n} labels and {len(genres)} genres do not fit probabilities of shape "
            f"{shape}, {len(predictions.track_ids)} track ids and "
            f"{len(predictions.segments)} segments"
        )
    if np.min(predictions.labels) < 0 or np.max(predictions.labels) >= len(genres):
        raise ValueError(f"a label lies outside 0 to {len(genres) - 1}")
    sums = np.sum(predictions.probabilities, axis=1, dtype=np.float64)
    # Written so that NaN fails too.
    if not (np.min(predictions.probabilities) >= 0 and np.all(abs(sums - 1) < 1e-3)):
        raise ValueError("a row of probabilities is negative or does not sum to one")
    pairs = set(zip(predictions.track_ids, predictions.segments, strict=True))
    if len(pairs) != n:
        raise ValueError("a segment of a track occurs twice")


def _level(
    labels: np.ndarray, probabilities: np.ndarray, genres: Sequence[str]
) -> dict[str, Any]:
    """Every figure of one level but the interval."""
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(genres), len(genres)), int)
    np.add.at(confusion, (labels, predicted), 1)
    right, n, answered = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0, where there is nothing to measure
        precision, recall, f1 = right / answered, right / n, 2 * right / (n + answered)
    top_k = None
    if len(genres) > TOP_K:
        # Of equal ones the first, as argmax has it.
        likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
        top_k = float(np.mean((likeliest == labels[:, None]).any(axis=1)))
    # Clipped, for a certain wrong answer would cost infinitely much.
    least = np.finfo(float).eps
    given = probabilities[np.arange(len(labels)), labels].clip(least, 1 - least)
    return {
        "n": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "macro_f1": float(np.mean(f1[n > 0])),
        f"top_{TOP_K}": top_k,
        "cross_entropy": float(-np.mean(np.log(given))),
        "expected_calibration_error": calibration_error(labels, probabilities),
        "per_genre": {
            genre: {
                "n": int(n[k]),
                "precision": _number(precision[k], n[k]),
                "recall": _number(recall[k], n[k]),
                "f1": _number(f1[k], n[k]),
            }
            for k, genre in enumerate(genres)
        },
        "confusion": confusion.tolist(),
    }


def _number(value: float, examples: int) -> float | None:
    """A float that JSON can hold; None where there is nothing to measure."""
    return float(value) if examples and math.isfinite(value) else None
