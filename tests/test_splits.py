"""Split protocols: nothing on two sides that should not be, and the ratios kept."""

import collections
import dataclasses
import math
import pathlib
import random

import pytest

from mgr_jax import splits
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import gtzan, gtzan_lists
from mgr_jax.datasets.base import Track

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
RATIOS = (0.7, 0.15, 0.15)
DRAWN = ("segment", "track", "artist")


def track(name, genre, artist="", **fixed_sides):
    return Track(name, pathlib.Path(name), genre, artist, fixed_sides)


def collection(genres, artists=0):
    """Tracks of {genre: number}, each genre by that many artists (0: unknown)."""
    return [
        track(f"{g}-{i:04d}", g, f"{g}-artist-{i % artists}" if artists else "")
        for g, number in genres.items()
        for i in range(number)
    ]


def gtzan_tracks():
    found = []
    for genre in gtzan.GENRES:
        for number in range(100):
            name = f"{genre}.{number:05d}"
            side = gtzan_lists.SIDES.get(name)
            fixed = {"filtered": side} if side else {}
            artist = gtzan_lists.ARTISTS.get(name, name)
            found.append(track(name, genre, artist, **fixed))
    return found


def random_collection(seed):
    """An odd shape: genres of any size, artists of any size, some in two genres."""
    rng = random.Random(seed)
    found = []
    for genre in range(rng.randint(2, 6)):
        for number in range(rng.choice([1, 2, 3, 5, 20, 60])):
            artist = f"{rng.choice([genre, genre, 0])}-{int(rng.expovariate(0.3))}"
            known = rng.random() < 0.8
            found.append(
                track(f"{genre}-{number}", f"g{genre}", artist if known else "")
            )
    return found


def assign(tracks, protocol, segments=5, **options):
    counts = {t.id: segments for t in tracks}
    return splits.assign(tracks, counts, protocol, **options)


def tally(tracks, assignment):
    """genre -> side -> number of segments."""
    found = collections.defaultdict(collections.Counter)
    for t in tracks:
        found[t.genre].update(assignment.sides[t.id])
    return found


def totals(assignment):
    return collections.Counter(s for sides in assignment.sides.values() for s in sides)


# The registry.


def test_protocols_are_the_six_and_those_that_leak_say_so():
    assert list(splits.PROTOCOLS) == [
        "segment", "track", "artist", "filtered", "official", "filtered+official",
    ]  # fmt: skip
    leaky = {name for name, p in splits.PROTOCOLS.items() if p.leaks}
    assert leaky == {"segment", "track"}
    for name, protocol in splits.PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.summary
        assert "\n" not in protocol.summary + protocol.leaks


def test_an_unknown_protocol_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="segment, track, artist, filtered, official"):
        assign(collection({"a": 9}), "random")


# What every drawn protocol holds.


@pytest.mark.parametrize("protocol", DRAWN)
@pytest.mark.parametrize("seed", range(5))
def test_each_genre_keeps_the_ratios(protocol, seed):
    tracks = collection({"a": 200, "b": 100, "c": 40}, artists=20)
    found = tally(tracks, assign(tracks, protocol, seed=seed))
    for genre, number in {"a": 200, "b": 100, "c": 40}.items():
        for side, ratio in zip(splits.SIDES, RATIOS, strict=True):
            # One artist's tracks, at the most.
            assert abs(found[genre][side] - 5 * number * ratio) <= 5 * number / 20


@pytest.mark.parametrize("protocol", DRAWN)
def test_the_draw_depends_on_the_seed_alone_and_not_on_the_order(protocol):
    tracks = collection({"a": 50, "b": 30}, artists=10)
    first = assign(tracks, protocol, seed=3)
    shuffled = random.Random(0).sample(tracks, len(tracks))
    assert assign(shuffled, protocol, seed=3) == first
    assert assign(tracks, protocol, seed=4).sides != first.sides


