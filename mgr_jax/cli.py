"""From a command line to a call: what every program of the package starts with.

A program's body enters; its flags are parsed, and a user's mistake ends it with one
line and a status. main, the experiments and the audit call it.
"""

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn

# TensorFlow only reads data here; its start-up notes would drown the program's words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Keras, which TensorFlow brings along, would make a folder of its own at home.
os.environ.setdefault("KERAS_HOME", os.path.expanduser("~/.cache/keras"))

from absl import app, flags
from absl import logging as absl_logging

from mgr_jax.config import UserError, is_disk_full

INTERRUPTED = "interrupted; the same command goes on"
_AGAIN_S = 0.05  # after which an interrupt that was lost comes again


def _tell_interrupt(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Says of an interrupt what `start` would, where it comes while modules load."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"error: {INTERRUPTED}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _tell_ignored(ignored: Any) -> None:
    """Sees to what was raised where nobody can catch it.

    An interrupt comes again a moment later: Python may have been in JAX's own part of
    collecting garbage, where it is lost. Left out is what has been told: that a disk is
    full, by a file that is closed at the end; and an error that tensorstore's threads
    try to hand to who asked for a save or restore, and has gone.
    """
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        main = threading.main_thread().ident
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()
    elif not _is_told(ignored.exc_value):
        sys.__unraisablehook__(ignored)


def _is_told(error: BaseException | None) -> bool:
    is_full = isinstance(error, OSError) and is_disk_full(error)
    return is_full or str(error) == "Event loop is closed"


sys.excepthook = _tell_interrupt
sys.unraisablehook = _tell_ignored


def start(
    body: Callable[..., None], *, takes_words: bool = False, goes_on: bool = True
) -> None:
    """Parses the flags that are defined, and runs a program's body.

    Args:
      body: called without arguments, or with the list of words.
      takes_words: whether words that are no flags are allowed.
      goes_on: whether the program goes on where it was interrupted.

    The process ends with status 0, 1 after a user's mistake, 2 after a flag that is
    none, or 130 after an interrupt or SIGTERM.
    """
    # What the libraries log, they raise as well.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, _interrupt)
    call = functools.partial(_called, body, takes_words)
    said = INTERRUPTED if goes_on else "interrupted"
    app.run(lambda argv: _guarded(call, argv[1:], said), flags_parser=_parse)


def _called(body: Callable[..., None], takes_words: bool, words: list[str]) -> None:
    if takes_words:
        body(words)
        return
    if words:
        raise UserError(f"{words[0]}: flags are written --name=value; see --help")
    body()


def _guarded(
    call: Callable[[list[str]], None], words: list[str], interrupted: str
) -> None:
    try:
        call(words)
    except UserError as error:
        _fail(error, status=1)
    except BrokenPipeError:
        # Who was reading has gone, as head does; what is left to say would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = is_disk_full(error)
        remedy = "; make room, and the same command goes on" if full else ""
        _fail(f"{where}{error.strerror or error}{remedy}", status=1)
    except KeyboardInterrupt:
        _fail(interrupted, status=130)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags as absl does, with one line for a flag that is not one."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}; see --help", status=2)


def _fail(message: object, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
