"""Several processes of one job, over loopback: what they train, read and count."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
from jobs import end, metrics, prepared_config, start

from mgr_jax import input_pipeline, splits, witness
from mgr_jax.config import Config


def parameters(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """The newest checkpoint's parameters and statistics, whatever devices made it."""
    import orbax.checkpoint as ocp

    newest = workdir / "checkpoints" / "newest"
    step = max(int(path.name) for path in newest.iterdir() if path.name.isdigit())
    with ocp.PyTreeCheckpointer() as reader:
        path = newest / str(step) / "state"
        tree = reader.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
            tree,
            is_leaf=lambda x: not isinstance(x, dict | list | tuple),
        )
        state = reader.restore(path, restore_args=as_numpy)
    found = {"params": state["params"], "batch_stats": state["batch_stats"]}
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]
    }


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Config:
    return prepared_config(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def alone(features, tmp_path_factory) -> pathlib.Path:
    """The run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    ((status, _, errors),) = end(start(features, workdir, 1, 4, "--num_epochs=3"))
    assert status == 0, errors
    return workdir


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_and_count_as_one_with_as_many_devices(
    features, alone, tmp_path, processes
):
    workdir = tmp_path / "run"
    devices = 4 // processes
    found = end(start(features, workdir, processes, devices, "--num_epochs=3"))
    assert [status for status, _, _ in found] == [0] * processes, found
    expected = parameters(alone)
    trained = parameters(workdir)
    assert trained.keys() == expected.keys()
    for name, value in trained.items():
        np.testing.assert_array_equal(value, expected[name])
    for row, one in zip(metrics(workdir), metrics(alone), strict=True):
        for key in ("epoch", "step", "train_accuracy", "validation_accuracy", "best"):
            assert row[key] == one[key]
        assert row["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-5)
    results, of_one = (
        json.loads((place / "results.json").read_text()) for place in (workdir, alone)
    )
    for level in ("segment", "track"):
        assert results[level]["n"] == of_one[level]["n"]
        assert results[level]["accuracy"] == of_one[level]["accuracy"]
    # The first speaks for all.
    assert "training cnn" in found[0][1]
    assert all(output == errors == "" for _, output, errors in found[1:])


@pytest.mark.parametrize("hosts, held", [(2, False), (2, True), (3, True), (7, False)])
def test_hosts_batches_are_parts_of_the_batches_of_one(features, hosts, held):
    """Each row comes from one host, in its place, and zeros from all others."""
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(features))
    assignment = splits.assign(
        prepared.tracks, prepared.segment_counts, "track", seed=0
    )

    def batches(index, count):
        side = input_pipeline.load_side(
            prepared, assignment, "train", process_index=index, process_count=count
        )
        assert side.total == sum(side.shares)
        if held and count > 1:
            side = input_pipeline.in_memory(side, budget_mb=64)
            assert side.held is not None
        order = {"seed": 3, "epoch": 2, "shuffle_buffer_mb": 64}
        return side, list(input_pipeline.training_batches(side, batch_size=4, **order))

    one, expected = batches(0, 1)
    several = [batches(k, hosts) for k in range(hosts)]
    assert {side.total for side, _ in several} == {one.total}
    assert sum(side.size for side, _ in several) == one.total
    assert len({side.size for side, _ in several}) > 1  # the shares are uneven
    for number, batch in enumerate(expected):
        parts = [found[number] for _, found in several]
        given = sum((part["feature"] != 0).any((1, 2)).astype(int) for part in parts)
        np.testing.assert_array_equal(given, 1)
        for key in ("feature", "label"):
            np.testing.assert_array_equal(sum(part[key] for part in parts), batch[key])


def test_hosts_evaluate_each_example_once_in_as_many_batches(features):
    prepared = input_pipeline.open_prepared(input_pipeline.prepared_folder(features))
    assignment = splits.assign(
        prepared.tracks, prepared.segment_counts, "track", seed=0
    )
    seen, numbers = [], set()
    for k in range(5):
        side = input_pipeline.load_side(
            prepared, assignment, "train", process_index=k, process_count=5
        )
        found = list(input_pipeline.evaluation_batches(side, 2))
        numbers.add(len(found))
        for batch in found:
            assert len(batch["mask"]) == 2
            rows = zip(batch["track"], batch["segment"], batch["mask"], strict=True)
            seen += [
                (int(track), int(segment)) for track, segment, is_row in rows if is_row
            ]
    assert len(numbers) == 1
    assert len(seen) == len(set(seen)) == side.total


def test_what_gloo_says_of_connections_is_left_out_also_where_two_speak_at_once():
    said = (
        b"[Gloo] Rank 0 is connected to 3 peer ranks. "
        b"Expected number of connected peer ranks is : 3\n"
        b"[Gloo] Rank [Gloo] Rank 01 is connected to  is connected to 3 peer ranks. \n"
        b" is connected to 3 peer ranks. "
        b"Expected number of connected peer ranks is : 3\n"
        b"3\n"
        b"\n"
        b"4 tracks are skipped\n"
    )
    words = io.BytesIO()
    witness._listen(io.BytesIO(said + witness._TOLD), words)
    assert words.getvalue() == b"4 tracks are skipped\n"