@pytest.mark.parametrize("protocol", ["track", "artist"])
def test_the_draw_does_not_depend_on_how_many_segments_there_are(protocol):
    tracks = collection({"a": 50, "b": 30}, artists=10)
    few, many = (assign(tracks, protocol, segments=n).sides for n in (1, 7))
    assert {name: sides[0] for name, sides in many.items()} == {
        name: sides[0] for name, sides in few.items()
    }
    assert {len(sides) for sides in many.values()} == {7}


@pytest.mark.parametrize("protocol", DRAWN)
def test_tracks_without_segments_take_no_part(protocol):
    tracks = collection({"a": 30, "b": 30}, artists=10)
    counts = {t.id: 5 for t in tracks}
    without = [*tracks, track("empty", "a", "x"), track("unknown", "c", "y")]
    assignment = splits.assign(without, counts | {"empty": 0}, protocol)
    assert assignment.sides["empty"] == assignment.sides["unknown"] == ()
    expected = splits.assign(tracks, counts, protocol).sides
    assert {t.id: assignment.sides[t.id] for t in tracks} == expected
    assert assignment.warnings == ()


@pytest.mark.parametrize("protocol", DRAWN)
@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.7, 0.0, 0.3), (1.0, 0.0, 0.0)]
)
def test_ratios_can_be_set_and_a_share_of_zero_gets_nothing(protocol, ratios):
    tracks = collection({"a": 80, "b": 80}, artists=40)
    found = totals(assign(tracks, protocol, ratios=ratios))
    for side, ratio in zip(splits.SIDES, ratios, strict=True):
        assert found[side] == pytest.approx(800 * ratio, abs=20 if ratio else 0)


@pytest.mark.parametrize("protocol", [*DRAWN, "filtered"])
@pytest.mark.parametrize(
    "ratios",
    [
        (0.7, 0.3),
        (0.7, 0.2, 0.2),
        (1.2, -0.1, -0.1),
        (0.0, 0.5, 0.5),
        (math.nan, 0.5, 0.5),
        (70, 15, 15),
        (),
    ],
)
def test_ratios_that_are_no_shares_are_refused(protocol, ratios):
    with pytest.raises(UserError, match="--split_ratios="):
        assign(gtzan_tracks(), protocol, ratios=ratios)


@pytest.mark.parametrize("protocol", DRAWN)
def test_too_few_tracks_for_every_side_are_refused_with_a_next_step(protocol):
    tracks = [track("1", "a", "x"), track("2", "b", "y")]
    with pytest.raises(UserError, match=r"validation.*--split_ratios"):
        assign(tracks, protocol, segments=1)


def test_no_segments_at_all_are_refused():
    with pytest.raises(UserError, match="no track has a segment"):
        splits.assign(collection({"a": 9}), {}, "track")


@pytest.mark.parametrize("protocol", DRAWN)
@pytest.mark.parametrize("seed", range(60))
def test_odd_collections_keep_the_invariants(protocol, seed):
    tracks = random_collection(seed)
    try:
        assignment = assign(tracks, protocol, seed=seed)
    except UserError as error:
        assert "leave nothing for" in str(error)
        return
    assert set(assignment.sides) == {t.id for t in tracks}
    assert {len(sides) for sides in assignment.sides.values()} == {5}
    assert set(totals(assignment)) == set(splits.SIDES)
    several_tracks, several_artists = splits.shared(assignment, tracks)
    if protocol != "segment":
        assert several_tracks == []
    if protocol == "artist":
        assert several_artists == []
    found = tally(tracks, assignment)
    for side in ("train", "test"):
        missing = [g for g in found if not found[g][side]]
        warned = [w for w in assignment.warnings if f" for {side}" in w]
        assert bool(missing) == bool(warned)
        assert all(genre in warned[0] for genre in missing)


# segment


def test_segments_of_one_track_are_on_several_sides():
    tracks = collection({"a": 50, "b": 50})
    assignment = assign(tracks, "segment")
    assert len(splits.shared(assignment, tracks)[0]) > 50
    assert totals(assignment) == {"train": 350, "validation": 75, "test": 75}


def test_segments_are_drawn_by_their_own_number():
    tracks = collection({"a": 4, "b": 4})
    counts = {t.id: 20 * (t.id == "a-0000") or 1 for t in tracks}
    assignment = splits.assign(tracks, counts, "segment")
    assert {t.id: len(assignment.sides[t.id]) for t in tracks} == counts
    assert tally(tracks, assignment)["a"]["train"] == 16


