"""Scores against numbers worked out by hand, and against scikit-learn's."""

import csv
import json
import math

import numpy as np
import pytest
from sklearn import metrics

from mgr_jax import scores
from mgr_jax.config import UserError

GENRES = ("jazz", "metal", "rock")

NASTY_IDS = (
    "plain",
    "comma, quote \" and apostrophe '",
    "line\nbreak",
    "carriage\rreturn",
    "both\r\nof them",
    " spaces around ",
    "-1",
    "=1+1",
    "żółć/音楽.mp3",
    "not utf-8 \udcff\udcfe.wav",
    "",
)


def make(labels, probabilities, track_ids=None):
    """Predictions whose segments are each a track of their own unless named."""
    n = len(labels)
    if track_ids is None:
        track_ids = [f"t{k:05d}" for k in range(n)]
    _, places = np.unique(track_ids, return_inverse=True)
    segments = [int(np.sum(places[:k] == places[k])) for k in range(n)]
    return scores.Predictions(
        np.array(track_ids),
        np.array(segments),
        np.array(labels),
        np.array(probabilities, np.float32),
    )


def answers(predicted, genres, confidence=0.9):
    """Probabilities that name `predicted` with one confidence."""
    rest = (1 - confidence) / (genres - 1)
    return (
        np.full((len(predicted), genres), rest)
        + (confidence - rest) * np.eye(genres)[list(predicted)]
    )


# Rows are true: jazz 3 right, 1 as metal; metal 2 right, 1 as jazz, 1 as rock;
# rock 1 right, 1 as metal. Six of ten are right.
TRUE = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2)
ANSWERED = (0, 0, 0, 1, 1, 1, 0, 2, 2, 1)


def test_three_genres_by_hand():
    result = scores.score(make(TRUE, answers(ANSWERED, 3)), GENRES)
    level = result["segment"]
    assert level["n"] == 10
    assert level["accuracy"] == pytest.approx(0.6)
    assert level["confusion"] == [[3, 1, 0], [1, 2, 1], [0, 1, 1]]
    assert level["per_genre"]["jazz"] == pytest.approx(
        {"n": 4, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4}
    )
    assert level["per_genre"]["metal"] == pytest.approx(
        {"n": 4, "precision": 2 / 4, "recall": 2 / 4, "f1": 1 / 2}
    )
    assert level["per_genre"]["rock"] == pytest.approx(
        {"n": 2, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2}
    )
    assert level["macro_f1"] == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    expected = -(6 * math.log(0.9) + 4 * math.log(0.05)) / 10
    assert level["cross_entropy"] == pytest.approx(expected, rel=1e-5)
    assert level["expected_calibration_error"] == pytest.approx(0.3, abs=1e-6)
    assert result["majority_accuracy"] == pytest.approx(0.4)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_figures_are_those_of_scikit_learn(count):
    """On answers with ties and certainties, and a genre that is not there."""
    noise = np.random.default_rng(count)
    labels = noise.integers(count - 1, size=400)
    coarse = np.round(noise.random((400, count)) * 4) + (np.arange(count) == 1)
    coarse[labels == 0, 0] += 2
    probabilities = coarse / coarse.sum(axis=1, keepdims=True)
    level = scores._level(labels, probabilities, [f"genre {k}" for k in range(count)])

    indices = np.arange(count)
    predicted = probabilities.argmax(axis=1)
    expected = metrics.precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=np.nan
    )
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        found = [genre[name] for genre in level["per_genre"].values()]
        wanted = [
            value if name == "n" or (n and np.isfinite(value)) else None
            for value, n in zip(values, expected[3], strict=True)
        ]
        assert found == pytest.approx(wanted), name
    assert level["macro_f1"] == pytest.approx(
        metrics.f1_score(labels, predicted, labels=indices[:-1], average="macro")
    )
    matrix = metrics.confusion_matrix(labels, predicted, labels=indices)
    assert level["confusion"] == matrix.tolist()
    assert level["cross_entropy"] == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=indices), rel=1e-12
    )
    if count > scores.TOP_K:
        # Of equal scores scikit-learn takes the last column.
        assert level[f"top_{scores.TOP_K}"] == metrics.top_k_accuracy_score(
            count - 1 - labels, probabilities[:, ::-1], k=scores.TOP_K, labels=indices
        )


def test_one_segment_a_track_gives_both_levels_the_same_figures():
    result = scores.score(make(TRUE, answers(ANSWERED, 3)), GENRES)
    for key in ("n", "accuracy", "macro_f1", "confusion", "cross_entropy"):
        assert result["segment"][key] == result["track"][key], key
    assert result["track"]["interval_method"] == "Wilson"
    assert "10 tracks" in result["segment"]["interval_method"]


