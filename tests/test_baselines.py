"""The SVM: held equal to scikit-learn's own answer, and run as any other model."""

import json

import numpy as np
import pytest
from conftest import run_here
from sklearn import decomposition, pipeline, preprocessing, svm

from mgr_jax import baselines
from mgr_jax.config import UserError
from mgr_jax.features import FEATURES


def clusters(genres: int, rows: int, columns: int = 6, seed: int = 0):
    """Overlapping clouds of points, one a genre, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % genres
    centres = 1.5 * np.random.default_rng(99).standard_normal((genres, columns))
    return centres[labels] + random.standard_normal((rows, columns)), labels


@pytest.mark.parametrize("genres", [2, 3, 7])
def test_the_arrays_answer_as_scikit_learn_does(genres):
    training, validation = clusters(genres, 140), clusters(genres, 70, seed=1)
    found = baselines.fit_svm(training, validation, genres)
    tested = clusters(genres, 200, seed=2)[0]
    accuracies, judges = [], []
    for cost in (0.1, 1, 10, 100):
        judge = pipeline.make_pipeline(
            preprocessing.StandardScaler(), decomposition.PCA(6), svm.SVC(C=cost)
        ).fit(*training)
        judge[-1].break_ties = genres > 2
        judges.append(judge)
        accuracies.append(judge.score(*validation))
    judge = judges[int(np.argmax(accuracies))]
    scores = baselines.scores(found, tested)
    np.testing.assert_array_equal(scores.argmax(axis=1), judge.predict(tested))
    if genres > 2:
        np.testing.assert_allclose(scores, judge.decision_function(tested), atol=1e-9)


def test_probabilities_sum_to_one_and_rank_as_the_scores():
    found = baselines.fit_svm(clusters(4, 80), clusters(4, 40, seed=1), 4)
    tested = clusters(4, 50, seed=2)[0]
    likely = baselines.probabilities(found, tested)
    np.testing.assert_allclose(likely.sum(axis=1), 1)
    np.testing.assert_array_equal(
        likely.argsort(axis=1), baselines.scores(found, tested).argsort(axis=1)
    )


def test_sharper_clusters_give_surer_answers():
    blurred, clear = clusters(3, 120), clusters(3, 120)
    clear = (clear[0] + 20 * np.eye(6)[clear[1]], clear[1])
    sure = [
        baselines.probabilities(
            baselines.fit_svm(examples, (examples[0][:60], examples[1][:60]), 3),
            examples[0],
        )
        .max(axis=1)
        .mean()
        for examples in (blurred, clear)
    ]
    assert sure[1] > sure[0]
    assert sure[1] > 0.99


def test_a_genre_that_training_lacks_is_never_the_answer():
    x, labels = clusters(3, 60)
    labels = np.array([0, 2, 4])[labels]
    found = baselines.fit_svm((x, labels), (x, labels), 5)
    assert set(baselines.scores(found, x).argmax(axis=1)) == {0, 2, 4}
    assert (baselines.scores(found, x)[:, [1, 3]] == -1).all()


def test_one_genre_cannot_be_told_from_another():
    x, labels = clusters(1, 10)
    with pytest.raises(UserError, match="one genre only"):
        baselines.fit_svm((x, labels), (x, labels), 2)


def test_pooling_is_mean_then_deviation_of_each_bin():
    feature = np.array([[[1.0, 3.0], [5.0, 5.0]]], np.float16)
    np.testing.assert_array_equal(baselines.pool(feature), [[2, 5, 1, 0]])


def test_a_baseline_is_shown_what_a_network_is_shown():
    feature = np.array([[[-90.0, 3.0]], [[5.0, 5.0]]], np.float16)
    batch = {"feature": feature, "label": np.arange(2)}
    (found,) = baselines.heard(FEATURES["spectrogram"], [batch])
    assert found["feature"].shape == (2, 1025, 2)
    assert (found["feature"][0, :929] == [-40, 3]).all()
    np.testing.assert_array_equal(found["label"], batch["label"])


def test_the_svm_runs_as_any_other_model(program, music_folder, tmp_path, capsys):
    flags = [
        "--dataset=folder",
        "--feature=chroma",
        "--model=svm",
        f"--data_dir={music_folder}",
        f"--features_dir={tmp_path / 'features'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    done = program(*flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["track"]["accuracy"] == 1.0
    assert results["best_epoch"] is None
    assert "None" not in done.stdout
    predictions = (tmp_path / "run/predictions.csv").read_bytes()

    run_here(*flags)
    assert "training had finished" in capsys.readouterr().out
    run_here("--mode=evaluate", f"--workdir={tmp_path / 'run'}")
    assert (tmp_path / "run/predictions.csv").read_bytes() == predictions

    with pytest.raises(UserError, match="other settings"):
        run_here(*flags, "--random_gain_db=6")
    for flag in ("--random_gain_db=6", "--precision=bfloat16"):
        with pytest.raises(UserError, match="leave it out"):
            run_here(*flags, flag, f"--workdir={tmp_path / flag}")
