"""Whether a run has learnt anything, in a sentence that says what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rekd_edge.evaluation.intervals import wilson_interval
from rekd_edge.methods import method_of

__all__ = ["Verdict", "verdict"]

CHANGE = "Give it more rows, more epochs or a higher learning_rate, or check that the labels follow from the inputs."


@dataclass(frozen=True)
class Verdict:
    """Whether a run has learnt, and a sentence."""

    learnt: bool
    sentence: str


def verdict(metrics: dict[str, Any], method: str) -> Verdict:
    """Compare a run with what needs no learning, or no selecting.

    Args:
        metrics: of `metrics.json`: `accuracy`, `n`, and where they are known `majority_accuracy` (the most frequent
            label's) and `random_mask_accuracy` (its control's).
        method: of the run.

    Returns:
        Not learnt where dev accuracy is no higher than one of these; nor where the 95 % Wilson interval of so many
        rows still holds the more accurate of them.
    """
    names = {
        "majority_accuracy": "the most frequent label",
        "random_mask_accuracy": "its control, on random masks",
    }
    if not method_of(method).selects:
        del names["random_mask_accuracy"]

    rivals = {name: metrics[name] for name in names if isinstance(metrics.get(name), float)}
    accuracy, count = metrics["accuracy"], metrics.get("n", 0)
    if not rivals or not count:
        return Verdict(True, f"Dev accuracy is {accuracy:.3f}; there is nothing to compare it with.")

    best = max(rivals, key=lambda name: rivals[name])
    if accuracy <= rivals[best]:
        return Verdict(
            False,
            f"This run has learnt nothing: its dev accuracy of {accuracy:.3f} is no better than {rivals[best]:.3f}, "
            f"that of {names[best]}. {CHANGE}",
        )

    interval = wilson_interval(round(accuracy * count), count)
    if interval.low <= rivals[best]:
        return Verdict(
            False,
            f"On {count:,} dev rows it is not shown that this run has learnt: its accuracy of {accuracy:.3f} may be "
            f"anything from {interval.low:.3f} to {interval.high:.3f}, and {names[best]} has {rivals[best]:.3f}. "
            "Measure on more rows, or give it more to learn from.",
        )

    return Verdict(True, f"Dev accuracy is {accuracy:.3f}, above {rivals[best]:.3f}, that of {names[best]}.")
