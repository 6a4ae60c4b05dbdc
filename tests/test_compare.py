"""Comparisons against cases worked by hand, and intervals against known truths."""

import math

import numpy as np
import pytest

from mgr_jax import compare, scores
from mgr_jax.scores import Predictions

LEVELS = ("segment", "track")


def run(right, first=0, segments=None):
    """A run whose answers are right or wrong as told, two genres.

    Args:
      right: (tracks,) or (tracks, segments) booleans.
      first: number of the first track.
      segments: repeats a track's one answer so many times.
    """
    right = np.asarray(right, bool)
    if right.ndim == 1:
        right = np.repeat(right[:, np.newaxis], segments or 1, axis=1)
    tracks, count = right.shape
    labels = (np.arange(tracks) + first) % 2
    answers = np.where(right, labels[:, np.newaxis], 1 - labels[:, np.newaxis])
    return Predictions(
        np.repeat([f"t{first + k:05d}" for k in range(tracks)], count),
        np.tile(np.arange(count), tracks),
        np.repeat(labels, count),
        np.where(np.eye(2)[answers.ravel()] > 0, 0.9, 0.1).astype(np.float32),
    )


def shuffled(predictions, seed):
    order = np.random.default_rng(seed).permutation(len(predictions.labels))
    return Predictions(
        predictions.track_ids[order],
        predictions.segments[order],
        predictions.labels[order],
        predictions.probabilities[order],
    )


def pattern(only_a, only_b, both, neither=0):
    """Two runs of so many tracks of each kind."""
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return run(a), run(b)


# summarise


def test_mean_and_deviation_of_three_runs_by_hand():
    group = [run([1, 1, 1, 1]), run([1, 1, 0, 0]), run([1, 1, 1, 0])]
    summary = compare.summarise(group, "track")
    assert summary.mean == pytest.approx(0.75)
    assert summary.deviation == pytest.approx(0.25)
    assert (summary.n, summary.runs) == (4, 3)
    low, high = summary.interval_95
    assert 0 < low < 0.75 < high <= 1


def test_one_run_has_no_deviation_and_the_accuracy_of_its_results():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], size=60).astype(np.float32)
    predictions = Predictions(
        np.repeat([f"t{k}" for k in range(12)], 5),
        np.tile(np.arange(5), 12),
        np.repeat(rng.integers(3, size=12), 5),
        probabilities,
    )
    result = scores.score(predictions, ("a", "b", "c"))
    for level in LEVELS:
        summary = compare.summarise([predictions], level)
        assert summary.mean == pytest.approx(result[level]["accuracy"])
        assert summary.deviation is None
        assert (summary.n, summary.runs) == (12, 1)


def test_one_run_of_independent_tracks_has_the_binomial_interval():
    right = np.arange(40) % 2 == 0
    for level in LEVELS:
        low, high = compare.summarise([run(right, segments=25)], level).interval_95
        # The binomial's own quantiles are 14 and 26 of 40; 2000 draws may miss by one.
        assert low == pytest.approx(14 / 40, abs=1.01 / 40)
        assert high == pytest.approx(26 / 40, abs=1.01 / 40)


def test_where_all_is_right_or_wrong_the_interval_still_has_a_width():
    # One imagined track of 22 is wrong: 22 draws hold it more than 3 times once in 50.
    for share, interval in ((1, [1 - 3 / 22, 1]), (0, [0, 3 / 22])):
        group = [run([share] * 20, segments=3)] * 2
        for level in LEVELS:
            summary = compare.summarise(group, level)
            assert summary.mean == share
            assert summary.deviation == 0
            assert summary.interval_95 == pytest.approx(interval)


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.86, 0.9, 0.93, 0.97])
@pytest.mark.parametrize("tracks", [24, 46])
def test_the_interval_holds_the_truth_near_one_too(tracks, accuracy):
    """Over every outcome of one run, by its binomial probability."""
    held = 0.0
    for k in range(tracks + 1):
        outcome = run([1] * k + [0] * (tracks - k))
        low, high = compare.summarise([outcome], "track").interval_95
        if low <= accuracy <= high:
            ways = math.comb(tracks, k)
            held += ways * accuracy**k * (1 - accuracy) ** (tracks - k)
    assert held > 0.92


