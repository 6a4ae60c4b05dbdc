"""The check of a data set: each kind of fault, known ones, and what is said of them."""

import collections
import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr
from conftest import (
    PRINT_PEAK_MB,
    ROOT,
    SHARED,
    run_module,
    run_without_privileges,
    tone,
)
from test_datasets import ROWS, write_csv
from test_fingerprint import melody

from mgr_jax.datasets import expected, findings, measure, verify
from mgr_jax.datasets.known_faults import KNOWN_FAULTS, known_fault

RATE_HZ = 22_050


def run(tmp_path, *given):
    return run_module("mgr_jax.datasets.verify", *given, cwd=tmp_path)


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, samples, rate_hz=RATE_HZ, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    # soundfile itself refuses a path that is no UTF-8.
    soundfile.write(os.fsencode(path), samples, rate_hz, **settings)
    return path


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def table_row(text, name):
    """The numbers of a row of the first table: found, known, expected."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return line.removeprefix(name).split()


# One file.


def measured(tmp_path, samples, rate_hz=RATE_HZ, name="a.wav", **settings):
    return measure.measure(write(tmp_path / name, samples, rate_hz, **settings))


def test_a_sine_is_measured(tmp_path):
    both = np.stack([tone(440, 6, 44_100), 0.5 * tone(440, 6, 44_100)], axis=1)
    found = measured(tmp_path, both, 44_100, subtype="PCM_24")
    assert (found.state, found.reason, found.note) == ("ok", "", "")
    assert (found.rate_hz, found.channels, found.format) == (44_100, 2, "WAV PCM_24")
    assert found.duration_s == 6
    assert found.num_bytes == (tmp_path / "a.wav").stat().st_size
    assert found.peak == pytest.approx(0.5, abs=1e-3)
    power = (0.5**2 / 2 + 0.25**2 / 2) / 2
    assert found.rms_db == pytest.approx(10 * math.log10(power), abs=0.01)
    assert (found.clipped_share, found.silent_share) == (0, 0)


@pytest.mark.parametrize("block_values", [13, 67, 1 << 16])
@pytest.mark.parametrize("channels", [1, 2])
def test_clipping_is_runs_at_full_scale_wherever_blocks_end(
    tmp_path, monkeypatch, block_values, channels
):
    monkeypatch.setattr(measure, "_BLOCK_VALUES", block_values)
    samples = tone(100, 1)
    samples[100:110] = 1.0
    samples[200:203] = -1.0
    # Too short a run, and none: the wave goes from one end to the other.
    samples[300:302] = 1.0
    samples[400:404] = [1, -1, 1, -1]
    # Flat, but not at full scale.
    samples[500:600] = 0.95
    all_channels = np.zeros((len(samples), channels), np.float32)
    all_channels[:, 0] = samples
    found = measured(tmp_path, all_channels, subtype="FLOAT")
    assert found.clipped_share == 13 / all_channels.size


def test_a_clipped_sine_has_the_share_that_it_must(tmp_path):
    """A sine of twice full scale is beyond it for 2/3 of the time."""
    found = measured(tmp_path, np.clip(tone(50, 6, level=2), -1, 1), subtype="PCM_16")
    assert found.clipped_share == pytest.approx(2 / 3, abs=0.01)


def test_the_mp3_of_clipped_music_is_clipped_and_that_of_loud_music_is_not(tmp_path):
    loud = melody(0)
    loud *= 0.95 / np.abs(loud).max()
    clipped = np.clip(4 * loud, -1, 1)
    assert measured(tmp_path, loud, name="a.mp3").clipped_share < 1e-3
    found = measured(tmp_path, clipped, name="b.mp3")
    assert found.peak > 1
    assert found.clipped_share > findings.CLIPPED


def test_the_share_of_silence_is_known(tmp_path):
    samples = tone(440, 8)
    samples[2 * RATE_HZ : 4 * RATE_HZ] = 0
    assert measured(tmp_path, samples).silent_share == pytest.approx(0.25, abs=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_long_recording_is_measured_in_bounded_memory(tmp_path):
    """The file is sparse: two hours that take no disk, 635 MB once decoded."""
    path = sparse(tmp_path / "long.wav", hours=2)
    script = (
        "import pathlib\n"
        "from mgr_jax.datasets.measure import measure\n"
        f"print(measure(pathlib.Path({str(path)!r})).duration_s)\n"
        f"{PRINT_PEAK_MB}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    duration_s, peak_mb = done.stdout.split()
    assert float(duration_s) == 7_200
    assert int(peak_mb) < 300


def sparse(path, hours):
    """A WAV of 8 bits at 8 kHz: a second of sound, and zeros that take no disk."""
    write(path, tone(440, 1, 8_000), 8_000, subtype="PCM_U8")
    samples = hours * 3_600 * 8_000
    with path.open("r+b") as file:
        file.truncate(44 + samples)
        for offset, size in ((4, 36 + samples), (40, samples)):
            file.seek(offset)
            file.write(size.to_bytes(4, "little"))
    return path


def test_a_file_that_vanishes_while_it_is_read_is_missing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(440, 6))
    whole = measure._measure_file

    def measure_and_remove(*given):
        swing = whole(*given)
        path.unlink()
        return swing

    monkeypatch.setattr(measure, "_measure_file", measure_and_remove)
    assert measure.measure(path).state == measure.MISSING


# A folder in which everything is wrong.

LATIN_1 = os.fsdecode(b"latin-1 \xe9.wav")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the program says and writes of a folder with each kind of fault."""
    root = tmp_path_factory.mktemp("verify") / "my music"
    ours = melody(0)
    write(root / "jazz" / "ours.wav", ours)
    shutil.copy(root / "jazz" / "ours.wav", root / "jazz" / "again.wav")
    softer = 0.25 * soxr.resample(ours, RATE_HZ, 44_100)
    (root / "rock").mkdir()
    write(root / "rock" / "re-encoded.mp3", softer, 44_100)
    write(root / "rock" / "other.flac", melody(1))
    write(root / "rock" / "clipped.wav", np.clip(tone(50, 6, level=2), -1, 1))
    write(root / "rock" / "silent.wav", np.zeros(8 * RATE_HZ))
    write(root / "rock" / "nan.wav", np.full(RATE_HZ, np.nan), subtype="FLOAT")
    write(root / "rock" / "short.wav", tone(440, 4))
    for seed, name in enumerate(("cut.wav", "cut.mp3", "cut.flac")):
        noise = np.random.default_rng(seed).normal(0, 0.1, 12 * RATE_HZ)
        cut(write(root / "rock" / name, noise))
    (root / "rock" / "text.mp3").write_text("not audio at all " * 99)
    (root / "rock" / "empty.mp3").touch()
    (root / "rock" / "gone.wav").symlink_to("unplugged.wav")
    (root / "rock" / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(root / "rock" / "pipe.wav")
    write(root / "rock" / "two\nlines.wav", melody(2))
    write(root / "rock" / 'it\'s "quoted", so.wav', melody(3))
    write(root / "rock" / LATIN_1, melody(4))
    (root / "rock" / "._other.flac").write_bytes(b"\0\5\x16\7" * 20)
    (root / "rock" / "notes.txt").touch()
    write(root / "loose.wav", tone(440, 6))
    done = run(root.parent, "--dataset=folder", f"--data_dir={root}")
    path = root / "features" / "folder-my_music" / "verify.csv"
    return done, read_csv(path), path


def states(rows):
    return {row["id"]: row["state"] for row in rows if row["id"]}


def test_each_fault_is_found(folder):
    _, rows, _ = folder
    assert states(rows) == {
        "jazz/again.wav": "ok",
        "jazz/ours.wav": "ok",
        "rock/clipped.wav": "ok",
        "rock/cut.flac": "damaged",
        "rock/cut.mp3": "truncated",
        "rock/cut.wav": "truncated",
        "rock/empty.mp3": "unreadable",
        "rock/gone.wav": "missing",
        'rock/it\'s "quoted", so.wav': "ok",
        "rock/latin-1 \\xe9.wav": "ok",
        "rock/loop.wav": "unreadable",
        "rock/nan.wav": "unreadable",
        "rock/other.flac": "ok",
        "rock/pipe.wav": "unreadable",
        "rock/re-encoded.mp3": "ok",
        "rock/short.wav": "short",
        "rock/silent.wav": "silent",
        "rock/text.mp3": "unreadable",
        "rock/two\nlines.wav": "ok",
    }


def test_a_fault_has_its_reason(folder):
    _, rows, _ = folder
    reasons = {row["id"]: row["reason"] for row in rows}
    assert reasons["rock/cut.wav"] == "cut off: holds 7.2 of 12.0 s"
    assert reasons["rock/pipe.wav"] == "is no file; leave it out"
    assert "not finite" in reasons["rock/nan.wav"]
    assert "levels" in reasons["rock/loop.wav"]
    assert "5 s" in reasons["rock/short.wav"]


def test_the_table_counts_what_was_found(folder):
    done, _, _ = folder
    counts = {
        name: table_row(done.stdout, name)
        for name in (
            "tracks", "tracks that can be used", "missing", "unreadable",
            "nothing but silence", "shorter than 5 s", "cut off", "damaged",
            "of an odd length", "recordings there more than once",
            "of these, under several genres", "extra files",
            "clipped in more than 1% of the samples",
        )
    }  # fmt: skip
    assert [int(found) for found, _, _ in counts.values()] == [
        19, 11, 1, 5, 1, 1, 2, 1, 0, 1, 1, 2, 1,
    ]  # fmt: skip


def test_repeats_are_found_by_bytes_and_by_sound(folder):
    done, rows, _ = folder
    members = [row for row in rows if row["repeat"]]
    assert [row["id"] for row in members] == [
        "jazz/again.wav", "jazz/ours.wav", "rock/re-encoded.mp3",
    ]  # fmt: skip
    assert {row["repeat"] for row in members} == {"1"}
    harm = "same recording, under several genres: jazz, rock"
    assert f"{', '.join(row['id'] for row in members)}: {harm}" in done.stdout


def test_extra_files_are_named_with_the_reason(folder):
    done, rows, _ = folder
    extra = [row for row in rows if row["state"] == "extra"]
    assert {os.path.basename(row["path"]): row["reason"] for row in extra} == {
        "loose.wav": "in no label's folder",
        "._other.flac": "a fork that macOS left, no audio",
    }
    assert "-name '._*' -type f -delete" in done.stdout


def test_every_line_is_one_line_and_the_verdict_is_the_last(folder):
    done, _, path = folder
    assert done.returncode == 1
    assert done.stderr == ""
    *_, where, verdict = done.stdout.splitlines()
    assert where == f"all files: {path}"
    assert verdict.startswith(
        "verdict: 1 missing, 5 unreadable, 1 nothing but silence, 1 shorter than 5 s, "
        "2 cut off, 1 damaged, 1 there more than once; replace or delete them;"
    )
    assert "prepare skips what cannot be used" in verdict
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert done.stdout.isascii()


def test_the_csv_has_the_bytes_of_every_name(folder):
    _, rows, path = folder
    assert any(row["path"].endswith("two\nlines.wav") for row in rows)
    assert any(row["path"].endswith("latin-1 \\xe9.wav") for row in rows)
    by_id = {row["id"]: row for row in rows}
    assert float(by_id["rock/clipped.wav"]["clipped_share"]) > 0.6
    assert by_id["rock/gone.wav"]["sha256"] == ""
    assert len(by_id["rock/text.mp3"]["sha256"]) == 64
    assert os.listdir(path.parent) == ["verify.csv"]


# GTZAN and FMA.


def make_gtzan(root):
    for genre, number in (("blues", 0), ("jazz", 53), ("rock", 7)):
        samples = melody(number, seconds=30)
        write(root / "genres" / genre / f"{genre}.{number:05d}.wav", samples)
    return root / "genres"


def test_gtzan_is_a_thousand_tracks_of_30_s(tmp_path):
    genres = make_gtzan(tmp_path / "data")
    write(genres / "blues" / "blues.00001.wav", melody(50, seconds=28))
    (genres / "jazz" / "jazz.00054.wav").write_text("no audio")
    shutil.copy(genres / "rock" / "rock.00007.wav", genres / "rock" / "rock 7.wav")
    write(genres / "jazz" / "jazz.00053.au", melody(53, seconds=30))
    (genres / "blues" / "._blues.00000.wav").touch()
    place = tmp_path / "out.csv"
    done = run(tmp_path, "--dataset=gtzan", "--data_dir=data", f"--csv={place}")
    assert done.returncode == 1
    assert table_row(done.stdout, "tracks") == ["5", "-", "1000"]
    assert table_row(done.stdout, "missing") == ["995", "0", "0"]
    assert table_row(done.stdout, "unreadable") == ["1", "1", "0"]
    assert table_row(done.stdout, "blues") == ["100", "2", "2"]
    assert "blues.00001: 28.00 s, where 29.9 to 30.7 s are expected" in done.stdout
    assert f"(known: {KNOWN_FAULTS['jazz.00054']})" in done.stdout
    assert "and 975 more, all in the CSV" in done.stdout
    verdict = done.stdout.splitlines()[-1]
    assert verdict.startswith("verdict: 995 missing; download again: python -m ")
    data = tmp_path / "data"
    assert f"mgr_jax.datasets.download --dataset=gtzan --data_dir={data};" in verdict
    rows = read_csv(place)
    assert len(rows) == 1_000 + 3
    assert states(rows)["pop.00099"] == "missing"
    extra = [os.path.basename(row["path"]) for row in rows if row["state"] == "extra"]
    assert sorted(extra) == ["._blues.00000.wav", "jazz.00053.wav", "rock 7.wav"]
    assert not (tmp_path / "data" / "features").exists()


FMA_ROWS = (
    *ROWS,
    (98565, "", 6, "", "training", "small", "Rock", ""),
    (99134, "", 6, "", "training", "small", "Rock", ""),
)


def make_fma(root):
    """Three good tracks, and two that are known to be bad."""
    write_csv(root / "fma_metadata" / "tracks.csv", FMA_ROWS)
    audio = root / "fma_small"
    for number in (2, 5, 10):
        samples = melody(number, seconds=30)
        write(audio / "000" / f"{number:06d}.mp3", samples)
    write(audio / "098" / "098565.mp3", melody(6, seconds=2))
    (audio / "099").mkdir()
    (audio / "099" / "099134.mp3").touch()
    return audio


def test_what_is_known_of_fma_is_not_wrong(tmp_path):
    make_fma(tmp_path)
    done = run(tmp_path, "--dataset=fma", f"--data_dir={tmp_path}")
    assert done.returncode == 0, done.stdout
    assert table_row(done.stdout, "tracks") == ["5", "-", "8000"]
    assert table_row(done.stdout, "shorter than 5 s") == ["1", "1", "0"]
    assert table_row(done.stdout, "unreadable") == ["1", "1", "0"]
    verdict = done.stdout.splitlines()[-1]
    assert verdict.startswith("verdict: nothing is wrong but what is known of this")
    assert "(2 of the files); prepare skips" in verdict


def test_what_is_new_in_fma_is_wrong(tmp_path):
    audio = make_fma(tmp_path)
    shutil.copy(audio / "000" / "000002.mp3", audio / "000" / "000010.mp3")
    (audio / "000" / "000005.mp3").unlink()
    # In tracks.csv, of another subset; not in it; and no name of a track.
    for name in ("000020.mp3", "000021.mp3", "000005 copy.mp3"):
        (audio / "000" / name).touch()
    done = run(tmp_path, "--dataset=fma", f"--data_dir={tmp_path}")
    assert done.returncode == 1
    assert "missing (1):\n  000005: cannot be read (No such file" in done.stdout
    sides = "on several sides of --split=official: train, test"
    genres = "under several genres: Hip-Hop, Pop"
    assert f"  000002, 000010: same bytes, {genres}; {sides}" in done.stdout
    extra = "extra files, which are not used (2):"
    assert extra in done.stdout
    assert "000021.mp3: not in tracks.csv" in done.stdout
    assert "000005 copy.mp3: not named as a track of FMA" in done.stdout
    verdict = done.stdout.splitlines()[-1]
    assert "1 missing, 1 there more than once; download again: " in verdict
    assert "--dataset=fma" in verdict
    assert "delete all but one" in verdict


def test_known_faults_are_known_by_the_ids_that_loaders_give():
    assert known_fault("jazz.00054", "gtzan")
    assert known_fault("gtzan/jazz.00054", "gtzan")
    assert known_fault("fma/133297", "fma") == KNOWN_FAULTS["133297"]
    assert known_fault("jazz.00053", "gtzan") == ""
    assert known_fault("jazz.00054", "folder") == ""
    assert len(KNOWN_FAULTS) == 7


def test_the_merged_data_set_is_what_both_are(tmp_path):
    make_gtzan(tmp_path)
    make_fma(tmp_path)
    place = tmp_path / "out.csv"
    done = run(
        tmp_path, "--dataset=gtzan+fma", f"--data_dir={tmp_path}", f"--csv={place}"
    )
    assert done.returncode == 1
    assert table_row(done.stdout, "tracks") == ["8", "-", "9000"]
    assert table_row(done.stdout, "missing") == ["997", "1", "0"]
    rows = read_csv(place)
    counts = collections.Counter(row["state"] for row in rows)
    assert counts == {"ok": 6, "missing": 997, "short": 1, "unreadable": 1}
    assert {row["genre"] for row in rows if row["id"].startswith("gtzan/reggae")} == {
        "International"
    }
    verdict = done.stdout.splitlines()[-1]
    assert "download --dataset=gtzan" in verdict
    assert "download --dataset=fma" not in verdict


def test_a_folder_of_hidden_forks_is_no_data(tmp_path):
    (tmp_path / "jazz" / ".hidden").mkdir(parents=True)
    (tmp_path / "jazz" / ".hidden" / "a.wav").touch()
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "b.wav").touch()
    (tmp_path / "jazz" / "c.wav").touch()
    features = (tmp_path / "features").resolve()
    found = list(expected._audio_files(tmp_path, 5, features))
    assert found == [tmp_path / "jazz" / "c.wav"]


