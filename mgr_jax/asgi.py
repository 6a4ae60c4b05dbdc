"""The page's addresses: an ASGI application that answers a browser, or a program.

A `Service` enters, a trained run with its limits; an application leaves, whose requests
get the page, or a recording's genres as JSON (`static/openapi.json` describes them). An
upload lies in a temporary file until it is answered. One recording is judged at a time,
in a thread of its own; how many wait, how large and how long they are, and how long an
answer takes is bounded. serve calls it.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import tempfile
import threading
import traceback
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgr_jax import page, workdir
from mgr_jax.audio import SEGMENT_S, AudioError
from mgr_jax.config import shown
from mgr_jax.judge import Stopped, judge
from mgr_jax.predict import Predictor

STATIC = pathlib.Path(__file__).with_name("static")

# Seconds from window to window. Shorter ones would make an hour's answer too large.
HOP_S = (0.5, 60.0)

# Seconds after which one who was turned away may ask again.
_RETRY_AFTER_S = 2

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
      max_mb: megabytes (10^6 bytes) of an upload.
      max_minutes: of a recording.
      max_waiting: recordings that wait while one is judged.
      timeout_s: from the start of an upload to its answer.
    """

    max_mb: int = 200
    max_minutes: int = 60
    max_waiting: int = 8
    timeout_s: int = 300


@dataclasses.dataclass(frozen=True)
class Service:
    """What a request is answered with.

    Attributes:
      predictor: the run.
      limits: see there.
      folder: where uploads lie until they are answered.
      worker: the one thread that judges.
      places: one for each recording that is judged or waits.
      ending: set when the server ends, so that what is under way stops.
    """

    predictor: Predictor
    limits: Limits
    folder: pathlib.Path
    worker: concurrent.futures.Executor
    places: asyncio.Semaphore
    ending: threading.Event