def test_runs_that_tested_other_tracks_count_each_track_once():
    group = [run([1] * 10), run([0] * 10, first=5)]
    summary = compare.summarise(group, "track")
    assert summary.mean == pytest.approx(0.5)
    assert summary.n == 15


def test_a_run_that_a_draw_misses_is_left_out_of_its_mean():
    # The second tested one of ten tracks, which a third of the draws do not hold.
    group = [run([1] * 10), run([1])]
    low, high = compare.summarise(group, "track").interval_95
    assert 0 < low < high == 1


def test_a_track_weighs_as_many_segments_as_it_has():
    ids, labels = np.array(["x"] * 9 + ["y"]), np.zeros(10, int)
    probabilities = np.eye(2)[[0] * 9 + [1]]
    uneven = Predictions(ids, np.arange(10), labels, probabilities)
    assert compare.summarise([uneven], "segment").mean == pytest.approx(0.9)
    assert compare.summarise([uneven], "track").mean == pytest.approx(0.5)


def test_the_mean_of_more_runs_is_as_sure_as_the_tracks_are_many():
    # Copies of one run tell nothing new about the tracks.
    one = run(np.arange(50) % 3 > 0)
    alone = compare.summarise([one], "track").interval_95
    assert compare.summarise([one] * 5, "track").interval_95 == pytest.approx(alone)


# paired_difference


def test_the_difference_is_the_difference_of_the_means():
    a = [run([1, 1, 1, 0]), run([1, 1, 0, 0])]
    b = [run([1, 0, 0, 0]), run([0, 0, 0, 0]), run([1, 1, 0, 0])]
    difference = compare.paired_difference(a, b, "track")
    assert difference.difference == pytest.approx(5 / 8 - 3 / 12)
    assert (difference.n_tracks, difference.n_shared) == (4, 4)
    low, high = difference.interval_95
    assert low < difference.difference < high


def test_runs_that_answer_alike_leave_about_three_tracks_either_way():
    # 40 tracks and the two imagined ones: ups minus downs of 42 draws, each up with
    # 1/42 and down with 1/42. P(3 or more) = 0.040, P(4 or more) = 0.010.
    same = [run([1] * 30 + [0] * 10)]
    difference = compare.paired_difference(same, same, "track")
    assert difference.difference == 0
    assert difference.interval_95 == pytest.approx([-3 / 42, 3 / 42], abs=1e-9)
    assert not difference.excludes_zero


def test_all_right_against_all_wrong_takes_six_tracks_to_be_a_difference():
    for tracks, shown in ((1, False), (3, False), (8, True), (100, True)):
        a, b = run([1] * tracks), run([0] * tracks)
        difference = compare.paired_difference([a], [b], "track")
        assert difference.difference == 1
        assert difference.excludes_zero == shown, tracks
        assert difference.interval_95[1] == 1


@pytest.mark.parametrize("both", [20, 90, 900])
@pytest.mark.parametrize(
    ("only_a", "only_b"), [(4, 0), (0, 4), (8, 0), (2, 8), (2, 13), (20, 30), (20, 42)]
)
def test_zero_is_excluded_where_the_exact_test_says_so(only_a, only_b, both):
    a, b = pattern(only_a, only_b, both)
    difference = compare.paired_difference([a], [b], "track")
    significant = compare.mcnemar(a, b).p < 0.05
    assert difference.excludes_zero == significant
    assert np.sign(difference.difference) == np.sign(only_a - only_b)


