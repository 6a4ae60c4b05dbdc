"""Downloading, from a mirror on this machine that misbehaves in every way that one can.

Most of it runs in this process with waits that are only noted; what a kill, a signal or
a second process does is tried on the program itself.
"""

import collections
import contextlib
import dataclasses
import datetime
import email.utils
import hashlib
import json
import os
import shutil
import signal
import threading
import time

import pytest
from conftest import run_module
from mirror import Answer, genre_files, serving, tar_of, zip_of

from mgr_jax import datasets
from mgr_jax.config import Config, UserError
from mgr_jax.datasets import archives, download, transfer
from mgr_jax.datasets.archives import Source
from mgr_jax.datasets.download import Wishes

MODULE = "mgr_jax.datasets.download"
FILES = genre_files()
DATA = tar_of(FILES)
OTHER_FILES = genre_files(seed=1)
OTHER = tar_of(OTHER_FILES)
PATH = "/genres.tar.gz"
PART = ".downloads/genres.tar.gz.part"

DiskUsage = collections.namedtuple("DiskUsage", "total used free")
Run = collections.namedtuple("Run", "waits root")


@pytest.fixture
def mirror():
    with serving({PATH: DATA}) as found:
        yield found


@pytest.fixture
def other_mirror():
    with serving({PATH: DATA}) as found:
        yield found


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch):
    """A disk on which there is room, whatever the machine's has."""
    return set_free(monkeypatch, 10**13)


def set_free(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(free, 0, free))


def get(root, *urls, dataset="gtzan", overwrite=False, timeouts_s=(5, 5), **wishes):
    """Downloads into a folder, and returns the seconds that were to be waited."""
    waits = []
    config = Config(dataset=dataset, data_dir=str(root), overwrite=overwrite)
    download.download(
        config,
        Wishes(urls=urls, **wishes),
        wait=waits.append,
        timeouts_s=timeouts_s,
    )
    return waits


def error(root, *urls, lines=1, **options):
    """What a user is told; nothing of an archive may be in the folder then."""
    with pytest.raises(UserError) as info:
        get(root, *urls, **options)
    message = str(info.value)
    assert lines is None or message.count("\n") == lines - 1
    assert "genres" not in names(root)
    return message


def names(root):
    return set(os.listdir(root)) if root.is_dir() else set()


def contents(root):
    """The data below a folder, by name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.relative_to(root).parts[0].startswith(".")
    }


def downloads(root):
    """What the folder of downloads still holds."""
    return names(root / ".downloads")


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def program(root, *flags, start_only=False, cwd=None, **environment):
    """The program itself, which asks no proxy for this machine."""
    return run_module(
        MODULE,
        "--dataset=gtzan",
        f"--data_dir={root}",
        *flags,
        cwd=cwd or root.parent,
        start_only=start_only,
        **{"NO_PROXY": "127.0.0.1"} | environment,
    )


def ended(process, timeout=30):
    """Output, errors and status of a process that ends by itself."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return out, err, process.returncode


def wait_until(condition, process=None):
    for _ in range(3_000):
        if condition():
            return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def size(path):
    return path.stat().st_size if path.exists() else 0


# All goes well.


def test_a_data_set_is_fetched_and_unpacked_and_can_be_listed(tmp_path, mirror, capsys):
    root = tmp_path / "data"
    assert get(root, mirror.url) == []
    assert contents(root) == FILES
    assert len(datasets.load_tracks(Config(dataset="gtzan", data_dir=str(root)))) == 6
    out = capsys.readouterr().out.splitlines()
    assert "no licence" in out[0]
    assert f"6 files in {root / 'genres'}" in out[-3]
    flags = f"--dataset=gtzan --data_dir={root}"
    assert out[-2:] == [
        f"next: python -m mgr_jax.datasets.verify {flags}",
        f"then: python -m mgr_jax.main {flags}",
    ]


def test_the_archive_is_deleted_and_nothing_lies_about(tmp_path, mirror):
    get(tmp_path, mirror.url)
    assert downloads(tmp_path) == {"genres.json", "checksums.json"}
    assert {name for name in names(tmp_path) if name[0] != "."} == {"genres"}


