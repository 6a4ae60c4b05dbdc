"""Listing tracks: the layouts that data sets come in, and the mistakes in them."""

import collections
import csv
import os
import pathlib
import sys

import pytest
import soundfile
from conftest import run_without_privileges, tone

from mgr_jax import audio, datasets
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import fma, gtzan, gtzan_lists, synth

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the development data {path}")
    return path


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def load(dataset, data_dir, **options):
    return datasets.load_tracks(
        Config(dataset=dataset, data_dir=str(data_dir), **options)
    )


def ids(tracks):
    return [track.id for track in tracks]


def error(dataset, data_dir, **options):
    """The one line that a user sees."""
    with pytest.raises(UserError) as info:
        load(dataset, data_dir, **options)
    message = str(info.value)
    assert "\n" not in message
    return message


# The registry.


def test_every_data_set_names_itself_and_its_default_split():
    for name, dataset in datasets.DATASETS.items():
        assert dataset.name == name
        assert dataset.default_split in dataset.splits
    assert datasets.DATASETS["gtzan"].default_split == "filtered"
    assert datasets.DATASETS["fma"].default_split == "official"
    assert datasets.DATASETS["folder"].default_split == "track"


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    assert "gtzan, fma, folder, synth, gtzan+fma" in error("gztan", "anywhere")


def test_an_id_listed_twice_is_refused(tmp_path):
    write_csv(make_fma(tmp_path) / "fma_metadata" / "tracks.csv", [*ROWS, ROWS[1]])
    message = error("fma", tmp_path)
    assert "first 000005" in message
    assert str(tmp_path) in message


def test_a_single_genre_is_refused(tmp_path):
    assert "two" in error("folder", touch(tmp_path, "a/1.wav", "a/2.wav"))


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"dataset": "gtzan"}, "gtzan"),
        ({"dataset": "synth"}, f"synth_v{synth.VERSION}_160"),
        ({"dataset": "fma", "fma_subset": "medium"}, "fma_medium"),
        ({"dataset": "gtzan+fma"}, "gtzan+fma_small"),
        ({"dataset": "folder", "data_dir": "/x/My Music! (2)"}, "folder-My_Music_2_"),
        ({"dataset": "folder", "data_dir": "/x/音楽/"}, "folder-音楽"),
    ],
)
def test_features_are_kept_apart_by_data_set(fields, key):
    assert datasets.dataset_key(Config(**fields)) == key


# GTZAN.


@pytest.mark.parametrize(
    "layout",
    [
        "genres/{g}/{g}.0000{i}.au",
        "genres/{g}/{g}.0000{i}.wav",
        "genres_original/{g}/{g}.0000{i}.wav",
        "Data/genres_original/{g}/{g}.0000{i}.wav",
        "{g}/{g}.0000{i}.wav",
        "downloads/gtzan/genres/{g}/{g}.0000{i}.au",
    ],
)
def test_gtzan_is_found_in_every_layout(tmp_path, layout):
    touch(tmp_path, *(layout.format(g=g, i=i) for g in gtzan.GENRES for i in range(3)))
    tracks = load("gtzan", tmp_path)
    assert ids(tracks) == [f"{g}.0000{i}" for g in gtzan.GENRES for i in range(3)]
    assert all(track.path.is_file() for track in tracks)
    assert {track.genre for track in tracks} == set(gtzan.GENRES)


def test_gtzan_leaves_out_forks_and_strangers(tmp_path):
    touch(
        tmp_path / "genres",
        *(f"{g}/{g}.00000.au" for g in gtzan.GENRES),
        *(f"{g}/._{g}.00000.au" for g in gtzan.GENRES),
        "._blues",
        "blues/rock.00001.au",
        "blues/blues.1.au",
        "blues/notes.txt",
        "polka/polka.00000.au",
    )
    touch(tmp_path, "__MACOSX/genres/blues/._blues.00001.au")
    assert len(load("gtzan", tmp_path)) == 10