def test_pairing_narrows_the_interval_of_runs_that_fail_on_the_same_tracks():
    rng = np.random.default_rng(0)
    hard = rng.random(300) < 0.4
    slips = rng.random((2, 300)) < 0.05
    a, b = (run(~hard ^ slip) for slip in slips)
    elsewhere = run(~hard ^ slips[1], first=300)
    paired = compare.paired_difference([a], [b], "track")
    unpaired = compare.paired_difference([a], [elsewhere], "track")
    assert paired.difference == pytest.approx(unpaired.difference)
    assert (paired.n_tracks, paired.n_shared) == (300, 300)
    assert (unpaired.n_tracks, unpaired.n_shared) == (600, 0)
    width, unpaired_width = (np.ptp(d.interval_95) for d in (paired, unpaired))
    # Both slips toss 300 coins of 0.05: sd sqrt(2 * 300 * 0.05 * 0.95) / 300 = 1.8
    # points paired; unpaired sqrt(2 * 0.4 * 0.6 / 300) = 4.0.
    assert width == pytest.approx(2 * 1.96 * 0.018, rel=0.25)
    assert unpaired_width == pytest.approx(2 * 1.96 * 0.040, rel=0.25)


def test_a_part_that_both_tested_narrows_the_interval_in_part():
    rng = np.random.default_rng(1)
    right = rng.random(400) < 0.6
    a = run(right[:200])
    widths = []
    for first in (0, 100, 200):
        difference = compare.paired_difference(
            [a], [run(right[first : first + 200], first=first)], "track"
        )
        assert difference.n_tracks == 200 + first
        assert difference.n_shared == 200 - first
        widths.append(np.ptp(difference.interval_95))
    assert widths[0] < 0.7 * widths[1]
    assert widths[1] < 0.9 * widths[2]


def test_test_sets_of_one_track_each_show_nothing():
    difference = compare.paired_difference([run([1])], [run([0], first=1)], "segment")
    assert difference.difference == 1
    assert (difference.n_tracks, difference.n_shared) == (2, 0)
    assert not difference.excludes_zero
    assert np.all(np.isfinite(difference.interval_95))


def test_segments_of_one_track_are_not_counted_as_independent():
    a, b = pattern(12, 6, 22)
    many = [
        Predictions(
            np.repeat(r.track_ids, 25),
            np.tile(np.arange(25), 40),
            np.repeat(r.labels, 25),
            np.repeat(r.probabilities, 25, axis=0),
        )
        for r in (a, b)
    ]
    few = compare.paired_difference([a], [b], "track")
    segments = compare.paired_difference([many[0]], [many[1]], "segment")
    assert segments.interval_95 == pytest.approx(few.interval_95)
    assert segments.n_tracks == 40


def test_exchanging_the_groups_turns_the_difference_round():
    a, b = pattern(15, 5, 60, 20)
    there = compare.paired_difference([a], [b], "track")
    back = compare.paired_difference([b], [a], "track")
    assert back.difference == -there.difference
    low, high = there.interval_95
    # The draws differ, by a track at the most.
    assert back.interval_95 == pytest.approx([-high, -low], abs=1.01 / 100)


# What both intervals hold.


@pytest.mark.parametrize("level", LEVELS)
def test_neither_the_order_of_rows_nor_a_second_call_changes_an_interval(level):
    rng = np.random.default_rng(2)
    a, b = (run(rng.random((40, 5)) < p) for p in (0.7, 0.5))
    mixed_a, mixed_b = shuffled(a, 0), shuffled(b, 1)
    assert compare.summarise([a], level) == compare.summarise([mixed_a], level)
    there = compare.paired_difference([a], [b], level, seed=3)
    assert compare.paired_difference([mixed_a], [mixed_b], level, seed=3) == there
    assert compare.mcnemar(a, b, level) == compare.mcnemar(mixed_a, mixed_b, level)