def test_the_program_writes_nothing_outside_its_folder(tmp_path, mirror):
    cwd, home = tmp_path / "cwd", tmp_path / "home"
    cwd.mkdir()
    home.mkdir()
    root = tmp_path / "deep" / "data dir"
    done = program(
        root,
        f"--url={mirror.url}",
        cwd=cwd,
        HOME=str(home),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"'--data_dir={root}'" in done.stdout
    assert contents(root) == FILES
    assert (names(cwd), names(home)) == (set(), set())


def test_the_default_folder_is_that_of_the_other_programs(tmp_path, mirror):
    done = program(
        tmp_path, "--data_dir=", f"--url={mirror.url}", MGR_DATA_DIR=str(tmp_path / "d")
    )
    assert done.returncode == 0
    assert contents(tmp_path / "d") == FILES


def test_help_explains_every_flag_and_needs_no_heavy_import(tmp_path):
    done = program(tmp_path, "--help", PYTHONPROFILEIMPORTTIME="1")
    for flag in ("url", "checksum", "from_file", "fma_subset", "data_dir", "dataset"):
        assert f"--{flag}: " in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "mgr_jax.datasets.transfer" in imported
    assert not imported & {"jax", "tensorflow", "pandas", "soundfile", "requests"}


def test_files_of_ones_own_stay(tmp_path, mirror):
    mine = {"genres/blues/mine.wav": b"m", "notes.txt": b"n"}
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES | mine


# Transfers that break.


@pytest.mark.parametrize("reset", [False, True])
def test_a_transfer_goes_on_where_it_broke(tmp_path, mirror, reset):
    mirror.answers = [Answer(cut=9_000, reset=reset) for _ in range(4)]
    waits = get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES
    assert len(waits) == 4
    first, *later = mirror.requests
    assert "Range" not in first.headers
    reached = 0
    for request in later:
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        assert start == request.start > reached
        assert request.headers["If-Range"] == '"one"'
        reached = start
    if not reset:  # What is on its way when a connection is reset may be lost.
        assert sum(request.sent for request in mirror.requests) == len(DATA)


def test_many_breaks_are_no_reason_to_stop_while_each_try_brings_something(
    tmp_path, mirror
):
    mirror.answers = [Answer(cut=3_000) for _ in range(12)]
    assert get(tmp_path, mirror.url) == [1.0] * 12
    assert contents(tmp_path) == FILES


def test_a_mirror_that_brings_nothing_more_is_given_up(tmp_path, mirror):
    mirror.answers = [Answer(cut=9_000)]
    mirror.always = Answer(cut=0)
    message = error(tmp_path, mirror.url, lines=None)
    assert f"broke off at 9,000 of {len(DATA):,} bytes (5 tries)" in message
    assert "the same command goes on" in message
    assert len(mirror.requests) == 6
    mirror.always = Answer()
    get(tmp_path, mirror.url)
    assert mirror.requests[-1].start == 9_000
    assert contents(tmp_path) == FILES


def test_waits_grow_while_nothing_comes(tmp_path, mirror):
    mirror.answers = [Answer(cut=0) for _ in range(4)]
    assert get(tmp_path, mirror.url) == [2.0, 4.0, 8.0, 16.0]


def test_a_server_that_knows_no_ranges_is_asked_from_the_start(tmp_path, mirror):
    mirror.answers = [Answer(cut=9_000), Answer(ranges=False)]
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES
    assert mirror.requests[1].headers["Range"] == "bytes=9000-"
    assert mirror.requests[1].sent == len(DATA)


def test_a_server_that_knows_no_ranges_and_breaks_is_given_up(tmp_path, mirror):
    mirror.always = Answer(cut=9_000, ranges=False)
    assert "5 tries" in error(tmp_path, mirror.url, lines=None)
    assert len(mirror.requests) == 6


def test_a_byte_that_came_before_is_no_progress(tmp_path, mirror):
    cuts = (9_000, 3_000) * 10
    mirror.answers = [Answer(cut=cut, ranges=False) for cut in cuts]
    assert "5 tries" in error(tmp_path, mirror.url, lines=None)
    assert len(mirror.requests) == 6


@pytest.mark.parametrize("shift", [-5, 7])
def test_an_answer_that_begins_elsewhere_is_not_taken(tmp_path, mirror, shift):
    mirror.answers = [Answer(cut=9_000), Answer(shift=shift)]
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES
    assert "Range" not in mirror.requests[2].headers


def test_a_server_that_gives_a_piece_at_a_time_is_asked_for_the_next(tmp_path, mirror):
    mirror.answers = [Answer(cut=9_000)]
    mirror.always = Answer(most=15_000)
    assert get(tmp_path, mirror.url) == [1.0, 1.0, 1.0]
    assert [r.start for r in mirror.requests] == [0, 9_000, 24_000, 39_000]
    assert contents(tmp_path) == FILES


def test_a_part_that_is_whole_is_not_asked_for(tmp_path, mirror):
    get(tmp_path, mirror.url, keep_archive=True)
    (tmp_path / PART.removesuffix(".part")).rename(tmp_path / PART)
    shutil.rmtree(tmp_path / "genres")
    get(tmp_path, mirror.url)
    assert len(mirror.requests) == 1
    assert contents(tmp_path) == FILES


def test_an_answer_that_names_no_range_is_not_taken(tmp_path, mirror):
    bad = {"Content-Range": "bytes"}
    mirror.answers = [Answer(cut=9_000), Answer(status=206, headers=bad)]
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES


def test_a_range_that_is_refused_starts_it_over(tmp_path, mirror):
    mirror.answers = [Answer(cut=9_000), Answer(status=416)]
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES
    assert "Range" not in mirror.requests[2].headers


def test_a_body_that_is_always_shorter_than_claimed_is_given_up(tmp_path, mirror):
    mirror.always = Answer(length=len(DATA) + 50, ranges=False)
    message = error(tmp_path, mirror.url, lines=None)
    assert f"broke off at {len(DATA):,} of {len(DATA) + 50:,} bytes" in message


def test_a_body_without_a_length_ends_where_it_ends(tmp_path, mirror):
    mirror.always = Answer(length=0)
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES


def test_a_body_in_chunks_that_breaks_is_gone_on_with(tmp_path, mirror):
    mirror.answers = [Answer(chunked=True, cut=9_000), Answer(chunked=True)]
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES
    assert mirror.requests[1].start == 9_000


def test_a_body_that_is_longer_than_it_can_be_is_not_taken(
    tmp_path, mirror, other_mirror, monkeypatch
):
    exact = tuple(
        Source(found.url + PATH, num_bytes=len(DATA))
        for found in (mirror, other_mirror)
    )
    change(monkeypatch, sources=exact)
    mirror.always = Answer(data=DATA + b"more", chunked=True)
    get(tmp_path)
    assert contents(tmp_path) == FILES
    assert len(mirror.requests) == transfer.TRIES
    assert len(other_mirror.requests) == 1


def change(monkeypatch, **fields):
    """Another GTZAN archive than the real one, for a test."""
    monkeypatch.setattr(
        archives, "GTZAN", dataclasses.replace(archives.GTZAN, **fields)
    )


def test_an_endless_body_is_stopped_before_the_disk_is_full(
    tmp_path, mirror, monkeypatch
):
    change(monkeypatch, unpacked_bytes=1_000_000, about_bytes=1_000_000)
    set_free(monkeypatch, 3_000_000)
    mirror.always = Answer(endless=True)
    assert "sends without end" in error(tmp_path, mirror.url, lines=None)
    assert not (tmp_path / PART).exists()
    assert len(mirror.requests) == 1
    # Its socket holds some megabytes that were never asked for.
    assert mirror.requests[0].sent >= 2_000_000


def test_a_body_of_no_stated_length_leaves_room_to_unpack(
    tmp_path, mirror, monkeypatch
):
    change(monkeypatch, unpacked_bytes=30_000, about_bytes=20_000)
    set_free(monkeypatch, len(DATA) + 20_000)
    mirror.always = Answer(length=0)
    assert "more than the disk has room for" in error(tmp_path, mirror.url, lines=None)
    set_free(monkeypatch, len(DATA) + 30_000)
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES


def test_a_body_that_the_disk_cannot_hold_is_not_begun(tmp_path, mirror, monkeypatch):
    change(monkeypatch, unpacked_bytes=1_000, about_bytes=1_000)
    set_free(monkeypatch, 20_000)
    assert "more than the disk holds" in error(tmp_path, mirror.url, lines=None)
    assert not (tmp_path / PART).exists()


@pytest.mark.parametrize("cut", [None, 9_000])
def test_a_server_that_falls_silent_is_given_up(tmp_path, mirror, cut):
    held = threading.Event()
    mirror.always = Answer(hold=held, cut=cut, ranges=False)
    message = error(tmp_path, mirror.url, lines=None, timeouts_s=(0.2, 0.2))
    held.set()
    assert "did not answer in time" in message


def test_an_address_where_nobody_listens_is_given_up(tmp_path, mirror, other_mirror):
    with serving({}) as gone:
        pass
    get(tmp_path, gone.url, other_mirror.url)
    assert contents(tmp_path) == FILES
    message = error(tmp_path / "b", gone.url, lines=None)
    assert "connection refused (5 tries)" in message


# The file behind an address changes.


@pytest.mark.parametrize("if_range", [True, False])
def test_another_file_behind_the_address_starts_it_over(tmp_path, mirror, if_range):
    new = {"data": OTHER, "etag": '"two"', "if_range": if_range}
    mirror.answers = [Answer(cut=9_000), Answer(**new)]
    mirror.always = Answer(**new)
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == OTHER_FILES


def test_a_file_of_another_size_starts_it_over(tmp_path, mirror):
    larger = tar_of(genre_files(tracks=4))
    mirror.answers = [Answer(cut=9_000, etag="")]
    mirror.always = Answer(data=larger, etag="")
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == genre_files(tracks=4)


def test_the_date_of_a_file_will_do_for_a_tag(tmp_path, mirror):
    date = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    mirror.answers = [Answer(cut=9_000, etag='W/"weak"', headers=date)]
    mirror.always = Answer(if_range=False, etag="", headers=date)
    get(tmp_path, mirror.url)
    assert mirror.requests[1].headers["If-Range"] == date["Last-Modified"]
    assert mirror.requests[1].start == 9_000


def test_a_part_of_which_nothing_is_noted_is_not_gone_on_with(tmp_path, mirror):
    texts = ("", "{}", '{"url": 1, "checksum": 2}', "[]")
    for number, text in enumerate(texts):
        root = tmp_path / str(number)
        (root / ".downloads").mkdir(parents=True)
        (root / PART).write_bytes(OTHER[:9_000])
        (root / ".downloads" / "genres.tar.gz.json").write_text(text)
        get(root, mirror.url)
        assert contents(root) == FILES
        assert "Range" not in mirror.requests[-1].headers


# One mirror after another.


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_mirror_that_does_not_have_it_is_left_at_once(
    tmp_path, mirror, other_mirror, status
):
    mirror.always = Answer(status=status)
    assert get(tmp_path, mirror.url, other_mirror.url) == []
    assert len(mirror.requests) == 1
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path, mirror, status):
    mirror.answers = [Answer(status=status)] * 2
    assert get(tmp_path, mirror.url) == [2.0, 4.0]
    assert contents(tmp_path) == FILES


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7.0), ("3600", 60.0), ("x", 2.0)])
def test_a_busy_server_is_left_alone_as_long_as_it_asks(
    tmp_path, mirror, asked, seconds
):
    mirror.answers = [Answer(status=503, headers={"Retry-After": asked})]
    assert get(tmp_path, mirror.url) == [seconds]


