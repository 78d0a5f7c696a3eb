"""Write the static page of a bundle: every file local, so that nothing leaves it and it works offline."""

from __future__ import annotations

import hashlib
import html
import json
import shutil
from pathlib import Path
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.files import staged_folder
from rekd_edge.models import find_bundle
from rekd_edge.runtime import Rationalizer
from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.web.packages import javascript_folder, npm_packages

__all__ = ["write_page"]

PAGE = ("index.html", "page.js", "style.css", "icon.svg", "manifest.webmanifest", "service-worker.js")
VENDOR = {
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.wasm.js",  # some servers don't know .mjs
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs": "tokenizers.js",
    "@huggingface/tokenizers/LICENSE": "tokenizers.LICENSE",
}
SPECIFIERS = {
    '"#platform"': '"./platform/browser.js"',
    '"onnxruntime-web/wasm"': '"../../vendor/ort.wasm.js"',
    '"@huggingface/tokenizers"': '"../vendor/tokenizers.js"',
}
"""Workers know no import map, so bare names of modules become places."""
NODE_ONLY = ("platform/node.js",)
NOT_CACHED = ("service-worker.js",)


def write_page(bundle: Path, output: Path, example: str | None = None, packages: Path | None = None) -> dict[str, Any]:
    """Write the page of a bundle.

    Args:
        bundle: a folder that `rekd-edge export` wrote; it is copied as it is.
        output: a new folder.
        example: the text that the page begins with.
        packages: a `node_modules` folder, see `npm_packages`.

    Returns:
        `folder`, `files` and `bytes`, and `bundle_bytes` of them.

    Raises:
        InputError: the bundle is no bundle, the output is taken, an example is given for images, or npm is missing.
        FailureError: npm failed.
    """
    bundle = find_bundle(bundle)
    manifest = Rationalizer.load(bundle, threads=1).manifest
    if example is not None and manifest.text is None:
        raise InputError("--example is a text, and this bundle classifies images; leave it out.")

    javascript = javascript_folder()
    modules = npm_packages(javascript, packages)
    names = [*manifest.fields["files"], LAYOUT.manifest, LAYOUT.seal, LAYOUT.signature]

    with staged_folder(output) as staging:
        (staging / "bundle").mkdir()
        for name in names:
            if (bundle / name).is_file():
                shutil.copyfile(bundle / name, staging / "bundle" / name)

        _copy_sources(javascript / "src", staging / "rekd-edge")
        (staging / "vendor").mkdir()
        for source, name in VENDOR.items():
            shutil.copyfile(modules / source, staging / "vendor" / name)

        for name in PAGE:
            shutil.copyfile(javascript / "page" / name, staging / name)
        _set_example(staging / "index.html", example)
        _list_files(staging)

        sizes = {path: path.stat().st_size for path in staging.rglob("*") if path.is_file()}
        return {
            "folder": str(output),
            "files": len(sizes),
            "bytes": sum(sizes.values()),
            "bundle_bytes": sum(size for path, size in sizes.items() if path.parent.name == "bundle"),
        }


def _copy_sources(source: Path, output: Path) -> None:
    """Our modules, with the places of those that they import."""
    for path in sorted(source.rglob("*.js")):
        name = path.relative_to(source).as_posix()
        if name in NODE_ONLY:
            continue

        text = path.read_text(encoding="utf-8")
        for specifier, place in SPECIFIERS.items():
            text = text.replace(f"from {specifier}", f"from {place}")

        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(text, encoding="utf-8")


def _set_example(page: Path, example: str | None) -> None:
    if example is None:
        return

    text = page.read_text(encoding="utf-8")
    attribute = html.escape(example, quote=True)
    page.write_text(text.replace('<html lang="en">', f'<html lang="en" data-example="{attribute}">'), encoding="utf-8")


def _list_files(folder: Path) -> None:
    """Tell the service worker which files there are, and which version of them."""
    digest = hashlib.sha256()
    names = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_CACHED):
        name = path.relative_to(folder).as_posix()
        names.append("./" if name == "index.html" else name)
        digest.update(name.encode() + b"\0" + path.read_bytes())

    worker = folder / "service-worker.js"
    text = worker.read_text(encoding="utf-8")
    for before, after in (
        ('const VERSION = "development";', f'const VERSION = "rekd-edge-{digest.hexdigest()[:16]}";'),
        ("const FILES = [];", f"const FILES = {json.dumps(names, indent=2)};"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    worker.write_text(text, encoding="utf-8")
