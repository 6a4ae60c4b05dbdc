"""Reads the members of an archive that nobody vouches for: a .zip, .tar or .tar.gz.

A path enters; its members leave, one after another, each with its name as the archive
has it, why it is refused if it is, and its bytes in small pieces. What headers say of
sizes is not believed, and damage ends in one error. unpack calls it, and judges names.
"""

import contextlib
import dataclasses
import gzip
import pathlib
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

_CHUNK_BYTES = 1 << 18

# What tar's headers before one member may take: names, and macOS's attributes.
_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 512

# FMA's zips are packed by bzip2. LZMA could ask for gigabytes of memory.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_ENCRYPTED = 0x1

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,
    struct.error,
    RecursionError,
)


class ArchiveError(Exception):
    """An archive is not unpacked; the text says why, and follows its name."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
      name: as the archive has it.
      fault: why it is refused; "" where it is a file or a folder.
      is_file: whether it is a file.
      passed_bytes: what must be read to get past it; 0 where that is nothing.
      pieces: its bytes, in pieces that are never large.
    """

    name: str
    fault: str
    is_file: bool
    passed_bytes: int
    pieces: Callable[[], Iterator[bytes]]


def is_archive(path: pathlib.Path) -> bool:
    """Whether a file begins as a .zip, .tar.gz or .tar does."""
    return _kind(path) != ""


def members(path: pathlib.Path) -> Iterator[Member]:
    """An archive's members in order, each to be read before the next is asked for.

    Raises:
      ArchiveError: it is damaged, or no archive.
    """
    readers = {"zip": _zip_members, "tar.gz": _tar_members, "tar": _tar_members}
    kind = _kind(path)
    if not kind:
        raise ArchiveError("is no .zip, .tar.gz or .tar archive")
    with _damage_told():
        for member in readers[kind](path):
            yield dataclasses.replace(member, pieces=_told(member.pieces))


def _kind(path: pathlib.Path) -> str:
    """By a file's first bytes "zip", "tar.gz" or "tar"; "" for anything else."""
    with path.open("rb") as file:
        start = file.read(_BLOCK_BYTES)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    return "tar" if start[257:262] == b"ustar" else ""


def _told(pieces: Callable[[], Iterator[bytes]]) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        with _damage_told():
            yield from pieces()

    return read


@contextlib.contextmanager
def _damage_told() -> Iterator[None]:
    """Turns what the readers raise of a damaged archive into ArchiveError."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"is cut off or damaged ({reason})") from None
    except OSError as error:
        # gzip's and bz2's own errors carry no number; those of the disk do.
        if error.errno is not None:
            raise
        raise ArchiveError(f"is cut off or damaged ({error})") from None


class _Bounded:
    """A stream from which no more can be read than `most` bytes in all.

    Attributes:
      most: what may be read; tar's reader would take a header's word for any length.
      read_bytes: what was.
      filled_bytes: where the last byte is that is not zero.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.most = _HEADER_BYTES
        self.read_bytes = 0
        self.filled_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        filled = len(data.rstrip(b"\0"))
        if filled:
            self.filled_bytes = self.read_bytes + filled
        self.read_bytes += len(data)
        if self.read_bytes > self.most:
            raise ArchiveError("has more in it than its members and their names")
        return data


def _tar_members(path: pathlib.Path) -> Iterator[Member]:
    opened = gzip.open if _kind(path) == "tar.gz" else open
    with opened(path, "rb") as stream:
        bounded = _Bounded(stream)
        end = 0
        with tarfile.open(fileobj=bounded, mode="r|") as tar:
            while (info := tar.next()) is not None:
                if info.size < 0:
                    raise tarfile.ReadError("a negative size")
                blocks = -(-info.size // _BLOCK_BYTES) if info.isreg() else 0
                end = info.offset_data + blocks * _BLOCK_BYTES
                bounded.most = end + _HEADER_BYTES
                yield _tar_member(tar, info)
            while bounded.read(_CHUNK_BYTES):
                pass
        # tarfile takes a damaged header for the end, and needs no end at all.
        if bounded.filled_bytes > end or bounded.read_bytes < end + _BLOCK_BYTES:
            raise tarfile.ReadError(f"no end after byte {end:,}")


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    def pieces() -> Iterator[bytes]:
        file = tar.extractfile(info)
        while data := file.read(_CHUNK_BYTES):
            yield data

    fault = ""
    if info.issym() or info.islnk():
        fault = "a link"
    elif info.issparse():
        fault = "a file with holes"
    elif not info.isreg() and not info.isdir():
        fault = "a device, or of an unknown kind"
    return Member(info.name, fault, info.isreg(), info.size, pieces)


def _zip_members(path: pathlib.Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            yield _zip_member(archive, info)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    def pieces() -> Iterator[bytes]:
        # zipfile gives no more than the size in the header, and checks the sum.
        num_bytes = 0
        with archive.open(info) as file:
            while data := file.read(_CHUNK_BYTES):
                num_bytes += len(data)
                yield data
        if num_bytes != info.file_size:
            raise zipfile.BadZipFile(f"{info.orig_filename} is not what was packed")

    mode = stat.S_IFMT(info.external_attr >> 16)
    fault = ""
    if info.flag_bits & _ENCRYPTED:
        fault = "encrypted"
    elif info.compress_type not in _METHODS:
        fault = f"compressed by method {info.compress_type}"
    elif mode == stat.S_IFLNK:
        fault = "a link"
    elif mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "a device, or of an unknown kind"
    # zipfile ends a name at its first NUL; the original is what is judged.
    name = info.orig_filename
    is_file = mode != stat.S_IFDIR and not name.endswith("/")
    return Member(name, fault, is_file, 0, pieces)
