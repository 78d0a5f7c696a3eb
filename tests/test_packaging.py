"""What a wheel holds: every package and data file of the tree is declared in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {"rekd_edge": ROOT / "rekd_edge", "rekd_edge.export": ROOT / "export"}
PAGE = ROOT / "js"
NO_CODE = ("__pycache__", "node_modules", ".DS_Store")


def files_below(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part in NO_CODE for part in path.relative_to(folder).parts)
    ]


def packages_in_the_tree() -> dict[str, Path]:
    """Package names and their folders, by where Python files are."""
    found = {}

    for root, folder in FOLDERS.items():
        for path in files_below(folder):
            if path.suffix == ".py":
                name = ".".join((root, *path.parent.relative_to(folder).parts))
                found[name] = path.parent
    return found


def declared_data() -> set[Path]:
    """Files that the patterns of package data match, from each package's own folder."""
    folders = {**packages_in_the_tree(), "rekd_edge.js": PAGE} | {
        # folders of data alone
        name: ROOT / Path(*name.split("."))
        for name in SETUPTOOLS["packages"]
        if (ROOT / Path(*name.split("."))).is_dir()
    }
    return {
        path
        for name, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in folders[name].glob(pattern)
        if path.is_file()
    }


def test_every_package_is_declared() -> None:
    missing = packages_in_the_tree().keys() - set(SETUPTOOLS["packages"])
    assert not missing


def test_no_declared_package_is_gone() -> None:
    for name in SETUPTOOLS["packages"]:
        folder = SETUPTOOLS["package-dir"].get(name, name.replace(".", "/"))
        assert (ROOT / folder).is_dir(), name


def test_every_data_file_is_declared() -> None:
    data = {path for folder in FOLDERS.values() for path in files_below(folder) if path.suffix not in (".py", ".pyc")}
    assert data
    assert data <= declared_data()


def test_page_and_its_library_are_declared() -> None:
    needed = {*files_below(PAGE / "src"), *files_below(PAGE / "page")}
    assert needed
    assert needed <= declared_data()