@pytest.mark.parametrize("name", ["hiphop", "hip-hop", "hip_hop", "Hip-Hop"])
def test_gtzan_knows_hiphop_by_its_other_spellings(tmp_path, name):
    touch(tmp_path, f"{name}/{name}.00004.wav", "rock/rock.00000.wav")
    assert load("gtzan", tmp_path)[0].id == "hiphop.00004"
    assert load("gtzan", tmp_path)[0].genre == "hiphop"


def test_gtzan_takes_the_original_where_a_copy_holds_both_formats(tmp_path):
    touch(tmp_path, "jazz/jazz.00054.wav", "jazz/jazz.00054.au", "pop/pop.00000.wav")
    assert [t.path.suffix for t in load("gtzan", tmp_path)] == [".au", ".wav"]


def test_gtzan_lists_a_track_once_where_two_folders_spell_its_genre(tmp_path):
    touch(tmp_path, "hiphop/hiphop.00000.au", "hip-hop/hiphop.00000.au")
    touch(tmp_path, "rock/rock.00000.au")
    assert ids(load("gtzan", tmp_path)) == ["hiphop.00000", "rock.00000"]


def test_gtzan_takes_the_fullest_of_several_copies(tmp_path):
    touch(tmp_path, "a/blues/blues.00000.wav", "a/rock/rock.00000.wav")
    touch(tmp_path, *(f"b/genres/{g}/{g}.00000.wav" for g in gtzan.GENRES))
    assert len(load("gtzan", tmp_path)) == 10


def test_gtzan_is_not_looked_for_among_features_nor_in_circles(tmp_path):
    touch(tmp_path, "features/blues/blues.00000.wav", "features/rock/rock.00000.wav")
    touch(tmp_path, ".hidden/blues/blues.00000.wav", ".hidden/pop/pop.00000.wav")
    (tmp_path / "again").symlink_to(tmp_path)
    assert "no GTZAN" in error("gtzan", tmp_path)


def test_gtzan_is_found_from_a_relative_folder(tmp_path, monkeypatch):
    touch(tmp_path, "genres/blues/blues.00000.wav", "genres/rock/rock.00000.wav")
    monkeypatch.chdir(tmp_path / "genres")
    tracks = load("gtzan", ".")
    monkeypatch.chdir("/")
    assert all(track.path.is_file() for track in tracks)


