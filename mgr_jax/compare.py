"""Runs against runs: what may be said of two accuracies.

Predictions enter, a group of them for each thing that is compared, as a rule the same
settings under several seeds; means, intervals, p values and sentences leave. The
trials are the test tracks, never the segments. The experiments call it.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mgr_jax import scores
from mgr_jax.scores import Predictions

LEVELS = ("segment", "track")

_DRAWN_AT_ONCE = 2_000_000  # tracks, over the resamples of one chunk: 16 MB


@dataclasses.dataclass(frozen=True)
class Summary:
    """The accuracy of a group of runs; shares, 0 to 1.

    Attributes:
      mean: over the runs.
      deviation: sample standard deviation over the runs; None for one run.
      interval_95: [low, high] of the mean, by what other test tracks would change.
      n: distinct test tracks of all runs.
      runs: how many.
    """

    mean: float
    deviation: float | None
    interval_95: list[float]
    n: int
    runs: int

    def spread(self, sign: str = "+-") -> str:
        """Mean and deviation in percent, such as "75.4 +- 5.5"; one run, "75.4"."""
        mean = f"{100 * self.mean:.1f}"
        if self.deviation is None:
            return mean
        return f"{mean} {sign} {100 * self.deviation:.1f}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much more accurate one group is than another.

    Attributes:
      difference: mean accuracy of the first minus that of the second, -1 to 1.
      interval_95: [low, high] of it, paired by track.
      n_tracks: distinct test tracks of both groups together.
      n_shared: those that both groups tested.
    """

    difference: float
    interval_95: list[float]
    n_tracks: int
    n_shared: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        low, high = self.interval_95
        return low > 0 or high < 0


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Where two runs differ on what both tested.

    Attributes:
      only_a: what the first alone has right.
      only_b: what the second alone has right.
      n: what both tested.
      p: two-sided, exact.
    """

    only_a: int
    only_b: int
    n: int
    p: float


def summarise(group: Sequence[Predictions], level: str, seed: int = 0) -> Summary:
    """The mean accuracy of a group of runs, and how sure it is.

    The interval is a bootstrap: of all tracks that any run tested as many are drawn
    with replacement, 2000 times, the same draw for every run; percentiles 2.5 and 97.5
    of the mean over runs. (A run of whose tracks a draw holds none is left out of
    that mean.) Two imagined tracks are added to those drawn from, one right and one
    wrong in every run: without them the interval is too narrow near 0 and 1, and has
    no width where all answers are right. It is a resampling form of what Agresti and
    Coull add to Wald's interval (1998, "Approximate is better than 'exact'"). The runs
    are taken as they are: what another seed would change is in the deviation, not here.

    Args:
      group: at least one run; their test sets may differ, their genres may not.
      level: "segment" or "track".
      seed: for the draws.

    Raises:
      ValueError: no run, another level, or predictions that do not belong together.
    """
    [(hits, sizes)] = _counts([group], level)
    runs, tracks = hits.shape
    accuracies = hits.sum(axis=1) / sizes.sum(axis=1)
    mean = float(accuracies.mean())
    more = _with_imagined(hits, sizes, shares=(1.0, 0.0))
    means = np.concatenate(
        [_mean_accuracy(weights, *more) for weights in _draws(tracks + 2, seed)]
    )
    return Summary(
        mean=mean,
        deviation=float(accuracies.std(ddof=1)) if runs > 1 else None,
        # Sums of shares may pass 1 by a rounding.
        interval_95=_percentiles(means.clip(0, 1)),
        n=tracks,
        runs=runs,
    )


def paired_difference(
    a: Sequence[Predictions], b: Sequence[Predictions], level: str, seed: int = 0
) -> Difference:
    """The difference of two groups' mean accuracies, and how sure it is.

    The interval is a bootstrap over the tracks that any run of either group tested,
    2000 draws, percentiles 2.5 and 97.5. Both groups see the same draw, so what a
    track does to both cancels; of test sets that overlap in part, the common part does.
    Two imagined tracks are added to those drawn from, one in favour of each group, and
    each by as much as the groups usually differ on a track where they do: the root of
    the mean square, and by all of the track where none is known to differ. Without
    them four tracks against none would exclude zero, however many tracks there are,
    and two groups that answer alike would get an interval of width zero; with them
    that one reaches about three tracks to either side, and of two single runs zero is
    excluded about where McNemar's test gives 5 %. It is the resampling form of what
    Bonett and Price do to Wald's interval (2012, "Adjusted Wald confidence interval
    for a difference of binomial proportions based on paired data"). The difference
    itself stays what was observed.

    As in `summarise` the runs are taken as they are: of one run each, the interval is
    about these two trained networks, not about the next two.

    Args:
      a: the runs of the first.
      b: the runs of the second, as many or not.
      level: "segment" or "track".
      seed: for the draws; with a and b exchanged the interval is mirrored, but for
        the draws' own noise.

    Raises:
      ValueError: a group has no run, another level, or predictions that do not belong
        together.
    """
    counts = _counts([a, b], level)
    means = [(hits.sum(1) / sizes.sum(1)).mean() for hits, sizes in counts]
    tested_a, tested_b = (sizes.any(axis=0) for _, sizes in counts)
    size = _usual_difference(counts)
    first = _with_imagined(*counts[0], shares=(0.5 + size / 2, 0.5 - size / 2))
    second = _with_imagined(*counts[1], shares=(0.5 - size / 2, 0.5 + size / 2))
    differences = np.concatenate(
        [
            _mean_accuracy(weights, *first) - _mean_accuracy(weights, *second)
            for weights in _draws(first[0].shape[1], seed)
        ]
    )
    # Of few tracks, a draw may hold none that one of the groups tested.
    differences = differences[np.isfinite(differences)]
    return Difference(
        difference=float(means[0] - means[1]),
        interval_95=_percentiles(differences),
        n_tracks=len(tested_a),
        n_shared=int(np.sum(tested_a & tested_b)),
    )


def mcnemar(a: Predictions, b: Predictions, level: str = "track") -> McNemar:
    """McNemar's exact test of two runs, on what both tested (McNemar 1947).

    Were both as often right, what only one of them has right would be a fair coin's
    tosses; p is the two-sided binomial probability of a division as uneven. Without
    such cases p is 1. Of segments p is too small, since those of a track are not
    independent: prefer tracks.

    Args:
      a: the first run.
      b: the second.
      level: "track" or "segment".

    Raises:
      ValueError: another level, or predictions that do not belong together.
    """
    _check_fit([a, b], level)
    right_a, right_b = (
        dict(zip(zip(ids.tolist(), segments.tolist(), strict=True), right, strict=True))
        for ids, segments, right in (_answers(run, level) for run in (a, b))
    )
    both = right_a.keys() & right_b.keys()
    only_a = sum(bool(right_a[key] > right_b[key]) for key in both)
    only_b = sum(bool(right_b[key] > right_a[key]) for key in both)
    return McNemar(only_a, only_b, len(both), _sign_test(only_a, only_b))


def verdict(
    name_a: str, name_b: str, difference: Difference, what: str = "tracks"
) -> str:
    """One sentence that says what a difference shows, and no more.

    Args:
      name_a: what the first group is called.
      name_b: the second.
      difference: the first minus the second.
      what: what was counted, "tracks" or "segments".

    Returns:
      Such as "tracks: A is higher than B (+10.0 points, 95 % interval +2.5 to +17.4)",
      or "tracks: no difference shown between A and B (...)" where the interval holds
      zero.
    """
    low, high = difference.interval_95
    numbers = (
        f"({_points(difference.difference)} points, 95 % interval {_points(low)} to "
        f"{_points(high)})"
    )
    if not difference.excludes_zero:
        return f"{what}: no difference shown between {name_a} and {name_b} {numbers}"
    word = "higher" if low > 0 else "lower"
    return f"{what}: {name_a} is {word} than {name_b} {numbers}"


def _points(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _sign_test(ups: int, downs: int) -> float:
    """Two-sided binomial p of so many heads and tails, in whole numbers till the end.

    >>> _sign_test(1, 9)
    0.021484375
    """
    tosses = ups + downs
    term = total = 1
    for k in range(min(ups, downs)):
        term = term * (tosses - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**tosses)


def _check_fit(runs: Sequence[Predictions], level: str) -> None:
    """Refuses runs that cannot be compared."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r}: choose one of {', '.join(LEVELS)}")
    if any(len(run.labels) == 0 for run in runs):
        raise ValueError("a run has no predictions")
    genres = {np.shape(run.probabilities)[1] for run in runs}
    if len(genres) > 1:
        raise ValueError(f"runs of {sorted(genres)} genres cannot be compared")
    labels = {}
    for run in runs:
        for track_id, label in zip(run.track_ids, run.labels, strict=True):
            if labels.setdefault(track_id, label) != label:
                raise ValueError(f"track {track_id}: its label differs between runs")


