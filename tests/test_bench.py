"""The benchmarks: that they measure what they say. No time is asserted here."""

import json
import os
import pathlib
import threading

import numpy as np
import pytest
from conftest import ROOT, run_module

from experiments.bench import (
    beam_speed,
    device_speed,
    music,
    scaling,
    timing,
    train_speed,
)
from mgr_jax.config import Config, UserError


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
    rounds = [order[turn : turn + 2] for turn in range(0, 8, 2)]
    assert all(sorted(turn) == ["a", "b"] for turn in rounds)
    assert len({turn[0] for turn in rounds}) == 2
    order.clear()
    # Two in each turn: 100 and 1, then 5 and 2.
    ways = {"a": way("a", [100, 1, 5, 2]), "b": way("b", [100, 3])}
    assert timing.seconds(ways, rounds=1, in_a_row=2) == {"a": 3.5, "b": 3}
    turns = [order[turn : turn + 4] for turn in (0, 4)]
    assert all(turn in (["a", "a", "b", "b"], ["b", "b", "a", "a"]) for turn in turns)


def test_the_least_that_a_step_takes_is_its_operations_or_its_bytes():
    ceiling = device_speed.Ceiling({"float32": 100.0, "bfloat16": 200.0}, bytes=10.0)
    cost = device_speed.Cost(operations=600.0, bytes=40.0)
    assert ceiling.seconds(cost, "float32") == 6
    assert ceiling.seconds(cost, "bfloat16") == 4


def test_an_epoch_of_generated_segments_has_each_once():
    config = Config(feature="chroma", batch_size=32)
    side = train_speed.generated("chroma", 960)
    for number in (1, 2):
        drawn = train_speed.batches(side, config, number, rows_alone=True)
        rows = np.stack([batch["rows"] for batch in drawn])
        assert rows.shape == (30, 32)
        assert sorted(rows.ravel()) == list(range(960))
    given = next(train_speed.batches(side, config, 2, rows_alone=False))
    np.testing.assert_array_equal(given["feature"], side.held["feature"][rows[0]])
    # 400 are drawn, and come again.
    np.testing.assert_array_equal(
        side.held["feature"][:400], side.held["feature"][400:800]
    )


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
    whole, start = tmp_path / "whole", tmp_path / "start"
    for folder, count in ((whole, 12), (start, 2)):
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.mp3").touch()
    on_two, on_one = {whole: 7.0, start: 2.0}, {whole: 9.0, start: 1.5}
    local = {2: 4.0, 1: 6.0}

    def seconds(ways, rounds):
        return {
            (runner, folder, cores): local[cores]
            if runner == "local"
            else (on_two if cores == 2 else on_one)[folder]
            for runner, folder, cores in ways
        }

    monkeypatch.setattr(beam_speed.flags, "FLAGS", Given())
    monkeypatch.setattr(timing, "seconds", seconds)
    rows = beam_speed._rows(whole, start, tmp_path)
    assert [(row.ours, row.peer) for row in rows] == [
        (12 / 7, 12 / 9),
        (10 / 5, 10 / 7.5),
        (12 / 4, 12 / 6),
    ]


def test_a_plan_adds_up_what_was_measured(monkeypatch):
    monkeypatch.setattr(scaling, "DECODE_MS", 1.0)
    monkeypatch.setattr(scaling, "FEATURE_MS", {"chroma": 2.0})
    monkeypatch.setattr(scaling, "TRAIN_MS", {"chroma": 0.5})
    monkeypatch.setattr(scaling, "START_S", 3.0)
    # 100 tracks of 30 s, in four shards.
    data = scaling.Data("mine", 100, 3000.0, 1.0)
    assert scaling.prepare_core_s(data, "chroma") == pytest.approx(3.0 + 1.0)
    assert scaling.makespan_s(data, "chroma", 1) == pytest.approx(3 + 4)
    assert scaling.makespan_s(data, "chroma", 3) == pytest.approx(3 + 2)
    assert scaling.makespan_s(data, "chroma", 9) == pytest.approx(3 + 1)
    assert scaling.shards_gb(data, "chroma") == pytest.approx(500 * 12 * 216 * 2e-9)
    assert scaling.train_core_s(data, "chroma") == pytest.approx(30 * 400 * 0.5e-3)


def test_the_plan_on_paper_is_what_the_script_prints(tmp_path):
    done = run_module("experiments.bench.scaling", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = (ROOT / "docs" / "scaling.md").read_text()
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert all(row in plan for row in rows)


class Given:
    """The flags' values."""

    quick, rounds = False, 3


def test_the_peer_is_named_where_it_is_missing():
    assert "pip install -e '.[bench]'" in str(timing.missing("PyTorch"))
    scripts = pathlib.Path(music.__file__).parent.glob("*_speed.py")
    readme = pathlib.Path(music.__file__).with_name("README.md").read_text()
    assert all(script.stem in readme for script in scripts)


needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="cores are named on Linux alone, and this takes two",
)


@needs_two_cores
def test_threads_that_were_there_are_held_to_as_many_cores():
    began, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (began.set(), ended.wait()))
    thread.start()
    began.wait()
    before = os.sched_getaffinity(thread.native_id)
    try:
        with beam_speed._held_to(1):
            held = os.sched_getaffinity(thread.native_id)
        after = os.sched_getaffinity(thread.native_id)
    finally:
        ended.set()
        thread.join()
    assert len(held) == 1 < len(before)
    assert after == before