# The program.


@pytest.fixture
def small_folder(tmp_path):
    root = tmp_path / "small"
    for k, label in enumerate(("jazz", "rock")):
        write(root / label / "a.wav", melody(k))
    return root


def test_a_good_folder_has_status_0(small_folder):
    done = run(small_folder, "--dataset=folder", f"--data_dir={small_folder}")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("verdict: nothing is wrong;")


def test_more_than_twenty_of_a_kind_are_left_to_the_csv(small_folder):
    for k in range(23):
        (small_folder / "jazz" / f"{k:02d}.mp3").touch()
    done = run(small_folder, "--dataset=folder", f"--data_dir={small_folder}")
    listed = [line for line in done.stdout.splitlines() if ".mp3: " in line]
    assert len(listed) == 20
    assert "  and 3 more, all in the CSV" in done.stdout


def test_many_copies_of_one_recording_are_one_line(small_folder):
    for k in range(7):
        shutil.copy(small_folder / "jazz" / "a.wav", small_folder / "jazz" / f"{k}.wav")
    done = run(small_folder, "--dataset=folder", f"--data_dir={small_folder}")
    assert done.returncode == 1
    names = ", ".join(f"jazz/{k}.wav" for k in range(5))
    assert f"once (1):\n  {names}, 3 more: same bytes\n" in done.stdout