def test_missing_gtzan_says_where_what_and_how(tmp_path):
    message = error("gtzan", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "no such folder" in message
    assert "genres/blues/blues.00000.au" in message
    command = "python -m mgr_jax.datasets.download --dataset=gtzan --data_dir="
    assert f"{command}{tmp_path}" in message
    assert "--dataset=synth" in message


def test_gtzan_tracks_carry_artist_and_filtered_side(tmp_path):
    touch(tmp_path, "blues/blues.00005.au", "blues/blues.00004.au")
    touch(tmp_path, "country/country.00045.au", "country/country.00052.au")
    four, five, shares, dropped = load("gtzan", tmp_path)
    assert five.artist == "blues.00000"
    assert four.artist == "blues.00004"
    assert shares.artist == "country.00005"
    assert five.fixed_sides == {"filtered": "validation"}
    assert dropped.fixed_sides == {}


def test_the_notation_of_ranges_is_read():
    assert gtzan_lists.parse("pop 0,3-4; 12-13,\n 20 rock 7") == {
        "pop": [
            ["pop.00000", "pop.00003", "pop.00004"],
            ["pop.00012", "pop.00013", "pop.00020"],
        ],
        "rock": [["rock.00007"]],
    }


def test_the_filtered_lists_have_their_published_sizes():
    sizes = collections.Counter(gtzan_lists.SIDES.values())
    assert sizes == {"train": 443, "validation": 197, "test": 290}
    per_genre = collections.defaultdict(collections.Counter)
    for track_id, side in gtzan_lists.SIDES.items():
        per_genre[side][track_id.split(".")[0]] += 1
    expected = {
        "train": [46, 48, 45, 42, 47, 43, 44, 41, 43, 44],
        "validation": [23, 20, 23, 22, 18, 17, 20, 13, 17, 24],
        "test": [31, 31, 30, 29, 27, 27, 27, 30, 26, 32],
    }
    for side, counts in expected.items():
        assert [per_genre[side][genre] for genre in gtzan.GENRES] == counts


def test_no_track_stands_in_a_list_twice():
    for text in (gtzan_lists._ARTISTS, *gtzan_lists._FILTERED.values()):
        groups = gtzan_lists.parse(text).values()
        found = [track_id for lists in groups for ids in lists for track_id in ids]
        assert len(found) == len(set(found))
        assert all(track_id[-5:-2] == "000" for track_id in found)


def test_no_track_is_on_two_sides_of_the_filtered_lists():
    total = sum(
        len(group)
        for text in gtzan_lists._FILTERED.values()
        for [group] in gtzan_lists.parse(text).values()
    )
    assert total == len(gtzan_lists.SIDES) == 930


def test_no_artist_is_on_two_sides_of_the_filtered_lists():
    sides = collections.defaultdict(set)
    for track_id, side in gtzan_lists.SIDES.items():
        sides[gtzan_lists.ARTISTS.get(track_id, track_id)].add(side)
    assert max(len(found) for found in sides.values()) == 1


def test_the_artists_are_as_many_as_the_index_has():
    assert len(gtzan_lists.ARTISTS) == 772
    assert len(set(gtzan_lists.ARTISTS.values())) == 114


@pytest.mark.parametrize("data_dir", ["gtzan_mini", "gtzan_mini/genres", "."])
def test_the_development_copy_of_gtzan_is_listed(data_dir):
    shared("gtzan_mini")
    tracks = load("gtzan", SHARED / data_dir)
    assert len(tracks) == 50
    assert set(collections.Counter(t.genre for t in tracks).values()) == {5}
    sides = collections.Counter(t.fixed_sides.get("filtered", "") for t in tracks)
    assert sides == {"validation": 24, "train": 19, "test": 4, "": 3}


# FMA.

HEADER = (
    ("", "album", "artist", "artist", "set", "set", "track", "track"),
    ("", "title", "id", "name", "split", "subset", "genre_top", "title"),
    ("track_id", "", "", "", "", "", "", ""),
)

ROWS = (
    (2, "A, B", 1, "AWOL", "training", "small", "Hip-Hop", "Food"),
    (5, 'say "hi"', 1, "AWOL", "validation", "small", "Hip-Hop", "line\nbreak"),
    (10, "", 6, "Kurt, Vile", "test", "small", "Pop", ""),
    (20, "", 4, "Nicky\r\nCook", "training", "medium", "Rock", "Spiritual"),
    (30, "", 4, "Nicky", "training", "medium", "", "no top genre"),
    (140, "", "", "nobody", "training", "large", "Old-Time / Historic", "Queen"),
    (123456, "", 9, "ö", "test", "large", "Rock", "é"),
    (123457, "", 9, "ö", "test", "full", "Rock", "é"),
)


def write_csv(path, rows=ROWS, header=HEADER):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([*header, *rows])
    return path


def make_fma(root, audio_folder="fma_small", numbers=(2, 5, 10, 20, 140, 123456)):
    write_csv(root / "fma_metadata" / "tracks.csv")
    files = (f"{number:06d}.mp3" for number in numbers)
    touch(root / audio_folder, *(f"{file[:3]}/{file}" for file in files))
    return root


def test_fma_small_is_read_from_metadata(tmp_path):
    tracks = load("fma", make_fma(tmp_path))
    assert ids(tracks) == ["000002", "000005", "000010"]
    assert [t.genre for t in tracks] == ["Hip-Hop", "Hip-Hop", "Pop"]
    assert [t.artist for t in tracks] == ["1", "1", "6"]
    sides = [t.fixed_sides["official"] for t in tracks]
    assert sides == ["train", "validation", "test"]
    assert tracks[0].path == tmp_path / "fma_small" / "000" / "000002.mp3"


def test_fma_subsets_nest_and_tracks_without_a_top_genre_are_dropped(tmp_path):
    make_fma(tmp_path, "fma_large")
    medium = load("fma", tmp_path, fma_subset="medium")
    large = load("fma", tmp_path, fma_subset="large")
    assert ids(medium) == ["000002", "000005", "000010", "000020"]
    assert ids(large) == [*ids(medium), "000140", "123456"]
    assert large[-2].artist == ""
    assert large[-1].path == tmp_path / "fma_large" / "123" / "123456.mp3"


def test_a_larger_subsets_folder_serves_a_smaller_subset(tmp_path):
    make_fma(tmp_path, "fma_medium")
    assert load("fma", tmp_path)[0].path.parts[-3] == "fma_medium"
    make_fma(tmp_path, "fma_small")
    assert load("fma", tmp_path)[0].path.parts[-3] == "fma_small"


@pytest.mark.parametrize("data_dir", ["fma", "", "fma/fma_small", "fma/fma_metadata"])
def test_fma_is_found_from_its_own_folders_and_those_that_hold_it(tmp_path, data_dir):
    make_fma(tmp_path / "fma")
    assert len(load("fma", tmp_path / data_dir)) == 3


def test_fma_is_found_from_within_its_audio_folder(tmp_path, monkeypatch):
    make_fma(tmp_path)
    monkeypatch.chdir(tmp_path / "fma_small")
    assert len(load("fma", ".")) == 3


def test_fma_is_not_taken_from_beside_a_folder_of_another_name(tmp_path):
    make_fma(tmp_path)
    (tmp_path / "other").mkdir()
    assert "no fma_metadata/tracks.csv" in error("fma", tmp_path / "other")


def test_fma_audio_and_metadata_may_lie_apart(tmp_path):
    write_csv(tmp_path / "a" / "fma_metadata" / "tracks.csv")
    touch(tmp_path, "b/c/fma_small/000/000002.mp3")
    assert load("fma", tmp_path)[0].path.is_file()


def test_fma_keeps_rows_whose_audio_is_missing_unless_all_is(tmp_path):
    make_fma(tmp_path, numbers=[10])
    tracks = load("fma", tmp_path)
    assert [track.path.is_file() for track in tracks] == [False, False, True]
    (tmp_path / "fma_small" / "000" / "000010.mp3").unlink()
    assert "fma_small/000/000002.mp3" in error("fma", tmp_path)


def test_missing_fma_says_where_what_and_how(tmp_path):
    message = error("fma", tmp_path)
    assert str(tmp_path) in message
    assert "fma_metadata/tracks.csv" in message
    command = "python -m mgr_jax.datasets.download --dataset=fma"
    assert f"{command} --data_dir={tmp_path}" in message
    assert "--dataset=synth" in message
    make_fma(tmp_path, numbers=[])
    message = error("fma", tmp_path, fma_subset="medium")
    assert f"{command} --fma_subset=medium --data_dir={tmp_path}" in message


def test_an_unknown_subset_is_answered_with_the_known_ones(tmp_path):
    message = error("fma", make_fma(tmp_path), fma_subset="tiny")
    assert "small, medium, large" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns"),
        (b"genre_id,#tracks\n1,2\n", "set.subset"),
        (b"\xff\xfe\x00\x01\n" * 20, "no text"),
        (b",set,set\n,split,subset\n\0\0\0\n", "no text"),
        (b",set,set,track,artist\n,split,subset,genre_top,id\ntrack_id,,,,\n"
         b"x,training,small,Rock,1\n", "invalid literal"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_fmas_csv_is_named_with_the_reason(
    tmp_path, content, reason
):
    path = make_fma(tmp_path) / "fma_metadata" / "tracks.csv"
    path.write_bytes(content)
    message = error("fma", tmp_path)
    assert str(path) in message
    assert reason in message
    assert "fma_metadata.zip" in message


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "fma_metadata" / "tracks.csv"
    write_csv(path, [row[:6] for row in ROWS], [row[:6] for row in HEADER])
    assert "track.genre_top" in error("fma", tmp_path)


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (lambda text: text.encode("utf-16"), "no text"),
        (lambda text: text.replace(",", ";").encode(), "no column"),
        (lambda text: text.replace("\n", "\r").encode(), "No columns"),
    ],
    ids=["UTF-16", "semicolons", "old Mac line ends"],
)
def test_a_csv_that_was_saved_in_another_way_is_refused(tmp_path, again, reason):
    path = make_fma(tmp_path) / "fma_metadata" / "tracks.csv"
    path.write_bytes(again(path.read_text(encoding="utf-8")))
    assert reason in error("fma", tmp_path)


