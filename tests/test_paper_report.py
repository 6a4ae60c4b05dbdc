"""The grid's page and tables, on run folders whose right answers are known.

A made-up run answers so many tracks right and the rest wrong, so every share, every
difference and every sentence can be worked out by hand.
"""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from test_report import Page

from experiments import findings, paper_figures, paper_report
from experiments import groups as groups_lib
from experiments.grid import Outcome
from mgr_jax import prepare, scores
from mgr_jax.charts import Layer
from mgr_jax.config import Config, command, complete

GENRES = ("blues", "metal", "pop", "rock")


def make_run(tmp_path, right, *, tracks=40, used=1000, leaks="", warnings=(), **flags):
    """A finished run that has the first `right` of its test tracks right."""
    config = Config(**flags)
    folder = f"{config.run_name}-{config.random_gain_db:g}"
    config = dataclasses.replace(config, workdir=str(tmp_path / folder))
    labels = np.arange(tracks) % len(GENRES)
    answers = np.where(np.arange(tracks) < right, labels, (labels + 1) % len(GENRES))
    probabilities = np.full((tracks, len(GENRES)), 0.1, np.float32)
    probabilities[np.arange(tracks), answers] = 0.7
    predictions = scores.Predictions(
        np.repeat([f"track {k:03}" for k in range(tracks)], 2),
        np.tile([0, 1], tracks),
        np.repeat(labels, 2),
        np.repeat(probabilities, 2, axis=0),
    )
    is_svm = config.model == "svm"
    results = {
        "protocol_leaks": leaks,
        "split_warnings": list(warnings),
        "genres": GENRES,
        "best_epoch": None if is_svm else 2,
        "num_tracks": {"train": used - tracks - 50, "validation": 50, "test": tracks},
        "wall_s": {"train": 61.5, "evaluate": 1.0},
        **scores.score(predictions, GENRES),
    }
    config.run_path.mkdir()
    (config.run_path / "results.json").write_text(json.dumps(results))
    scores.write_predictions_csv(
        config.run_path / "predictions.csv", predictions, GENRES
    )
    if not is_svm:
        rows = [{"epoch": k, "train_loss": 1 / k, "best": k == 2} for k in (1, 2, 3)]
        text = "\n".join(map(json.dumps, rows))
        (config.run_path / "metrics.jsonl").write_text(text)
    return Outcome(config, "finished")