def test_a_busy_server_may_ask_by_date(tmp_path, mirror):
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    date = email.utils.format_datetime(then, usegmt=True)
    mirror.answers = [Answer(status=429, headers={"Retry-After": date})]
    assert get(tmp_path, mirror.url) == [60.0]


def test_a_mirror_that_holds_a_file_of_another_size_is_left(
    tmp_path, mirror, other_mirror, monkeypatch, capsys
):
    sources = (
        Source(mirror.url + PATH, num_bytes=len(DATA) + 1),
        Source(other_mirror.url + PATH, num_bytes=len(DATA)),
    )
    change(monkeypatch, sources=sources)
    get(tmp_path)
    assert "holds another file" in capsys.readouterr().out
    assert mirror.requests[0].sent < len(DATA) or len(mirror.requests) == 1
    assert contents(tmp_path) == FILES


def test_a_mirror_that_sends_elsewhere_is_followed_in_each_try(
    tmp_path, mirror, other_mirror
):
    elsewhere = {"Location": other_mirror.url + PATH}
    mirror.always = Answer(status=302, headers=elsewhere)
    other_mirror.answers = [Answer(cut=9_000)]
    get(tmp_path, mirror.url)
    assert other_mirror.requests[1].start == 9_000
    assert contents(tmp_path) == FILES
    mirror.always = Answer(status=302, headers={"Location": mirror.url + PATH})
    message = error(tmp_path / "b", mirror.url, lines=None)
    assert "leads round in circles" in message


