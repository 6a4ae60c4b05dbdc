"""The audit against divisions whose leaks are known."""

import csv
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT, SHARED

from mgr_jax import audit, splits
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import DATASETS
from mgr_jax.datasets.base import Track
from mgr_jax.input_pipeline import COMMIT_FILE, TRACKS_FILE, prepared_folder
from mgr_jax.input_pipeline import write_tracks as write_list


def track(name, genre, artist, side=""):
    """A track with its side in the official split; "" where that leaves it out."""
    fixed = {"official": side} if side else {}
    return Track(name, pathlib.Path(name), genre, artist, fixed)


# By official: artist x on train and test, z on all sides, y on one; t8 on none.
KNOWN = (
    track("t1", "jazz", "x", "train"),
    track("t2", "rock", "x", "test"),
    track("t3", "rock", "x", "test"),
    track("t4", "jazz", "y", "train"),
    track("t5", "jazz", "z", "validation"),
    track("t6", "rock", "z", "train"),
    track("t7", "jazz", "z", "test"),
    track("t8", "rock", "y"),
)


def inspect(tracks, protocol, segments=2, **options):
    counts = {t.id: segments for t in tracks}
    return audit.audit(tracks, counts, protocol, **options)


def many(artist_of, number=40):
    return [track(f"t{k:03d}", "ab"[k % 2], artist_of(k)) for k in range(number)]


def test_an_official_split_with_known_sharing_is_counted_by_hand():
    found = inspect(KNOWN, "official")
    assert found.tracks == {"train": 3, "validation": 1, "test": 3, "left out": 1}
    assert found.segments == {"train": 6, "validation": 2, "test": 6, "left out": 2}
    assert found.genres == {
        "jazz": {"train": 2, "validation": 1, "test": 1},
        "rock": {"train": 1, "test": 2, "left out": 1},
    }
    assert found.shared_tracks == {}
    assert found.shared_artists == {
        "x": {"train": 1, "test": 2},
        "z": {"validation": 1, "train": 1, "test": 1},
    }
    assert (found.used, found.nameless) == (7, 0)
    assert found.leaks
    assert audit.outcome(found) == "leaks: 0 tracks, 2 artists"


def test_the_text_names_what_is_shared_and_ends_with_the_outcome():
    lines = audit.as_text(inspect(KNOWN, "official")).splitlines()
    assert lines[0].startswith("--split=official: ")
    table = [re.split(r"\s{2,}", line.strip()) for line in lines[1:6]]
    assert table == [
        ["train", "validation", "test", "left out"],
        ["tracks", "3", "1", "3", "1"],
        ["segments", "6", "2", "6", "2"],
        ["tracks of jazz", "2", "1", "1", "0"],
        ["tracks of rock", "1", "0", "2", "1"],
    ]
    assert lines[6:] == [
        "  no track is on several sides",
        "  2 artists on several sides, with tracks on each:",
        "    x: train 1, test 2",
        "    z: train 1, validation 1, test 1",
        "  leaks: 0 tracks, 2 artists",
    ]


def test_a_segment_split_lists_the_tracks_that_it_cuts():
    tracks = many("artist{}".format)
    found = inspect(tracks, "segment", segments=5)
    counts = {t.id: 5 for t in tracks}
    assignment = splits.assign(tracks, counts, "segment")
    assert list(found.shared_tracks) == splits.shared(assignment, tracks)[0]
    assert len(found.shared_tracks) > 20
    for name, where in found.shared_tracks.items():
        assert sum(where.values()) == 5
        assert {side: assignment.sides[name].count(side) for side in where} == where
    # Every artist has one track here, so just the artists of those are cut.
    cut = {f"artist{int(name[1:])}" for name in found.shared_tracks}
    assert set(found.shared_artists) == cut
    assert sum(found.segments.values()) == 200


def test_an_artist_split_of_known_artists_is_clean():
    tracks = many(lambda k: f"artist{k // 3}")
    found = inspect(tracks, "artist")
    assert audit.outcome(found) == "clean"
    assert "no artist is on several sides" in audit.as_text(found)
    by_track = inspect(tracks, "track")
    assert by_track.leaks
    assert not by_track.shared_tracks


@pytest.mark.parametrize("artist_of", [lambda k: "", "t{:03d}".format])
def test_tracks_that_name_no_artist_are_never_called_just_clean(artist_of):
    found = inspect(many(artist_of), "track")
    assert (found.used, found.nameless) == (40, 40)
    assert not found.leaks
    outcome = "clean as far as artists are known (40 of 40 tracks name none)"
    assert audit.outcome(found) == outcome
    assert "40 of 40 tracks name no artist" in audit.as_text(found)
    # They are not artists on several sides, though their segments are.
    assert inspect(many(artist_of), "segment").shared_artists == {}


def test_an_artist_called_by_its_first_track_is_one():
    tracks = many(lambda k: "t000")
    found = inspect(tracks, "track")
    assert list(found.shared_artists) == ["t000"]
    assert sum(found.shared_artists["t000"].values()) == 40
    assert found.nameless == 0
    assert audit.outcome(found) == "leaks: 0 tracks, 1 artist"


def test_leaks_beside_nameless_tracks_are_the_least():
    unknown = track("t9", "jazz", "", "train")
    found = inspect([*KNOWN, unknown], "official")
    assert audit.outcome(found) == (
        "leaks: 0 tracks, 2 artists at the least (1 of 8 tracks name none)"
    )


