"""The benchmarks: that they measure what they say. No time is asserted here."""

import json
import pathlib

import pytest
from conftest import run_module

from experiments.bench import beam_speed, music, timing
from mgr_jax.config import UserError


def test_ratios_say_how_many_times_as_fast_and_how_far_from_the_limit():
    time = timing.Row("a", "s", ours=2.0, peer=6.0, limit=0.5)
    assert time.times_peer == 3.0
    assert time.of_limit == 4.0
    speed = timing.Row("a", "/s", ours=2.0, peer=6.0, limit=8.0, more_is_better=True)
    assert speed.times_peer == pytest.approx(1 / 3)
    assert speed.of_limit == 4.0
    alone = timing.Row("a", "s", ours=2.0)
    assert alone.times_peer is None
    assert alone.of_limit is None


def test_ways_take_turns_and_the_first_turn_is_not_counted(monkeypatch):
    clock, order = [0.0], []

    def way(name, took):
        def go():
            order.append(name)
            # The first turn compiles.
            clock[0] += took[min(order.count(name) - 1, len(took) - 1)]

        return go

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    ways = {"a": way("a", [100, 1, 5, 2]), "b": way("b", [100, 3])}
    assert timing.seconds(ways, rounds=3) == {"a": 2, "b": 3}
    assert order == ["a", "b"] * 4


def test_a_folder_of_links_has_each_recording_so_many_times(tmp_path):
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    for name in ("one.mp3", "sub/two.WAV", "notes.txt"):
        (tmp_path / "mine" / name).touch()
    paths = music.sources(str(tmp_path / "mine"), tmp_path, 0)
    assert [path.name for path in paths] == ["one.mp3", "two.WAV"]
    folder = music.linked(paths, tmp_path / "links", 3)
    links = sorted(folder.rglob("*.*"))
    assert len(links) == 6
    assert {link.resolve() for link in links} == set(paths)
    assert {link.parent.name for link in links} == {"a", "b"}


def test_a_folder_without_music_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no audio; name a folder of music"):
        music.sources(str(tmp_path), tmp_path, 1)


def test_a_benchmark_prints_an_object_for_programs(tmp_path):
    flags = ("--quick", "--json", "--rounds=1")
    done = run_module("experiments.bench.startup_speed", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["what"]: row for row in found["rows"]}
    assert set(rows) == {"import jax", "import mgr_jax.main", "main --help"}
    assert all(row["ours"] > row["limit"] > 0 for row in rows.values())
    assert "cores" in found["machine"]


def test_two_workers_are_compared_with_one_and_the_start_is_left_out(
    tmp_path, monkeypatch
):
    for number in range(12):
        (tmp_path / f"{number}.mp3").touch()
    took = {"two": 7.0, "one": 9.0, "two start": 2.0, "one start": 1.5, "local": 4.0}
    monkeypatch.setattr(beam_speed.flags, "FLAGS", Given())
    monkeypatch.setattr(
        timing, "seconds", lambda ways, rounds: {way: took[way] for way in ways}
    )
    rows = beam_speed._rows("chroma", tmp_path, tmp_path, tmp_path)
    assert [(row.ours, row.peer) for row in rows] == [
        (12 / 7, 12 / 9),
        (10 / 5, 10 / 7.5),
        (12 / 4, 12 / 9),
    ]


class Given:
    """The flags' values."""

    quick, rounds = False, 3


def test_the_peer_is_named_where_it_is_missing():
    assert "pip install -e '.[bench]'" in str(timing.missing("PyTorch"))
    scripts = pathlib.Path(music.__file__).parent.glob("*_speed.py")
    readme = pathlib.Path(music.__file__).with_name("README.md").read_text()
    assert all(script.stem in readme for script in scripts)
