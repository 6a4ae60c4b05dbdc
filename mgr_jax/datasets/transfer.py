"""Brings one file over HTTP, and goes on where a transfer broke, in this process or in
one that was killed.

An address and a path enter; the whole file lies at that path when `transfer` returns.
Until then it is PATH.part, and PATH.json beside it says which file of which server it
is a part of. fetch calls it, for one mirror after another.
"""

import contextlib
import dataclasses
import datetime
import email.utils
import json
import pathlib
import re
import shutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from mgr_jax import config as config_lib
from mgr_jax.datasets import archives
from mgr_jax.datasets.archives import Source

if TYPE_CHECKING:
    import requests

# To connect, and between two pieces of the answer.
TIMEOUTS_S = (10.0, 60.0)
TRIES = 5
LONGEST_WAIT_S = 60.0

_CHUNK_BYTES = 1 << 17
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class MirrorError(Exception):
    """An address does not give the file; the text says what it did instead."""


class _BrokenError(Exception):
    """One try failed, and another may not; `wait_s` is what the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s


@dataclasses.dataclass(frozen=True)
class _State:
    """Which file a part is of: what PATH.json holds.

    Attributes:
      url: where it is from.
      checksum: what the whole file was to have; "" where none was known.
      etag: the server's, or "".
      last_modified: the server's, or "".
      num_bytes: the whole file's size as the server says; 0 where it does not.
    """

    url: str
    checksum: str
    etag: str = ""
    last_modified: str = ""
    num_bytes: int = 0


def part_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file lies until it is whole."""
    return path.with_name(f"{path.name}.part")


def state_of(path: pathlib.Path) -> pathlib.Path:
    """Where it is noted which file of which server that is."""
    return path.with_name(f"{path.name}.json")


def origin(path: pathlib.Path) -> str:
    """The address that a file or its part is from; "" where that is not known."""
    state = _read_state(path)
    return state.url if state else ""


def transfer(
    source: Source,
    checksum: str,
    path: pathlib.Path,
    *,
    reserve_bytes: int,
    wait: Callable[[float], None],
    timeouts_s: tuple[float, float] = TIMEOUTS_S,
) -> None:
    """Brings a file, in as many tries as that takes while each brings something.

    A part that another address left is gone on with where both are to have the same
    checksum; else it is thrown away as soon as this address gives something.

    Args:
      source: the address.
      checksum: what the file is to have. It is not looked at here; "" where it is not
        known, or any will do.
      path: where the file goes; the folder must exist.
      reserve_bytes: room that is left on the disk where a server does not say how much
        it will send.
      wait: called with the seconds between two tries.
      timeouts_s: to connect, and between two pieces of the answer.

    Raises:
      MirrorError: this address does not give it. What it gave is kept as a part.
      OSError: the disk is full, or cannot be written.
    """
    import requests

    failures = 0
    farthest = _size(part_of(path))
    with requests.Session() as session:
        while True:
            try:
                _try(session, source, checksum, path, reserve_bytes, timeouts_s)
                break
            except _BrokenError as broken:
                have = _size(part_of(path))
                failures = 0 if have > farthest else failures + 1
                farthest = max(have, farthest)
                if failures == TRIES:
                    raise MirrorError(f"{broken} ({TRIES} tries)") from None
                seconds = min(broken.wait_s or 2.0**failures, LONGEST_WAIT_S)
                print(f"{path.name}: {broken}; again in {seconds:.0f} s", flush=True)
                wait(seconds)
    part_of(path).replace(path)


def _try(
    session: "requests.Session",
    source: Source,
    checksum: str,
    path: pathlib.Path,
    reserve_bytes: int,
    timeouts_s: tuple[float, float],
) -> None:
    """One request; returns when the part is the whole file."""
    import requests
    import urllib3

    part = part_of(path)
    state = _state_to_go_on(source, checksum, path)
    have = _size(part) if state else 0
    if state and have and have == state.num_bytes:
        return
    try:
        with session.get(
            source.url, headers=_headers(have, state), stream=True, timeout=timeouts_s
        ) as response:
            found = _judged(response, source, checksum, part, have, state)
            start = have if response.status_code == 206 else 0
            _receive(response, found, path, start, reserve_bytes)
    except (requests.exceptions.SSLError, requests.exceptions.InvalidSchema) as error:
        raise MirrorError(_reason(error)) from None
    except requests.exceptions.TooManyRedirects:
        raise MirrorError("leads round in circles") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _BrokenError(_reason(error)) from None


def _state_to_go_on(source: Source, checksum: str, path: pathlib.Path) -> _State | None:
    """What the part beside a path may be gone on with; None where it may not.

    A part of another address is of the same file where one checksum judges both, but
    the server that it is from is another.
    """
    state = _read_state(path)
    url = archives.public(source.url)
    if state is None or state.url == url:
        return state
    if checksum and state.checksum == checksum:
        return dataclasses.replace(state, url=url, etag="", last_modified="")
    return None


def _headers(have: int, state: _State | None) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "mgr_jax"}
    if have:
        headers["Range"] = f"bytes={have}-"
        strong = "" if state.etag.startswith("W/") else state.etag
        if strong or state.last_modified:
            headers["If-Range"] = strong or state.last_modified
    return headers


