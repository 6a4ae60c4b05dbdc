"""Kills by the hundred, at random moments of a job: nothing may be lost or differ.

Small jobs enter: the program prepares, trains and evaluates on a folder of synthesised
clips, one feature after the other. SIGKILL comes at a moment drawn for it, then the
same command again, and again, until the job has come to its end. It is then compared
with one that nothing interrupted: shards byte for byte, checkpoints bit for bit,
predictions, metrics, and what lies in the folders. In between, what was finished must
stay as it is. A table leaves, and status 1 if anything was lost, differs or hangs. It
is not part of the tests' run; from the repository's root:

    python -m tests.soak_kill --kills=100 --seed=0

What is aimed at follows from the seed; where it hits does not, for moments are counted
by the clock. So the same seed kills in much the same places, not in the very same.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from mgr_jax import cli
from mgr_jax.checkpoints import BEST, NEWEST, Checkpoints
from mgr_jax.input_pipeline import COMMIT_FILE
from mgr_jax.workdir import CONFIG_FILE, METRICS_FILE, PREDICTIONS_FILE, RESULTS_FILE

# Its conftest also gives the children one place for what they compile.
from tests.conftest import ROOT, write_music_folder

FEATURES = ("chroma", "loudness", "tempogram", "mfcc")
TRACKS_PER_GENRE = 30
EPOCHS = 20
AIMS_PER_JOB = 12
LOOK_S = 0.003
TRACE_S = 1.0
LEAVE_S = 10.0

PHASES = ("start-up", "preparing", "between", "training", "evaluating")
# A phase lasts from the line that begins so.
_FIRST_WORDS = {
    "preparing": r"^preparing \w+ of",
    "between": r"^(prepared |the features are prepared)",
    "training": r"^training \w+ \(",
    "evaluating": rf"^(training had finished|epoch +{EPOCHS}/)",
}
# What a kill leaves when it comes in the middle.
LEFT = ("some of the shards", "some of the epochs")

# What a process does each time that it is started.
_ALWAYS = ("start-up", "between", "evaluating")

# What depends on the clock, or names the folder.
_TIMED_COLUMNS = ("seconds", "segments_per_s")
_OWN_RESULTS = ("wall_s", "command", "config")
_OWN_FILES = (CONFIG_FILE, "report.html")


# A job.


@dataclasses.dataclass(frozen=True)
class Job:
    """One command, and the folder that all of it goes to.

    Attributes:
      place: the folder.
      feature: a name of the program's features.
      music: the folder of clips.
    """

    place: pathlib.Path
    feature: str
    music: pathlib.Path

    @property
    def features(self) -> pathlib.Path:
        """Where the shards are."""
        return self.place / "features" / f"folder-{self.music.name}" / self.feature

    @property
    def run(self) -> pathlib.Path:
        """The run's folder."""
        return self.place / "run"

    @property
    def command(self) -> list[str]:
        """Of the real program; small shards make many moments."""
        return [
            *(sys.executable, "-m", "mgr_jax.main", "--dataset=folder"),
            *(f"--feature={self.feature}", f"--data_dir={self.music}"),
            *(f"--features_dir={self.place / 'features'}", f"--workdir={self.run}"),
            *("--tracks_per_shard=1", f"--num_epochs={EPOCHS}", "--patience=0"),
            *("--widths=4,4,8", "--hidden_units=8", "--batch_size=4"),
        ]