def test_segments_whose_mean_ties_but_for_rounding_do_not_depend_on_their_order():
    # Each genre gets the same three numbers, in another order: 1/3, or a bit beside.
    numbers = np.random.default_rng(7).dirichlet([1, 1, 1], size=200)
    ties = Predictions(
        np.repeat([f"t{k:03d}" for k in range(200)], 3),
        np.tile(np.arange(3), 200),
        np.zeros(600, int),
        np.stack([np.roll(numbers, k, axis=1) for k in range(3)], 1).reshape(600, 3),
    )
    for seed in range(3):
        result = compare.mcnemar(ties, shuffled(ties, seed))
        assert (result.only_a, result.only_b) == (0, 0)


def test_another_seed_draws_otherwise():
    rng = np.random.default_rng(5)
    a, b = (run(rng.random((97, 7)) < p) for p in (0.7, 0.5))
    one, other = (
        compare.paired_difference([a], [b], "segment", seed=s) for s in (0, 1)
    )
    assert one.difference == other.difference
    assert one.interval_95 != other.interval_95
    assert one.interval_95 == pytest.approx(other.interval_95, abs=0.01)


def test_the_result_does_not_depend_on_how_many_draws_are_held_at_once(monkeypatch):
    a, b = pattern(15, 5, 60, 20)
    whole = compare.paired_difference([a], [b], "track")
    shapes = [weights.shape for weights in compare._draws(102, 0)]
    assert shapes == [(2000, 102)]
    monkeypatch.setattr(compare, "_DRAWN_AT_ONCE", 102 * 300)
    shapes = [weights.shape for weights in compare._draws(102, 0)]
    assert shapes == [(300, 102)] * 6 + [(200, 102)]
    chunked = compare.paired_difference([a], [b], "track")
    assert chunked.interval_95 == pytest.approx(whole.interval_95, abs=1.01 / 100)


def simulated(rng, tracks, accuracies, runs, first=0):
    """Groups of runs over tracks of many difficulties, three segments each.

    A segment is right if a toss of the track and the segment's own toss say so, so
    that segments of one track, and runs and groups on it, go together.
    """
    of_track = rng.random((tracks, 1))
    return [
        [
            run(0.5 * of_track + 0.5 * rng.random((tracks, 3)) < threshold, first=first)
            for _ in range(runs)
        ]
        for threshold in accuracies
    ]


def triangle(threshold):
    """P(0.5 u + 0.5 v < threshold) of two uniform numbers."""
    if threshold < 0.5:
        return 2 * threshold**2
    return 1 - 2 * (1 - threshold) ** 2


# 95 % of 200 are 190, give or take 3.1: about four deviations either way. The upper
# end also refuses an interval that is wide enough to hold everything.
AROUND_95_PERCENT = range(178, 200)


def test_a_known_accuracy_lies_in_its_interval_about_95_times_in_100():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        [group] = simulated(rng, 60, [0.6], runs=2)
        low, high = compare.summarise(group, "segment").interval_95
        inside += low <= triangle(0.6) <= high
    assert inside in AROUND_95_PERCENT


@pytest.mark.parametrize("thresholds", [(0.6, 0.5), (0.5, 0.5), (0.9, 0.88)])
def test_a_known_difference_lies_in_its_interval_about_95_times_in_100(thresholds):
    rng = np.random.default_rng(4)
    truth = triangle(thresholds[0]) - triangle(thresholds[1])
    inside = 0
    for _ in range(200):
        a, b = simulated(rng, 60, thresholds, runs=2)
        low, high = compare.paired_difference(a, b, "segment").interval_95
        inside += low <= truth <= high
    assert inside in AROUND_95_PERCENT


def test_networks_that_hardly_ever_differ_keep_their_95_times_in_100():
    # Most test sets hold no track on which the two differ, and so no spread.
    rng = np.random.default_rng(6)
    truth = triangle(0.97) - triangle(0.95)
    inside = 0
    for _ in range(200):
        a, b = simulated(rng, 30, (0.97, 0.95), runs=1)
        low, high = compare.paired_difference(a, b, "segment").interval_95
        inside += low <= truth <= high
    assert inside >= min(AROUND_95_PERCENT)