def test_a_page_instead_of_the_archive_is_left(tmp_path, mirror, other_mirror):
    mirror.always = Answer(data=b"<html>please log in</html>")
    get(tmp_path, mirror.url, other_mirror.url)
    assert contents(tmp_path) == FILES


def test_a_part_is_gone_on_with_elsewhere_where_a_checksum_judges_it(
    tmp_path, mirror, other_mirror
):
    mirror.answers = [Answer(cut=9_000), Answer(status=404)]
    get(tmp_path, mirror.url, other_mirror.url, checksum=sha256(DATA))
    assert contents(tmp_path) == FILES
    (request,) = other_mirror.requests
    assert request.start == 9_000
    assert "If-Range" not in request.headers


def test_a_part_is_thrown_away_elsewhere_where_no_checksum_is_known(
    tmp_path, mirror, other_mirror
):
    mirror.answers = [Answer(cut=9_000), Answer(status=404)]
    other_mirror.always = Answer(data=OTHER)
    get(tmp_path, mirror.url, other_mirror.url)
    assert "Range" not in other_mirror.requests[0].headers
    assert contents(tmp_path) == OTHER_FILES


def test_a_mirror_that_gives_nothing_costs_no_part_of_another(
    tmp_path, mirror, other_mirror
):
    mirror.answers = [Answer(cut=9_000)]
    mirror.always = other_mirror.always = Answer(status=404)
    error(tmp_path, mirror.url, other_mirror.url, lines=None)
    mirror.always = Answer()
    get(tmp_path, mirror.url, other_mirror.url)
    assert mirror.requests[-1].start == 9_000


def test_when_all_fail_it_says_what_each_did_and_how_to_do_without(
    tmp_path, mirror, other_mirror
):
    mirror.always = Answer(status=404)
    other_mirror.always = Answer(status=503)
    message = error(tmp_path, mirror.url, other_mirror.url, lines=None)
    assert f"{mirror.url}{PATH}: answered 404" in message
    assert f"{other_mirror.url}{PATH}: answered 503" in message
    assert "(5 tries)" in message
    assert "--from_file=FILE" in message
    assert f"{tmp_path} holds genres/" in message


def test_a_name_and_password_in_an_address_are_neither_shown_nor_stored(
    tmp_path, mirror, capsys
):
    url = mirror.url.replace("//", "//me:secret@")
    get(tmp_path, url, keep_archive=True)
    assert mirror.requests[0].headers["Authorization"].startswith("Basic ")
    assert "secret" not in capsys.readouterr().out
    stored = [path.read_bytes() for path in (tmp_path / ".downloads").glob("*.json")]
    assert len(stored) == 3
    assert not any(b"secret" in text for text in stored)


# Checksums.


def test_a_wrong_file_is_fetched_once_more_and_then_elsewhere(
    tmp_path, mirror, other_mirror
):
    mirror.always = Answer(data=OTHER)
    get(tmp_path, mirror.url, other_mirror.url, checksum=sha256(DATA))
    assert len(mirror.requests) == 2
    assert "Range" not in mirror.requests[1].headers
    assert contents(tmp_path) == FILES