def listing(folder: pathlib.Path) -> dict[str, os.stat_result]:
    """What lies below a folder, also while it is being written to."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = pathlib.Path(parent, name)
            try:
                found[path.relative_to(folder).as_posix()] = path.stat()
            except FileNotFoundError:
                continue
    return found


# When to kill.


@dataclasses.dataclass(frozen=True)
class Aim:
    """A kind of moment.

    Attributes:
      name: in the table.
      phase: what the process is to be at.
      share: of the phase's length, within which the kill comes after the sign.
      order: between which numbers a job comes to it; 1 is where the shards are ready, 2
        where training begins, 3 where it ends.
      sign: given the job and when its process was started, whether it is time to wait.
    """

    name: str
    phase: str
    share: float
    order: tuple[float, float]
    sign: Callable[[Job, float], bool] = lambda job, started: True


def _new_shard(job: Job, started: float) -> bool:
    return _is_new(job.features.glob("*.tfrecord-*"), started)


def _in_shard(job: Job, started: float) -> bool:
    return any(job.features.glob(".writing-*/shard")) and _new_shard(job, started)


def _shards_there(job: Job, started: float) -> bool:
    return len(list(job.features.glob("*.tfrecord-*"))) == 2 * TRACKS_PER_GENRE


def _new_epoch(job: Job, started: float) -> bool:
    return _is_new((job.run / "checkpoints").glob(f"{NEWEST}/[0-9]*"), started)


def _in_save(job: Job, started: float) -> bool:
    return any((job.run / "checkpoints").glob("*/*tmp*"))


def _in_later_save(job: Job, started: float) -> bool:
    return _in_save(job, started) and _new_epoch(job, started)


def _last_saved(job: Job, started: float) -> bool:
    """Whether the last epoch's checkpoint is there, and its row is not yet."""
    try:
        rows = (job.run / METRICS_FILE).read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(rows) == EPOCHS - 1 and _step(job, NEWEST) > json.loads(rows[-1])["step"]


def _predicted(job: Job, started: float) -> bool:
    return _is_new([job.run / PREDICTIONS_FILE], started)


def _is_new(paths: Iterable[pathlib.Path], started: float) -> bool:
    """Whether one of these was written since then."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > started:
                return True
    return False


AIMS = (
    Aim("the very start", "start-up", 0.1, (0, 4)),
    Aim("start-up", "start-up", 1, (0, 4)),
    Aim("preparing", "preparing", 0.4, (0, 1)),
    Aim("after a shard", "preparing", 0.2, (0, 1), _new_shard),
    Aim("within a shard", "preparing", 0.02, (0, 1), _in_shard),
    Aim("the lists after the shards", "preparing", 0.003, (1, 1), _shards_there),
    Aim("between", "between", 1, (1, 4)),
    Aim("training", "training", 0.4, (2, 3)),
    Aim("after an epoch", "training", 0.2, (2, 3), _new_epoch),
    Aim("within the first save", "training", 0.02, (2, 3), _in_save),
    Aim("within a later save", "training", 0.02, (2, 3), _in_later_save),
    Aim("after the last save", "training", 0.001, (3, 3), _last_saved),
    Aim("evaluating", "evaluating", 1, (3, 4)),
    Aim("results and figures", "evaluating", 0.5, (3, 4), _predicted),
)


def draw_aims(rng: np.random.Generator) -> list[tuple[Aim, float]]:
    """Aims, in an order in which a job can come to them, and how long each waits."""
    drawn = [AIMS[k] for k in rng.integers(len(AIMS), size=AIMS_PER_JOB)]
    drawn.sort(key=lambda aim: rng.uniform(*aim.order))
    return [(aim, rng.uniform(0, aim.share)) for aim in drawn]


def phase_of(said: str) -> str:
    """What a process that has printed this is at."""
    begun = [
        name for name, words in _FIRST_WORDS.items() if re.search(words, said, re.M)
    ]
    return begun[-1] if begun else PHASES[0]


def _is_past(phase: str, other: str) -> bool:
    return PHASES.index(phase) > PHASES.index(other)


# A process.


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
      status: its exit status.
      killed: whether the kill is what ended it.
      hung: whether it was ended because it did nothing.
      said: what it printed.
      errors: what it printed to stderr.
      seconds: phase to how long it took.
    """

    status: int
    killed: bool
    hung: bool
    said: str
    errors: str
    seconds: Mapping[str, float]