@pytest.mark.parametrize(
    ("accuracy", "n", "low", "high"),
    [(0.70, 290, 64.5, 75.0), (0.51, 800, 47.5, 54.5)],
)
def test_wilson_gives_the_published_intervals(accuracy, n, low, high):
    interval = [round(100 * bound, 1) for bound in scores.wilson(accuracy, n)]
    assert interval == [low, high]


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_wilson_at_the_ends_stays_within_zero_and_one(accuracy):
    low, high = scores.wilson(accuracy, 10)
    # 10 of 10: low = n / (n + z^2) = 10 / 13.8415.
    expected = [0.72247, 1.0] if accuracy else [0.0, 0.27753]
    assert [low, high] == pytest.approx(expected, abs=1e-5)


def test_track_mean_overturns_the_majority_of_its_segments():
    # Two segments lean to metal, one is sure of jazz: the mean is jazz.
    probabilities = [[0.40, 0.60, 0.0], [0.45, 0.55, 0.0], [1.0, 0.0, 0.0]]
    result = scores.score(make([0, 0, 0], probabilities, ["a", "a", "a"]), GENRES)
    assert result["segment"]["accuracy"] == pytest.approx(1 / 3)
    assert result["segment"]["n"] == 3
    assert result["track"]["accuracy"] == 1.0
    assert result["track"]["n"] == 1
    assert result["track"]["confusion"][0] == [1, 0, 0]
    assert result["track"]["cross_entropy"] == pytest.approx(
        -math.log((0.40 + 0.45 + 1.0) / 3), rel=1e-5
    )


def test_order_of_the_rows_changes_nothing():
    rng = np.random.default_rng(0)
    ids = np.repeat([f"t{k}" for k in range(12)], 5)
    labels = np.repeat(rng.integers(3, size=12), 5)
    probabilities = rng.dirichlet([1, 1, 1], size=60)
    there = make(labels, probabilities, ids)
    order = rng.permutation(60)
    shuffled = scores.Predictions(
        there.track_ids[order],
        there.segments[order],
        there.labels[order],
        there.probabilities[order],
    )
    one, other = scores.score(there, GENRES), scores.score(shuffled, GENRES)
    assert one["track"]["confusion"] == other["track"]["confusion"]
    assert one["segment"]["interval_95"] == other["segment"]["interval_95"]
    assert one["track"]["cross_entropy"] == pytest.approx(
        other["track"]["cross_entropy"]
    )


def test_calibration_error_by_hand():
    # Two sure answers of 1.0, one wrong: gap 0.5, weight 2/4.
    # Two answers of 0.5, both right: gap 0.5, weight 2/4.
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    labels = np.array([0, 1, 0, 0])
    assert scores.calibration_error(labels, probabilities) == pytest.approx(0.5)


def test_calibration_error_is_zero_where_confidence_is_the_accuracy():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert scores.calibration_error(labels, probabilities) == pytest.approx(0.0)


def test_calibration_gaps_cancel_within_a_bin_and_not_between_bins():
    # 0.61 and 0.66 share the bin (9/15, 10/15]; 0.61 right, 0.66 wrong.
    same = np.array([[0.61, 0.39], [0.66, 0.34]])
    assert scores.calibration_error(np.array([0, 1]), same) == pytest.approx(
        abs(0.5 - 0.635)
    )
    apart = np.array([[0.59, 0.41], [0.66, 0.34]])
    assert scores.calibration_error(np.array([0, 1]), apart) == pytest.approx(
        (0.41 + 0.66) / 2
    )


def test_perfect_predictions():
    genres = [f"g{k}" for k in range(5)]
    labels = np.repeat(np.arange(5), 4)
    result = scores.score(make(labels, np.eye(5)[labels]), genres)
    for level in (result["segment"], result["track"]):
        assert level["accuracy"] == level["macro_f1"] == level["top_3"] == 1.0
        assert level["cross_entropy"] == pytest.approx(0.0, abs=1e-9)
        assert level["expected_calibration_error"] == pytest.approx(0.0, abs=1e-9)
        # No number of right answers proves that none would be wrong.
        assert level["interval_95"] == pytest.approx(scores.wilson(1.0, 20))
    assert result["segment"]["interval_method"].startswith("Wilson over 20 tracks")
    assert result["majority_accuracy"] == pytest.approx(0.2)


def test_chance_predictions():
    genres = [f"g{k}" for k in range(8)]
    labels = np.repeat(np.arange(8), 5)
    result = scores.score(make(labels, np.full((40, 8), 1 / 8)), genres)["track"]
    assert result["accuracy"] == pytest.approx(1 / 8)
    assert result["top_3"] == pytest.approx(3 / 8)
    assert result["cross_entropy"] == pytest.approx(math.log(8), rel=1e-6)
    assert result["expected_calibration_error"] == pytest.approx(0.0, abs=1e-6)
    # All answers go to the first genre: F1 there is 2*5 / (2*5 + 35).
    assert result["macro_f1"] == pytest.approx(10 / 45 / 8)
    assert result["per_genre"]["g1"]["precision"] is None
    assert result["per_genre"]["g1"]["f1"] == 0.0


