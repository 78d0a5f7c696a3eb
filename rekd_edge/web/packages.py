"""The files that a page is made of: ours, and those of two npm packages.

A checkout has `js/` beside the Python package, a wheel inside it. The npm packages are taken from `js/node_modules`
where they are, otherwise npm installs them once, into the user's cache, as `js/page/package-lock.json` pins them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import rekd_edge
from rekd_edge.errors import FailureError, InputError
from rekd_edge.files import locked
from rekd_edge.progress import say

__all__ = ["javascript_folder", "npm_packages"]

PINNED = ("package.json", "package-lock.json", ".npmrc")
MARKER = "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
INSTALL = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
TIMEOUT_S = 600


def javascript_folder() -> Path:
    """`js/`, with the sources and the page.

    Raises:
        FailureError: this installation holds none.
    """
    package = Path(rekd_edge.__file__).parent
    for folder in (package / "js", package.parent / "js"):
        if (folder / "page" / "index.html").is_file():
            return folder

    raise FailureError("This installation of rekd-edge holds no page; install it again with: pip install rekd-edge")


def npm_packages(javascript: Path, given: Path | None = None) -> Path:
    """A `node_modules` folder with onnxruntime-web and @huggingface/tokenizers.

    Args:
        javascript: from `javascript_folder`.
        given: such a folder; by default the checkout's, or one that npm installs into the cache.

    Raises:
        InputError: `given` holds no onnxruntime-web, or npm is not installed.
        FailureError: npm failed.
    """
    if given is not None:
        if not (given / MARKER).is_file():
            raise InputError(f"{given} holds no onnxruntime-web; give a node_modules folder that does.")
        return given

    checkout = javascript / "node_modules"
    if (checkout / MARKER).is_file():
        return checkout

    digest = hashlib.sha256(b"".join((javascript / "page" / name).read_bytes() for name in PINNED)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rekd-edge"
    installed = cache / f"page-{digest[:16]}"
    if not (installed / "done").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with locked(installed, wait=True):
            if not (installed / "done").is_file():
                _install(javascript / "page", installed)

    return installed / "node_modules"


def _install(pinned: Path, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "The page needs onnxruntime-web from npm, and npm is not installed; install Node.js, or give --packages "
            "with a node_modules folder that holds it."
        )

    say("Installing onnxruntime-web and @huggingface/tokenizers with npm, once")
    folder.mkdir(exist_ok=True)
    for name in PINNED:
        shutil.copyfile(pinned / name, folder / name)

    try:
        command = [npm, *INSTALL]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FailureError(f"npm did not end within {TIMEOUT_S} s; check the connection.") from error
    if done.returncode or not (folder / "node_modules" / MARKER).is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise FailureError(f"npm could not install the page's packages ({lines[0]}); see: {folder}")

    (folder / "done").touch()
