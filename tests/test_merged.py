"""GTZAN and FMA as one data set: genres, sides and what a source gives away."""

import collections
import csv
import dataclasses
import json
import pathlib

import pytest
import soundfile
from conftest import tone
from test_datasets import HEADER, shared, touch, write_csv

from mgr_jax import datasets, input_pipeline, splits
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import gtzan, gtzan_lists, merged

FMA_GENRES = ("Electronic", "Hip-Hop", "International", "Pop", "Rock")
PROTOCOLS = ("filtered+official", "artist", "track", "segment")


def fma_row(number, artist, side, genre):
    return (number, "", artist, "", side, "small", genre, "")


def fma_rows(per_genre=15):
    """Tracks of each genre, two an artist, on the official sides in turn."""
    sides = ("training", "training", "validation", "training", "test")
    return [
        fma_row(number, number // (2 * len(FMA_GENRES)), sides[number % 5], genre)
        for number in range(1, per_genre * len(FMA_GENRES) + 1)
        for genre in [FMA_GENRES[number // 5 % len(FMA_GENRES)]]
    ]


def make_gtzan(root, per_genre=20):
    names = [f"{genre}.{i * 5:05d}" for genre in gtzan.GENRES for i in range(per_genre)]
    return touch(root, *(f"genres/{name.split('.')[0]}/{name}.wav" for name in names))


def make_fma(root, rows, audio_folder="fma_small"):
    write_csv(root / "fma_metadata" / "tracks.csv", rows, HEADER)
    numbers = (f"{row[0]:06d}" for row in rows)
    return touch(root / audio_folder, *(f"{n[:3]}/{n}.mp3" for n in numbers))


@pytest.fixture
def both(tmp_path):
    """A data folder that holds 200 tracks of GTZAN and 75 of FMA, without audio."""
    make_gtzan(tmp_path / "gtzan")
    make_fma(tmp_path / "fma", fma_rows())
    return tmp_path


def load(dataset, data_dir, **options):
    config = Config(dataset=dataset, data_dir=str(data_dir), **options)
    return datasets.load_tracks(config)


def track(name, genre, source, artist="", **fixed_sides):
    return datasets.Track(
        name, pathlib.Path(name), genre, artist, fixed_sides, source, genre
    )


# The tracks.


def test_the_tracks_are_those_of_both_and_say_which(both):
    tracks = load("gtzan+fma", both)
    alone = {name: load(name, both) for name in ("gtzan", "fma")}
    expected = [f"{name}/{t.id}" for name in ("fma", "gtzan") for t in alone[name]]
    assert [t.id for t in tracks] == expected
    assert len(tracks) == 275
    by_id = {f"{name}/{t.id}": (name, t) for name in alone for t in alone[name]}
    for found in tracks:
        source, own = by_id[found.id]
        assert found.source == source
        assert found.path == own.path
        assert found.artist == f"{source}/{own.artist}"
        assert found.source_genre == own.genre
        assert list(found.fixed_sides.values()) == list(own.fixed_sides.values())
        assert set(found.fixed_sides) <= {"filtered+official"}


def test_an_artist_that_is_not_known_stays_unknown(tmp_path):
    make_gtzan(tmp_path / "gtzan")
    make_fma(tmp_path / "fma", [fma_row(2, "", "training", "Pop")])
    assert load("gtzan+fma", tmp_path)[0].artist == ""


def test_genres_have_fmas_names(both):
    found = collections.defaultdict(set)
    for each in load("gtzan+fma", both):
        found[each.source].add((each.source_genre, each.genre))
    assert found["fma"] == {(genre, genre) for genre in FMA_GENRES}
    assert found["gtzan"] == {
        ("blues", "Blues"), ("classical", "Classical"), ("country", "Country"),
        ("disco", "Soul-RnB"), ("hiphop", "Hip-Hop"), ("jazz", "Jazz"),
        ("metal", "Rock"), ("pop", "Pop"), ("reggae", "International"),
        ("rock", "Rock"),
    }  # fmt: skip


def test_the_mapping_is_what_fmas_own_tree_of_genres_says():
    path = shared("fma_metadata_real") / "genres.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    title_of = {row["genre_id"]: row["title"] for row in rows}
    top_of = {row["title"]: title_of[row["top_level"]] for row in rows}
    own_name = {"hiphop": "Hip-Hop", "reggae": "Reggae - Dub"}
    assert set(merged.GTZAN_TO_FMA) == set(gtzan.GENRES)
    for genre, top in merged.GTZAN_TO_FMA.items():
        assert top_of[own_name.get(genre, genre.title())] == top


def test_the_subset_of_fma_applies(tmp_path):
    make_gtzan(tmp_path / "gtzan")
    rows = fma_rows()
    rows[0] = (*rows[0][:5], "medium", *rows[0][6:])
    make_fma(tmp_path / "fma", rows, "fma_medium")
    assert len(load("gtzan+fma", tmp_path)) == 274
    assert len(load("gtzan+fma", tmp_path, fma_subset="medium")) == 275


@pytest.mark.parametrize("subset", ["small", "large"])
def test_features_and_runs_are_named_for_both_and_the_subset(subset):
    config = Config(dataset="gtzan+fma", fma_subset=subset, split="track")
    assert datasets.dataset_key(config) == f"gtzan+fma_{subset}"
    assert config.run_name == f"gtzan+fma_{subset}-spectrogram-cnn-track-seed0"


@pytest.mark.parametrize("present", ["gtzan", "fma", "neither"])
def test_where_one_is_missing_its_own_line_comes_with_the_need_for_both(
    tmp_path, present
):
    if present == "gtzan":
        make_gtzan(tmp_path)
    if present == "fma":
        make_fma(tmp_path, fma_rows())
    with pytest.raises(UserError) as info:
        load("gtzan+fma", tmp_path)
    with pytest.raises(UserError) as own:
        load("fma" if present == "gtzan" else "gtzan", tmp_path)
    message = str(info.value)
    assert message.startswith(str(own.value))
    assert "gtzan+fma needs both" in message
    assert "\n" not in message


# The sides.


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_source_is_divided_as_that_data_set_alone(both, protocol, seed):
    tracks = load("gtzan+fma", both)
    counts = {t.id: 0 if i % 11 == 3 else 5 for i, t in enumerate(tracks)}
    together = splits.assign(tracks, counts, protocol, seed=seed).sides
    assert set(together) == {t.id for t in tracks}
    for source, curated in (("gtzan", "filtered"), ("fma", "official")):
        own_protocol = curated if protocol == "filtered+official" else protocol
        own = load(source, both)
        own_counts = {t.id: counts[f"{source}/{t.id}"] for t in own}
        alone = splits.assign(own, own_counts, own_protocol, seed=seed).sides
        assert {f"{source}/{name}": sides for name, sides in alone.items()} == {
            name: sides
            for name, sides in together.items()
            if name.startswith(f"{source}/")
        }
        assert len({s for sides in alone.values() for s in sides} - {""}) == 3


def test_artists_stay_on_one_side_of_the_default_and_the_artist_protocol(both):
    tracks = load("gtzan+fma", both)
    counts = {t.id: 5 for t in tracks}
    assert splits.shared(splits.assign(tracks, counts, "artist"), tracks) == ([], [])
    leaky = splits.assign(tracks, counts, "track")
    assert splits.shared(leaky, tracks)[1]
    assert leaky.leaks


def test_a_source_without_artists_is_named_where_artists_are_to_be_kept_apart():
    tracks = [track(f"{s}/{i}", "ab"[i % 2], s) for s in "xy" for i in range(20)]
    tracks = [t if t.source == "x" else track(t.id, t.genre, "y", t.id) for t in tracks]
    with pytest.raises(UserError, match=r"no track has an artist.*about x's part"):
        splits.assign(tracks, {t.id: 1 for t in tracks}, "artist")


def test_a_side_that_one_source_leaves_empty_is_filled_by_the_other():
    sides = ("train", "validation", "test")
    curated = "filtered+official"
    tracks = [track(f"x/{i}", "ab"[i % 2], "x", **{curated: "train"}) for i in range(4)]
    tracks += [
        track(f"y/{i}", "ab"[i % 2], "y", **{curated: sides[i % 3]}) for i in range(12)
    ]
    counts = {t.id: 1 for t in tracks}
    found = splits.assign(tracks, counts, curated).sides.values()
    assert collections.Counter(found) == {
        ("train",): 8, ("validation",): 4, ("test",): 4,
    }  # fmt: skip
    with pytest.raises(UserError, match="nothing for validation and test"):
        splits.assign(tracks[:4], counts, curated)


# What a source gives away.


def test_genres_of_one_source_alone_are_warned_of_in_one_line(both):
    tracks = load("gtzan+fma", both)
    assignment = splits.assign(tracks, {t.id: 5 for t in tracks}, "track")
    assert assignment.warnings == (
        "in training, Electronic comes from fma alone and Blues, Classical, Country, "
        "Jazz, Soul-RnB come from gtzan alone: a network may tell the source instead "
        "of the genre",
    )


def test_a_genre_that_one_source_does_not_train_on_is_warned_of():
    curated = "filtered+official"
    sides = ("train", "validation", "test")
    tracks = [
        track(f"{source}/{genre}{i}", genre, source, **{curated: sides[i % 3]})
        for source in "xy"
        for genre in "ab"
        for i in range(6)
    ]
    counts = {t.id: 1 for t in tracks}
    assert splits.assign(tracks, counts, curated).warnings == ()
    only_tests = [
        track(t.id, t.genre, "x", **{curated: "test"})
        if (t.source, t.genre) == ("x", "a")
        else t
        for t in tracks
    ]
    [warning] = splits.assign(only_tests, counts, curated).warnings
    assert warning.startswith("in training, a comes from y alone: ")


@pytest.mark.parametrize("dataset", ["gtzan", "fma"])
def test_a_data_set_of_one_source_is_not_warned_of(both, dataset):
    tracks = load(dataset, both)
    assert {(t.source, t.source_genre) for t in tracks} == {("", "")}
    assert splits.assign(tracks, {t.id: 5 for t in tracks}, "track").warnings == ()


# What is kept of the tracks.


def test_the_list_of_tracks_keeps_the_source_and_is_as_before_without_one(tmp_path):
    path = tmp_path / "tracks.csv"
    of_two = (track("x/1", "a", "x"), track("y/1", "b", "y", **{"x+y": "test"}))
    of_one = (track("1", "a", "", "me"), track("2", "b", "", official="test"))
    for tracks in (of_two, of_one):
        tracks = tuple(
            dataclasses.replace(t, path=pathlib.Path(), source_genre=t.source and "own")
            for t in tracks
        )
        counts = {t.id: 3 for t in tracks}
        input_pipeline.write_tracks(path, tracks, counts)
        assert input_pipeline.read_tracks(path) == (tracks, counts)
    assert path.read_bytes() == (
        b"track_id,genre,artist,segments,split:official\r\n1,a,me,3,\r\n2,b,,3,test\r\n"
    )


# The whole road.


def write_audio(root):
    """3 genres of GTZAN as WAV and 2 of FMA as MP3, on every side; 7 s each."""
    hz_of = {"disco": 220, "metal": 280, "rock": 350, "Electronic": 500, "Rock": 700}
    for genre in ("disco", "metal", "rock"):
        for side in splits.SIDES:
            lists = gtzan_lists.SIDES.items()
            own = [n for n, s in lists if s == side and n.startswith(genre)]
            for name in own[:2]:
                path = root / "genres" / genre / f"{name}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, tone(hz_of[genre], 7.0), 22_050)
    sides = ("training", "training", "validation", "test")
    rows = [
        fma_row(2 * i + j, i, side, genre)
        for i, side in enumerate(sides)
        for j, genre in enumerate(("Electronic", "Rock"))
    ]
    make_fma(root, rows)
    for number, *_, genre, _ in rows:
        path = root / "fma_small" / "000" / f"{number:06d}.mp3"
        soundfile.write(path, tone(hz_of[genre], 7.0, 44_100), 44_100)
    return root


def test_one_command_trains_and_tests_on_both(program, tmp_path):
    write_audio(tmp_path / "data")
    done = program(
        "--dataset=gtzan+fma",
        "--feature=chroma",
        f"--data_dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'run'}",
        "--num_epochs=2",
        "--widths=4,4,8",
        "--hidden_units=8",
        "--batch_size=4",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["protocol"] == "filtered+official"
    assert found["genres"] == ["Electronic", "Rock", "Soul-RnB"]
    assert found["num_tracks"] == {"train": 10, "validation": 8, "test": 8}
    [warning] = found["split_warnings"]
    assert "Electronic comes from fma alone and Soul-RnB comes from gtzan" in warning
    assert warning in done.stderr
    folder = tmp_path / "data" / "features" / "gtzan+fma_small" / "chroma"
    with (folder / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["source"], row["source_genre"], row["genre"]) for row in rows} == {
        ("fma", "Electronic", "Electronic"), ("fma", "Rock", "Rock"),
        ("gtzan", "disco", "Soul-RnB"), ("gtzan", "metal", "Rock"),
        ("gtzan", "rock", "Rock"),
    }  # fmt: skip


# Real data.


def test_the_development_copies_are_listed_and_divided(tmp_path):
    for name in ("gtzan_mini", "fma_like"):
        (tmp_path / name).symlink_to(shared(name))
    tracks = load("gtzan+fma", tmp_path)
    assert collections.Counter(t.source for t in tracks) == {"gtzan": 50, "fma": 236}
    assert all(t.path.is_file() for t in tracks)
    counts = {t.id: 1 for t in tracks}
    found = splits.assign(tracks, counts, "filtered+official")
    assert collections.Counter(found.sides.values()) == {
        ("train",): 143 + 19, ("validation",): 47 + 24, ("test",): 46 + 4, ("",): 3,
    }  # fmt: skip
    for protocol in PROTOCOLS[1:]:
        assert splits.assign(tracks, counts, protocol).warnings