@pytest.mark.parametrize(
    "again",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n").encode(),
        # What a track needs of it is ASCII.
        lambda text: text.encode("latin-1"),
    ],
    ids=["byte order mark", "CRLF", "Latin-1"],
)
def test_a_csv_that_was_saved_on_another_system_is_read(tmp_path, again):
    path = write_csv(tmp_path / "tracks.csv")
    expected = fma.read_tracks_csv(path)
    path.write_bytes(again(path.read_bytes().decode()))
    assert fma.read_tracks_csv(path).equals(expected)


def test_a_csv_without_the_subset_is_refused(tmp_path):
    make_fma(tmp_path)
    write_csv(tmp_path / "fma_metadata" / "tracks.csv", ROWS[-1:])
    assert "lists no track" in error("fma", tmp_path)


def test_a_csv_cut_anywhere_gives_its_whole_rows_alone(tmp_path):
    whole = write_csv(tmp_path / "whole.csv").read_bytes()
    table = fma.read_tracks_csv(tmp_path / "whole.csv")
    assert len(table) == len(ROWS)
    starts = [
        len(write_csv(tmp_path / "part.csv", ROWS[:k]).read_bytes())
        for k in range(len(ROWS) + 1)
    ]
    for cut in range(starts[1], len(whole)):
        (tmp_path / "cut.csv").write_bytes(whole[:cut])
        complete = sum(start <= cut for start in starts) - 1
        found = fma.read_tracks_csv(tmp_path / "cut.csv")
        assert found.equals(table.iloc[:complete]), whole[:cut]


