"""A real HTTP server on this machine, with the habits of good and bad ones."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Server:
    """Serves `files` by path, with `headers`.

    `drops`: bytes after which each next answer breaks off. `refusals`: status of each next answer. `requests`: method
    and Range of all that was asked.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


def handler(server: Server) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.command, wanted))
            content = server.files.get(self.path)
            if content is None or server.refusals:
                self.send_response(server.refusals.pop(0) if server.refusals else 404)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            same = self.headers.get("If-Range") in (None, server.headers.get("ETag"))
            if wanted and server.ranges and same:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if body:
                rest = content[start:]
                with suppress(ConnectionError):  # a client that has seen enough hangs up
                    self.wfile.write(rest[: server.drops.pop(0)] if server.drops else rest)

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of one test's files; it is shut down afterwards."""
    state = Server()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def nowhere() -> str:
    """An address where nothing listens."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    address = f"http://127.0.0.1:{listening.server_address[1]}"
    listening.server_close()
    return address
