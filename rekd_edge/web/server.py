"""A web server for one folder, on loopback alone."""

from __future__ import annotations

import gzip
import socket
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from rekd_edge.errors import FailureError
from rekd_edge.files import sha256_of

__all__ = ["PageServer"]

HOST = "127.0.0.1"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
COMPRESSED = (*TYPES, ".onnx")


class PageServer(ThreadingHTTPServer):
    """Serves the files of a folder to this machine's browsers.

    Args:
        folder: its files are taken as they are when they are first asked for.
        port: 0 for a free one.

    Raises:
        FailureError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.files = {f"/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise FailureError(
                f"Port {port} of {HOST} cannot be used ({error.strerror}); give another --port."
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no news."""

    def server_bind(self) -> None:
        """Without asking the system for the machine's name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "This page is served to this machine alone")
            return

        name = unquote(urlsplit(self.path).path)
        path = self.server.files.get("/index.html" if name == "/" else name)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return

        tag = _tag(path)
        if self.headers.get("If-None-Match") == tag:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.send_header("ETag", tag)
            self.end_headers()
            return

        kind = PurePosixPath(path.name).suffix
        compressed = kind in COMPRESSED and "gzip" in self.headers.get("Accept-Encoding", "")
        body = _compressed(path) if compressed else path.read_bytes()

        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(kind, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("ETag", tag)
        self.send_header("X-Content-Type-Options", "nosniff")
        if compressed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""


@cache
def _tag(path: Path) -> str:
    """By which a browser, and the service worker after it, knows that it holds a file."""
    return f'"{sha256_of(path)[:32]}"'


@cache
def _compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)
