"""Damaged audio by the hundred through decode and features: nothing may break them.

Recordings enter: real ones (../shared/data, or --source), and versions of one in other
formats; music of synth where there is none. A case is one of them, mutated: bits that
fell over, cuts, bytes that came or went, header fields that lie, zeroed blocks, two
files in one, a wrong name, floats that are no sound. A child process reads it as the
program does, and is started anew when it dies or hangs; its memory is watched where the
system is Linux. A table leaves, and status 1 if anything broke. It is not part of the
tests' run; from the repository's root:

    python -m tests.soak_audio --cases=500 --seed=0

Case k of seed s is the same bytes in every run over the same recordings with the same
libsndfile, which writes the other formats: nothing but (s, k) enters its generator. So
a case that broke something comes back alone by --first=K --cases=1 --keep=DIR.
"""

import collections
import contextlib
import dataclasses
import faulthandler
import functools
import io
import math
import multiprocessing
import os
import pathlib
import re
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection

import numpy as np
import soundfile
from absl import flags

from mgr_jax import audio, cli
from mgr_jax.datasets import synth

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"

HANG_S = 60.0
START_S = 600.0  # importing and compiling, on a busy machine
MOST_MB = 2_000
SPARE_BYTES = 4 << 30  # what a child may map beyond what it starts with
SEGMENTS = 2  # of a file, those that features are computed of
HEAD = 128  # bytes that hold the header of most formats

BAD = ("crash", "hang", "non-finite", "unexpected", "memory")

# What soundfile writes of one recording: kind, container, coding, channels.
_DERIVED = (
    ("wav", "WAV", "PCM_16", 1),
    ("wav", "WAV", "PCM_24", 2),
    ("wav", "WAV", "ULAW", 2),
    ("wav", "WAV", "MS_ADPCM", 2),
    ("wav", "WAV", "IMA_ADPCM", 1),
    ("wav", "WAV", "GSM610", 1),
    ("wav", "WAVEX", "PCM_16", 2),
    ("mp3", "MP3", "MPEG_LAYER_III", 2),
    ("ogg", "OGG", "VORBIS", 2),
    ("opus", "OGG", "OPUS", 2),
    ("flac", "FLAC", "PCM_16", 1),
    ("flac", "FLAC", "PCM_24", 2),
    ("au", "AU", "PCM_16", 2),
    ("au", "AU", "G721_32", 1),
    ("aiff", "AIFF", "PCM_16", 2),
    ("w64", "W64", "PCM_16", 2),
    ("rf64", "RF64", "PCM_16", 1),
    ("caf", "CAF", "PCM_16", 1),
    ("caf", "CAF", "ALAC_16", 2),
    ("other", "VOC", "PCM_16", 1),
    ("other", "NIST", "PCM_16", 1),
    ("other", "IRCAM", "PCM_16", 1),
    ("other", "SVX", "PCM_16", 1),
    ("other", "PAF", "PCM_24", 1),
    ("other", "PVF", "PCM_16", 1),
    ("other", "XI", "DPCM_16", 1),
    ("other", "MAT4", "PCM_16", 1),
    ("other", "AVR", "PCM_16", 1),
    ("other", "HTK", "PCM_16", 1),
    ("other", "SDS", "PCM_16", 1),
)
_DERIVED_S = 12
_OPUS_RATE_HZ = 24_000  # Opus has no 22 050 Hz

