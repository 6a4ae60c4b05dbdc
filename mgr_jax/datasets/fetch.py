"""Fetches an archive from the first mirror that gives it, and judges what came.

An `Archive` and the folder of downloads enter; the path of a file leaves that has the
checksum it must have, or, where none is known, the one that its address gave the first
time. download calls it.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable

from mgr_jax import config as config_lib
from mgr_jax.config import UserError
from mgr_jax.datasets import archives, members, transfer
from mgr_jax.datasets.archives import Archive, Source
from mgr_jax.datasets.transfer import MirrorError

CHECKSUMS_FILE = "checksums.json"

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Fetched:
    """An archive on the disk.

    Attributes:
      path: where it lies.
      url: where it is from; "" where that is not known.
      first_checksum: what `remember` is to note of it; "" where nothing is.
    """

    path: pathlib.Path
    url: str
    first_checksum: str


def fetch(
    archive: Archive,
    folder: pathlib.Path,
    *,
    wait: Callable[[float], None],
    timeouts_s: tuple[float, float] = transfer.TIMEOUTS_S,
) -> Fetched:
    """Brings an archive into a folder, or takes the one that is there.

    Args:
      archive: its sources are tried in their order; one that gave a file with a wrong
        checksum is tried once more.
      folder: it exists, and keeps what came of a transfer that broke.
      wait: called with the seconds between two tries.
      timeouts_s: to connect, and between two pieces of an answer.

    Raises:
      UserError: no source gives it; or one gives another file than the first time.
      OSError: the disk is full, or cannot be written.
    """
    path = folder / archive.file_name
    answers = []
    if path.is_file():
        source = _source_of(archive, transfer.origin(path))
        try:
            return _judged(archive, source, path)
        except MirrorError as error:
            path.unlink()
            answers.append(f"{path}: {error}; deleted")
    for source in archive.sources:
        url = archives.public(source.url)
        try:
            return _from(archive, source, path, wait, timeouts_s)
        except MirrorError as error:
            answers.append(f"{url}: {error}")
            print(answers[-1], flush=True)
    raise UserError(_all_failed(archive, folder, answers))


def _source_of(archive: Archive, url: str) -> Source:
    """The source with an address; one of that address alone where there is none."""
    for source in archive.sources:
        if archives.public(source.url) == url:
            return source
    # What --checksum says holds of every source.
    own = {source.checksum for source in archive.sources}
    return Source(url, own.pop() if len(own) == 1 else "")


def _from(
    archive: Archive,
    source: Source,
    path: pathlib.Path,
    wait: Callable[[float], None],
    timeouts_s: tuple[float, float],
) -> Fetched:
    """An archive from one source, whose wrong file is given a second chance."""
    checksum = archive.expected(source)
    known = "" if checksum == archives.ANY else checksum
    print(f"{archive.file_name}: from {archives.public(source.url)}", flush=True)
    for last in (not known, True):
        transfer.transfer(
            source,
            known,
            path,
            reserve_bytes=archive.unpacked_bytes,
            wait=wait,
            timeouts_s=timeouts_s,
        )
        try:
            return _judged(archive, source, path)
        except MirrorError as error:
            path.unlink()
            if last:
                raise
            print(f"{archive.file_name}: {error}; once more", flush=True)
    raise AssertionError("the last try returns or raises")


def _judged(archive: Archive, source: Source, path: pathlib.Path) -> Fetched:
    """What is known of a whole file that is what it must be.

    Raises:
      MirrorError: it is not.
      UserError: it is not what the address gave the first time.
    """
    url = archives.public(source.url)
    checksum = archive.expected(source)
    if not members.is_archive(path):
        raise MirrorError("gave a file that is no archive")
    if checksum:
        check(path, checksum)
        return Fetched(path, url, "")
    found = f"sha256:{digest(path, 'sha256')}"
    before = _read_checksums(path.parent).get(url, found)
    if before != found:
        raise UserError(
            f"{url}: gave {before} before, and now {found}; to take the new file, say "
            f"--checksum={found} (or none), or delete the address in "
            f"{path.parent / CHECKSUMS_FILE}; to fetch it once more, delete {path}"
        )
    return Fetched(path, url, found if url else "")


def check(path: pathlib.Path, checksum: str) -> None:
    """Raises MirrorError where a file has another checksum; `ANY` is every file's."""
    if checksum == archives.ANY:
        return
    algorithm, _, digits = checksum.partition(":")
    found = digest(path, algorithm)
    if found != digits.lower():
        raise MirrorError(f"gave a file with {algorithm} {found}, not {digits.lower()}")


def digest(path: pathlib.Path, algorithm: str) -> str:
    """A file's checksum, in hexadecimal digits."""
    import tqdm

    found = hashlib.new(algorithm, usedforsecurity=False)
    bar = tqdm.tqdm(
        desc=f"{algorithm} of {path.name}",
        total=path.stat().st_size,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with path.open("rb") as file, bar:
        while data := file.read(_CHUNK_BYTES):
            found.update(data)
            bar.update(len(data))
    return found.hexdigest()


def remember(fetched: Fetched) -> None:
    """Notes what an address gave the first time, where no checksum of it is known."""
    if fetched.first_checksum:
        folder = fetched.path.parent
        checksums = _read_checksums(folder) | {fetched.url: fetched.first_checksum}
        text = json.dumps(checksums, indent=2) + "\n"
        config_lib.replace_text(folder / CHECKSUMS_FILE, text)


def _read_checksums(folder: pathlib.Path) -> dict[str, str]:
    path = folder / CHECKSUMS_FILE
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        checksums = None
    if not isinstance(checksums, dict):
        raise UserError(
            f"{path}: is not the list of checksums that was written there; delete it"
        )
    return checksums


def _all_failed(archive: Archive, folder: pathlib.Path, answers: list[str]) -> str:
    """What was tried, what came of it, and how to do without: several lines."""
    data_dir = folder.parent
    kept = transfer.part_of(folder / archive.file_name).is_file()
    lines = [
        f"{archive.file_name}: could not be fetched",
        *(f"  {answer}" for answer in answers),
    ]
    if kept:
        lines.append("  what came of it is kept; the same command goes on")
    return "\n".join(
        [
            *lines,
            "  name another mirror with --url; or fetch it by hand, from "
            f"{archives.public(archive.sources[0].url)},",
            f"  and say --from_file=FILE, or unpack it so that {data_dir} holds "
            f"{archive.folders[0]}/",
        ]
    )
