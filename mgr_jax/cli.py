"""From a command line to a call: what every program of the package starts with.

A program's body enters; its flags are parsed, and a user's mistake ends it with one
line and a status. main, the experiments and the audit call it.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

# TensorFlow only reads data here; its start-up notes would drown the program's words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging

from mgr_jax.config import UserError


def start(body: Callable[[], None]) -> None:
    """Parses the flags that are defined, and runs a program's body.

    The process ends with status 0, 1 after a user's mistake, 2 after a flag that is
    none, or 130 after an interrupt.
    """
    logging.set_verbosity(logging.ERROR)
    app.run(lambda argv: _guarded(body, argv), flags_parser=_parse)


def _guarded(body: Callable[[], None], argv: Sequence[str]) -> None:
    try:
        if len(argv) > 1:
            raise UserError(f"{argv[1]}: flags are written --name=value; see --help")
        body()
    except UserError as error:
        _fail(error, status=1)
    except BrokenPipeError:
        # Who was reading has gone, as head does; what is left to say would fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", status=1)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on", status=130)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags as absl does, with one line for a flag that is not one."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error}; see --help", status=2)


def _fail(message: object, status: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