# Header fields: what they stand behind, from there on where, and how many bytes.
_RIFF_FIELDS = (
    *((b"fmt ", at, size) for at, size in ((4, 4), (8, 2), (10, 2), (12, 4), (16, 4))),
    *((b"fmt ", at, 2) for at in (20, 22, 24, 26)),
    *((tag, 4, 4) for tag in (b"RIFF", b"data", b"fact", b"LIST", b"ds64")),
    *((b"fact", 8, 4), (b"ds64", 8, 8), (b"ds64", 16, 8), (b"ds64", 24, 8)),
)
_OGG_FIELDS = (
    *((b"OggS", at, size) for at, size in ((4, 1), (5, 1), (6, 8), (14, 4), (18, 4))),
    *((b"OggS", at, 1) for at in (26, 27, 28)),
    *((b"\x01vorbis", at, 4) for at in (7, 12, 16, 20, 24)),
    *((b"\x01vorbis", 11, 1), (b"\x01vorbis", 28, 1), (b"\x05vorbis", 7, 1)),
    *((b"OpusHead", at, 1) for at in (8, 9, 18, 19, 20)),
    *((b"OpusHead", 10, 2), (b"OpusHead", 12, 4), (b"OpusHead", 16, 2)),
)
_FIELDS: Mapping[str, Sequence[tuple[bytes, int, int]]] = {
    "wav": _RIFF_FIELDS,
    "float": _RIFF_FIELDS,
    "rf64": (*_RIFF_FIELDS, (b"RF64", 4, 4)),
    "w64": ((b"riff", 16, 8), (b"wave", 40, 4), *_RIFF_FIELDS),
    "au": tuple((b".snd", at, 4) for at in (4, 8, 12, 16, 20)),
    "aiff": (
        *((b"COMM", at, size) for at, size in ((4, 4), (8, 2), (10, 4), (14, 2))),
        *((b"COMM", 16, 2), (b"COMM", 18, 8)),
        *((b"SSND", at, 4) for at in (4, 8, 12)),
        (b"FORM", 4, 4),
    ),
    "caf": (
        *((b"desc", at, 8) for at in (4, 12)),
        *((b"desc", at, 4) for at in (20, 24, 28, 32, 36, 40)),
        *((tag, 4, 8) for tag in (b"data", b"kuki", b"pakt", b"chan")),
        *((b"pakt", at, 8) for at in (12, 20)),
        *((b"kuki", at, 4) for at in (12, 16, 20, 24, 28, 32)),
    ),
    "flac": (
        *((b"fLaC", at, size) for at, size in ((4, 1), (5, 3), (8, 2), (10, 2))),
        *((b"fLaC", at, size) for at, size in ((12, 3), (15, 3), (18, 3), (22, 4))),
        *((b"fLaC", at, 1) for at in (20, 21)),
        *((b"\xff\xf8", at, 1) for at in (2, 3, 4, 5)),
    ),
    "mp3": (
        *((tag, at, 1) for tag in (b"\xff\xfb", b"\xff\xf3") for at in (1, 2, 3, 4)),
        *((tag, at, 4) for tag in (b"Xing", b"Info") for at in (4, 8, 12)),
        (b"ID3", 6, 4),
    ),
    "ogg": _OGG_FIELDS,
    "opus": _OGG_FIELDS,
    "other": (),
}
_LITTLE = ("wav", "float", "rf64", "w64", "ogg", "opus")
_SUFFIXES = ("mp3", "wav", "ogg", "opus", "flac", "au", "aiff", "w64", "caf")


# Recordings.


def recordings(source: pathlib.Path, scratch: pathlib.Path) -> dict[str, list]:
    """The files that cases are made of.

    Args:
      source: a folder of audio; it may hold none.
      scratch: an empty folder, for versions in other formats.

    Returns:
      kind (a key of the header fields) to files, both always in the same order.
    """
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix[1:].lower() in _SUFFIXES and path.is_file()
    )
    by_kind: dict[str, list] = {kind: [] for kind in _FIELDS}
    for path in found:
        by_kind[path.suffix[1:].lower()].append(path)
    for kind, path in _write_versions(_first_samples(found), scratch):
        by_kind[kind].append(path)
    return by_kind