def test_a_cut_row_is_warned_of(tmp_path, capsys):
    path = write_csv(tmp_path / "tracks.csv")
    fma.read_tracks_csv(path)
    assert capsys.readouterr().err == ""
    path.write_bytes(path.read_bytes()[:-5])
    fma.read_tracks_csv(path)
    assert "cut off" in capsys.readouterr().err


def test_the_real_csv_is_read_up_to_where_it_was_cut():
    table = fma.read_tracks_csv(shared("fma_metadata_real") / "tracks_truncated.csv")
    assert len(table) == 682
    assert (table.index[0], table.index[-1]) == (2, 932)
    assert table["subset"].value_counts().to_dict() == {
        "large": 488, "medium": 136, "small": 58,
    }  # fmt: skip
    assert table["side"].value_counts().to_dict() == {
        "training": 563, "test": 71, "validation": 48,
    }  # fmt: skip
    assert (table["genre"] == "").sum() == 51
    assert set(table.loc[table["subset"] == "small", "genre"]) == {
        "Hip-Hop", "Pop", "Folk", "Experimental", "Rock", "International",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("subset", "tracks", "genres", "artists"),
    [("small", 58, 6, 29), ("medium", 194, 9, 50), ("large", 631, 10, 77)],
)
def test_the_real_csv_gives_nested_subsets(tmp_path, subset, tracks, genres, artists):
    source = shared("fma_metadata_real") / "tracks_truncated.csv"
    (tmp_path / "tracks.csv").symlink_to(source)
    touch(tmp_path, "fma_large/000/000002.mp3")
    found = load("fma", tmp_path, fma_subset=subset)
    assert len(found) == tracks
    assert len({track.genre for track in found}) == genres
    assert len({track.artist for track in found}) == artists