def _answers(run: Predictions, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was asked and whether the answer is right, in one order whatever the rows'.

    Returns:
      (m,) track ids, (m,) segments (0 for a whole track), (m,) booleans.
    """
    order = np.lexsort((run.segments, run.track_ids))
    ids, segments = run.track_ids[order], run.segments[order]
    labels = run.labels[order]
    probabilities = np.asarray(run.probabilities, np.float64)[order]
    # As scores does before it takes the mean, so that both find the same.
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    if level == "track":
        ids, _, labels, probabilities = scores.mean_over_tracks(
            ids, labels, probabilities
        )
        segments = np.zeros(len(ids), int)
    return ids, segments, probabilities.argmax(axis=1) == labels


def _counts(
    groups: Sequence[Sequence[Predictions]], level: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each group, right answers and answers: (runs, tracks) each.

    The tracks are those of all groups, sorted by id.
    """
    if not all(groups):
        raise ValueError("a group has no run")
    _check_fit([run for group in groups for run in group], level)
    answers = [[_answers(run, level) for run in group] for group in groups]
    everything = np.unique(np.concatenate([ids for g in answers for ids, _, _ in g]))
    tracks = len(everything)
    counts = []
    for group in answers:
        places = [np.searchsorted(everything, ids) for ids, _, _ in group]
        hits = [
            np.bincount(place[right], minlength=tracks)
            for place, (_, _, right) in zip(places, group, strict=True)
        ]
        sizes = [np.bincount(place, minlength=tracks) for place in places]
        counts.append((np.stack(hits), np.stack(sizes)))
    return counts


def _usual_difference(counts: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Root mean square of two groups' differences on the tracks where they differ.

    Only a track that both tested can tell. Where there is none, 1: all of a track.
    """
    answers_a, answers_b = (sizes.sum(axis=0) for _, sizes in counts)
    hits_a, hits_b = (hits.sum(axis=0) for hits, _ in counts)
    shared = (answers_a > 0) & (answers_b > 0)
    found = hits_a[shared] / answers_a[shared] - hits_b[shared] / answers_b[shared]
    found = found[found != 0]
    return float(np.sqrt(np.mean(found**2))) if len(found) else 1.0


def _with_imagined(
    hits: np.ndarray, sizes: np.ndarray, shares: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Adds two tracks of the usual size, with these shares right in every run."""
    size = sizes.sum() / np.count_nonzero(sizes)
    more = np.full((len(sizes), 2), size)
    return np.hstack([hits, more * shares]), np.hstack([sizes, more])


def _draws(tracks: int, seed: int) -> Iterator[np.ndarray]:
    """How often each track is drawn, (some, tracks) at a time, 2000 rows in all."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // tracks)
    for start in range(0, scores.RESAMPLES, at_once):
        rows = min(at_once, scores.RESAMPLES - start)
        drawn = rng.integers(tracks, size=(rows, tracks))
        drawn += tracks * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * tracks)
        # float64, for the fast matrix product.
        yield counts.reshape(rows, tracks).astype(np.float64)


def _mean_accuracy(
    weights: np.ndarray, hits: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Mean over runs of accuracy, track t counted weights[:, t] times.

    Args:
      weights: (draws, tracks).
      hits: (runs, tracks).
      sizes: (runs, tracks).

    Returns:
      (draws,), over the runs that a draw holds tracks of; NaN where it holds none.
    """
    answers = weights @ sizes.T
    tested = answers > 0
    accuracies = (weights @ hits.T) / np.where(tested, answers, 1)
    runs = tested.sum(axis=1)
    return np.where(runs > 0, accuracies.sum(axis=1) / np.maximum(runs, 1), np.nan)


def _percentiles(values: np.ndarray) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]
