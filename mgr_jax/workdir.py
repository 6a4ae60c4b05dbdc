"""The folder of a run: what is in it, and whose it is.

A config enters; a folder that belongs to that run leaves, made, checked or emptied.
main opens it before anything costly is done; train and evaluate write into it.
"""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Iterator

from mgr_jax import config as config_lib
from mgr_jax.config import Config, UserError
from mgr_jax.uris import Uri

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.csv"

# All that the program puts there; the config goes last when a run is deleted, so that
# a deletion that was interrupted is still known as this program's folder.
_CONTENTS = (
    "checkpoints",
    "tensorboard",
    "figures",
    "report.html",
    METRICS_FILE,
    RESULTS_FILE,
    PREDICTIONS_FILE,
    CONFIG_FILE,
)

_CANNOT_WRITE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.EIO, errno.ENAMETOOLONG,
)  # fmt: skip

# What may change between the command that began a run and one that goes on with it.
_MAY_CHANGE = (
    "mode",
    "data_dir",
    "features_dir",
    "workdir",
    "overwrite",
    "max_skipped",
    "decode_threads",
    "runner",
    *config_lib.JOB_FIELDS,
)


def open_workdir(config: Config) -> pathlib.Path:
    """Makes the run's folder, or finds it fit to go on in.

    Args:
      config: the run; its `overwrite` deletes what an earlier run left there, and
        nothing else. A folder where only a config was left, by a command that failed
        before it trained, takes this one's.

    Returns:
      The folder, which holds a config.json.

    Raises:
      UserError: it holds a run with other settings, or cannot be written.
    """
    workdir = config.run_path
    path = workdir / CONFIG_FILE
    with writing(workdir, "--workdir"):
        if path.exists():
            saved = read_config(workdir)
            if config.overwrite:
                _delete_run(workdir)
            elif _has_begun(workdir):
                check_same_run(saved, config)
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists() or not _has_begun(workdir):
            write_config(config)
    return workdir


@contextlib.contextmanager
def writing(folder: pathlib.Path | Uri, flag: str) -> Iterator[None]:
    """Makes one line with the remedy of a write that fails within.

    Args:
      folder: what is written to.
      flag: the one that names another folder.

    Raises:
      UserError: the folder, or its disk, cannot be written; other errors pass through.
    """
    try:
        yield
    except OSError as error:
        # What else went wrong is not about writing.
        full = config_lib.is_disk_full(error)
        if not full and error.errno not in _CANNOT_WRITE:
            raise
        go_on = "make room, and the same command goes on; or " if full else ""
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); {go_on}name another "
            f"folder with {flag}"
        ) from None


@contextlib.contextmanager
def held_run(config: Config) -> Iterator[None]:
    """Holds a run's folder: two processes must not train one run.

    Raises:
      UserError: the folder, or the lock beside it, cannot be written.
    """
    with (
        writing(config.run_path, "--workdir"),
        held(config.run_path, "is at"),
    ):
        yield


@contextlib.contextmanager
def held(folder: pathlib.Path | Uri, does: str) -> Iterator[None]:
    """Holds a folder for this process; while another does, it waits and says so.

    The lock is a file beside the folder, and ends with its process. An object store
    has none: there, nobody is kept from writing at the same time.

    Args:
      folder: it need not exist yet.
      does: what a process does that holds it, such as "prepares".

    Raises:
      OSError: the lock cannot be written.
    """
    import filelock

    if isinstance(folder, Uri):
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another process {does} {folder}; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_config(config: Config) -> None:
    """Writes the run's config.json, whole or not at all."""
    config_lib.replace_text(config.run_path / CONFIG_FILE, config_lib.to_json(config))


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a run folder.

    Raises:
      UserError: the folder holds no run.
    """
    path = workdir / CONFIG_FILE
    try:
        return config_lib.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "is missing" if missing else f"cannot be read: {error.strerror}"
        raise UserError(
            f"{workdir}: holds no run ({CONFIG_FILE} {reason}); name the folder of one "
            "with --workdir"
        ) from None
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; name another --workdir") from None


def check_same_run(saved: Config, now: Config) -> None:
    """Raises UserError where a run's settings are not those it was begun with."""
    config_lib.check_same_run(saved, now, _MAY_CHANGE)


def _has_begun(workdir: pathlib.Path) -> bool:
    """Whether more than the config is there."""
    return any((workdir / name).exists() for name in _CONTENTS if name != CONFIG_FILE)


def _delete_run(workdir: pathlib.Path) -> None:
    for name in _CONTENTS:
        path = workdir / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