def _first_samples(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """The start of the first file that can be read; synth's, where there is none."""
    for path in paths:
        with contextlib.suppress(audio.AudioError):
            return audio.decode(path)[: _DERIVED_S * audio.SAMPLE_RATE_HZ]
    return synth.render(0)[: _DERIVED_S * audio.SAMPLE_RATE_HZ]


def _write_versions(
    samples: np.ndarray, folder: pathlib.Path
) -> Iterator[tuple[str, pathlib.Path]]:
    for kind, container, coding, channels in _DERIVED:
        path = folder / f"{container}.{coding}.{kind}"
        rate_hz = _OPUS_RATE_HZ if coding == "OPUS" else audio.SAMPLE_RATE_HZ
        columns = np.stack([samples, 0.5 * samples][:channels], axis=1)
        file = io.BytesIO()
        soundfile.write(file, columns, rate_hz, coding, format=container)
        whole = bytearray(file.getvalue())
        if container == "OGG":
            _mend_pages(whole, serial=1)  # the writer's is random
        path.write_bytes(whole)
        yield kind, path
    path = folder / "float.wav"
    path.write_bytes(_float_wav(samples))
    yield "float", path


def _float_wav(samples: np.ndarray) -> bytes:
    """A WAV of 32-bit floats; soundfile's would hold the time of its writing."""
    rate_hz, size = audio.SAMPLE_RATE_HZ, 4 * len(samples)
    layout = (16, 3, 1, rate_hz, 4 * rate_hz, 4, 32, b"data", size)
    start = (b"RIFF", 36 + size, b"WAVE", b"fmt ")
    header = struct.pack("<4sI4s4sIHHIIHH4sI", *start, *layout)
    return header + samples.astype("<f4").tobytes()


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _mend_pages(data: bytearray, serial: int | None = None) -> None:
    """Gives each page of an Ogg file the checksum, or the stream, that it should have.

    A decoder drops pages whose checksum is wrong: without this, damage would never get
    to what is behind them.
    """
    at = data.find(b"OggS")
    while at >= 0:
        body = at + 27 + (data[at + 26] if at + 26 < len(data) else 0)
        end = body + sum(data[at + 27 : body])
        if end > len(data):
            return
        if serial is not None:
            data[at + 14 : at + 18] = serial.to_bytes(4, "little")
        data[at + 22 : at + 26] = bytes(4)
        # Ogg's checksum takes the bits of a byte the other way round.
        mirrored = zlib.crc32(data[at:end].translate(_REVERSED), 0xFFFF_FFFF)
        checksum = int(f"{mirrored ^ 0xFFFF_FFFF:032b}"[::-1], 2)
        data[at + 22 : at + 26] = checksum.to_bytes(4, "little")
        at = data.find(b"OggS", end)


# Mutations: (what is there, its kind, random numbers, another file) to what is left.


def _span(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of a file, of any size from a byte to 64 KiB."""
    start = int(rng.integers(len(data) + 1))
    return start, start + int(2 ** rng.uniform(0, 16))


def _flip(data: bytearray, places: np.ndarray, rng: np.random.Generator) -> bytearray:
    values = np.frombuffer(data, np.uint8).copy()
    np.bitwise_xor.at(
        values, places, (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    )
    return bytearray(values.tobytes())


def few_bits(data, kind, rng, other):
    return _flip(data, rng.integers(len(data), size=rng.integers(1, 17)), rng)


def many_bits(data, kind, rng, other):
    count = max(1, int(len(data) * 10 ** rng.uniform(-4, -1)))
    return _flip(data, rng.integers(len(data), size=count), rng)


def head_bits(data, kind, rng, other):
    size = rng.integers(1, 9)
    return _flip(data, rng.integers(min(HEAD, len(data)), size=size), rng)


def cut_tail(data, kind, rng, other):
    return data[: rng.integers(len(data) + 1)]


def cut_early(data, kind, rng, other):
    return data[: int(2 ** rng.uniform(0, 12))]


def cut_head(data, kind, rng, other):
    return data[int(2 ** rng.uniform(0, math.log2(len(data) + 1))) :]


def removed(data, kind, rng, other):
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def inserted(data, kind, rng, other):
    start, end = _span(data, rng)
    return data[:start] + rng.bytes(end - start) + data[start:]


def repeated(data, kind, rng, other):
    start, end = _span(data, rng)
    return data[:start] + data[start:end] * int(rng.integers(2, 6)) + data[end:]


def zeroed(data, kind, rng, other):
    for _ in range(rng.integers(1, 5)):
        start, end = _span(data, rng)
        data[start:end] = bytes(len(data[start:end]))
    return data


def spliced(data, kind, rng, other):
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other) + 1) :]


def header(data, kind, rng, other):
    order = "little" if kind in _LITTLE else "big"
    for _ in range(rng.integers(1, 4)):
        for at, size in _field_places(data, kind, rng):
            now = int.from_bytes(data[at : at + size], order)
            data[at : at + size] = _lie(now, size, rng).to_bytes(size, order)
    return data


def _field_places(
    data: bytearray, kind: str, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Where to lie next: a field once, or wherever it stands from some place on."""
    there = [field for field in _FIELDS[kind] if field[0] in data]
    if not there or rng.random() < 0.2:
        size = int(rng.choice([1, 2, 4, 8]))
        places, limit = [(int(rng.integers(HEAD)), size)], 1
    else:
        tag, offset, size = there[rng.integers(len(there))]
        first = data.find(tag, int(rng.integers(len(data))) * int(rng.integers(2)))
        limit = int(rng.choice([1, 1, 1, 50_000]))
        places = [
            (match.start() + offset, size)
            for match in re.finditer(re.escape(tag), data)
            if match.start() >= first
        ]
    return [(at, size) for at, size in places[:limit] if at + size <= len(data)]


def _lie(now: int, size: int, rng: np.random.Generator) -> int:
    """Another number of so many bytes: near, extreme or any."""
    top = 1 << 8 * size
    lies = [0, 1, 2, now - 1, now + 1, now * 2, now // 2, top - 1, top // 2]
    lies += [top // 2 - 1, int(rng.integers(257)), 1 << int(rng.integers(8 * size))]
    lies += [int.from_bytes(rng.bytes(size)), now ^ 1 << int(rng.integers(8 * size))]
    return lies[rng.integers(len(lies))] % top


MUTATIONS = (
    few_bits, many_bits, head_bits, cut_tail, cut_early, cut_head, removed, inserted,
    repeated, zeroed, spliced, header, header, header,
)  # fmt: skip


def _strange_floats(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Puts what is no sound, or hardly one, among the samples of `_float_wav`."""
    samples = np.frombuffer(bytes(data[44:]), "<f4").copy()
    what = [np.nan, np.inf, -np.inf, 3.4e38, -1e20, 999.0, 1e-40, 0.0]
    start = rng.integers(len(samples))
    samples[start : start + int(2 ** rng.uniform(0, 18))] = rng.choice(what)
    with np.errstate(all="ignore"):
        samples *= np.float32(rng.choice([1, 1, 1, 1e-6, 900, 1e30]))
    return data[:44] + samples.tobytes()


@dataclasses.dataclass(frozen=True)
class Case:
    """A mutated file.

    Attributes:
      name: what it is made of; its file's name.
      data: the file.
    """

    name: str
    data: bytes


def make_case(by_kind: Mapping[str, list], seed: int, k: int) -> Case:
    """Case k of a seed: the same for the same recordings, see the module's text."""
    rng = np.random.default_rng([seed, k])
    kinds = [kind for kind in by_kind if by_kind[kind]]
    kind = kinds[rng.integers(len(kinds))]
    path, other = (
        by_kind[one][rng.integers(len(by_kind[one]))]
        for one in (kind, kinds[rng.integers(len(kinds))])
    )
    data, done = bytearray(path.read_bytes()), []
    if kind == "float" and rng.random() < 0.7:
        data, done = _strange_floats(data, rng), ["strange_floats"]
    for _ in range(rng.choice([1, 1, 2, 3]) - len(done)):
        mutate = MUTATIONS[rng.integers(len(MUTATIONS))]
        if data:
            data = mutate(data, kind, rng, bytearray(other.read_bytes()))
            done.append(mutate.__name__)
    if kind in ("ogg", "opus") and rng.random() < 0.7:
        _mend_pages(data)
        done.append("mended")
    suffix = path.suffix if rng.random() < 0.9 else f".{rng.choice(_SUFFIXES)}"
    what = "".join(path.name.removesuffix(path.suffix).split())[:24]
    return Case(f"s{seed}-k{k:05d}-{kind}-{what}-{'-'.join(done)}{suffix}", bytes(data))


# The child.


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
      status: "decoded", "refused" or one of BAD.
      text: the note, the reason, or what went wrong.
      segments: how many it holds.
      peak_mb: the child's largest memory meanwhile.
      seconds: how long it took.
      said: bytes that libraries printed meanwhile.
    """

    status: str
    text: str = ""
    segments: int = 0
    peak_mb: float = 0
    seconds: float = 0
    said: int = 0


def serve(connection: Connection, log: pathlib.Path) -> None:
    """The child: paths come in, outcomes go out; the first says that it is ready."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    faulthandler.enable()
    _non_finite(np.zeros((SEGMENTS, audio.SEGMENT_SAMPLES), np.float32))
    if mapped_kib := _kib("VmSize"):
        limit = mapped_kib * 1024 + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(Outcome("ready"))
    with contextlib.suppress(EOFError):
        while True:
            path = connection.recv()
            _forget_peak()
            outcome = tried(path)
            peak_mb = _kib("VmHWM") / 1024  # resident memory's largest
            connection.send(dataclasses.replace(outcome, peak_mb=peak_mb))


def tried(path: pathlib.Path) -> Outcome:
    """Reads a file and computes the features of its start, as the program does."""
    try:
        found, notes = audio.read_segments(path)
        found = list(found)
        samples = np.zeros((SEGMENTS, audio.SEGMENT_SAMPLES), np.float32)
        for row, segment in zip(samples, found, strict=False):
            row[:] = segment
        bad = _non_finite(samples)
    except audio.AudioError as error:
        text = str(error)
        if str(path) not in text or not text.isprintable():
            return Outcome("unexpected", f"not a line that names it: {text!r}")
        reason = text.replace(f"{path}: ", "")
        short = re.search("memory|alloc", reason)
        return Outcome("memory" if short else "refused", reason)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
        return Outcome("unexpected", f"{error!r} at {place}")
    if bad or not notes.text.isprintable():
        status = "non-finite" if bad else "unexpected"
        return Outcome(status, bad or f"note {notes.text!r}", len(found))
    return Outcome("decoded", notes.text, len(found))


def _non_finite(samples: np.ndarray) -> str:
    """The features with a value that is not finite, as the shards would hold it."""
    from mgr_jax.features import FEATURES

    with np.errstate(over="ignore"):
        return ", ".join(
            name
            for name, feature in FEATURES.items()
            if not np.isfinite(np.asarray(feature.fn(samples)).astype(np.float16)).all()
        )


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _kib(entry: str) -> int:
    """What Linux tells of this process's memory; 0 on other systems."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(re.search(rf"^{entry}:\s*(\d+)", status, re.M)[1])


# The parent.


class Child:
    """A process that `serve`s; started when it is needed."""

    def __init__(self, log: pathlib.Path):
        self.log = log
        self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, self.log), daemon=True
        )
        self.process.start()
        theirs.close()
        outcome = self._answer(START_S)
        if outcome.status != "ready":
            raise RuntimeError(f"the child does not start: {outcome.text}")

    def _answer(self, most_s: float) -> Outcome:
        """What the process says next; it is ended where it does not, or has died."""
        started = time.monotonic()
        try:
            if self.connection.poll(most_s):
                outcome = self.connection.recv()
                seconds = time.monotonic() - started
                return dataclasses.replace(outcome, seconds=seconds)
            outcome = Outcome("hang", f"no answer in {most_s:.0f} s", seconds=most_s)
        except (EOFError, OSError):
            self.process.join()
            said = self.log.read_text(errors="replace")[-2_000:]
            outcome = Outcome("crash", f"exit {self.process.exitcode}: {said}")
        self.stop()
        return outcome

    def ask(self, path: pathlib.Path) -> Outcome:
        """What becomes of a file."""
        if self.process is None:
            self._start()
        before = self.log.stat().st_size
        with contextlib.suppress(OSError):  # it is gone: there will be no answer
            self.connection.send(path)
        outcome = self._answer(HANG_S)
        return dataclasses.replace(outcome, said=self.log.stat().st_size - before)

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def soak(
    by_kind: Mapping[str, list],
    cases: Sequence[int],
    seed: int,
    scratch: pathlib.Path,
    limit_s: float,
    on_bad: Callable[[Case, Outcome], None],
) -> Iterator[tuple[str, Outcome]]:
    """Tries one case after the other, until the time is up.

    Yields:
      The case's name, and what became of it.
    """
    started = time.monotonic()
    child = Child(scratch / "printed.txt")
    try:
        for k in cases:
            if time.monotonic() - started > limit_s:
                return
            case = make_case(by_kind, seed, k)
            path = scratch / case.name
            path.write_bytes(case.data)
            outcome = child.ask(path)
            path.unlink()
            if outcome.peak_mb > MOST_MB:
                outcome = dataclasses.replace(outcome, status="memory")
            if outcome.status in BAD:
                on_bad(case, outcome)
            yield case.name, outcome
    finally:
        child.stop()


def _on_bad(keep: str, case: Case, outcome: Outcome) -> None:
    line = f"{outcome.status}: {case.name}: {outcome.text} ({outcome.peak_mb:.0f} MB)"
    if keep:
        path = pathlib.Path(keep) / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.data)
        line += f"; kept as {path}"
    print(line, flush=True)


# The table.


def table(outcomes: Mapping[str, Outcome], asked: int, wall_s: float) -> str:
    """What became of all cases, in a few lines.

    Args:
      outcomes: case's name to outcome.
      asked: how many cases there were to be.
      wall_s: time for all of it.
    """
    by_status = collections.defaultdict(list)
    for outcome in outcomes.values():
        by_status[outcome.status].append(outcome)
    decoded = by_status["decoded"]
    rows = [("cases", f"{len(outcomes)} of {asked}"), ("decoded", len(decoded))]
    rows += [("  with a note", sum(bool(one.text) for one in decoded))]
    rows += [("  too short for a segment", sum(not one.segments for one in decoded))]
    rows += [("refused with a reason", len(by_status["refused"]))]
    reasons = collections.Counter(
        re.sub(r"\b\d[\de.+]*", "N", one.text) for one in by_status["refused"]
    )
    rows += [(f"  {reason}", count) for reason, count in reasons.most_common(10)]
    rows += [(f"{status}", len(by_status[status])) for status in BAD]
    rows += [(f"  {text}", "") for text in {one.text for one in by_status[BAD[3]]}]
    for label, unit, key in (
        ("peak memory of the child", "MB", lambda name: outcomes[name].peak_mb),
        ("slowest", "s", lambda name: outcomes[name].seconds),
        ("most printed by libraries", "B", lambda name: outcomes[name].said),
    ):
        most = max(outcomes, key=key, default=None)
        if most is not None:
            rows.append((label, f"{key(most):.0f} {unit} ({most})"))
    talkative = sum(one.said > 0 for one in outcomes.values())
    rows += [("files that made libraries print", talkative)]
    rows += [("wall time", f"{wall_s:.0f} s")]
    return "\n".join(f"{label:60} {value}".rstrip() for label, value in rows)


def _run() -> None:
    asked = flags.FLAGS
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    with tempfile.TemporaryDirectory(prefix="mgr_jax_soak_") as folder:
        scratch = pathlib.Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "compiled"))
        versions = scratch / "versions"
        versions.mkdir()
        started = time.monotonic()
        by_kind = recordings(pathlib.Path(asked.source), versions)
        outcomes = dict(
            soak(
                by_kind,
                range(asked.first, asked.first + asked.cases),
                asked.seed,
                scratch,
                asked.limit_s,
                functools.partial(_on_bad, asked.keep),
            )
        )
        print(table(outcomes, asked.cases, time.monotonic() - started))
    if any(outcome.status in BAD for outcome in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("cases", 500, "How many mutated files to try.", lower_bound=0)
    flags.DEFINE_integer("first", 0, "Number of the first case.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "What the mutations are drawn from.", lower_bound=0)
    flags.DEFINE_string("source", str(REAL), "Folder of recordings to mutate.")
    flags.DEFINE_string("keep", "", "Folder to keep files in that break something.")
    flags.DEFINE_float("limit_s", 1_800, "Seconds after which to stop.")
    cli.start(_run)
