"""The pictures of a report, as SVG: inline in the page, and as files for papers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from rekd_edge.errors import InputError
from rekd_edge.report.gather import Judged

__all__ = ["pictures"]

MARKERS = "osD^vPX*"
"""A system keeps its marker and line in every picture, so that colour is not needed to tell them apart."""
LINES = ("-", "--", "-.", ":")


def pictures(systems: Sequence[Judged]) -> dict[str, str]:
    """SVG documents by name: `accuracy-ratio`, `training` and `speed-size`, those of them that have something to show.

    Raises:
        InputError: matplotlib is not installed.
    """
    wanted: dict[str, tuple[bool, Callable[[Any, Sequence[Judged]], None]]] = {
        "accuracy-ratio": (any(each.curve for each in systems), _accuracy_over_ratio),
        "training": (any(each.epochs for each in systems), _training),
        "speed-size": (sum(each.milliseconds is not None for each in systems) > 1, _speed_over_size),
    }
    return {name: _draw(paint, systems) for name, (there, paint) in wanted.items() if there}


def _draw(paint: Callable[[Any, Sequence[Judged]], None], systems: Sequence[Judged]) -> str:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError('Reports need matplotlib; install it with pip install "rekd-edge[sweep]".') from error

    # text stays text, and ids do not change from call to call
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rekd-edge", "font.family": "sans-serif"}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        panel = figure.add_subplot()
        paint(panel, systems)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize="small")

        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None, "Creator": None})

    return picture.getvalue()


def _accuracy_over_ratio(panel: Any, systems: Sequence[Judged]) -> None:
    for number, each in enumerate(systems):
        if each.curve:
            shares, accuracies = zip(*each.curve, strict=True)
            panel.plot([100 * share for share in shares], accuracies, **_style(number, each))
            panel.plot(
                100 * each.ratio, each.accuracy, MARKERS[number % len(MARKERS)], ms=10, mfc="none", c=f"C{number}"
            )

    panel.set_xscale("log")
    panel.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    panel.minorticks_off()
    panel.set_xlabel("features shown to the predictor, % (ring: the rationale itself)")
    panel.set_ylabel("accuracy")


def _training(panel: Any, systems: Sequence[Judged]) -> None:
    for number, each in enumerate(systems):
        if each.epochs:
            epochs = [epoch["epoch"] for epoch in each.epochs]
            panel.plot(epochs, [epoch["eval_accuracy"] for epoch in each.epochs], **_style(number, each))

            if all("temperature" in epoch for epoch in each.epochs):
                panel.plot(
                    epochs,
                    [epoch["temperature"] for epoch in each.epochs],
                    ":",
                    c=f"C{number}",
                    lw=1,
                    label=f"{each.name}: τ",
                )

    panel.set_xlabel("epoch")
    panel.set_ylabel("accuracy on dev")


def _speed_over_size(panel: Any, systems: Sequence[Judged]) -> None:
    for number, each in enumerate(systems):
        if each.milliseconds is not None:
            panel.plot(each.size_bytes / 2**20, each.milliseconds, **_style(number, each) | {"ls": ""})

    panel.set_xlabel("size of the graph, MiB")
    panel.set_ylabel("milliseconds a prediction")
    panel.set_ylim(bottom=0)


def _style(number: int, system: Judged) -> dict[str, Any]:
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "ls": LINES[number % len(LINES)],
        "c": f"C{number}",
        "ms": 5,
        "label": system.name,
    }