def test_a_csv_that_cannot_be_written_leaves_the_table(small_folder, tmp_path):
    (tmp_path / "file").touch()
    given = ("--dataset=folder", f"--data_dir={small_folder}")
    for flag in ("--features_dir", "--csv"):
        done = run(tmp_path, *given, f"{flag}={tmp_path}/file/x")
        assert done.returncode == 0
        assert "verdict: nothing is wrong" in done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"warning: {tmp_path}/file/x")
        assert "(Not a directory); name a file" in line
        assert "--csv" in line


def test_an_old_csv_stays_where_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "verify.csv"
    path.write_text("old")
    row = findings.Row("a", "jazz", "folder", path, measure.Measurement())
    found = findings.Findings(None, [row], [])

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", fail)
    with pytest.raises(OSError, match="No space"):
        verify.write_csv(found, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["verify.csv"]


def test_a_file_that_may_not_be_read_is_a_row(small_folder):
    (small_folder / "rock" / "a.wav").chmod(0)
    done = run_without_privileges(
        [sys.executable, "-m", "mgr_jax.datasets.verify", "--dataset=folder",
         f"--data_dir={small_folder}"]
    )  # fmt: skip
    assert done.returncode == 1
    assert "rock/a.wav: cannot be read (Permission denied)" in done.stdout


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--dataset=gztan"], "choose one of gtzan, fma"),
        (["--dataset=fma", "--fma_subset=tiny"], "small, medium, large"),
        (["--dataset=gtzan", "--data_dir=nowhere"], "there is no such folder"),
        (["--dataset=gtzan", "--data_dir=~no_such_user"], "user of this machine"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, flags, line):
    done = run(tmp_path, *flags)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr


def test_help_names_the_flags_and_the_rule_of_the_status(tmp_path):
    done = run(tmp_path, "--help")
    for flag in ("--dataset", "--data_dir", "--csv", "--fma_subset"):
        assert f"  {flag}: " in done.stdout
    assert "The exit status is 0 where nothing is wrong" in done.stdout
    assert "--learning_rate" not in done.stdout


def test_nothing_heavy_is_imported():
    script = (
        "import sys\nimport mgr_jax.datasets.verify\n"
        "print([m for m in ('tensorflow', 'jax', 'pandas', 'soundfile', 'librosa') "
        "if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "[]\n", done.stderr


def test_an_interrupt_ends_the_reading_of_a_long_file(small_folder):
    """Read to its end, it would take minutes."""
    path = sparse(small_folder / "rock" / "long.wav", hours=100)
    process = run_module(
        "mgr_jax.datasets.verify", "--dataset=folder", f"--data_dir={small_folder}",
        cwd=small_folder, start_only=True,
    )  # fmt: skip
    try:
        while process.poll() is None and str(path) not in opened(process.pid):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (said, error) == ("", "error: interrupted\n")


def opened(pid):
    """The files that a process has open."""
    folder = f"/proc/{pid}/fd"
    if not os.path.isdir(folder):
        pytest.skip("there is no /proc here")
    paths = set()
    for name in os.listdir(folder):
        try:
            paths.add(os.readlink(f"{folder}/{name}"))
        except OSError:
            continue
    return paths


def test_the_development_copy_of_gtzan_is_good_as_far_as_it_goes(tmp_path):
    root = SHARED / "gtzan_mini"
    if not root.exists():
        pytest.skip(f"needs the development data {root}")
    place = tmp_path / "out.csv"
    done = run(tmp_path, "--dataset=gtzan", f"--data_dir={root}", f"--csv={place}")
    assert done.returncode == 1
    assert table_row(done.stdout, "tracks that can be used") == ["50", "-", "1000"]
    counts = collections.Counter(row["state"] for row in read_csv(place))
    assert counts == {"ok": 50, "missing": 950}
    assert table_row(done.stdout, "recordings there more than once")[0] == "0"
