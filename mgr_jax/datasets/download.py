"""Downloads a data set: what is not there yet is fetched, judged and unpacked.

The flags enter; the data set's folders below --data_dir leave. All that passes on the
way lies in --data_dir/.downloads, so that a run that was killed goes on there. The
program `python -m mgr_jax.datasets.download` is this file.
"""

import contextlib
import dataclasses
import errno
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from mgr_jax import cli, workdir
from mgr_jax import config as config_lib
from mgr_jax.config import FMA_SUBSETS, Config, UserError
from mgr_jax.datasets import archives, fetch, present, search, transfer, unpack
from mgr_jax.datasets.archives import Archive
from mgr_jax.datasets.fetch import Fetched
from mgr_jax.datasets.members import ArchiveError
from mgr_jax.datasets.transfer import MirrorError
from mgr_jax.datasets.unpack import Unpacked

_DATASETS = ("gtzan", "fma")

_NOT_FETCHED = {
    "synth": "is rendered by the program and needs no download",
    "folder": "is music of your own: name its folder with --data_dir",
    "gtzan+fma": "is two data sets: download gtzan, and then fma",
}
_LICENCES = {
    "gtzan": "GTZAN: no licence of this audio is known; whether to use it for research "
    "is your own decision",
    "fma": "FMA: every track has a Creative Commons licence of its own, named in "
    "fma_metadata/tracks.csv",
}


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What this program is told beside the Config.

    Attributes:
      urls: mirrors of the user's own, instead of the known ones.
      checksum: what the data's archive must have, instead of what is known.
      from_files: archives that were fetched by hand.
      keep_archive: an archive is kept once it is unpacked.
    """

    urls: tuple[str, ...] = ()
    checksum: str = ""
    from_files: tuple[str, ...] = ()
    keep_archive: bool = False


def download(
    config: Config,
    wishes: Wishes,
    *,
    wait: Callable[[float], None] = time.sleep,
    timeouts_s: tuple[float, float] = transfer.TIMEOUTS_S,
) -> None:
    """Puts a data set into --data_dir, and says what is there then.

    Args:
      config: its dataset, fma_subset, data_dir and overwrite are looked at.
      wishes: see there.
      wait: called with the seconds between two tries of a transfer.
      timeouts_s: to connect, and between two pieces of an answer.

    Raises:
      UserError: there is no such data set, no mirror gives it, what came is not what it
        should be, or the disk has no room for it.
    """
    check_dataset(config)
    config_lib.check_local("data_dir", config.data_path)
    wanted = archives.with_own(
        archives.wanted(config.dataset, config.fma_subset), wishes.urls, wishes.checksum
    )
    given = _given(wanted, wishes.from_files)
    data_path = config.data_path.absolute()
    folder = data_path / present.DOWNLOADS_FOLDER
    with _writing_to(folder):
        there = {} if config.overwrite else present.present(config, wanted)
        missing = [archive for archive in wanted if archive not in there]
        for archive, where in there.items():
            print(
                f"{archive.name}: is there already, {where}; --overwrite fetches it "
                "anew",
                flush=True,
            )
        if missing:
            print(_LICENCES[config.dataset], flush=True)
            _check_room(missing, given, folder)
        for archive in missing:
            if archive in given:
                fetched = Fetched(given[archive], "", "")
            else:
                fetched = fetch.fetch(archive, folder, wait=wait, timeouts_s=timeouts_s)
            own = archive not in given
            unpacked = _unpack(archive, fetched, folder, own)
            present.write_record(archive, unpacked, folder)
            fetch.remember(fetched)
            if own and not wishes.keep_archive:
                _delete(fetched.path)
            print(_summary(archive, unpacked, data_path), flush=True)
    print(_next_step(config), flush=True)


def check_dataset(config: Config) -> None:
    """Raises UserError where --dataset or --fma_subset is nothing to download."""
    if config.dataset in _NOT_FETCHED:
        raise UserError(
            f"--dataset={config.dataset}: {_NOT_FETCHED[config.dataset]}; this program "
            "downloads --dataset=gtzan and --dataset=fma"
        )
    choices = {"dataset": _DATASETS, "fma_subset": FMA_SUBSETS}
    config_lib.check_choices(config, choices)


# Archives that were fetched by hand.


def _given(
    wanted: Sequence[Archive], from_files: Sequence[str]
) -> dict[Archive, pathlib.Path]:
    """Which of the wanted archives each --from_file is, by what it holds.

    Raises:
      UserError: one is none of them, cannot be read, or has a wrong checksum.
    """
    given: dict[Archive, pathlib.Path] = {}
    for text in from_files:
        path = config_lib.expanded("from_file", text).absolute()
        archive = _recognised(wanted, path, f"--from_file={text}")
        if archive in given:
            raise UserError(
                f"--from_file={text}: is {archive.name} once more; name one"
            )
        checksums = {archive.expected(source) for source in archive.sources}
        if len(checksums) == 1 and "" not in checksums:
            try:
                fetch.check(path, checksums.pop())
            except MirrorError as error:
                raise UserError(
                    f"--from_file={text}: {error}; fetch it again, or say what it must "
                    "have with --checksum (none accepts it)"
                ) from None
        given[archive] = path
    return given


def _recognised(wanted: Sequence[Archive], path: pathlib.Path, flag: str) -> Archive:
    if path.is_dir():
        raise UserError(
            f"{flag}: is a folder; name the archive, or, if it is unpacked, say "
            "--data_dir to the other programs"
        )
    by_folder = {name: archive for archive in wanted for name in archive.folders}
    elsewhere = {
        name: asked for archive, asked in archives.known().items()
        for name in archive.folders
    }  # fmt: skip
    try:
        found = unpack.first_folder(path, elsewhere)
    except OSError as error:
        raise UserError(f"{flag}: cannot be read ({error.strerror})") from None
    except ArchiveError as error:
        raise UserError(f"{flag}: {error}; fetch it again") from None
    if found in by_folder:
        return by_folder[found]
    if found:
        raise UserError(f"{flag}: holds {found}/, so it is for {elsewhere[found]}")
    raise UserError(
        f"{flag}: holds none of {'/, '.join(by_folder)}/; name another file"
    )


# Fetching and unpacking.


@contextlib.contextmanager
def _writing_to(folder: pathlib.Path) -> Iterator[None]:
    """Makes the folder of downloads, and holds it: two runs would spoil each other's.

    Raises:
      UserError: --data_dir, or its disk, cannot be written, or is in fact two disks.
    """
    data_path = folder.parent
    with (
        workdir.writing(data_path, "--data_dir"),
        workdir.held(folder, "downloads into"),
    ):
        folder.mkdir(exist_ok=True)
        try:
            yield
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise UserError(
                f"{error.filename2 or data_path}: lies on another disk than --data_dir="
                f"{data_path}, by a link; name a folder of that disk with --data_dir"
            ) from None


def _check_room(
    missing: Sequence[Archive], given: dict[Archive, pathlib.Path], folder: pathlib.Path
) -> None:
    """Raises UserError where the disk has no room for what is to come."""
    needed = sum(archive.unpacked_bytes for archive in missing)
    for archive in missing:
        path = folder / archive.file_name
        if archive not in given and not path.is_file():
            part = transfer.part_of(path)
            have = part.stat().st_size if part.is_file() else 0
            needed += max(0, archive.about_bytes - have)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"--data_dir={folder.parent}: {_gb(needed)} are needed for the archives "
            f"and what is in them, and {_gb(free)} are free; make room there, or name "
            "a folder of another disk"
        )


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"


def _unpack(
    archive: Archive, fetched: Fetched, folder: pathlib.Path, own: bool
) -> Unpacked:
    """Unpacks an archive into --data_dir: all of it, or, where it is refused, nothing.

    Raises:
      UserError: it is damaged, unsafe, or another archive; it is deleted if this
        program fetched it.
    """
    staged = folder / f"unpacking-{archive.name}"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        unpacked = unpack.unpack(
            fetched.path,
            staged,
            archive.folders,
            most_bytes=archive.most_bytes,
            most_members=archive.most_members,
        )
        unpack.move(staged, folder.parent)
    except ArchiveError as error:
        raise UserError(_refused(error, fetched, folder, own)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return unpacked


def _refused(
    error: ArchiveError, fetched: Fetched, folder: pathlib.Path, own: bool
) -> str:
    nothing = f"nothing of it is in {folder.parent}"
    if not own:
        return f"--from_file={fetched.path}: {error}; {nothing}; fetch it again"
    _delete(fetched.path)
    return (
        f"{fetched.url or fetched.path}: {error}; {nothing}, and the archive is "
        "deleted; run again, name another mirror with --url, or an archive with "
        "--from_file"
    )


def _delete(path: pathlib.Path) -> None:
    """Deletes an archive of the folder of downloads, and what is noted of it."""
    path.unlink()
    transfer.state_of(path).unlink(missing_ok=True)


def _summary(archive: Archive, unpacked: Unpacked, data_path: pathlib.Path) -> str:
    where = present.places(unpacked.folders, data_path)
    return f"{archive.name}: {unpacked.files} files in {where}"


def _next_step(config: Config) -> str:
    data = search.data_flags(config, config.dataset)
    return (
        f"next: python -m mgr_jax.datasets.verify {data}\n"
        f"then: python -m mgr_jax.main {data}"
    )


# The program.


def run() -> None:
    """Downloads what the flags ask for.

    Raises:
      UserError: see `download`.
    """
    given = flags.FLAGS
    download(
        config_lib.from_flags(given),
        Wishes(
            urls=tuple(given.url),
            checksum=given.checksum,
            from_files=tuple(given.from_file),
            keep_archive=given.keep_archive,
        ),
    )


def _define_flags() -> None:
    flags.DEFINE_string("dataset", "", "What to download: gtzan (1.2 GB) or fma.")
    flags.DEFINE_string(
        "fma_subset",
        Config.fma_subset,
        "Which subset of fma: small (7.7 GB to fetch), medium (24 GB) or large (100 "
        "GB). Its metadata are 0.4 GB more.",
    )
    flags.DEFINE_string(
        "data_dir",
        "",
        "Folder to put the data set into; nothing is written elsewhere. Default: "
        "$MGR_DATA_DIR, else ~/mgr_data.",
    )
    flags.DEFINE_bool("overwrite", False, "Fetch and unpack what is there, too.")
    flags.DEFINE_bool(
        "keep_archive",
        False,
        "Keep each archive in DATA_DIR/.downloads once it is unpacked. One that is "
        "there is not fetched again.",
    )
    flags.DEFINE_multi_string(
        "url",
        [],
        "A mirror of your own, used instead of the known ones: the address of an "
        "archive, or of the folder in which archives lie under their own names. May be "
        "repeated; they are tried in order.",
    )
    flags.DEFINE_string(
        "checksum",
        "",
        "ALGORITHM:HEX that the archive must have, instead of what is known of it; "
        "none accepts any file, as a mirror of your own may need. With fma it is the "
        "audio's archive that is meant, never the metadata's.",
    )
    flags.DEFINE_multi_string(
        "from_file",
        [],
        "An archive that you fetched by hand: it is unpacked, and stays where it is. "
        "May be repeated; what is not given is downloaded.",
    )


def main() -> None:
    """Defines the flags and runs."""
    _define_flags()
    cli.start(run)


if __name__ == "__main__":
    main()
