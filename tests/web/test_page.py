"""`rekd-edge web`: the static page holds all it needs, and the server gives it to this machine alone."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rekd_edge.errors import FailureError, InputError
from rekd_edge.web import PageServer, packages, write_page

VECTORS = Path(__file__).parents[1] / "vectors" / "bundles"
MODULES = (
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
    "@huggingface/tokenizers/LICENSE",
)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm would install, as far as names go."""
    folder = tmp_path_factory.mktemp("npm") / "node_modules"
    for name in MODULES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"// {name}\n" * 100)
    return folder


@pytest.fixture(scope="module")
def page(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pages") / "page"
    write_page(VECTORS / "text-int8", output, 'a "quoted" & <b>bold</b> text', modules)
    return output


def test_the_bundle_is_there_byte_for_byte(page: Path) -> None:
    source = VECTORS / "text-int8"
    names = sorted(path.name for path in source.iterdir())
    assert sorted(path.name for path in (page / "bundle").iterdir()) == names
    assert all((page / "bundle" / name).read_bytes() == (source / name).read_bytes() for name in names)


def test_every_import_leads_to_a_file_of_the_page(page: Path) -> None:
    imports = 0
    for path in [page / "page.js", *(page / "rekd-edge").rglob("*.js")]:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        for place in re.findall(r'(?:from|import\(|new URL\()\s*"([^"]+)"', text):
            assert place.startswith("."), f"{path.name} imports {place}"
            assert (path.parent / place).is_file(), f"{path.name} imports {place}"
            imports += 1
    assert imports > 15


def test_nothing_on_the_page_is_elsewhere(page: Path) -> None:
    for path in page.rglob("*"):
        if path.suffix in (".html", ".css", ".js", ".webmanifest") and path.parent.name != "vendor":
            code = re.sub(r"^\s*(//|\*).*$", "", path.read_text(), flags=re.MULTILINE)
            assert "https://" not in code, path.name


def test_the_service_worker_lists_every_file(page: Path) -> None:
    text = (page / "service-worker.js").read_text()
    listed = json.loads(re.search(r"const FILES = (\[.*?\]);", text, re.DOTALL)[1])  # type: ignore[index]
    files = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {"index.html" if name == "./" else name for name in listed} == files - {"service-worker.js"}


def test_another_bundle_is_another_version(page: Path, modules: Path, tmp_path: Path) -> None:
    def version(folder: Path) -> str:
        return re.search(r'const VERSION = "(rekd-edge-\w+)"', (folder / "service-worker.js").read_text())[1]  # type: ignore[index]

    write_page(VECTORS / "text-fp32", tmp_path / "other", 'a "quoted" & <b>bold</b> text', modules)
    write_page(VECTORS / "text-int8", tmp_path / "same", 'a "quoted" & <b>bold</b> text', modules)
    assert version(page) == version(tmp_path / "same") != version(tmp_path / "other")


def test_an_example_cannot_leave_its_attribute(page: Path) -> None:
    first = (page / "index.html").read_text().splitlines()[1]
    assert first == '<html lang="en" data-example="a &quot;quoted&quot; &amp; &lt;b&gt;bold&lt;/b&gt; text">'


def test_refusals(modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="this bundle classifies images; leave it out"):
        write_page(VECTORS / "image-int8", tmp_path / "page", "a text", modules)
    with pytest.raises(InputError, match="holds no onnxruntime-web"):
        write_page(VECTORS / "image-int8", tmp_path / "page", None, tmp_path)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="taken"):
        write_page(VECTORS / "image-int8", tmp_path / "taken", None, modules)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["taken"]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    javascript = tmp_path / "js"
    (javascript / "page").mkdir(parents=True)
    for name in packages.PINNED:
        (javascript / "page" / name).write_text("{}")
    with pytest.raises(InputError, match="npm is not installed; install Node"):
        packages.npm_packages(javascript)


def test_a_failure_of_npm_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENETUNREACH' >&2\nexit 1\n")
    npm.chmod(0o755)
    javascript = tmp_path / "js"
    (javascript / "page").mkdir(parents=True)
    for name in packages.PINNED:
        (javascript / "page" / name).write_text("{}")
    with pytest.raises(FailureError, match="npm error code ENETUNREACH"):
        packages.npm_packages(javascript)


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(page: Path) -> Iterator[Ask]:
    with PageServer(page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            found = response.status, dict(response.getheaders()), response.read()
            connection.close()
            return found

        yield ask
        server.shutdown()


def test_files_are_served_with_their_type(ask: Ask, page: Path) -> None:
    status, headers, body = ask("/")
    assert (status, body) == (200, (page / "index.html").read_bytes())
    assert headers["Content-Type"].startswith("text/html")
    assert ask("/vendor/ort-wasm-simd-threaded.wasm")[1]["Content-Type"] == "application/wasm"
    assert ask("/vendor/ort.wasm.js")[1]["Content-Type"].startswith("text/javascript")

    status, headers, body = ask("/bundle/model.onnx", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == (page / "bundle" / "model.onnx").read_bytes()
    assert ask("/page.js", "HEAD")[2] == b""


def test_what_a_browser_holds_is_not_sent_again(ask: Ask, page: Path) -> None:
    tag = ask("/page.js")[1]["ETag"]
    assert tag.strip('"') == hashlib.sha256((page / "page.js").read_bytes()).hexdigest()[:32]
    assert ask("/page.js", If_None_Match=tag)[::2] == (304, b"")


@pytest.mark.parametrize("path", ["/../page/index.html", "/%2e%2e/secret", "//etc/passwd", "/bundle", "/nothing.js"])
def test_nothing_else_is_served(ask: Ask, path: str) -> None:
    assert ask(path)[0] == 404


def test_other_machines_names_are_refused(ask: Ask) -> None:
    assert ask("/", Host="evil.example")[0] == 403
    assert ask("/", Host="localhost:80")[0] == 200


def test_a_taken_port_is_named(page: Path) -> None:
    with PageServer(page) as server, pytest.raises(FailureError, match=r"cannot be used .* give another --port"):
        PageServer(page, server.server_address[1])


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_ends_quietly(modules: Path, number: int, status: int) -> None:
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from rekd_edge.cli import main; main()"
    arguments = ["web", str(VECTORS / "text-int8"), "--serve", "--json", "--packages", str(modules)]
    server = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    document = "".join(iter(server.stdout.readline, "}\n")) + "}"
    assert json.loads(document)["address"].startswith("http://127.0.0.1:")

    server.send_signal(number)
    _, errors = server.communicate(timeout=60)
    assert (server.returncode, errors) == (status, "")
