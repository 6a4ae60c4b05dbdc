import os
import pathlib
import re
import signal

import pytest
import soak_audio
import soundfile
from conftest import ROOT, run_module, tone


def test_damaged_files_break_nothing(tmp_path):
    """A few of the cases that `python -m tests.soak_audio` makes by the hundred."""
    done = run_module("tests.soak_audio", "--cases=6", f"--source={tmp_path}", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^cases +6 of 6$", done.stdout, re.M)


def test_a_case_is_a_function_of_its_seed_and_number(tmp_path):
    made = []
    for run in ("first", "second"):
        scratch = tmp_path / run
        scratch.mkdir()
        by_kind = soak_audio.recordings(tmp_path / "empty", scratch)
        made.append([soak_audio.make_case(by_kind, 0, k) for k in range(40)])
    assert made[0] == made[1]
    assert len({case.data for case in made[0]}) > 30


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    child = soak_audio.Child(tmp_path_factory.mktemp("child") / "printed.txt")
    yield child
    child.stop()


@pytest.mark.parametrize(
    "number, status", [(signal.SIGSEGV, "crash"), (signal.SIGSTOP, "hang")]
)
def test_a_child_that_dies_or_hangs_is_told_and_replaced(
    child, tmp_path, monkeypatch, number, status
):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, 6), 22_050)
    assert child.ask(path).status == "decoded"
    with monkeypatch.context() as patch:
        patch.setattr(soak_audio, "HANG_S", 2.0)
        os.kill(child.process.pid, number)
        assert child.ask(path).status == status
    assert child.ask(path).status == "decoded"


@pytest.mark.parametrize(
    "raised, status",
    [
        (ZeroDivisionError("0"), "unexpected"),
        (soak_audio.audio.AudioError("no line\nthat names it"), "unexpected"),
    ],
)
def test_what_is_no_reason_is_told(monkeypatch, raised, status):
    def read_segments(path):
        raise raised

    monkeypatch.setattr(soak_audio.audio, "read_segments", read_segments)
    assert soak_audio.tried(pathlib.Path("a.wav")).status == status