def gtzan(tmp_path, right, feature, **flags):
    settings = {"dataset": "gtzan", "split": "filtered", "feature": feature}
    return make_run(tmp_path, right, **settings | flags)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three features, a baseline, a leaking protocol, other data, what is missing."""
    tmp = tmp_path_factory.mktemp("grid")
    fma = {"dataset": "fma", "split": "official", "used": 236}
    failed = Config(dataset="gtzan", split="filtered", feature="chroma", seed=1)
    not_run = dataclasses.replace(failed, feature="mel", seed=0)
    return tmp, [
        gtzan(tmp, 20, "tempogram"),
        gtzan(tmp, 36, "spectrogram", seed=1),
        gtzan(tmp, 32, "spectrogram", seed=0),
        gtzan(tmp, 18, "chroma"),
        gtzan(tmp, 35, "spectrogram", model="svm"),
        gtzan(tmp, 38, "spectrogram", split="segment", leaks="pieces <of> tracks"),
        make_run(tmp, 10, feature="tempogram", warnings=["few & old"], **fma),
        Outcome(failed, "failed", "no <memory> left", tmp / "logs" / "it.log"),
        Outcome(not_run, "not run"),
    ]


@pytest.fixture(scope="module")
def written(grid):
    tmp, outcomes = grid
    paths = paper_report.write(tmp / "out", outcomes)
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture(scope="module")
def parsed(written):
    return Page(written["report.html"])


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_it_writes_one_page_one_table_and_the_values(written):
    assert list(written) == [
        *("report.html", "table.md", "table.csv", "comparisons.csv", "runs.csv"),
    ]


def test_the_page_needs_nothing_from_outside_and_escapes(written, parsed):
    assert parsed.open == []
    assert not {"link", "iframe", "object", "base"} & set(parsed.tags)
    for name, value in parsed.attributes:
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith("data:image/png;base64,")
        assert not name.startswith("on")
    assert (
        "no <memory> left" in parsed.text and "<memory>" not in written["report.html"]
    )
    assert "pieces <of> tracks" in parsed.text and "few & old" in parsed.text


def test_the_table_has_the_means_and_deviations_over_seeds(written):
    rows = {
        (row["protocol"], row["model"], row["feature"]): row
        for row in rows_of(written["table.csv"])
        if row["data"] == "gtzan"
    }
    row = rows["filtered", "cnn", "spectrogram"]
    assert (row["seeds"], row["test_tracks"]) == ("2", "40")
    for level in ("segment", "track"):
        assert float(row[f"{level}_mean"]) == pytest.approx((36 + 32) / 2 / 40)
        assert float(row[f"{level}_deviation"]) == pytest.approx(4 / 40 / np.sqrt(2))
        assert float(row[f"{level}_low"]) < 0.85 < float(row[f"{level}_high"])
    assert float(row["paper"]) == 0.70
    assert float(row["most_frequent"]) == 0.25
    assert rows["filtered", "cnn", "tempogram"]["track_deviation"] == ""
    assert rows["filtered", "svm", "spectrogram"]["paper"] == "", "the paper has a CNN"
    assert rows["segment", "cnn", "spectrogram"]["leaks"] == "True"


def test_the_table_stands_in_the_papers_order_honest_protocols_first(written):
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in written["table.md"].splitlines()
        if line.startswith("| gtzan") or line.startswith("| fma")
    ]
    assert [line[:4] for line in lines] == [
        ["gtzan (1,000 tracks)", "filtered", "cnn", "tempogram"],
        ["gtzan (1,000 tracks)", "filtered", "cnn", "spectrogram"],
        ["gtzan (1,000 tracks)", "filtered", "cnn", "chroma"],
        ["gtzan (1,000 tracks)", "filtered", "svm", "spectrogram"],
        ["gtzan (1,000 tracks)", "segment (leaks)", "cnn", "spectrogram"],
        ["fma_small (236 tracks)", "official", "cnn", "tempogram"],
    ]
    assert lines[1][6] == "85.0 ± 7.1"
    assert [line[10] for line in lines] == ["49", "70", "42", "-", "70", "(38)"]


def test_other_data_are_not_taken_for_the_papers(parsed, written):
    for text in (parsed.text, written["table.md"]):
        assert (
            "fma_small (236 tracks) is fma as found in --data_dir; the paper had "
            "8,000. These are other data"
        ) in text
        assert "gives FMA a maximum of 40 %, its Fig. 8 gives 43 %" in text
        assert "the paper had 1,000. These are other data" not in text


def sentences(outcomes, heading):
    groups = groups_lib.group(outcomes)
    return findings.findings(groups, groups_lib.compare_all(groups))[heading]


def test_findings_say_what_a_paired_interval_shows_and_no_more(grid):
    best, *rest = sentences(grid[1], "gtzan (1,000 tracks), filtered")
    assert best.startswith(
        "With the CNN, spectrogram has the highest mean of 3 features: 85.0 % of 40 "
    )
    # 20 against 34 of 40, and 18 against 34: by far; 20 against 18: by a hair.
    assert any(
        line.startswith("Spectrogram is higher than tempogram (+35.0 points")
        for line in rest
    )
    assert any(
        line.startswith("Spectrogram is higher than chroma (+40.0 p") for line in rest
    )
    assert "No difference shown between tempogram and chroma." in rest
    assert any(
        line.startswith(
            "The CNN does not beat the SVM on spectrogram: no difference shown between "
            "the SVM and the CNN (+2.5 points"
        )
        for line in rest
    )
    assert any(
        line.startswith("Higher than the most frequent genre alone (25.0 %): the CNN")
        for line in rest
    )


def test_a_network_at_chance_is_not_called_higher_than_a_constant_answer(grid):
    (_, constant) = sentences(grid[1], "fma_small (236 tracks), official")
    assert constant.startswith(
        "No difference shown between the CNN on tempogram and the most frequent genre "
        "alone (0.0 points"
    )


def test_a_baseline_that_is_higher_is_said_to_be(tmp_path):
    outcomes = [
        gtzan(tmp_path, 10, "chroma"),
        gtzan(tmp_path, 38, "chroma", model="svm"),
    ]
    found = sentences(outcomes, "gtzan (1,000 tracks), filtered")
    assert any(
        line.startswith(
            "The CNN does not beat the SVM on chroma: the SVM is higher than the CNN "
            "(+70.0 points"
        )
        for line in found
    )
    outcomes = [
        gtzan(tmp_path, 38, "mel"),
        gtzan(tmp_path, 10, "mel", model="svm"),
    ]
    found = sentences(outcomes, "gtzan (1,000 tracks), filtered")
    assert any(
        line.startswith("On mel, the CNN is higher than the SVM (+70") for line in found
    )


def test_a_lead_that_may_be_chance_beats_nothing(tmp_path):
    outcomes = [
        gtzan(tmp_path, 12, "chroma"),
        gtzan(tmp_path, 11, "chroma", model="svm"),
    ]
    _, models, *constant = sentences(outcomes, "gtzan (1,000 tracks), filtered")
    assert models.startswith(
        "The CNN does not beat the SVM on chroma: no difference shown between the CNN "
        "and the SVM (+2.5 points"
    )
    assert len(constant) == 2
    for line in constant:
        assert line.startswith("No difference shown between the ")


def test_a_track_that_lies_on_every_side_is_counted_once(tmp_path):
    run = gtzan(tmp_path, 20, "chroma", split="segment", used=290)
    assert run.results["num_tracks"] == {"train": 200, "validation": 50, "test": 40}
    (one,) = groups_lib.group([run])
    assert one.name == "gtzan (200 tracks)"


def test_comparisons_hold_all_pairs_with_their_difference(written):
    rows = [
        row
        for row in rows_of(written["comparisons.csv"])
        if (row["data"], row["protocol"]) == ("gtzan", "filtered")
        and row["level"] == "track"
    ]
    # 3 pairs of features, 1 of models, and 4 against the constant.
    assert len(rows) == 8
    names = ("model_a", "feature_a", "model_b", "feature_b")
    found = {tuple(row[name] for name in names): row for row in rows}
    row = found["cnn", "spectrogram", "svm", "spectrogram"]
    assert float(row["difference"]) == pytest.approx(34 / 40 - 35 / 40)
    assert row["excludes_zero"] == "False"
    assert (row["tracks"], row["shared_tracks"]) == ("40", "40")
    # Of the first seed: 32 right against 35, so 3 against none.
    assert float(row["mcnemar_p"]) == pytest.approx(2 / 2**3)
    row = found["cnn", "tempogram", "cnn", "chroma"]
    assert float(row["difference"]) == pytest.approx(2 / 40)
    assert float(row["low"]) < 0 < float(row["high"])
    row = found["cnn", "tempogram", "most frequent genre", ""]
    assert float(row["difference"]) == pytest.approx(20 / 40 - 10 / 40)


def test_drawn_splits_are_compared_over_the_seeds_that_both_have(tmp_path):
    track = {"split": "track"}
    outcomes = [
        gtzan(tmp_path, 10, "mel", seed=0, **track),
        gtzan(tmp_path, 40, "mel", seed=1, **track),
        gtzan(tmp_path, 20, "chroma", seed=1, **track),
    ]
    groups = groups_lib.group(outcomes)
    (pair,) = (
        c for c in groups_lib.compare_all(groups, ["track"]) if c.kind == "features"
    )
    assert pair.names == ("chroma", "mel")
    assert pair.difference.difference == pytest.approx((20 - 40) / 40)


def test_what_is_missing_is_said_and_listed(parsed, written):
    # Of seven rows asked for, chroma lacks a seed and mel has none.
    assert (
        "These numbers are not of the whole grid: 2 of 9 runs are missing (1 failed, "
        "1 not run). Rows without a number: 1 of 7; rows over fewer seeds than were "
        "asked for: 1."
    ) in parsed.text
    assert "no <memory> left" in parsed.text and "it.log" in parsed.text
    states = [row["status"] for row in rows_of(written["runs.csv"])]
    assert sorted(states) == ["failed"] + 7 * ["finished"] + ["not run"]


def test_a_whole_grid_says_nothing_of_missing_runs(tmp_path):
    paths = paper_report.write(tmp_path / "out", [gtzan(tmp_path, 20, "chroma")])
    said = Page(paths[0].read_text(encoding="utf-8")).text
    assert "missing" not in said and "Runs that failed" not in said


def test_runs_are_listed_with_their_commands(grid, written, parsed):
    found = {row["command"]: row for row in rows_of(written["runs.csv"])}
    assert set(found) == {command(outcome.config) for outcome in grid[1]}
    row = found[command(grid[1][1].config)]
    assert float(row["track"]) == 36 / 40 and row["best epoch"] == "2"
    assert float(row["train_s"]) == 61.5
    assert found[command(grid[1][4].config)]["best epoch"] == ""
    for line in found:
        assert line in parsed.text
    assert ("class", "numbers wide sortable") in parsed.attributes


def test_a_run_that_cannot_be_read_counts_as_failed(tmp_path):
    broken = gtzan(tmp_path, 20, "chroma")
    (broken.config.run_path / "predictions.csv").unlink()
    whole = gtzan(tmp_path, 20, "mel")
    paths = paper_report.write(tmp_path / "out", [broken, whole])
    said = Page(paths[0].read_text(encoding="utf-8")).text
    assert "(1 failed, 0 not run)" in said
    assert "predictions.csv: cannot be read" in said


def test_without_a_finished_run_there_is_still_a_page(tmp_path):
    outcomes = [Outcome(Config(split="track"), "not run")]
    paths = paper_report.write(tmp_path / "out", outcomes)
    said = Page(paths[0].read_text(encoding="utf-8")).text
    assert "1 of 1 runs are missing" in said
    assert rows_of(paths[2].read_text()) == []
    assert "1 of 1 runs are missing" in " ".join(
        paper_report.terminal(outcomes).split()
    )


def test_runs_with_a_random_gain_are_a_line_of_their_own(tmp_path):
    outcomes = [
        gtzan(tmp_path, 20, "chroma"),
        gtzan(tmp_path, 30, "chroma", random_gain_db=12),
    ]
    groups = groups_lib.group(outcomes)
    assert [one.model for one in groups] == ["cnn", "cnn, random gain 12 dB"]
    assert [one.paper for one in groups] == [0.42, None]


def test_the_terminal_has_the_table_and_the_default_protocols_findings(grid):
    text = paper_report.terminal(grid[1])
    assert text.isascii() and max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["cnn", "spectrogram", "2", "40", "85.0", "+-", "7.1"] in [
        line[:7] for line in lines
    ]
    said = " ".join(text.split())
    assert "Spectrogram is higher than tempogram" in said
    assert "not corrected for the number of comparisons" in said
    assert "gtzan (1,000 tracks), segment (leaks)" in said
    assert said.count("With the CNN") == 2, "one for each data set's default protocol"


def test_every_figure_of_the_paper_is_there_or_says_why_not(parsed, written):
    captions = [value for name, value in parsed.attributes if name == "alt"]
    assert captions == [
        "Fig. 1. CNN, as it is fitted to each feature",
        "Fig. 6. Loss of tempogram on gtzan (1,000 tracks), filtered, seed 0",
        "Fig. 7. Confusion matrix of spectrogram on gtzan (1,000 tracks), filtered",
        "As Fig. 6. Loss of tempogram on fma_small (236 tracks), official, seed 0",
        "Fig. 8, drawn: accuracy by feature, and the paper's on its data",
    ]
    for number, feature in ((2, "Tempogram"), (3, "Chroma"), (4, "Spectrogram")):
        assert f"Fig. {number}. {feature} of one training segment is not shown: " in (
            parsed.text
        )
    assert not re.search(r"\bnan\b|None", parsed.text)


def test_examples_are_taken_from_the_training_shards(tmp_path, music_folder):
    config = complete(
        Config(
            dataset="folder",
            feature="chroma",
            data_dir=str(music_folder),
            features_dir=str(tmp_path / "features"),
            workdir=str(tmp_path / "run"),
        ),
        "track",
        ("track",),
    )
    prepare.prepare(config)
    paths = paper_report.write(tmp_path / "out", [Outcome(config, "not run")])
    found = Page(paths[0].read_text(encoding="utf-8"))
    captions = [value for name, value in found.attributes if name == "alt"]
    # The first genre, as there is no blues.
    shown = "Fig. 3. Chroma of one training segment: a tones, folder-my_music"
    assert shown in captions
    assert "Fig. 4. Spectrogram of one training segment is not shown: no run" in (
        found.text
    )


def test_layers_are_those_of_the_network_that_is_built():
    layers = paper_figures.network_layers(Config(feature="spectrogram"), 10)
    assert [(layer.name, layer.shape) for layer in layers] == [
        ("input", (1025, 57, 1)),
        ("convolution", (257, 29, 16)),
        ("max pool", (64, 14, 16)),
        ("convolution", (64, 14, 32)),
        ("max pool", (16, 7, 32)),
        ("convolution", (16, 7, 64)),
        ("mean over frames", (16 * 64,)),
        ("dense", (64,)),
        ("dense, softmax", (10,)),
    ]
    # Kernel, then scale and bias of the batch normalisation.
    assert layers[1].detail == "8 x 4, step 4 x 2"
    assert layers[1].parameters == 8 * 4 * 16 + 2 * 16
    assert layers[2] == Layer("max pool", (64, 14, 16), "4 x 2")
    assert layers[-1].parameters == 64 * 10 + 10


def test_layers_count_every_parameter_of_every_network():
    import jax

    from mgr_jax import models
    from mgr_jax.features import FEATURES

    for model in models.MODELS:
        config = Config(feature="chroma", model=model)
        shape = FEATURES["chroma"].shape()
        network = models.build(config, 8, shape)
        parameters = jax.eval_shape(
            lambda x, network=network: network.init(jax.random.key(0), x, train=False),
            np.zeros((1, *shape, 1), np.float32),
        )["params"]
        count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
        layers = paper_figures.network_layers(config, 8)
        assert sum(layer.parameters for layer in layers) == count
        assert layers[-1].shape == (8,)
