"""The page: a trained run in the browser, on this machine.

    python -m mgr_jax.serve --workdir=runs/RUN

A run's folder enters; a page on which recordings are dropped leaves, at an address of
this machine, until it is ended. asgi answers what the page asks.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import pathlib
import socket
import sys
import tempfile
import threading
from typing import Any

import numpy as np
from absl import flags

from mgr_jax import cli, predict
from mgr_jax import config as config_lib
from mgr_jax.audio import SAMPLE_RATE_HZ
from mgr_jax.config import UserError, warn

_NEEDS = "the page needs starlette and uvicorn: pip install starlette uvicorn"
try:
    import uvicorn

    from mgr_jax import asgi
except ModuleNotFoundError:
    if __name__ == "__main__":
        sys.exit(f"error: {_NEEDS}")
    raise ImportError(_NEEDS) from None

# Seconds that answers under way get when the server ends.
_GRACE_S = 3


def _listening(host: str, port: int) -> socket.socket:
    """The socket of the server.

    Raises:
      UserError: the port or the host cannot be used.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise UserError(f"--host={host}: is no address of this machine") from None
        reason = os.strerror(error.errno).lower()
        raise UserError(
            f"--port={port}: cannot be used at {host} ({reason}); name another, or 0 "
            "for any that is free"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _serve(app: asgi.ASGIApp, listener: socket.socket, ending: threading.Event) -> None:
    """Answers requests until Ctrl-C or SIGTERM."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="critical",  # asgi tells the mistakes
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            ws="none",
        )
    )
    leave = server.handle_exit

    def handle_exit(*signal: Any) -> None:
        ending.set()
        leave(*signal)

    server.handle_exit = handle_exit
    # It raises the signal again when it has ended.
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listener])


def serve(run_folder: pathlib.Path, host: str, port: int, limits: asgi.Limits) -> None:
    """Serves a run's page until Ctrl-C or SIGTERM.

    Raises:
      UserError: the folder holds no run, or the host or port cannot be used.
    """
    loopback = asgi.is_loopback(host)
    with _listening(host, port) as listener:
        predictor = predict.load(run_folder)
        # The first prediction compiles.
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, SAMPLE_RATE_HZ)
        predictor(noise.astype(np.float32), SAMPLE_RATE_HZ)
        if not loopback:
            warn(
                f"--host={host}: all who reach this machine can use the page; it has "
                "no password, and what they send is not encrypted"
            )
        ending = threading.Event()
        with (
            tempfile.TemporaryDirectory(prefix="mgr_jax_") as folder,
            concurrent.futures.ThreadPoolExecutor(1, "judge") as worker,
        ):
            places = asyncio.Semaphore(1 + limits.max_waiting)
            service = asgi.Service(
                predictor, limits, pathlib.Path(folder), worker, places, ending
            )
            app = asgi.application(service, loopback=loopback)
            print(f"ready: {_url(listener)} (Ctrl-C ends it)", flush=True)
            _serve(app, listener, ending)
    print("ended", flush=True)


def run() -> None:
    """Serves what the flags say.

    Raises:
      UserError: see `serve`.
    """
    given = flags.FLAGS
    if not given.workdir:
        raise UserError("--workdir is missing: name the folder of a trained run")
    names = [field.name for field in dataclasses.fields(asgi.Limits)]
    limits = asgi.Limits(**{name: given[name].value for name in names})
    serve(config_lib.expanded("workdir", given.workdir), given.host, given.port, limits)


def _define_flags() -> None:
    at_least_1 = functools.partial(flags.DEFINE_integer, lower_bound=1)
    flags.DEFINE_string("workdir", "", "Folder of the run whose model answers.")
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to answer at. The default is reached from this machine alone; with "
        "another, all who reach it can use the page.",
    )
    flags.DEFINE_integer(
        "port",
        8000,
        "Port to answer at; 0 takes one that is free.",
        lower_bound=0,
        upper_bound=65_535,
    )
    limits = asgi.Limits()
    at_least_1("max_mb", limits.max_mb, "Megabytes of the largest file taken.")
    at_least_1("max_minutes", limits.max_minutes, "Minutes of the longest recording.")
    at_least_1("max_waiting", limits.max_waiting, "Recordings that may wait.")
    at_least_1("timeout_s", limits.timeout_s, "Seconds that an answer may take.")


def main() -> None:
    """Defines the flags and runs."""
    _define_flags()
    cli.start(run, goes_on=False)


if __name__ == "__main__":
    main()