def run(job: Job, aim: Aim | None, wait: float, hang_s: float) -> End:
    """Runs a job's command until it ends, is killed, or hangs.

    Args:
      job: the job.
      aim: where to kill; None lets it come to its end.
      wait: seconds after the aim's sign.
      hang_s: seconds after which a process that has changed nothing hangs.
    """
    logs = job.place / "printed"
    logs.mkdir(parents=True, exist_ok=True)
    number = len(list(logs.iterdir())) // 2
    out, err = (logs / f"{number:03d}.{kind}" for kind in ("out", "err"))
    place = {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            job.command,
            cwd=job.place,
            env=os.environ | place,
            stdout=out_file,
            stderr=err_file,
        )
    try:
        ended_by, begun = _watch(process, job, out, aim, wait, hang_s)
        # One that hangs may not even end when it is told to.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=LEAVE_S)
    finally:
        process.kill()
        process.wait()
    begun["end"] = time.monotonic()
    return End(
        status=process.returncode,
        killed=ended_by == "kill" and process.returncode == -signal.SIGKILL,
        hung=ended_by == "hang",
        said=out.read_text(errors="replace"),
        errors=err.read_text(errors="replace"),
        seconds={
            phase: after - begun[phase]
            for phase, after in zip(begun, list(begun.values())[1:], strict=False)
        },
    )


def _watch(
    process: subprocess.Popen,
    job: Job,
    out: pathlib.Path,
    aim: Aim | None,
    wait: float,
    hang_s: float,
) -> tuple[str, dict[str, float]]:
    """Waits for a process, or ends it; returns how, and when each phase was seen."""
    started, changed = time.time(), time.monotonic()
    begun, due, trace, traced = {PHASES[0]: changed}, None, None, changed
    while process.poll() is None:
        now = time.monotonic()
        phase = phase_of(out.read_text(errors="replace"))
        begun.setdefault(phase, now)
        if aim and due is None and _has_come(aim, phase, job, started):
            due = now + wait
        if due is not None and now >= due:
            process.kill()
            return "kill", begun
        if now - traced > TRACE_S:
            trace, before, traced = listing(job.place), trace, now
            changed = now if trace != before else changed
        if now - changed > hang_s:
            # Python then tells where each of its threads is.
            process.send_signal(signal.SIGABRT)
            return "hang", begun
        time.sleep(LOOK_S)
    return "itself", begun


def _has_come(aim: Aim, phase: str, job: Job, started: float) -> bool:
    if phase == aim.phase:
        return aim.sign(job, started)
    return _is_past(phase, aim.phase)


