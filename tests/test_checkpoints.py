"""Checkpoints that were damaged, cut short or never finished."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints, DamagedError
from mgr_jax.config import UserError

STATE = {"weights": np.arange(3_000, dtype=np.float32), "step": np.array(7)}


@pytest.fixture
def run(tmp_path) -> pathlib.Path:
    """A run folder with a newest checkpoint at step 7 and a best one at step 5."""
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(NEWEST, 7, STATE, {"epoch": 2})
    checkpoints.save(BEST, 5, STATE, {"epoch": 1})
    checkpoints.close()
    return tmp_path / "run"


def test_what_is_saved_is_restored_with_what_is_beside_it(run):
    checkpoints = Checkpoints(run)
    assert checkpoints.about(NEWEST) == {"epoch": 2}
    found = checkpoints.restore(NEWEST, STATE)
    np.testing.assert_array_equal(found["weights"], STATE["weights"])


def test_no_checkpoint_is_told_from_a_damaged_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.about(NEWEST) is None
    with pytest.raises(UserError, match=r"holds no checkpoint.*--workdir") as error:
        checkpoints.restore(NEWEST, STATE)
    assert not isinstance(error.value, DamagedError)


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, pathlib.Path.unlink])
def test_damage_to_any_file_is_noticed_and_the_file_named(run, damage):
    """Orbax alone restores flipped weights as if they were the saved ones."""
    whole = run.with_name("whole")
    run.rename(whole)
    step = whole / "checkpoints" / NEWEST / "7"
    names = [path.relative_to(whole) for path in step.rglob("*") if path.is_file()]
    assert len(names) > 5
    for name in names:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        damage(run / name)
        with pytest.raises(DamagedError) as error:
            Checkpoints(run).about(NEWEST)
        assert str(run / name) in str(error.value)
        assert Checkpoints(run).about(BEST) == {"epoch": 1}


def test_damaged_checksums_are_no_reason_to_trust(run):
    cut(run / "checkpoints" / f"{NEWEST}.json")
    with pytest.raises(DamagedError, match=r"newest\.json: cannot be read"):
        Checkpoints(run).about(NEWEST)


def test_a_kill_before_the_checksums_leaves_a_checkpoint_that_serves(run):
    (run / "checkpoints" / f"{NEWEST}.json").unlink()
    assert Checkpoints(run).about(NEWEST) == {"epoch": 2}
    sums = run / "checkpoints" / f"{BEST}.json"
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {"step": 3}))
    assert Checkpoints(run).about(BEST) == {"epoch": 1}


def test_checksums_that_a_kill_left_out_are_made_up_for(run):
    sums = run / "checkpoints" / f"{NEWEST}.json"
    whole = sums.read_text()
    sums.unlink()
    Checkpoints(run).save(NEWEST, 7, STATE, {"epoch": 2})
    assert sums.read_text() == whole


def test_what_orbax_cannot_read_is_one_line(run):
    """Without checksums, what is missing shows when it is restored."""
    (run / "checkpoints" / f"{NEWEST}.json").unlink()
    shutil.rmtree(run / "checkpoints" / NEWEST / "7" / "state")
    with pytest.raises(DamagedError, match="cannot be restored") as error:
        Checkpoints(run).restore(NEWEST, STATE)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_was_never_finished_does_not_count(run):
    folder = run / "checkpoints" / NEWEST
    shutil.copytree(folder / "7", folder / "9.orbax-checkpoint-tmp-1")
    checkpoints = Checkpoints(run)
    assert checkpoints.about(NEWEST) == {"epoch": 2}
    checkpoints.save(NEWEST, 9, STATE, {"epoch": 3})
    assert Checkpoints(run).about(NEWEST) == {"epoch": 3}


def test_what_a_kill_left_of_saves_is_cleared_away(run):
    """Begun saves, and a step that the next one has taken the place of."""
    newest = run / "checkpoints" / NEWEST
    shutil.copytree(newest / "7", newest / "9.orbax-checkpoint-tmp")
    shutil.copytree(newest / "7", newest / "6")
    (run / "checkpoints" / f"{NEWEST}.json").unlink()
    Checkpoints(run).mend()
    assert [path.name for path in newest.iterdir()] == ["7"]
    assert Checkpoints(run).about(NEWEST) == {"epoch": 2}
    assert (run / "checkpoints" / f"{NEWEST}.json").exists()


def test_after_deleting_the_newest_an_earlier_step_can_be_saved(run):
    checkpoints = Checkpoints(run)
    checkpoints.delete(NEWEST)
    checkpoints.save(NEWEST, 6, STATE, {"epoch": 1})
    assert Checkpoints(run).about(NEWEST) == {"epoch": 1}


def test_a_checkpoint_that_is_made_again_is_judged_by_its_own_checksums(run):
    flip(next((run / "checkpoints" / NEWEST / "7").rglob("d/*")))
    checkpoints = Checkpoints(run)
    checkpoints.delete(NEWEST)
    checkpoints.save(NEWEST, 7, STATE, {"epoch": 2, "train_s": 99})
    assert Checkpoints(run).about(NEWEST) == {"epoch": 2, "train_s": 99}


def test_a_save_that_finds_no_room_leaves_the_one_before_in_force(run):
    """The longest file that the process may write stands in for a full disk."""
    script = (
        "import numpy, pathlib, resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from mgr_jax.checkpoints import Checkpoints\n"
        "noise = numpy.random.default_rng(0).normal(size=200_000)\n"
        "try:\n"
        f"    checkpoints = Checkpoints(pathlib.Path({str(run)!r}))\n"
        "    checkpoints.save('newest', 9, {'noise': noise}, {'epoch': 3})\n"
        "except OSError as error:\n"
        "    print(error.strerror, error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    place = run / "checkpoints" / NEWEST
    assert done.stdout.strip() == f"{os.strerror(errno.EFBIG)} {place}"
    checkpoints = Checkpoints(run)
    assert checkpoints.about(NEWEST) == {"epoch": 2}
    checkpoints.save(NEWEST, 9, STATE, {"epoch": 3})
    assert Checkpoints(run).about(NEWEST) == {"epoch": 3}