def test_a_file_that_is_right_the_second_time_is_taken(tmp_path, mirror):
    mirror.answers = [Answer(data=OTHER)]
    get(tmp_path, mirror.url, checksum=f"md5:{hashlib.md5(DATA).hexdigest().upper()}")
    assert contents(tmp_path) == FILES


def test_a_wrong_file_is_never_unpacked(tmp_path, mirror):
    message = error(tmp_path, mirror.url, lines=None, checksum=sha256(OTHER))
    assert hashlib.sha256(DATA).hexdigest() in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert downloads(tmp_path) == {"genres.tar.gz.json"}


def test_another_file_than_the_first_time_is_refused(tmp_path, mirror):
    get(tmp_path, mirror.url)
    shutil.rmtree(tmp_path / "genres")
    mirror.always = Answer(data=OTHER)
    message = error(tmp_path, mirror.url)
    assert f"gave {sha256(DATA)} before, and now {sha256(OTHER)}" in message
    assert "--checksum" in message
    assert "checksums.json" in message
    assert sha256(OTHER) in error(tmp_path, mirror.url)
    get(tmp_path, mirror.url, checksum=sha256(OTHER))
    assert contents(tmp_path) == OTHER_FILES
    assert len(mirror.requests) == 2


def test_another_file_is_taken_once_the_first_is_forgotten(tmp_path, mirror):
    get(tmp_path, mirror.url)
    mirror.always = Answer(data=OTHER)
    path = tmp_path / ".downloads" / "checksums.json"
    assert json.loads(path.read_text()) == {mirror.url + PATH: sha256(DATA)}
    path.write_text("{}")
    get(tmp_path, mirror.url, overwrite=True)
    assert contents(tmp_path) == OTHER_FILES


def test_any_file_is_taken_where_that_is_asked_for(tmp_path, mirror):
    get(tmp_path, mirror.url)
    mirror.always = Answer(data=OTHER)
    get(tmp_path, mirror.url, overwrite=True, checksum="none")
    assert contents(tmp_path) == OTHER_FILES


def test_a_damaged_list_of_checksums_is_named(tmp_path, mirror):
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / "checksums.json").write_text("{")
    assert "checksums.json: is not" in error(tmp_path, mirror.url)


@pytest.mark.parametrize(
    "checksum", ["sha1", "sha1:12", "crc32:00000000", f"md5:{'g' * 32}", "sha256:None"]
)
def test_a_checksum_that_is_none_is_answered_with_an_example(
    tmp_path, mirror, checksum
):
    message = error(tmp_path, mirror.url, checksum=checksum)
    assert message.startswith(f"--checksum={checksum}: give ALGORITHM:HEX")
    assert not mirror.requests


# Archives that are unsafe or damaged.


@pytest.mark.parametrize(
    "data",
    [
        tar_of(FILES | {"../escaped.wav": b"x"}),
        zip_of(FILES | {"genres/../../escaped.wav": b"x"}),
        zip_of(FILES | {"/escaped.wav": b"x"}),
        DATA[:-20],
        zip_of({"other/a.wav": b"x"}),
        tar_of({"genres/a.wav": bytes(3_000_000)}),
    ],
    ids=["tar", "zip", "absolute", "cut off", "another archive", "bomb"],
)
def test_an_archive_that_is_refused_leaves_nothing_behind(
    tmp_path, mirror, monkeypatch, data
):
    change(monkeypatch, most_bytes=2_000_000)
    mirror.always = Answer(data=data)
    root = tmp_path / "data"
    message = error(root, mirror.url)
    assert message.startswith(f"{mirror.url}{PATH}: ")
    assert f"nothing of it is in {root}" in message
    assert downloads(root) == set()
    assert names(tmp_path) == {"data"}
    mirror.always = Answer()
    get(root, mirror.url)
    assert contents(root) == FILES


def test_the_program_says_in_one_line_what_is_wrong_with_an_archive(tmp_path, mirror):
    mirror.always = Answer(data=tar_of({"genres/../../x": b"x"}))
    done = program(tmp_path / "data", f"--url={mirror.url}")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {mirror.url}{PATH}: its member 'genres/../../x'")
    assert done.returncode == 1


# Runs that end early.


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_in_a_transfer_goes_on_there(tmp_path, mirror, how):
    held = threading.Event()
    mirror.answers = [Answer(cut=20_000, hold=held)]
    root = tmp_path / "data"
    process = program(root, f"--url={mirror.url}", start_only=True)
    wait_until(lambda: size(root / PART) >= 8_192, process)
    process.send_signal(how)
    _, err, status = ended(process)
    held.set()
    if how == signal.SIGKILL:
        assert status == -how
    else:
        assert err == "error: interrupted; the same command goes on\n"
        assert status == 130
    have = size(root / PART)
    assert not contents(root)
    done = program(root, f"--url={mirror.url}")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(root) == FILES
    assert mirror.requests[-1].start == have > 0