# What is left.


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a kill must leave for good.

    Attributes:
      features: file to its bytes and when it was written, of what was finished.
      steps: kind of checkpoint to its step; none yet is -1.
    """

    features: Mapping[str, tuple[bytes, int]]
    steps: Mapping[str, int]


def kept(job: Job) -> Kept:
    """What there is to lose, while no process is at it."""
    names = {path.name for path in job.features.glob("*") if path.is_file()}
    if COMMIT_FILE not in names:
        shards = [name for name in names if ".tfrecord-" in name]
        accounts = [f"tracks-{name.split('.tfrecord-')[1]}.json" for name in shards]
        names = {*shards, *accounts}
    return Kept(
        features={name: _dated(job.features / name) for name in sorted(names)},
        steps={kind: _step(job, kind) for kind in (NEWEST, BEST)},
    )


def _step(job: Job, kind: str) -> int:
    """The step of a kind's checkpoint; -1 before there is one."""
    names = [path.name for path in (job.run / "checkpoints" / kind).glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def _step_of_sums(job: Job, kind: str) -> int:
    """The step that a kind's checksums are of; -1 before there are any."""
    try:
        text = (job.run / "checkpoints" / f"{kind}.json").read_text()
    except FileNotFoundError:
        return -1
    return json.loads(text)["step"]


def _dated(path: pathlib.Path) -> tuple[bytes, int] | None:
    try:
        return path.read_bytes(), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def lost(before: Kept, after: Kept) -> Iterator[str]:
    """What one start of a job has taken from those before it."""
    for name, dated in before.features.items():
        if after.features.get(name) != dated:
            how = "written again" if name in after.features else "lost"
            yield f"{name} was finished, and {how}"
    for kind, step in before.steps.items():
        if after.steps[kind] < step:
            yield f"the {kind} checkpoint went from step {step} to {after.steps[kind]}"


def outcome(job: Job) -> dict[str, Any]:
    """All that a finished job left, but for what depends on the clock or the folder."""
    found: dict[str, Any] = {}
    for name, status in listing(job.place).items():
        path = job.place / name
        parts = path.relative_to(job.place).parts
        if parts[0] not in ("features", "run") or "tensorboard" in parts:
            continue
        if "checkpoints" in parts:
            # The names below a step's folder are drawn by Orbax.
            found["/".join(parts[:4])] = "there"
        elif stat.S_ISDIR(status.st_mode) or path.name in _OWN_FILES:
            found[name] = "there"
        else:
            found[name] = _content(path)
    for kind in (NEWEST, BEST):
        found[f"the step of the {kind} checksums"] = _step_of_sums(job, kind)
        found |= _arrays(job, kind)
    return found


def _content(path: pathlib.Path) -> Any:
    if path.name == METRICS_FILE:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [_without(row, _TIMED_COLUMNS) for row in rows]
    if path.name == RESULTS_FILE:
        return _without(json.loads(path.read_text()), _OWN_RESULTS)
    return path.read_bytes()


def _without(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in columns}


def _arrays(job: Job, kind: str) -> dict[str, tuple[Any, ...]]:
    """The parameters, normalisation and all else of a checkpoint, bit for bit."""
    import jax

    checkpoints = Checkpoints(job.run)
    leaves, _ = jax.tree.flatten_with_path(checkpoints.restore(kind, None))
    checkpoints.close()
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {
        f"{kind}{name}": (array.dtype, array.shape, array.tobytes())
        for name, array in arrays.items()
    }


def differences(whole: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """What a killed job's outcome has, lacks or has otherwise than the whole one's."""
    for name in sorted({*whole, *other}):
        if name not in other:
            yield f"{name} is missing"
        elif name not in whole:
            yield f"{name} is left over"
        elif whole[name] != other[name]:
            yield f"{name} differs"


# The soak.


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that the table counts.

    Attributes:
      kind: "kill", "by itself", "job" or "mismatch".
      what: the phase that was hit, or what is wrong.
      aim: name of what was aimed at.
      left: one of LEFT, or nothing.
    """

    kind: str
    what: str = ""
    aim: str = ""
    left: str = ""


@dataclasses.dataclass(frozen=True)
class Whole:
    """A job that nothing interrupted.

    Attributes:
      end: how its process ended.
      outcome: what it left.
    """

    end: End
    outcome: Mapping[str, Any]


def whole_job(job: Job, hang_s: float) -> Whole:
    """Runs a job in one go.

    Raises:
      RuntimeError: it fails, so that there is nothing to compare with.
    """
    end = run(job, None, 0, hang_s)
    if end.status:
        raise RuntimeError(f"a job fails without any kill: {end.errors[-2_000:]}")
    return Whole(end, outcome(job))


def faults(end: End, whole: Whole) -> Iterator[str]:
    """What is wrong with how a process ended, or with what it said."""
    if end.hung:
        yield f"hangs: {end.said[-500:]}{end.errors[-4_000:]}"
    elif end.status and not end.killed:
        yield f"ends with status {end.status}: {end.errors[-2_000:]}"
    elif new := set(end.errors.splitlines()) - set(whole.end.errors.splitlines()):
        yield f"says {' / '.join(sorted(new))}"
    if "another process" in end.said:
        yield "waits for a lock that a killed process held"


def life(
    job: Job,
    whole: Whole,
    aims: Sequence[tuple[Aim, float]],
    enough: Callable[[], bool],
    hang_s: float,
) -> Iterator[Event]:
    """Kills a job wherever it is aimed at, brings it to its end, and compares it."""
    reached, before = PHASES[0], kept(job)
    for aim, share in (*aims, (None, 0)):
        if aim and (enough() or _is_over(aim, reached)):
            continue
        wait = share * whole.end.seconds[aim.phase] if aim else 0
        end = run(job, aim, wait, hang_s)
        after = kept(job)
        yield from _mismatch([*faults(end, whole), *lost(before, after)])
        phase, before = phase_of(end.said), after
        reached = max(reached, phase, key=PHASES.index)
        if end.killed:
            yield Event("kill", phase, aim.name, _left(after, reached))
            continue
        if end.status or end.hung:
            return
        if aim:
            yield Event("by itself")
        break
    yield from _mismatch(list(differences(whole.outcome, outcome(job))))
    yield Event("job")


def _mismatch(found: Sequence[str]) -> Iterator[Event]:
    """One event of all that was found at once."""
    if found:
        others = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        yield Event("mismatch", "; ".join(found[:3]) + others)


def _left(there: Kept, reached: str) -> str:
    if there.features and COMMIT_FILE not in there.features:
        return LEFT[0]
    return LEFT[1] if there.steps[NEWEST] >= 0 and reached == "training" else ""


def _is_over(aim: Aim, reached: str) -> bool:
    return aim.phase not in _ALWAYS and _is_past(reached, aim.phase)


def soak(
    kills: int,
    seed: int,
    scratch: pathlib.Path,
    limit_s: float,
    hang_s: float,
    keep: str,
) -> Iterator[Event]:
    """Kills job after job, until there were so many kills or the time is up."""
    until, done, wholes = time.monotonic() + limit_s, 0, {}
    music = write_music_folder(scratch / "music", TRACKS_PER_GENRE)

    def enough() -> bool:
        return done >= kills or time.monotonic() > until

    for number in itertools.count():
        if enough():
            return
        feature = FEATURES[number % len(FEATURES)]
        if feature not in wholes:
            job = Job(scratch / f"whole-{feature}", feature, music)
            wholes[feature] = whole_job(job, hang_s)
        job = Job(scratch / f"s{seed}-job{number:03d}-{feature}", feature, music)
        job.place.mkdir()
        aims, wrong, hits = draw_aims(np.random.default_rng([seed, number])), False, 0
        for event in life(job, wholes[feature], aims, enough, hang_s):
            hits += event.kind == "kill"
            done += event.kind == "kill"
            if event.kind == "mismatch":
                wrong = True
                print(f"mismatch: {job.place.name}: {event.what}", flush=True)
            yield event
        print(f"{job.place.name}: {hits} kills, {done} so far", flush=True)
        if wrong and keep:
            shutil.copytree(job.place, pathlib.Path(keep) / job.place.name)
        shutil.rmtree(job.place)


def table(events: Sequence[Event], kills: int, wall_s: float) -> str:
    """What was done and found, in a few lines.

    Args:
      events: all of them.
      kills: how many there were to be.
      wall_s: time for all of it.
    """
    by_kind = collections.Counter(event.kind for event in events)
    hit = collections.Counter(event.what for event in events if event.kind == "kill")
    aimed = collections.Counter(event.aim for event in events if event.kind == "kill")
    rows = [("kills", f"{by_kind['kill']} of {kills}")]
    rows += [(f"  {phase}", hit[phase]) for phase in PHASES]
    rows += [("aimed at", "")]
    rows += [(f"  {aim.name}", aimed[aim.name]) for aim in AIMS]
    left = collections.Counter(event.left for event in events)
    rows += [(f"that left {part}", left[part]) for part in LEFT]
    rows += [("ended by themselves before the kill", by_kind["by itself"])]
    rows += [("jobs brought to their end and compared", by_kind["job"])]
    rows += [("mismatches", by_kind["mismatch"])]
    rows += [("wall time", f"{wall_s:.0f} s")]
    return "\n".join(f"{label:40} {value}".rstrip() for label, value in rows)


def _run() -> None:
    asked = flags.FLAGS
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mgr_jax_soak_") as folder:
        place = pathlib.Path(folder)
        limits = (asked.limit_s, asked.hang_s, asked.keep)
        events = list(soak(asked.kills, asked.seed, place, *limits))
    print(table(events, asked.kills, time.monotonic() - started))
    if any(event.kind == "mismatch" for event in events):
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 100, "How many kills to do.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "What the aims are drawn from.", lower_bound=0)
    flags.DEFINE_string("keep", "", "Folder to keep the jobs in that differ.")
    flags.DEFINE_float("hang_s", 300, "Seconds without any change that are a hang.")
    flags.DEFINE_float("limit_s", 3_600, "Seconds after which no kill is begun.")
    cli.start(_run)
