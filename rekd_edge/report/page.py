"""The page itself, and its pictures as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rekd_edge.data import DataSettings, load_data
from rekd_edge.data.sampling import stratified_sample
from rekd_edge.errors import InputError
from rekd_edge.files import check_place, write_text
from rekd_edge.progress import steps
from rekd_edge.report.gallery import UNSURE, cards
from rekd_edge.report.gather import Judged, compare, judge
from rekd_edge.report.plots import pictures
from rekd_edge.versions import versions

__all__ = ["write_report"]

TRAINING = 2000
"""Training examples that the audit's outside reader sees, at most."""
LEAST = 50


def write_report(
    paths: Sequence[Path],
    spec: str,
    output: Path,
    settings: DataSettings | None = None,
    split: str = "test",
    limit: int = 500,
    shown: int = 40,
) -> list[Path]:
    """Write one HTML file without any link to elsewhere, and its plots as SVG beside it.

    Args:
        paths: runs and bundles that read the same data.
        spec: the data SPEC.
        output: the HTML file; its plots become `NAME-accuracy-ratio.svg` and the like.
        settings: columns and limits of the data.
        split: what the systems are asked about.
        limit: at most so many examples, a stratified sample; an audit needs 50.
        shown: examples in the gallery of each system.

    Returns:
        The files that were written.

    Raises:
        InputError: neither run nor bundle, data of another kind, two systems of one name, or `output` is no `.html`.
    """
    check_place(output.parent)
    if output.suffix != ".html" or output.is_dir():
        raise InputError(f"{output} is no place for a page; give -o a file that ends in .html.")

    settings = settings or DataSettings()
    data = load_data(spec, replace(settings, train_limit=min(settings.train_limit or TRAINING, TRAINING)))
    examples = data.split(split)
    examples = examples.select(stratified_sample(examples.labels, limit, settings.split_seed))

    systems = []
    for path in paths:
        with steps("report") as step:
            step(0, 3, f"{path.name}: answers")
            systems.append(judge(path, data, examples, len(examples) >= LEAST, step))

    compare(systems, examples)
    drawn = pictures(systems)
    page = _render(
        systems=systems,
        pictures={name: _inline(picture) for name, picture in drawn.items()},
        galleries={each.name: cards(each, examples, data.label_names, shown) for each in systems},
        checks=list(dict.fromkeys(found.check for each in systems for found in each.findings)),
        spec=spec,
        split=split,
        count=len(examples),
        unsure=UNSURE,
        versions=versions("torch", "transformers", "onnxruntime"),
    )

    output.parent.mkdir(parents=True, exist_ok=True)
    written = {output: page} | {output.with_name(f"{output.stem}-{name}.svg"): each for name, each in drawn.items()}
    for file, content in written.items():
        write_text(file, content)

    return list(written)


def _render(systems: list[Judged], **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = [each.name for each in systems]
    if len(set(names)) < len(names):
        raise InputError("Two of the folders have the same name; rename one, so that the report can tell them apart.")

    environment = Environment(
        loader=PackageLoader("rekd_edge.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda value, digits=1: "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"
    }
    return environment.get_template("page.html.jinja").render(systems=systems, **values)


def _inline(picture: str) -> str:
    """An SVG document without the lines that only a file of its own may have."""
    return picture[picture.index("<svg") :]
