"""Unpacks an archive that nobody vouches for: a .zip, .tar or .tar.gz.

An archive's path, the folders in it that are wanted and bounds enter; plain files below
a new folder leave. What an archive says of itself is not believed: names that lead
elsewhere, links, devices and what is too large end it. download calls it, and moves the
files to where they belong once all are there.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
from collections.abc import Iterable

from mgr_jax.datasets.members import ArchiveError, Member, members

_LONGEST_NAME = 255


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
      files: how many.
      num_bytes: all of them together.
      folders: those of the wanted folders that it holds.
    """

    files: int
    num_bytes: int
    folders: tuple[str, ...]


def first_folder(path: pathlib.Path, known: Iterable[str]) -> str:
    """Which of the known folders an archive holds a file in; "" where there is none.

    Raises:
      ArchiveError: it cannot be read.
    """
    known = list(known)
    with contextlib.closing(members(path)) as found:
        for member in found:
            parts = _parts(member.name)
            if member.is_file and not is_junk(parts):
                for folder in known:
                    if _is_below(parts, folder):
                        return folder
    return ""


def unpack(
    path: pathlib.Path,
    into: pathlib.Path,
    wanted: Iterable[str],
    *,
    most_bytes: int,
    most_members: int,
) -> Unpacked:
    """Unpacks the files that are below the wanted folders.

    Args:
      path: the archive.
      into: a folder to make. It must be deleted where this raises.
      wanted: folders in the archive, as "genres" or "Data/genres_original".
      most_bytes: what they may take unpacked.
      most_members: how many entries the archive may have, wanted or not.

    Raises:
      ArchiveError: the archive is damaged or unsafe, or holds no such folder.
      OSError: the disk is full, or cannot be written.
    """
    import tqdm

    into.mkdir(parents=True)
    wanted = list(wanted)
    written: set[tuple[str, ...]] = set()
    num_bytes = passed_bytes = 0
    bar = tqdm.tqdm(desc=f"unpacking {path.name}", unit="file", disable=None)
    with bar, contextlib.closing(members(path)) as found:
        for number, member in enumerate(found):
            if number >= most_members:
                raise ArchiveError(f"has more than {most_members:,} members")
            parts = _safe_parts(member)
            keep = any(_is_below(parts, folder) for folder in wanted)
            passed_bytes += member.passed_bytes
            if passed_bytes > most_bytes:
                raise _too_large(member)
            if not keep or not member.is_file or is_junk(parts):
                continue
            target = into.joinpath(*parts)
            num_bytes += _write(member, target, most_bytes - num_bytes)
            written.add(tuple(parts))
            bar.update()
    holds = [f for f in wanted if any(_is_below(parts, f) for parts in written)]
    if not holds:
        raise ArchiveError(f"holds no {'/, '.join(wanted)}/")
    return Unpacked(len(written), num_bytes, tuple(holds))


def is_junk(parts: Iterable[str]) -> bool:
    """Whether a path is of what macOS puts into archives and folders."""
    return any(
        part.startswith("._") or part in ("__MACOSX", ".DS_Store") for part in parts
    )


def move(staged: pathlib.Path, into: pathlib.Path) -> None:
    """Moves every file below a folder to the same place below another, and deletes it.

    A file of that name is replaced; what else is there stays.

    Raises:
      OSError: the disk cannot be written; what was moved stays moved.
    """
    for source in sorted(path for path in staged.rglob("*") if path.is_file()):
        target = into / source.relative_to(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    shutil.rmtree(staged)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _is_below(parts: Iterable[str], folder: str) -> bool:
    parts, above = tuple(parts), tuple(folder.split("/"))
    return len(parts) > len(above) and parts[: len(above)] == above


def _safe_parts(member: Member) -> list[str]:
    """The parts of a member's path, when it stays below the folder it is put into.

    Raises:
      ArchiveError: it does not, or the member is no file and no folder.
    """
    name = member.name
    parts = _parts(name)
    fault = member.fault
    if "\0" in name or "\\" in name or any(re.match("[A-Za-z]:", p) for p in parts):
        fault = "a name that is no relative path"
    elif name.startswith("/") or ".." in parts:
        fault = "a name that leads out of the folder"
    elif any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        fault = "a name that is too long for a file"
    if fault:
        raise ArchiveError(f"its member {name!r} is not safe: {fault}")
    return parts


def _write(member: Member, target: pathlib.Path, most_bytes: int) -> int:
    """Writes a member, and returns its bytes: they are counted, not believed."""
    num_bytes = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for data in member.pieces():
                num_bytes += len(data)
                if num_bytes > most_bytes:
                    raise _too_large(member)
                file.write(data)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ArchiveError(
            f"its member {member.name!r} is a file and a folder at once"
        ) from None
    return num_bytes


def _too_large(member: Member) -> ArchiveError:
    return ArchiveError(
        f"unpacks to more than it should, at its member {member.name!r}"
    )
