import dataclasses
import json
import shutil

import numpy as np
import pytest

from mgr_jax import input_pipeline, prepare
from mgr_jax.config import Config, UserError
from mgr_jax.features import FEATURES
from mgr_jax.splits import Assignment


@pytest.fixture(scope="module")
def opened(music_folder, tmp_path_factory):
    config = Config(
        dataset="folder",
        data_dir=str(music_folder),
        features_dir=str(tmp_path_factory.mktemp("features")),
        feature="chroma",
        tracks_per_shard=3,
    )
    return input_pipeline.open_prepared(prepare.prepare(config))


@pytest.fixture(scope="module")
def assignment(opened) -> Assignment:
    """Tracks in turn to train, train, validation, test; the last track is left out."""
    sides = ("train", "train", "validation", "test")
    named = {t.id: (sides[i % 4],) * 2 for i, t in enumerate(opened.tracks)}
    return Assignment(named | {opened.tracks[-1].id: ("", "")})


def keys(batches) -> list[tuple[int, int]]:
    return [
        (int(track), int(segment))
        for batch in batches
        for track, segment, kept in zip(
            batch["track"],
            batch["segment"],
            batch.get("mask", np.ones(len(batch["track"]), bool)),
            strict=True,
        )
        if kept
    ]


def epoch(side, epoch, seed=0, **settings):
    return input_pipeline.training_batches(
        side,
        **{
            "seed": seed,
            "epoch": epoch,
            "batch_size": 4,
            "shuffle_buffer_mb": 100,
            **settings,
        },
    )


def test_tracks_come_back_as_they_were_written(opened, tmp_path):
    fixed = dataclasses.replace(
        opened.tracks[0], id='a "b",\nc', artist="é", fixed_sides={"official": "test"}
    )
    tracks = (fixed, *opened.tracks[1:])
    counts = {track.id: 2 for track in tracks}
    input_pipeline.write_tracks(tmp_path / "tracks.csv", tracks, counts)
    found = input_pipeline.read_tracks(tmp_path / "tracks.csv")
    assert found == (tracks, counts)


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_a_side_holds_its_own_segments_each_once(opened, assignment, side):
    loaded = input_pipeline.load_side(opened, assignment, side)
    expected = [
        (row, segment)
        for row, track in enumerate(opened.tracks)
        for segment in range(2)
        if assignment.sides[track.id][segment] == side
    ]
    batches = list(input_pipeline.evaluation_batches(loaded, 5))
    assert keys(batches) == expected
    assert loaded.size == len(expected)
    assert {len(batch["label"]) for batch in batches} == {5}
    assert batches[-1]["mask"].sum() == len(expected) % 5 or 5
    assert input_pipeline.count_segments(assignment, side) == len(expected)