def test_a_run_that_is_killed_in_unpacking_fetches_nothing_again(tmp_path, mirror):
    files = {f"genres/blues/{number:05d}.wav": b"x" for number in range(6_000)}
    mirror.always = Answer(data=tar_of(files))
    root = tmp_path / "data"
    staged = root / ".downloads" / "unpacking-genres" / "genres" / "blues"
    process = program(root, f"--url={mirror.url}", start_only=True)
    wait_until(lambda: len(names(staged)) > 10, process)
    process.kill()
    ended(process)
    assert not contents(root)
    assert 10 < len(names(staged)) < len(files)
    (staged / "leftover.wav").touch()
    done = program(root, f"--url={mirror.url}")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(root) == files
    assert len(mirror.requests) == 1
    assert downloads(root) == {"genres.json", "checksums.json"}


def test_two_runs_into_one_folder_wait_for_each_other(tmp_path, mirror):
    held = threading.Event()
    mirror.answers = [Answer(cut=9_000, hold=held)]
    root = tmp_path / "data"
    first = program(root, f"--url={mirror.url}", start_only=True)
    wait_until(lambda: mirror.requests, first)
    second = program(root, f"--url={mirror.url}", start_only=True)
    line = second.stdout.readline()
    assert line == f"another process downloads into {root}/.downloads; waiting for it\n"
    held.set()
    assert ended(first)[1:] == ("", 0)
    out, err, status = ended(second)
    assert (err, status) == ("", 0)
    assert "is there already" in out
    assert len(mirror.requests) == 1
    assert contents(root) == FILES


def test_a_disk_that_is_full_keeps_what_came(tmp_path, mirror):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    (tmp_path / ".downloads").mkdir()
    (tmp_path / PART).symlink_to("/dev/full")
    message = error(tmp_path, mirror.url)
    assert "No space left on device" in message
    assert "the same command goes on" in message
    assert (tmp_path / PART).is_symlink()


# The folder, and its disk.


def test_too_little_room_is_said_before_anything_is_fetched(
    tmp_path, mirror, monkeypatch
):
    set_free(monkeypatch, 2 * 10**9)
    message = error(tmp_path, mirror.url)
    assert "2.6 GB are needed" in message
    assert "2.0 GB are free" in message
    assert message.startswith(f"--data_dir={tmp_path}: ")
    assert not mirror.requests


def test_what_is_fetched_already_needs_no_room(tmp_path, mirror, monkeypatch):
    change(monkeypatch, about_bytes=len(DATA), unpacked_bytes=1_000)
    mirror.answers = [Answer(cut=20_000), Answer(status=404)]
    error(tmp_path, mirror.url, lines=None)
    set_free(monkeypatch, len(DATA) - 20_000 + 1_000)
    get(tmp_path, mirror.url)
    assert contents(tmp_path) == FILES


def test_a_folder_that_cannot_be_written_is_named_with_its_flag(tmp_path, mirror):
    (tmp_path / "file").touch()
    message = error(tmp_path / "file" / "data", mirror.url)
    assert message.startswith(f"{tmp_path}/file/data: cannot be written")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written" in error(tmp_path / "locked", mirror.url)
    assert not mirror.requests


# What is there already.


def test_what_is_there_is_not_fetched_again(tmp_path, mirror, capsys):
    get(tmp_path, mirror.url)
    get(tmp_path, mirror.url)
    assert len(mirror.requests) == 1
    out = capsys.readouterr().out
    assert f"is there already, 6 files in {tmp_path / 'genres'}" in out
    assert out.count("no licence") == 1
    get(tmp_path, mirror.url, overwrite=True)
    assert len(mirror.requests) == 2


def test_what_has_lost_a_file_is_fetched_again(tmp_path, mirror):
    get(tmp_path, mirror.url)
    lost = tmp_path / next(iter(FILES))
    lost.rename(lost.with_name("._" + lost.name))
    get(tmp_path, mirror.url)
    assert len(mirror.requests) == 2
    assert lost.exists()


def test_gtzan_that_was_put_there_by_hand_is_not_fetched(tmp_path, mirror, capsys):
    for genre in datasets.gtzan.GENRES:
        folder = tmp_path / "copy" / "genres_original" / genre
        folder.mkdir(parents=True)
        for number in range(100):
            (folder / f"{genre}.{number:05d}.wav").touch()
    get(tmp_path, mirror.url)
    assert not mirror.requests
    assert "1000 tracks" in capsys.readouterr().out
    (folder / "rock.00099.wav").unlink()
    get(tmp_path, mirror.url)
    assert len(mirror.requests) == 1


def test_a_kept_archive_is_used_again(tmp_path, mirror):
    get(tmp_path, mirror.url, keep_archive=True)
    kept = tmp_path / ".downloads" / "genres.tar.gz"
    assert kept.read_bytes() == DATA
    shutil.rmtree(tmp_path / "genres")
    get(tmp_path, mirror.url, keep_archive=True)
    assert contents(tmp_path) == FILES
    assert len(mirror.requests) == 1


def test_a_kept_archive_that_has_changed_is_not_used(tmp_path, mirror):
    checksum = sha256(DATA)
    get(tmp_path, mirror.url, keep_archive=True, checksum=checksum)
    (tmp_path / ".downloads" / "genres.tar.gz").write_bytes(OTHER)
    shutil.rmtree(tmp_path / "genres")
    get(tmp_path, mirror.url, checksum=checksum)
    assert contents(tmp_path) == FILES
    assert len(mirror.requests) == 2