def test_top_3_counts_the_three_likeliest():
    genres = [f"g{k}" for k in range(4)]
    row = [0.4, 0.3, 0.2, 0.1]
    result = scores.score(make([0, 1, 2, 3], [row] * 4), genres)["segment"]
    assert result["accuracy"] == pytest.approx(1 / 4)
    assert result["top_3"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("count", [2, 3])
def test_top_3_of_three_genres_or_fewer_is_null(count):
    labels = [k % count for k in range(6)]
    result = scores.score(make(labels, np.eye(count)[labels]), GENRES[:count])
    assert result["segment"]["top_3"] is None
    assert result["segment"]["accuracy"] == 1.0


def test_bootstrap_draws_tracks_not_segments():
    # 40 tracks of 25 segments, each all right or all wrong: 1000 segments know no
    # more than 40 tracks do, and 1000 coin tosses would give 46.9-53.1 %.
    right = np.arange(40) % 2 == 0
    (low, high), method = scores.bootstrap_over_tracks(
        np.repeat(right, 25), np.repeat(np.arange(40), 25)
    )
    # The binomial's own quantiles are 14 and 26 of 40; 2000 draws may miss by one.
    assert low == pytest.approx(14 / 40, abs=1.01 / 40)
    assert high == pytest.approx(26 / 40, abs=1.01 / 40)
    assert "bootstrap over 40 tracks" in method


def test_bootstrap_weighs_a_track_by_its_segments_and_repeats_with_its_seed():
    correct = np.array([True] * 5 + [False] + [True, False])
    track_of = np.array([0] * 5 + [1] + [2, 2])
    one, _ = scores.bootstrap_over_tracks(correct, track_of, seed=1)
    assert one == scores.bootstrap_over_tracks(correct, track_of, seed=1)[0]
    # Both extremes (only track 1; only track 0) have probability 1/27 > 2.5 %.
    assert one == [0.0, 1.0]


def test_absent_genre_is_null_in_strict_json_and_out_of_the_macro_f1():
    labels = [0, 0, 2, 2]
    result = scores.score(make(labels, answers([0, 1, 2, 2], 3)), GENRES)
    text = json.dumps(result, allow_nan=False)
    level = json.loads(text)["segment"]
    assert level["per_genre"]["metal"] == {
        "n": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    assert level["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert level["confusion"][1] == [0, 0, 0]


def test_certain_and_wrong_stays_finite():
    level = scores.score(make([0, 1], [[0, 1], [0, 1]]), GENRES[:2])["segment"]
    assert math.isfinite(level["cross_entropy"])
    assert level["cross_entropy"] > 10


@pytest.mark.parametrize(
    ("labels", "probabilities", "ids", "message"),
    [
        ([], np.zeros((0, 3)), [], "empty"),
        ([0, 3], np.eye(3)[:2], None, "label"),
        ([0, -1], np.eye(3)[:2], None, "label"),
        ([0, 1], np.eye(3)[:1], None, "do not fit"),
        ([0], [[0.5, np.nan, 0.5]], None, "sum to one"),
        ([0], [[2.0, 1.0, -2.0]], None, "negative"),
        ([0], [[0.5, 0.1, 0.1]], None, "sum to one"),
        ([0, 1], np.eye(3)[:2], ["a", "a"], "different labels"),
    ],
)
def test_meaningless_input_is_refused(labels, probabilities, ids, message):
    with pytest.raises(ValueError, match=message):
        scores.score(make(labels, probabilities, ids), GENRES)


def test_a_segment_counted_twice_is_refused():
    twice = scores.Predictions(
        np.array(["a", "a"]), np.array([3, 3]), np.array([0, 0]), np.eye(3)[[0, 0]]
    )
    with pytest.raises(ValueError, match="twice"):
        scores.score(twice, GENRES)


def test_predictions_csv_round_trip(tmp_path):
    genres = ("segment", 'rock & "roll"', "drum, bass", "b\nc")
    n = len(NASTY_IDS)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4) / 20, size=n).astype(np.float32)
    there = make(np.arange(n) % 4, probabilities, NASTY_IDS)
    path = tmp_path / "predictions.csv"
    scores.write_predictions_csv(path, there, genres)
    back, back_genres = scores.read_predictions_csv(path)
    assert back_genres == genres
    assert back.track_ids.tolist() == list(NASTY_IDS)
    for name in ("segments", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(back, name), getattr(there, name))
    assert back.probabilities.dtype == np.float32


def test_predictions_csv_reads_as_plain_csv(tmp_path):
    path = tmp_path / "predictions.csv"
    scores.write_predictions_csv(
        path, make([0], [[0.25, 0.75, 0.0]], ["jazz.00001"]), GENRES
    )
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {
                "track_id": "jazz.00001",
                "segment": "0",
                "genre": "jazz",
                "predicted": "metal",
                "p_jazz": "0.25",
                "p_metal": "0.75",
                "p_rock": "0.0",
            }
        ]


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", 'track_id,segment,genre,predicted,p_a\n"x",0,other,a,1.0\n'],
)
def test_another_file_is_not_read_as_predictions(tmp_path, content):
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(UserError, match="not a table of predictions"):
        scores.read_predictions_csv(path)


def test_missing_predictions_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read"):
        scores.read_predictions_csv(tmp_path / "gone.csv")