# mcnemar


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 9, 0.021484375),  # 2 * (1 + 10) / 1024
        (9, 1, 0.021484375),
        (0, 5, 0.0625),  # 2 / 32
        (0, 6, 0.03125),
        (2, 2, 1.0),
        (3, 4, 1.0),
        (0, 0, 1.0),
        (0, 1, 1.0),
        (2, 8, 0.109375),  # 2 * (1 + 10 + 45) / 1024
    ],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    a, b = pattern(only_a, only_b, both=7, neither=3)
    result = compare.mcnemar(a, b)
    assert result == compare.McNemar(only_a, only_b, only_a + only_b + 10, p)


def test_mcnemar_agrees_with_the_binomial_test_of_many():
    from scipy import stats

    a, b = pattern(2450, 2600, both=3000)
    expected = stats.binomtest(2450, 5050).pvalue
    assert compare.mcnemar(a, b).p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_counts_only_what_both_tested():
    a, b = run([1, 1, 0, 1]), run([0, 1, 0, 1], first=2)
    # Shared are tracks 2 and 3: a has 0, 1 and b has 0, 1.
    assert compare.mcnemar(a, b) == compare.McNemar(0, 0, 2, 1.0)
    apart = compare.mcnemar(a, run([1, 1], first=10))
    assert apart == compare.McNemar(0, 0, 0, 1.0)


def test_mcnemar_of_segments_pairs_them_by_their_place():
    a = run([[1, 1, 0], [1, 0, 0]])
    b = run([[0, 1, 1], [1, 0, 1]])
    assert compare.mcnemar(a, b, "segment") == compare.McNemar(1, 2, 6, 1.0)


# verdict


@pytest.mark.parametrize(
    ("difference", "interval", "sentence"),
    [
        (0.1, [0.025, 0.1744], "A is higher than B (+10.0 points, 95 % interval +2.5 to"
         " +17.4)"),
        (-0.1, [-0.1744, -0.025], "A is lower than B (-10.0 points, 95 % interval -17.4"
         " to -2.5)"),
        (0.1, [-0.0001, 0.2], "no difference shown between A and B (+10.0 points, 95 % "
         "interval 0.0 to +20.0)"),
        (0.0, [0.0, 0.0], "no difference shown between A and B (0.0 points, 95 % "
         "interval 0.0 to 0.0)"),
        (-0.02, [-0.04, 0.0], "no difference shown between A and B (-2.0 points, 95 % "
         "interval -4.0 to 0.0)"),
    ],
)  # fmt: skip
def test_a_verdict_says_higher_or_lower_only_where_zero_is_excluded(
    difference, interval, sentence
):
    found = compare.Difference(difference, interval, n_tracks=50, n_shared=50)
    assert compare.verdict("A", "B", found) == f"tracks: {sentence}"
    assert compare.verdict("A", "B", found, "segments") == f"segments: {sentence}"


# Mistakes.


@pytest.mark.parametrize(
    ("groups", "level", "message"),
    [
        (([], [run([1])]), "track", "no run"),
        (([run([1])], [run([1])]), "tracks", "choose one of segment, track"),
        (([run(np.zeros((0, 1)))], [run([1])]), "track",
         "no predictions"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(groups, level, message):
    with pytest.raises(ValueError, match=message):
        compare.paired_difference(*groups, level)


def test_runs_whose_labels_or_genres_disagree_are_refused():
    a = run([1, 0, 1])
    other = Predictions(a.track_ids, a.segments, 1 - a.labels, a.probabilities)
    wider = Predictions(a.track_ids, a.segments, a.labels, np.eye(3)[a.labels])
    for b, message in ((other, "label differs"), (wider, "genres")):
        with pytest.raises(ValueError, match=message):
            compare.mcnemar(a, b)
        with pytest.raises(ValueError, match=message):
            compare.paired_difference([a], [b], "track")
        with pytest.raises(ValueError, match=message):
            compare.summarise([a, b], "track")
