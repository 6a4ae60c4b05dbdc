"""A mirror on this machine that answers as it is told, well or badly, and keeps a list
of what it was asked; and the small archives that it holds.
"""

import contextlib
import dataclasses
import http.server
import io
import re
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterable

import numpy as np
import soundfile


@dataclasses.dataclass
class Answer:
    """How one request is answered; by default as it should be.

    Attributes:
      status: an answer of this status and no body, where it is not 0.
      headers: more headers.
      data: the file, where it is not the mirror's.
      etag: its ETag; none where it is empty.
      ranges: whether a Range is honoured.
      if_range: whether an If-Range is.
      shift: how far from the byte that was asked for a 206 begins.
      cut: bytes after which the connection is closed.
      reset: it is reset instead.
      length: the Content-Length that is claimed: None the true one, 0 none at all.
      chunked: the body is sent in chunks, without a Content-Length.
      most: bytes of the file that one answer to a Range gives, as it says.
      endless: the body is sent again and again.
      hold: sent after `cut` bytes, or before all, once this is set.
    """

    status: int = 0
    headers: dict = dataclasses.field(default_factory=dict)
    data: bytes | None = None
    etag: str = '"one"'
    ranges: bool = True
    if_range: bool = True
    shift: int = 0
    cut: int | None = None
    reset: bool = False
    length: int | None = None
    chunked: bool = False
    most: int | None = None
    endless: bool = False
    hold: threading.Event | None = None


@dataclasses.dataclass
class Request:
    """One request, the bytes of a body sent, and the first of them."""

    path: str
    headers: dict
    start: int = 0
    sent: int = 0


class Mirror:
    """Files by their path, the answers to come, and the requests so far."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.answers: list[Answer] = []
        self.always = Answer()
        self.requests: list[Request] = []
        self.url = ""

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if self.answers else self.always


@contextlib.contextmanager
def serving(files: dict[str, bytes]):
    """A `Mirror` that answers until the block ends."""
    mirror = Mirror(files)

    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def log_message(self, *args):
        pass

    def end_headers(self):
        self.send_header("Connection", "close")
        super().end_headers()

    def do_GET(self):
        answer = self.mirror.next_answer()
        request = Request(self.path, dict(self.headers))
        self.mirror.requests.append(request)
        path = self.path.split("?")[0]
        data = self.mirror.files.get(path) if answer.data is None else answer.data
        if answer.status or data is None:
            self.send_response(answer.status or 404)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with contextlib.suppress(OSError):
            self.send(answer, request, data)

    def send(self, answer: Answer, request: Request, data: bytes):
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        validator = self.headers.get("If-Range")
        same = not answer.if_range or validator in (None, answer.etag)
        if match and answer.ranges and same:
            request.start = int(match[1]) + answer.shift
            if request.start >= len(data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            body = data[request.start :][: answer.most]
            last = request.start + len(body) - 1
            span = f"bytes {request.start}-{last}/{len(data)}"
            self.send_header("Content-Range", span)
        else:
            self.send_response(200)
            body = data
        if answer.etag:
            self.send_header("ETag", answer.etag)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.length != 0 and not answer.endless:
            self.send_header("Content-Length", str(answer.length or len(body)))
        self.end_headers()
        self.send_body(answer, request, body)

    def send_body(self, answer: Answer, request: Request, body: bytes):
        first = body if answer.cut is None else body[: answer.cut]
        if answer.hold and answer.cut is None:
            answer.hold.wait(30)
        self.write(answer, request, first)
        while answer.endless:
            self.write(answer, request, first)
        if answer.cut is not None and answer.hold:
            answer.hold.wait(30)
            self.write(answer, request, body[answer.cut :])
        elif answer.cut is not None:
            self.drop(answer.reset)
            return
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def write(self, answer: Answer, request: Request, data: bytes):
        for start in range(0, len(data), 1 << 14):
            piece = data[start : start + (1 << 14)]
            if answer.chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            else:
                self.wfile.write(piece)
            request.sent += len(piece)

    def drop(self, reset: bool):
        self.wfile.flush()
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


def wav(seed: int, samples: int = 4_000) -> bytes:
    """A short noise, which no archive makes smaller."""
    noise = np.random.default_rng(seed).uniform(-1, 1, samples)
    file = io.BytesIO()
    soundfile.write(file, noise, 22_050, format="WAV")
    return file.getvalue()


def genre_files(tracks: int = 3, seed: int = 0) -> dict[str, bytes]:
    """A small GTZAN of two genres, by path."""
    return {
        f"genres/{genre}/{genre}.{number:05d}.wav": wav(1_000 * seed + 10 * number + k)
        for k, genre in enumerate(("blues", "rock"))
        for number in range(tracks)
    }


def tar_of(
    files: dict[str, bytes],
    mode: str = "w:gz",
    members: Iterable[tarfile.TarInfo] = (),
) -> bytes:
    """A tar of files, and then of members that are of zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