@pytest.mark.parametrize("data_dir", ["fma_like", "fma_like/fma_small", "."])
def test_the_development_copy_of_fma_is_listed(data_dir):
    shared("fma_like")
    tracks = load("fma", SHARED / data_dir)
    assert len(tracks) == 236
    sides = collections.Counter(t.fixed_sides["official"] for t in tracks)
    assert sides == {"train": 143, "validation": 47, "test": 46}
    assert {t.genre for t in tracks} == {"Classical", "Country", "Jazz", "Rock"}
    assert all(track.path.is_file() for track in tracks)


# A folder of one's own.


def test_folders_are_labels_and_folders_in_them_are_artists(tmp_path):
    touch(tmp_path, "rock/x.wav", "rock/Queen/y.mp3", "jazz/Monk/1962/CD 1/z.flac")
    found = [(t.id, t.genre, t.artist) for t in load("folder", tmp_path)]
    assert found == [
        ("jazz/Monk/1962/CD 1/z.flac", "jazz", "Monk"),
        ("rock/Queen/y.mp3", "rock", "Queen"),
        ("rock/x.wav", "rock", ""),
    ]


def test_every_format_is_taken_in_any_case_and_nothing_else(tmp_path):
    wanted = ["a.wav", "a.WAV", "b.Mp3", "c.flac", "d.ogg", "e.au", "f.aiff", "g.opus"]
    others = ["cover.jpg", "a.txt", "wav", "x.m4a", ".x.wav", "._a.wav", ".git/y.wav"]
    touch(tmp_path / "rock", *wanted, *others)
    touch(tmp_path, "jazz/a.wav", ".trash/a.wav", "loose.wav")
    found = {t.path.name for t in load("folder", tmp_path) if t.genre == "rock"}
    assert found == set(wanted)


def test_names_that_differ_in_extension_alone_stay_two_tracks(tmp_path):
    touch(tmp_path, "rock/a.wav", "rock/a.mp3", "jazz/a.wav")
    assert ids(load("folder", tmp_path)) == ["jazz/a.wav", "rock/a.mp3", "rock/a.wav"]


@pytest.mark.parametrize("name", ["it's 5\"", "音楽", "Motörhead", "a,b", "[x]*", "%s"])
def test_names_of_every_kind_work(tmp_path, name):
    touch(tmp_path, f"{name}/{name}/{name}.wav", "other/x.wav")
    track = {t.genre: t for t in load("folder", tmp_path)}[name]
    assert track.id == f"{name}/{name}/{name}.wav"
    assert track.artist == name
    assert track.path.is_file()


def test_a_name_that_is_not_utf8_still_gives_text(tmp_path):
    touch(tmp_path, "rock/a.wav")
    try:
        os.makedirs(os.fsencode(tmp_path) + b"/jazz")
        pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/jazz/\xff.wav")).touch()
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    track = load("folder", tmp_path)[0]
    assert track.id.encode() == rb"jazz/\xff.wav"
    assert track.path.is_file()


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = touch(tmp_path / "root", "rock/a.wav", "jazz/b.wav")
    touch(tmp_path / "elsewhere", "c.wav", "d.wav")
    (root / "rock" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "rock" / "self").symlink_to(root / "rock")
    (root / "rock" / "up").symlink_to(root)
    (root / "rock" / "top").symlink_to("/")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "rock")
    assert ids(load("folder", root)) == [
        "jazz/b.wav",
        "rock/a.wav",
        "rock/more/c.wav",
        "rock/more/d.wav",
    ]