# track


def test_whole_tracks_are_drawn_exactly_by_the_ratios():
    tracks = gtzan_tracks()
    assignment = assign(tracks, "track")
    for found in tally(tracks, assignment).values():
        assert found == {"train": 350, "validation": 75, "test": 75}
    assert splits.shared(assignment, tracks)[0] == []
    assert splits.shared(assignment, tracks)[1] != []


def test_what_rounding_takes_from_one_genre_the_next_gets_back():
    tracks = collection({f"g{k}": 10 for k in range(10)})
    assert totals(assign(tracks, "track", segments=1)) == {
        "train": 70, "validation": 15, "test": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (5, (3, 1, 1)),
        (20, (14, 3, 3)),
    ],
)
def test_a_small_genre_serves_training_then_test_then_validation(number, expected):
    tracks = collection({"a": number, "b": 100})
    found = tally(tracks, assign(tracks, "track", segments=1))["a"]
    assert tuple(found[side] for side in splits.SIDES) == expected


@pytest.mark.parametrize("protocol", ["track", "artist"])
def test_many_genres_of_one_or_two_tracks_are_all_learned(protocol):
    sizes = {f"g{k:02d}": 1 + k % 2 for k in range(30)} | {"large": 60}
    tracks = collection(sizes, artists=60)
    assignment = assign(tracks, protocol)
    assert all(found["train"] for found in tally(tracks, assignment).values())
    assert len(assignment.warnings) == 1
    assert "for test" in assignment.warnings[0]


# artist


@pytest.mark.parametrize("seed", range(5))
def test_gtzan_by_artist_is_disjoint_and_balanced(seed):
    tracks = gtzan_tracks()
    assignment = assign(tracks, "artist", segments=1, seed=seed)
    assert splits.shared(assignment, tracks) == ([], [])
    assert assignment.warnings == ()
    for found in tally(tracks, assignment).values():
        assert abs(found["train"] - 70) <= 1
        assert abs(found["validation"] - 15) <= 1
        assert abs(found["test"] - 15) <= 1


def test_an_artist_in_several_genres_stays_on_one_side():
    both = [track(f"{g}-{i}", g, "both") for g in "ab" for i in range(10)]
    tracks = both + collection({"a": 40, "b": 40}, artists=20)
    for seed in range(10):
        sides = assign(tracks, "artist", seed=seed).sides
        assert len({sides[t.id] for t in both}) == 1


def test_tracks_of_unknown_artists_stand_alone():
    tracks = [*collection({"a": 40, "b": 40}), track("x", "a", "known")]
    assert len(set(assign(tracks, "artist").sides.values())) == 3


def test_a_genre_by_one_artist_trains_and_is_warned_of():
    tracks = collection({"a": 20}, artists=1) + collection({"b": 20}, artists=10)
    assignment = assign(tracks, "artist")
    assert tally(tracks, assignment)["a"] == {"train": 100}
    [warning] = assignment.warnings
    assert "--split=artist: no track of a for test" in warning


def test_a_genre_by_two_artists_trains_and_tests():
    tracks = collection({"a": 20}, artists=2) + collection({"b": 20}, artists=10)
    for seed in range(5):
        assert tally(tracks, assign(tracks, "artist", seed=seed))["a"] == {
            "train": 50, "test": 50,
        }  # fmt: skip


def test_no_side_stays_empty_where_genres_have_two_artists_each():
    tracks = collection({"a": 10, "b": 10}, artists=2)
    for seed in range(5):
        assignment = assign(tracks, "artist", seed=seed)
        assert set(totals(assignment)) == set(splits.SIDES)
        assert len(assignment.warnings) == 1


def test_a_large_artist_does_not_take_the_test_set():
    tracks = collection({"a": 60}, artists=1) + [
        track(f"s{i}", "a", f"s{i}") for i in range(40)
    ]
    for seed in range(5):
        found = totals(assign(tracks, "artist", segments=1, seed=seed))
        assert found == {"train": 70, "validation": 15, "test": 15}