# Archives that were fetched by hand.


def test_an_archive_fetched_by_hand_is_unpacked_and_stays(tmp_path, mirror):
    path = tmp_path / "downloaded (1).bin"
    path.write_bytes(DATA)
    root = tmp_path / "data"
    get(root, mirror.url, from_files=(str(path),))
    assert contents(root) == FILES
    assert path.read_bytes() == DATA
    assert not mirror.requests
    assert downloads(root) == {"genres.json"}


def test_an_archive_fetched_by_hand_stays_wherever_it_lies(tmp_path):
    path = tmp_path / ".downloads" / "genres.tar.gz"
    path.parent.mkdir()
    for data in (tar_of(FILES | {"../x": b""}), DATA):
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            get(tmp_path, from_files=(str(path),))
        assert path.read_bytes() == data
    assert contents(tmp_path) == FILES


def test_a_copy_that_another_packed_is_taken_by_its_folders(tmp_path):
    files = {f"Data/genres_original/{k}": v for k, v in FILES.items()}
    path = tmp_path / "archive.zip"
    path.write_bytes(zip_of(files | {"Data/images_original/x.png": b"x"}))
    get(tmp_path / "data", from_files=(str(path),))
    assert contents(tmp_path / "data") == files


def test_an_archive_fetched_by_hand_that_is_none_is_one_line(tmp_path):
    root, path = tmp_path / "data", tmp_path / "x.zip"

    def message(data=None, **options):
        if data is not None:
            path.write_bytes(data)
        found = error(root, from_files=(str(path),), **options)
        assert found.startswith(f"--from_file={path}: ")
        return found

    assert "No such file" in message()
    assert "no .zip" in message(b"text")
    assert "damaged" in message(zip_of(FILES)[:-30])
    assert "holds none of genres/" in message(zip_of({"a/b": b""}))
    medium = message(zip_of({"fma_medium/000/000002.mp3": b""}))
    assert "holds fma_medium/, so it is for --dataset=fma --fma_subset=medium" in medium
    assert "not safe" in message(zip_of(FILES | {"../x": b""}))
    assert "gave a file with sha256" in message(DATA, checksum=sha256(OTHER))
    path.unlink()
    path.mkdir()
    assert "is a folder" in message()
    assert path.is_dir()


def test_one_archive_named_twice_is_one_line(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(DATA)
    message = error(tmp_path / "data", from_files=(str(path), str(path)))
    assert "genres once more" in message


# FMA, which is two archives.


def metadata(numbers, subset="small"):
    rows = [
        ("", "set", "set", "track", "artist"),
        ("", "split", "subset", "genre_top", "id"),
        ("track_id", "", "", "", ""),
        *((n, "training", subset, "Rock" if n % 2 else "Pop", n) for n in numbers),
    ]
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


NUMBERS = (2, 5, 10)
AUDIO = {f"fma_small/000/{n:06d}.mp3": bytes([n]) * 500 for n in NUMBERS}
LISTS = {
    "fma_metadata/tracks.csv": metadata(NUMBERS),
    "fma_metadata/not_found.pickle": b"never read",
}


@pytest.fixture
def fma_mirror(monkeypatch):
    files = {
        "/fma/fma_metadata.zip": zip_of(LISTS, method=12),
        "/fma/fma_small.zip": zip_of(AUDIO),
    }
    for name, data in zip(("FMA_METADATA", "small"), files.values(), strict=True):
        checksum = f"sha1:{hashlib.sha1(data).hexdigest()}"
        if name == "FMA_METADATA":
            found = dataclasses.replace(archives.FMA_METADATA, checksum=checksum)
            monkeypatch.setattr(archives, name, found)
        else:
            found = dataclasses.replace(archives.FMA[name], checksum=checksum)
            monkeypatch.setitem(archives.FMA, name, found)
    with serving(files) as mirror:
        mirror.url += "/fma"
        yield mirror


def test_fma_is_its_metadata_and_then_its_audio(tmp_path, fma_mirror, capsys):
    get(tmp_path, fma_mirror.url, dataset="fma")
    assert contents(tmp_path) == AUDIO | LISTS
    asked = [request.path for request in fma_mirror.requests]
    assert asked == ["/fma/fma_metadata.zip", "/fma/fma_small.zip"]
    out = capsys.readouterr().out
    assert "Creative Commons" in out
    assert f"3 files in {tmp_path / 'fma_small'}" in out
    tracks = datasets.load_tracks(Config(dataset="fma", data_dir=str(tmp_path)))
    assert len(tracks) == 3
    get(tmp_path, fma_mirror.url, dataset="fma")
    assert len(fma_mirror.requests) == 2


def test_only_what_is_missing_of_fma_is_fetched(tmp_path, fma_mirror):
    get(tmp_path, fma_mirror.url, dataset="fma")
    shutil.rmtree(tmp_path / "fma_small" / "000")
    get(tmp_path, fma_mirror.url, dataset="fma")
    asked = [request.path for request in fma_mirror.requests]
    assert asked[2:] == ["/fma/fma_small.zip"]
    assert contents(tmp_path) == AUDIO | LISTS


def test_fma_that_was_put_there_by_hand_is_not_fetched(tmp_path, fma_mirror):
    for name, data in (AUDIO | LISTS).items():
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "music" / name).write_bytes(data)
    get(tmp_path, fma_mirror.url, dataset="fma")
    assert not fma_mirror.requests
    (tmp_path / "music" / next(iter(AUDIO))).unlink()
    get(tmp_path, fma_mirror.url, dataset="fma")
    assert [r.path for r in fma_mirror.requests] == ["/fma/fma_small.zip"]