def awkward(folder, name):
    """What may bear an audio file's name and cannot be read; returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.format(1)).symlink_to(folder / "unplugged")
    (folder / name.format(2)).symlink_to(name.format(2))
    os.mkfifo(folder / name.format(3))
    return [name.format(k) for k in (1, 2, 3)]


def test_what_cannot_be_read_is_listed_and_says_why_when_it_is(tmp_path):
    touch(tmp_path, "jazz/b.wav", "rock/c.wav/d.wav")
    names = awkward(tmp_path / "rock", "{}.wav")
    tracks = load("folder", tmp_path)
    expected = ["jazz/b.wav", *(f"rock/{name}" for name in names), "rock/c.wav/d.wav"]
    assert ids(tracks) == expected
    for track, reason in zip(
        tracks[1:4], ("No such", "levels", "no file"), strict=True
    ):
        with pytest.raises(audio.AudioError, match=reason):
            audio.decode(track.path)


def test_gtzan_lists_what_cannot_be_read_and_keeps_the_rest(tmp_path):
    """One link that leads to itself once hid all the files beside it."""
    touch(tmp_path / "genres", *(f"{g}/{g}.00000.au" for g in gtzan.GENRES))
    awkward(tmp_path / "genres" / "pop", "pop.0004{}.au")
    found = ids(load("gtzan", tmp_path))
    assert len(found) == 13
    assert {"pop.00041", "pop.00042", "pop.00043"} < set(found)


@pytest.mark.parametrize("dataset", ["folder", "gtzan"])
def test_a_folder_that_may_not_be_listed_is_warned_of(tmp_path, dataset):
    touch(tmp_path, "rock/rock.00000.au", "pop/pop.00000.au", "jazz/jazz.00000.au")
    (tmp_path / "jazz").chmod(0)
    script = (
        "from mgr_jax import config, datasets\n"
        f"of = config.Config(dataset={dataset!r}, data_dir={str(tmp_path)!r})\n"
        "print(len(datasets.load_tracks(of)))\n"
    )
    try:
        done = run_without_privileges([sys.executable, "-c", script])
    finally:
        (tmp_path / "jazz").chmod(0o700)
    assert done.stdout == "2\n", done.stderr
    assert f"{tmp_path / 'jazz'}: cannot be listed (Permission denied)" in done.stderr


@pytest.mark.parametrize("dataset", ["folder", "gtzan", "fma"])
def test_a_data_dir_that_leads_nowhere_is_one_line(tmp_path, dataset):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert str(loop) in error(dataset, loop)
    assert "user of this machine" in error(dataset, "~no_such_user/music")


def test_a_label_without_audio_is_left_out_with_one_warning(tmp_path, capsys):
    touch(tmp_path, "rock/a.wav", "jazz/b.wav", "notes/read.me", "features/x.tfrecord")
    assert {t.genre for t in load("folder", tmp_path)} == {"rock", "jazz"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'notes'}")


def test_a_folder_without_audio_says_where_what_and_how(tmp_path):
    message = error("folder", touch(tmp_path, "loose.wav"))
    assert str(tmp_path) in message
    assert "LABEL/**/*.ext" in message
    assert "flac" in message
    assert "--dataset=synth" in message
    assert "no such folder" in error("folder", tmp_path / "nowhere")


@pytest.mark.parametrize("extension", ["wav", "au", "flac", "ogg", "mp3", "aiff"])
def test_what_is_listed_can_be_decoded(tmp_path, extension):
    for label in ("rock", "jazz"):
        (tmp_path / label).mkdir()
        soundfile.write(tmp_path / label / f"a.{extension}", tone(440, 1), 22_050)
    tracks = load("folder", tmp_path)
    assert [len(audio.decode(track.path)) for track in tracks] == [22_050, 22_050]
