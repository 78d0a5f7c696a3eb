"""Hooks of the documentation site: README is its first page, and files that pages link to are part of it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((\.\./[^)#\s]+)\)")
"""A link from a page to a file outside `docs`."""


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside `docs` that a page links to."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            inside = posixpath.normpath(posixpath.join("docs", target))
            if (ROOT / inside).is_file() and files.get_file_from_path(inside) is None:
                files.append(File(inside, str(ROOT), config["site_dir"], use_directory_urls=False))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at where these files lie in the site, and show README as the first page."""
    if page.file.src_uri == "index.md":
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        return re.sub(r"\]\((?:docs/)", "](", text).replace("](CONTRIBUTING.md)", "](contributing.md)")
    return LINK.sub(lambda link: f"]({posixpath.normpath(posixpath.join('docs', link[1]))})", markdown)