def test_what_is_not_given_by_hand_is_downloaded(tmp_path, fma_mirror):
    path = tmp_path / "audio.zip"
    path.write_bytes(fma_mirror.files["/fma/fma_small.zip"])
    root = tmp_path / "data"
    get(root, fma_mirror.url, dataset="fma", from_files=(str(path),))
    assert [r.path for r in fma_mirror.requests] == ["/fma/fma_metadata.zip"]
    assert contents(root) == AUDIO | LISTS


def test_a_known_checksum_judges_an_archive_from_anywhere(tmp_path, fma_mirror):
    changed = zip_of(AUDIO | {"fma_small/000/000011.mp3": b"x"})
    path = tmp_path / "audio.zip"
    path.write_bytes(changed)
    root = tmp_path / "data"
    message = error(root, dataset="fma", from_files=(str(path),))
    assert "gave a file with sha1" in message
    fma_mirror.files["/fma/fma_small.zip"] = changed
    message = error(root, fma_mirror.url, dataset="fma", lines=None)
    assert "gave a file with sha1" in message
    get(root, fma_mirror.url, dataset="fma", checksum="none")
    assert "fma_small/000/000011.mp3" in contents(root)


# Flags.


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("synth", "needs no download"),
        ("folder", "of your own"),
        ("gtzan+fma", "download gtzan, and then fma"),
        ("gztan", "did you mean gtzan?"),
        ("", "choose one of gtzan, fma"),
    ],
)
def test_a_data_set_that_is_not_downloaded_is_one_line(tmp_path, dataset, says):
    message = error(tmp_path, dataset=dataset)
    assert message.startswith(f"--dataset={dataset}: ")
    assert says in message


def test_an_unknown_subset_is_one_line(tmp_path):
    config = Config(dataset="fma", fma_subset="full", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="small, medium, large"):
        download.download(config, Wishes())


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "genres.tar.gz", "ftp://x/y", ""]
)
def test_an_address_that_is_none_is_one_line(tmp_path, url):
    message = error(tmp_path, url)
    assert message.startswith(f"--url={url}: ")
    assert "--from_file" in message


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://h/d", ("http://h/d/fma_metadata.zip", "http://h/d/fma_small.zip")),
        ("http://h", ("http://h/fma_metadata.zip", "http://h/fma_small.zip")),
        ("http://h/d/?k=1", ("http://h/d/fma_metadata.zip?k=1", "http://h/d/fma_small.zip?k=1")),
        ("http://h/x/fma_metadata.zip", ("http://h/x/fma_metadata.zip", None)),
        ("http://h/x/fma_small.zip?k=1", (None, "http://h/x/fma_small.zip?k=1")),
        ("http://h/x/audio.tar.gz", (None, "http://h/x/audio.tar.gz")),
    ],
)  # fmt: skip
def test_a_mirror_is_a_folder_or_one_archive(url, addresses):
    known = archives.wanted("fma", "small")
    changed = archives.with_own(known, [url], "")
    for archive, before, address in zip(changed, known, addresses, strict=True):
        expected = before.sources if address is None else (Source(address),)
        assert archive.sources == expected
        assert archive.checksum == before.checksum


def test_a_checksum_is_for_the_audio_and_for_every_mirror():
    known = archives.wanted("fma", "small")
    csv_archive, audio = archives.with_own(known, ["http://a", "http://b"], "none")
    assert [csv_archive.expected(s) for s in csv_archive.sources] == [
        known[0].checksum
    ] * 2
    assert [audio.expected(source) for source in audio.sources] == ["none"] * 2
    (gtzan,) = archives.with_own(archives.wanted("gtzan", "small"), [], sha256(b""))
    assert {gtzan.expected(source) for source in gtzan.sources} == {sha256(b"")}
    assert not any(source.num_bytes for source in gtzan.sources)


def test_the_known_archives_are_those_that_are_published():
    (gtzan,) = archives.wanted("gtzan", "small")
    first, original = gtzan.sources
    assert first.num_bytes == 1_226_192_050
    assert gtzan.expected(first) == ""
    assert gtzan.expected(original) == "md5:5b3d6dddb579ab49814ab86dba69e7c7"
    for subset in ("small", "medium", "large"):
        for archive in archives.wanted("fma", subset):
            (source,) = archive.sources
            assert (
                source.url == f"https://os.unil.cloud.switch.ch/fma/{archive.file_name}"
            )
            assert archive.expected(source).startswith("sha1:")
            assert len(archive.expected(source)) == 45
            assert archive.most_bytes > archive.unpacked_bytes >= archive.about_bytes