def _judged(
    response: "requests.Response",
    source: Source,
    checksum: str,
    part: pathlib.Path,
    have: int,
    state: _State | None,
) -> _State:
    """The file that an answer says it is of, when it is what was asked for.

    Raises:
      MirrorError: this address does not have the file.
      _BrokenError: it may yet give it.
    """
    status = response.status_code
    if status == 416:
        _start_over(part, "has not as much as was fetched before")
    if status == 429 or status == 408 or status >= 500:
        raise _BrokenError(_answer(response), _retry_after_s(response))
    if status not in (200, 206):
        raise MirrorError(_answer(response))
    start, num_bytes = 0, _content_length(response)
    if status == 206:
        start, num_bytes = _content_range(response)
    found = _State(
        url=archives.public(source.url),
        checksum=checksum,
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        num_bytes=num_bytes or source.num_bytes,
    )
    if source.num_bytes and found.num_bytes != source.num_bytes:
        raise MirrorError(
            f"holds another file: {found.num_bytes:,} bytes, not {source.num_bytes:,}"
        )
    if status == 206 and start != have:
        _start_over(part, f"sent what begins at byte {start:,}, not at {have:,}")
    if status == 206 and state and _differs(found, state):
        _start_over(part, "has another file than before")
    return found


def _start_over(part: pathlib.Path, reason: str) -> None:
    part.unlink(missing_ok=True)
    raise _BrokenError(f"the server {reason}, so it starts over")


def _differs(found: _State, state: _State) -> bool:
    """Whether a server has put another file where a part's was."""
    return any(
        before and now and before != now
        for before, now in (
            (state.etag, found.etag),
            (state.last_modified, found.last_modified),
            (state.num_bytes, found.num_bytes),
        )
    )


def _receive(
    response: "requests.Response",
    found: _State,
    path: pathlib.Path,
    start: int,
    reserve_bytes: int,
) -> None:
    """Appends an answer's body to the part, or begins the part with it.

    The body is taken as it comes in, and as it is sent, so that nothing of it is lost.
    """
    import tqdm
    import urllib3

    part = part_of(path)
    room = start + shutil.disk_usage(path.parent).free
    if found.num_bytes > room:
        raise MirrorError(f"offers {found.num_bytes:,} bytes: more than the disk holds")
    most = found.num_bytes or room - reserve_bytes
    bar = tqdm.tqdm(
        desc=path.name,
        initial=start,
        total=found.num_bytes or None,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    whole = False
    with part.open("ab" if start else "wb") as file, bar:
        have = start
        # A part that is begun anew is empty by now, so it is of no other file.
        config_lib.replace_text(state_of(path), json.dumps(dataclasses.asdict(found)))
        with contextlib.suppress(urllib3.exceptions.ProtocolError):
            while data := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                have += len(data)
                if have > most:
                    break
                file.write(data)
                bar.update(len(data))
            whole = have >= found.num_bytes
    if have > most:
        part.unlink()
        if not found.num_bytes:
            raise MirrorError("sends without end: more than the disk has room for")
        raise _BrokenError(f"the server sent more than its {most:,} bytes")
    if not whole:
        of = f" of {found.num_bytes:,}" if found.num_bytes else ""
        raise _BrokenError(f"broke off at {have:,}{of} bytes")


def _content_length(response: "requests.Response") -> int:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else 0


def _content_range(response: "requests.Response") -> tuple[int, int]:
    """First byte and whole size that a 206 names; -1 and 0 where it does not."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        return -1, 0
    return int(match[1]), 0 if match[2] == "*" else int(match[2])


def _retry_after_s(response: "requests.Response") -> float:
    """Seconds that a server asks to be left alone for; 0 where it does not."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
        now = datetime.datetime.now(then.tzinfo)
    except ValueError:
        return 0.0
    return max(0.0, (then - now).total_seconds())


def _answer(response: "requests.Response") -> str:
    return f"answered {response.status_code} {response.reason or ''}".rstrip()


def _reason(error: BaseException) -> str:
    """What went wrong below an error of requests or urllib3, in a few words."""
    import requests
    import urllib3

    chain = [error]
    while inner := _inner(chain[-1]):
        chain.append(inner)
    for found in reversed(chain):
        if isinstance(found, socket.gaierror):
            return "its name is not found (is this machine offline?)"
        if isinstance(
            found,
            TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError,
        ):
            return "did not answer in time"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
    return " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__


def _inner(error: BaseException) -> BaseException | None:
    """The error that an error is about: its reason, an argument, or its cause."""
    about = (getattr(error, "reason", None), *reversed(error.args), error.__cause__)
    return next((e for e in about if isinstance(e, BaseException)), None)


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _read_state(path: pathlib.Path) -> _State | None:
    """What PATH.json says; None where there is none, or none that can be used."""
    try:
        state = _State(**json.loads(state_of(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    kinds = {field.name: field.type for field in dataclasses.fields(_State)}
    good = all(isinstance(getattr(state, name), kind) for name, kind in kinds.items())
    return state if good else None