def application(service: Service, *, loopback: bool) -> ASGIApp:
    """The page and its addresses.

    Args:
      service: what requests are answered with.
      loopback: it is meant for this machine alone: requests that name another host are
        refused.
    """
    app = Starlette(
        routes=[
            Route("/", _file("index.html")),
            Route("/api/predict", _predict, methods=["POST"]),
            Route("/api/about", _about),
            Route("/healthz", _healthz),
            Route("/openapi.json", _file("openapi.json")),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={
            HTTPException: _refused,
            ClientDisconnect: _refused,
            Exception: _refused,
        },
    )
    app.state.service = service
    return _guarded(app, loopback)


def _guarded(app: ASGIApp, loopback: bool) -> ASGIApp:
    """Refuses requests that another site makes, and sets the headers of all answers.

    A site whose name suddenly means 127.0.0.1 (DNS rebinding) is told by its Host.
    """

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        refused = None
        if loopback and not is_loopback(_hostname(host)):
            refused = "this server answers at 127.0.0.1 and localhost only"
        elif origin is not None and _site(origin) != host:
            refused = "another site may not use this server; open its own page"
        inner = JSONResponse({"error": refused}, 403) if refused else app
        await inner(scope, receive, with_headers)

    return respond


def _site(origin: str) -> str:
    """The host and port of an Origin header; "" where it is none."""
    try:
        return urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return ""


def _hostname(host: str) -> str:
    """The name or address in a Host header; "" where it is none."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a host name or address is this machine's own, which no other reaches."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# Requests.


async def _predict(request: Request) -> Response:
    """POST /api/predict: a file's bytes to an answer."""
    service: Service = request.app.state.service
    hop_s = _hop_s(request.query_params.get("hop_s", str(SEGMENT_S)))
    _check_body(request, service.limits)
    if service.places.locked():
        raise HTTPException(
            503,
            "too many recordings wait already; try again in some seconds",
            {"Retry-After": str(_RETRY_AFTER_S)},
        )
    async with service.places:
        try:
            async with asyncio.timeout(service.limits.timeout_s):
                with _scratch(service.folder) as path:
                    await _receive(request, path, service.limits)
                    return JSONResponse(await _judged(request, path, hop_s))
        except TimeoutError:
            raise HTTPException(
                504,
                f"took longer than {service.limits.timeout_s} s, the most that this "
                "server gives; send a shorter recording, or start the server with a "
                "larger --timeout_s",
            ) from None
        except OSError as error:
            raise HTTPException(
                507,
                f"the server cannot keep the file ({error.strerror}); make room there",
            ) from None


def _hop_s(text: str) -> float:
    low, high = HOP_S
    with contextlib.suppress(ValueError):
        if low <= float(text) <= high:
            return float(text)
    raise HTTPException(400, f"hop_s={text[:20]}: give seconds from {low} to {high:g}")


def _check_body(request: Request, limits: Limits) -> None:
    """Refuses what need not be read to be refused."""
    headers = request.headers
    form = headers.get("content-type", "").startswith("multipart/")
    if form or headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(
            415, "send the file's bytes as the body, not as a form and not compressed"
        )
    with contextlib.suppress(ValueError):
        _check_size(int(headers.get("content-length", 0)), limits)


def _check_size(size_bytes: int, limits: Limits) -> None:
    if size_bytes > limits.max_mb * 1e6:
        raise HTTPException(
            413,
            f"the file is larger than {limits.max_mb} MB, the most that this server "
            "takes; send a shorter or compressed one, or start the server with a "
            "larger --max_mb",
        )


@contextlib.contextmanager
def _scratch(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path for an upload; nothing is there afterwards."""
    folder.mkdir(mode=0o700, exist_ok=True)  # some systems clean up after ten days
    number, name = tempfile.mkstemp(dir=folder)
    os.close(number)
    path = pathlib.Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, path: pathlib.Path, limits: Limits) -> None:
    """Writes a request's body to a file."""
    size_bytes = 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            _check_size(size_bytes, limits)
            file.write(chunk)
    if not size_bytes:
        raise HTTPException(400, "the file is empty; send its bytes as the body")


async def _judged(request: Request, path: pathlib.Path, hop_s: float) -> dict[str, Any]:
    """The answer, from the worker; it is told to stop where nobody waits for it."""
    service: Service = request.app.state.service
    unwanted = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(
        service.worker,
        judge,
        service.predictor,
        path,
        hop_s,
        service.limits.max_minutes,
        lambda: unwanted.is_set() or service.ending.is_set(),
    )
    # All has been received: the next message is that the other side has gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    except AudioError as error:
        raise HTTPException(422, _said_of(request, path, error)) from None
    except Stopped:
        raise HTTPException(503, "the server is being ended; start it again") from None
    finally:
        unwanted.set()
        gone.cancel()
        work.cancel()


def _said_of(request: Request, path: pathlib.Path, error: AudioError) -> str:
    """An error's text, about the upload and not about where it lies here."""
    reason = str(error).removeprefix(f"{shown(path)}: ")
    name = shown(request.query_params.get("name", "")[:200])
    return f"{name}: {reason}" if name else f"the file {reason}"


async def _healthz(request: Request) -> Response:
    """GET /healthz: that the server is ready, and for what."""
    predictor: Predictor = request.app.state.service.predictor
    name = predictor.config.run_path.name
    return JSONResponse({"ok": True, "model": name, "labels": list(predictor.labels)})


async def _about(request: Request) -> Response:
    """GET /api/about: what the page says of its model, and the server's limits."""
    service: Service = request.app.state.service
    return JSONResponse(
        {
            "model": service.predictor.config.run_path.name,
            "labels": list(service.predictor.labels),
            "facts": facts(service.predictor),
            "limits": dataclasses.asdict(service.limits),
            "hop_s": list(HOP_S),
        }
    )


def facts(predictor: Predictor) -> dict[str, str]:
    """What is known of a run: its make, and how often it was right when tested."""
    config = predictor.config
    about = {
        "run": config.run_path.name,
        "feature": config.feature,
        "network": config.model,
        "data set": config.dataset,
        "split": config.split,
    }
    try:
        results = json.loads((config.run_path / workdir.RESULTS_FILE).read_text())
        if results["protocol_leaks"]:
            about["split"] += f" ({results['protocol_leaks']})"
        for level in ("track", "segment"):
            scores = results[level]
            about[f"right, by {level}"] = (
                f"{page.percent(scores['accuracy'])} of {scores['n']} (95 % interval "
                f"{page.interval(scores['interval_95'])})"
            )
    except (OSError, ValueError, KeyError, TypeError):
        about["right"] = "not known: the run holds no results of a test"
    return about


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        return FileResponse(STATIC / name)

    return respond


async def _refused(request: Request, error: Exception) -> Response:
    """An error as JSON, whatever raised it."""
    if isinstance(error, HTTPException):
        detail = {404: "nothing is at this address; the page is at /"}.get(
            error.status_code, error.detail
        )
        return JSONResponse({"error": detail}, error.status_code, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    traceback.print_exception(error)
    said = "the server made a mistake; its terminal says which"
    return JSONResponse({"error": said}, 500)