def test_no_known_artist_is_refused_with_a_next_step():
    with pytest.raises(UserError, match="ROOT/LABEL/ARTIST/"):
        assign(collection({"a": 40, "b": 40}), "artist")


# filtered, official


def test_a_division_that_happens_to_share_nothing_does_not_say_that_it_leaks():
    alone = [
        Track(f"t{i}", pathlib.Path(), "ab"[i % 2], f"artist{i}") for i in range(40)
    ]
    counts = {track.id: 2 for track in alone}
    assert splits.assign(alone, counts, "track").leaks == ""
    assert splits.assign(alone, counts, "segment").leaks
    unknown = [dataclasses.replace(track, artist="") for track in alone]
    assert splits.assign(unknown, counts, "track").leaks
    pairs = [dataclasses.replace(t, artist=f"a{i // 2}") for i, t in enumerate(alone)]
    assert splits.assign(pairs, counts, "track").leaks
    assert splits.assign(pairs, counts, "artist").leaks == ""


def test_the_filtered_split_is_the_published_one_and_leaks_nothing():
    tracks = gtzan_tracks()
    assignment = assign(tracks, "filtered", segments=1)
    assert totals(assignment) == {
        "train": 443, "validation": 197, "test": 290, "": 70,
    }  # fmt: skip
    assert splits.shared(assignment, tracks) == ([], [])
    assert assignment.warnings == ()
    assert assign(tracks, "filtered", segments=1, seed=9) == assignment


def test_a_partial_copy_keeps_its_part_of_the_filtered_split():
    tracks = gtzan_tracks()
    part = [t for t in tracks if int(t.id[-2:]) % 2]
    whole = assign(tracks, "filtered").sides
    assert assign(part, "filtered").sides == {t.id: whole[t.id] for t in part}


def test_a_partial_copy_warns_of_genres_that_it_cannot_learn_or_test():
    tracks = [t for t in gtzan_tracks() if int(t.id[-2:]) < 5]
    untrained, untested = assign(tracks, "filtered").warnings
    assert "no track of blues, classical, country, disco for train" in untrained
    assert "for test" in untested


def test_official_takes_no_notice_of_ratios():
    sides = ("train", "validation", "test")
    tracks = [track(str(i), "ab"[i % 2], official=sides[i % 3]) for i in range(30)]
    assignment = assign(tracks, "official", segments=1, ratios=(1.0, 0.0, 0.0))
    assert totals(assignment) == {"train": 10, "validation": 10, "test": 10}


@pytest.mark.parametrize("protocol", ["filtered", "official"])
def test_a_data_set_without_the_curated_split_is_refused(protocol):
    with pytest.raises(UserError, match=f"--split={protocol}: this data set has no"):
        assign(collection({"a": 40, "b": 40}), protocol)


def test_a_curated_split_that_lacks_a_side_is_refused():
    tracks = [track(str(i), "ab"[i % 2], official="train") for i in range(30)]
    with pytest.raises(UserError, match="nothing for validation and test"):
        assign(tracks, "official")


# shared


def test_shared_names_tracks_and_artists_on_several_sides():
    tracks = [
        track("1", "a", "x"), track("2", "a", "x"), track("3", "a", "y"),
        track("4", "a"), track("5", "a", "z"),
    ]  # fmt: skip
    assignment = splits.Assignment(
        {"1": ("train",), "2": ("test",), "3": ("train", "test"), "4": ("train", ""),
         "5": ()}
    )  # fmt: skip
    assert splits.shared(assignment, tracks) == (["3"], ["x", "y"])


# Real data.


@pytest.mark.parametrize("protocol", ["track", "artist", "segment"])
def test_the_development_copy_of_gtzan_can_be_divided(protocol):
    if not (SHARED / "gtzan_mini").exists():
        pytest.skip("needs the development data gtzan_mini")
    tracks = gtzan.load(Config(data_dir=str(SHARED / "gtzan_mini")))
    found = totals(assign(tracks, protocol))
    assert set(found) == set(splits.SIDES)
    assert found["train"] >= 150