def test_a_track_without_segments_is_left_out():
    tracks = many(lambda k: f"artist{k}")
    counts = {t.id: 3 for t in tracks} | {"t000": 0}
    found = audit.audit(tracks, counts, "track")
    assert found.tracks["left out"] == 1
    assert found.segments["left out"] == 0
    assert found.used == 39


def test_a_long_list_is_cut_and_says_by_how_much():
    found = inspect(many("artist{}".format, 60), "segment", segments=5)
    total = len(found.shared_tracks)
    assert total > audit.LISTED
    text = audit.as_text(found)
    assert text.count("    t0") == audit.LISTED
    assert f"and {total - audit.LISTED} more (--audit_csv lists all)" in text


def test_many_genres_are_not_listed_each():
    tracks = [track(f"t{k}", f"g{k % 30}", f"a{k}") for k in range(300)]
    assert "tracks of" not in audit.as_text(inspect(tracks, "track"))


def test_a_name_with_a_line_break_keeps_to_its_line():
    tracks = [
        Track(t.id, t.path, t.genre, t.artist.replace("x", "x\ny"), t.fixed_sides)
        for t in KNOWN
    ]
    assert "    'x\\ny': train 1, test 2\n" in audit.as_text(
        inspect(tracks, "official")
    )


def test_a_protocol_that_cannot_be_drawn_is_the_users_to_know():
    with pytest.raises(UserError, match="no such split"):
        inspect(many("artist{}".format), "official")


def test_the_table_of_leaks_holds_every_one(tmp_path):
    audits = [inspect(KNOWN, "official"), inspect(KNOWN, "segment", segments=5)]
    path = tmp_path / "leaks.csv"
    audit.write_csv(path, audits)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[:2] == [
        {"protocol": "official", "kind": "artist", "name": name, "train": "1",
         "validation": validation, "test": test}
        for name, validation, test in (("x", "0", "2"), ("z", "1", "1"))
    ]  # fmt: skip
    cut = [
        r["name"] for r in rows if (r["protocol"], r["kind"]) == ("segment", "track")
    ]
    assert cut == list(audits[1].shared_tracks)
    assert cut


def test_segments_are_assumed_until_features_of_these_tracks_are_prepared(tmp_path):
    config = Config(dataset="folder", data_dir=str(tmp_path / "my music"))
    counts, line = audit.count_segments(config, KNOWN)
    assert counts == {t.id: 5 for t in KNOWN}
    assert line.startswith("5 segments a track are assumed")

    prepared = prepared_folder(config)
    prepared.mkdir(parents=True)
    known = {t.id: k for k, t in enumerate(KNOWN)}
    write_list(prepared / TRACKS_FILE, KNOWN, known)
    # Not finished, they may not count.
    assert audit.count_segments(config, KNOWN)[0] == counts
    (prepared / COMMIT_FILE).write_text("{}")
    found, line = audit.count_segments(config, KNOWN)
    assert found == known
    assert str(prepared) in line
    # Nor may those of other tracks.
    assert audit.count_segments(config, KNOWN[:-1])[0] == dict.fromkeys(
        [t.id for t in KNOWN[:-1]], 5
    )


# Real data.


def test_the_development_copy_of_gtzan_shares_artists_by_track_and_not_by_artist():
    if not (SHARED / "gtzan_mini").exists():
        pytest.skip("needs the development data gtzan_mini")
    tracks = DATASETS["gtzan"].load(Config(data_dir=str(SHARED / "gtzan_mini")))
    by_artist = inspect(tracks, "artist", segments=5)
    assert not by_artist.leaks
    assert audit.outcome(by_artist).startswith("clean")
    by_track = inspect(tracks, "track", segments=5)
    assert by_track.shared_tracks == {}
    # The first five of reggae are by one artist (Sturm 2012), and so on all sides.
    assert by_track.shared_artists["reggae.00000"] == {
        "train": 3, "validation": 1, "test": 1,
    }  # fmt: skip


# The program.


def run(cwd, *flags):
    command = [sys.executable, "-m", "mgr_jax.splits", *map(str, flags)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_program_audits_a_folder_by_every_protocol(music_folder, tmp_path):
    table = tmp_path / "leaks.csv"
    done = run(
        tmp_path, "--audit", "--dataset=folder", f"--data_dir={music_folder}",
        f"--features_dir={tmp_path / 'features'}", f"--audit_csv={table}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("folder: 16 tracks, 2 genres; 5 segments a track are as")
    artist_line, track_line, segment_line = lines[-3:]
    assert track_line == (
        "folder, track: clean as far as artists are known (16 of 16 tracks name none)"
    )
    assert artist_line.startswith("folder, artist: cannot be drawn: --split=artist: no")
    assert re.fullmatch(
        r"folder, segment: leaks: \d+ tracks, 0 artists .*", segment_line
    )
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == int(re.search(r"(\d+) tracks", segment_line)[1])


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--audit", "--dataset=gtzn"], 1, "did you mean gtzan"),
        (["--audit", "--dataset=folder", "--data_dir=gone"], 1, "gone"),
        (["--audit", "--dataset=gtzan", "--split=official"], 1, "choose one of filt"),
        (["--dataset=gtzan"], 1, "say --audit"),
        (["--audit", "--no_such_flag=1"], 2, "no_such_flag"),
    ],
)
def test_a_mistake_gives_one_line_and_a_status(tmp_path, flags, status, message):
    done = run(tmp_path, *flags)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_named_protocol_that_cannot_be_drawn_is_an_error(music_folder, tmp_path):
    done = run(
        tmp_path, "--audit", "--dataset=folder", f"--data_dir={music_folder}",
        "--split=artist",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: --split=artist: no track has an artist")