def test_every_epoch_has_an_order_of_its_own_that_the_seed_fixes(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    first = keys(epoch(side, 1))
    assert first == keys(epoch(side, 1))
    assert first != keys(epoch(side, 2))
    assert first != keys(epoch(side, 1, seed=1))
    assert len(first) == len(set(first)) == 16
    assert sorted(first) == sorted(keys(epoch(side, 2)))
    # The side is shuffled as a whole: shard order is gone at the first batch.
    assert first[:4] != sorted(first)[:4]


def test_an_epoch_can_be_gone_on_with_at_any_batch(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    whole = keys(epoch(side, 3))
    for skip in range(4):
        assert keys(epoch(side, 3, skip=skip)) == whole[4 * skip :]


def test_memory_changes_no_order(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    held = input_pipeline.in_memory(side, budget_mb=100)
    assert side.held is None and len(held.held["label"]) == 16
    # A window of ten examples, and one that holds them all.
    for number, megabytes in ((1, 0.052), (1, 100), (2, 100)):
        settings = {"shuffle_buffer_mb": megabytes, "skip": number - 1}
        batches = list(epoch(side, number, **settings))
        found = list(epoch(held, number, **settings))
        assert same(found, batches)
        rows = epoch(held, number, rows_alone=True, **settings)
        assert [keys([b]) for b in found] == [
            [every(held)[place] for place in batch["rows"]] for batch in rows
        ]
    for size in (5, 16):
        batches = input_pipeline.evaluation_batches(side, size)
        assert same(input_pipeline.evaluation_batches(held, size), batches)
    assert input_pipeline.in_memory(side, budget_mb=0.001) is side


def every(side) -> list[tuple[int, int]]:
    return keys(input_pipeline.evaluation_batches(side, side.size))


def same(found, expected) -> bool:
    """Whether batches hold the same arrays."""
    pairs = list(zip(found, expected, strict=True))
    return bool(pairs) and all(
        one.keys() == other.keys()
        and all(
            one[key].dtype == other[key].dtype and (one[key] == other[key]).all()
            for key in one
        )
        for one, other in pairs
    )


@pytest.mark.parametrize("wrong", [-1, 1])
def test_shards_with_other_segments_than_the_lists_are_not_trained_on(
    opened, assignment, wrong
):
    side = input_pipeline.load_side(opened, assignment, "train")
    side = dataclasses.replace(side, shares=(side.size + wrong,))
    with pytest.raises(UserError, match=r"other segments than tracks\.csv says"):
        input_pipeline.in_memory(side, 100)


def test_an_incomplete_training_batch_is_left_out(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    assert [len(b["label"]) for b in epoch(side, 1, batch_size=5)] == [5, 5, 5]


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_a_side_without_overlap(opened, assignment, hosts):
    shares = [
        input_pipeline.load_side(
            opened, assignment, "train", process_index=host, process_count=hosts
        )
        for host in range(hosts)
    ]
    found = [keys(input_pipeline.evaluation_batches(share, 4)) for share in shares]
    assert [len(part) for part in found] == [share.size for share in shares]
    whole = input_pipeline.load_side(opened, assignment, "train")
    everything = [key for part in found for key in part]
    assert sorted(everything) == keys(input_pipeline.evaluation_batches(whole, 4))


def test_normalisation_is_the_mean_and_deviation_of_each_bin(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    values = np.stack([e["feature"] for e in side.dataset.as_numpy_iterator()]).astype(
        np.float64
    )
    mean, deviation = input_pipeline.normalisation(side, FEATURES["chroma"])
    expected = values.std((0, 2))
    np.testing.assert_allclose(mean[:, 0], values.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(
        deviation[:, 0], np.maximum(expected, 0.1 * expected.mean()), rtol=1e-5
    )
    assert mean.shape == deviation.shape == (12, 1)
    assert mean.dtype == deviation.dtype == np.float32


def test_normalisation_is_of_what_is_heard(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    values = np.stack([e["feature"] for e in side.dataset.as_numpy_iterator()])
    loud = dataclasses.replace(FEATURES["chroma"], least=0.25, most=0.75)
    mean, _ = input_pipeline.normalisation(side, loud)
    expected = values.astype(np.float64).clip(0.25, 0.75).mean((0, 2))
    np.testing.assert_allclose(mean[:, 0], expected, rtol=1e-5)


def test_one_example_a_genre(opened, assignment):
    side = input_pipeline.load_side(opened, assignment, "train")
    found = input_pipeline.example_per_genre(side, opened.genres)
    assert list(found) == ["a tones", "d sharp"]
    # A is pitch class 9, D sharp is 3.
    assert [image.mean(1).argmax() for image in found.values()] == [9, 3]


def test_a_shard_that_was_cut_off_is_noticed(opened, tmp_path):
    copy = tmp_path / "chroma"
    shutil.copytree(opened.folder, copy)
    shard = next(copy.glob("*.tfrecord-00001-*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(UserError, match=r"its shards have \d+ bytes where \d+"):
        input_pipeline.open_prepared(copy)
    shard.unlink()
    with pytest.raises(UserError, match="its shards have"):
        input_pipeline.open_prepared(copy)


@pytest.fixture
def copy(opened, tmp_path):
    """A folder of shards to damage."""
    return shutil.copytree(opened.folder, tmp_path / "chroma")


def flip(path, position):
    whole = bytearray(path.read_bytes())
    whole[position] ^= 1
    path.write_bytes(whole)


# A record is 8 bytes of length, 4 of checksum, the data, 4 of checksum.
@pytest.mark.parametrize("position", [0, 7, 9, 12, 3_000, -2_000, -1])
def test_a_bit_that_fell_over_in_a_shard_is_noticed(copy, assignment, position):
    shard = next(copy.glob("*.tfrecord-00001-*"))
    flip(shard, position)
    opened = input_pipeline.open_prepared(copy)
    side = input_pipeline.load_side(opened, assignment, "train")
    readers = (
        lambda: input_pipeline.normalisation(side, FEATURES["chroma"]),
        lambda: list(epoch(side, 1)),
        lambda: input_pipeline.in_memory(side, 100),
        lambda: list(input_pipeline.evaluation_batches(side, 4)),
        lambda: input_pipeline.example_per_genre(side, ("a tones", "none such")),
    )
    for read in readers:
        with pytest.raises(UserError, match="a checksum in it does not fit") as error:
            read()
        assert str(error.value).startswith(f"{shard}: ")
        assert "delete it, and --mode=prepare" in str(error.value)


def test_a_shard_that_goes_away_while_it_is_read_is_named(copy, assignment):
    side = input_pipeline.load_side(
        input_pipeline.open_prepared(copy), assignment, "train"
    )
    shard = next(copy.glob("*.tfrecord-00001-*"))
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name}: cannot be read"):
        input_pipeline.normalisation(side, FEATURES["chroma"])


def test_shards_of_another_version_are_refused(copy):
    spec = json.loads((copy / "spec.json").read_text())
    (copy / "spec.json").write_text(json.dumps(spec | {"format_version": 99}))
    with pytest.raises(UserError, match=r"has format version 99.*--overwrite"):
        input_pipeline.open_prepared(copy)


@pytest.mark.parametrize(
    "name", ["spec.json", "features.json", "tracks.csv", "dataset_info.json"]
)
@pytest.mark.parametrize("damage", ["cut", "garbage", "emptied"])
def test_damaged_lists_are_one_line_that_says_what_to_do(copy, name, damage):
    path = copy / name
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    path.write_bytes({"cut": half, "garbage": b"\xff\0{[", "emptied": b""}[damage])
    with pytest.raises(UserError, match=r"damaged|shards have|no finished") as error:
        input_pipeline.open_prepared(copy)
    assert str(copy) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_that_is_not_finished_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no finished features; run --mode=prepare"):
        input_pipeline.open_prepared(tmp_path)
