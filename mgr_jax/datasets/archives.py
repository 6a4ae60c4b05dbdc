"""The archives that data sets come in: where they lie, how large they are, what they
hold, and what proves them whole.

A data set's name and a user's own mirrors and checksum enter; `Archive` records leave,
which download fetches and unpacks. It imports nothing of the package but config, so
that a data set may take its addresses from here.
"""

import dataclasses
import hashlib
import pathlib
import re
import urllib.parse
from collections.abc import Sequence

from mgr_jax.config import FMA_SUBSETS, UserError

SUFFIXES = (".zip", ".tar.gz", ".tgz")

# A checksum that every file has.
ANY = "none"

_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_MB, _GB = 10**6, 10**9


@dataclasses.dataclass(frozen=True)
class Source:
    """One address of an archive.

    Attributes:
      url: where it lies.
      checksum: "ALGORITHM:HEX" of the file there, where it is not the archive's own;
        `ANY` accepts every file.
      num_bytes: its exact size; 0 where it is not known.
    """

    url: str
    checksum: str = ""
    num_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Archive:
    """One archive.

    Attributes:
      file_name: what it is called where it lies.
      folders: where its data are in it; any one of them makes it this archive.
      sources: its addresses, the first to be tried first.
      about_bytes: its size, roughly.
      unpacked_bytes: what its data take on the disk, roughly.
      most_bytes: data that are more than this are not those of this archive.
      most_members: so are more files and folders than this.
      checksum: "ALGORITHM:HEX", whatever the source; "" where none is known.
    """

    file_name: str
    folders: tuple[str, ...]
    sources: tuple[Source, ...]
    about_bytes: int
    unpacked_bytes: int
    most_bytes: int
    most_members: int
    checksum: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages: genres, fma_small."""
        return self.file_name.split(".")[0]

    def expected(self, source: Source) -> str:
        """The checksum that a source's file must have; "" where none is known."""
        return source.checksum or self.checksum


# Copies that others have packed hold .wav in the second or third folder.
GTZAN = Archive(
    file_name="genres.tar.gz",
    folders=("genres", "genres_original", "Data/genres_original"),
    sources=(
        Source(
            "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/genres.tar.gz",
            num_bytes=1_226_192_050,
        ),
        # The original, which has not answered for years.
        Source(
            "http://opihi.cs.uvic.ca/sound/genres.tar.gz",
            checksum="md5:5b3d6dddb579ab49814ab86dba69e7c7",
        ),
    ),
    about_bytes=1_227 * _MB,
    unpacked_bytes=1_330 * _MB,
    most_bytes=5 * _GB,
    most_members=20_000,
)

FMA_FOLDER = "https://os.unil.cloud.switch.ch/fma"


def _fma(
    name: str, about_bytes: int, unpacked_bytes: int, most_members: int, sha1: str
) -> Archive:
    return Archive(
        file_name=f"fma_{name}.zip",
        folders=(f"fma_{name}",),
        sources=(Source(f"{FMA_FOLDER}/fma_{name}.zip"),),
        about_bytes=about_bytes,
        unpacked_bytes=unpacked_bytes,
        most_bytes=4 * unpacked_bytes,
        most_members=most_members,
        checksum=f"sha1:{sha1}",
    )


# MP3 is as large as it was; what the metadata unpack to is an estimate.
FMA_METADATA = _fma(
    "metadata", 359 * _MB, 1_600 * _MB, 1_000,
    "f0df49ffe5f2a6008d7dc83c6915b31835dfe733",
)  # fmt: skip
FMA = {
    "small": _fma(
        "small", 7_731 * _MB, 8_000 * _MB, 20_000,
        "ade154f733639d52e35e32f5593efe5be76c6d70",
    ),
    "medium": _fma(
        "medium", 23_623 * _MB, 24_200 * _MB, 60_000,
        "c67b69ea232021025fca9231fc1c7c1a063ab50b",
    ),
    "large": _fma(
        "large", 99_858 * _MB, 102_000 * _MB, 250_000,
        "497109f4dd721066b5ce5e5f250ec604dc78939e",
    ),
}  # fmt: skip


def wanted(dataset: str, fma_subset: str) -> tuple[Archive, ...]:
    """The archives of gtzan, or those of fma: its metadata, then a subset's audio."""
    return (GTZAN,) if dataset == "gtzan" else (FMA_METADATA, FMA[fma_subset])


def known() -> dict[Archive, str]:
    """Every archive, with the flags that ask for it."""
    subsets = {FMA[name]: f"--dataset=fma --fma_subset={name}" for name in FMA_SUBSETS}
    return {GTZAN: "--dataset=gtzan", FMA_METADATA: "--dataset=fma", **subsets}


def with_own(
    archives: Sequence[Archive], urls: Sequence[str], checksum: str
) -> tuple[Archive, ...]:
    """The archives, with a user's own mirrors and checksum in place of the known.

    Args:
      archives: the metadata before the audio.
      urls: each an archive's own address, or that of the folder in which archives lie
        under their names. An archive that none of them can hold keeps its mirrors.
      checksum: what the last archive must have, instead of what is known; `ANY`
        accepts every file, "" changes nothing.

    Raises:
      UserError: an address or the checksum is none.
    """
    for url in urls:
        _check_url(url)
    _check_checksum(checksum)
    names = [archive.file_name for archive in archives]
    changed = []
    for archive in archives:
        own = [_address(url, archive.file_name, names) for url in urls]
        sources = tuple(Source(url) for url in own if url) or archive.sources
        if checksum and archive is archives[-1]:
            sources = tuple(Source(source.url, checksum) for source in sources)
        changed.append(dataclasses.replace(archive, sources=sources))
    return tuple(changed)


def _address(url: str, file_name: str, names: Sequence[str]) -> str:
    """Where an archive lies by one --url; "" where that is another archive's address.

    An address that ends in no archive's name is that of the last one.
    """
    parts = urllib.parse.urlsplit(url)
    if not parts.path.lower().endswith(SUFFIXES):
        path = f"{parts.path.rstrip('/')}/{file_name}"
        return urllib.parse.urlunsplit(parts._replace(path=path))
    end = pathlib.PurePosixPath(urllib.parse.unquote(parts.path)).name
    holds = end if end in names else names[-1]
    return url if holds == file_name else ""


def _check_url(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(
            f"--url={url}: give an address that begins with http:// or https://; an "
            "archive that is on this machine is named with --from_file"
        )


def _check_checksum(checksum: str) -> None:
    if checksum in ("", ANY):
        return
    algorithm, _, digits = checksum.partition(":")
    if algorithm in _ALGORITHMS:
        length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
        if re.fullmatch(f"[0-9A-Fa-f]{{{length}}}", digits):
            return
    raise UserError(
        f"--checksum={checksum}: give ALGORITHM:HEX, such as sha1:{'0123456789' * 4}, "
        f"with an algorithm of {', '.join(_ALGORITHMS)}; or none, to accept any file"
    )


def public(url: str) -> str:
    """An address as it may be shown and stored: without a name and password in it."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2])
    )
