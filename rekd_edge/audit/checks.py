"""The checks of an audit, each a question with its figures, a verdict and a reason.

A generator and a predictor that are trained together can agree on a code: the generator reads the label and signals it
by which, how many or where features are selected, and the predictor decides from the signal and not from what the
rationale says (Jacovi and Goldberg, https://arxiv.org/abs/2006.01067; Yu et al., https://arxiv.org/abs/2110.13880).
Thresholds are constants of this file, fixed before any model was looked at; docs/evaluation.md gives their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rekd_edge.audit.reader import reader_for
from rekd_edge.audit.tokens import occurrences, signals
from rekd_edge.evaluation.intervals import Interval, bootstrap_interval, paired_difference
from rekd_edge.evaluation.masks import Mask
from rekd_edge.systems import Answers, ImageRows, Rows, System, TextRows

__all__ = ["CHECKS", "Finding", "Hearing"]

SLACK = 0.05
"""What may be left over where nothing should be: five points of accuracy, above the noise of some hundred examples."""
HALF = 0.5
"""Share of what the predictor gains over guessing that an outsider must gain too."""
SIGNAL = 0.25
"""How much likelier a label may be where a token is selected than where it is merely there."""
LEAST_SHARE = 0.05
"""Of a label's inputs: what rarer tokens signal cannot be what a model decides by."""
LEVEL = 0.01
"""Of the tests on tokens, divided by how many tokens are tested (Bonferroni)."""
SEEN = 5
"""Inputs of a label that a token is in, at least, to be listed as preferred."""
REPLAY_TOLERANCE = 1e-4
"""Between logits of one graph or model on the same rationale, as in the parity of exports."""

Verdict = Literal["pass", "fail", "note"]


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    question: str
    verdict: Verdict
    """`note` where there is nothing to pass."""
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


class Hearing:
    """A system with the examples that it is asked about.

    Args:
        system: a run, a bundle, or anything else with their interface.
        rows: encoded examples.
        labels: their true label ids int `[n]`.
        outsider: rows and label ids that the independent predictor is trained on; None leaves it out.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        system: System,
        rows: Rows,
        labels: NDArray[np.int64],
        outsider: tuple[Rows, NDArray[np.int64]] | None = None,
        seed: int = 0,
    ) -> None:
        self.system, self.rows, self.labels, self.outsider = system, rows, labels, outsider
        self.rng = np.random.default_rng(seed)

    @cached_property
    def answers(self) -> Answers:
        """What the system says of the examples."""
        return self.system.answer(self.rows)

    @property
    def masks(self) -> list[Mask]:
        """The rationales."""
        return self.answers.masks

    @cached_property
    def decided(self) -> NDArray[np.int64]:
        """The decisions, label ids `[n]`."""
        return self.answers.logits.argmax(axis=1)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Which decisions are right `[n]`."""
        return self.decided == self.labels

    @property
    def guessing(self) -> float:
        """Accuracy of the most frequent label."""
        return float(np.bincount(self.labels).max() / len(self.labels))

    @cached_property
    def random_masks(self) -> list[Mask]:
        """Masks of random features, as many as the rationale has in each example."""
        drawn = []
        for mask in self.masks:
            other = np.zeros_like(mask)
            other[self.rng.permutation(len(mask))[: mask.sum()]] = True
            drawn.append(other)
        return drawn

    def decisions(self, rows: Rows, masks: Sequence[Mask]) -> NDArray[np.int64]:
        """What the predictor decides from a part of some rows, label ids `[n]`."""
        return self.system.classify(rows, masks).argmax(axis=1)


def random_features(hearing: Hearing) -> Finding:
    """(a) Would random features of the same number do?"""
    return _better_than(
        hearing,
        hearing.random_masks,
        check="random",
        question="Does the predictor decide better from the rationale than from as many random features?",
        other="random features",
        doubt="what is selected does not matter, or the data is too small to tell",
    )


def complement(hearing: Hearing) -> Finding:
    """(b) What do the features that were left out say?"""
    return _better_than(
        hearing,
        [~mask for mask in hearing.masks],
        check="complement",
        question="Does the predictor decide better from the rationale than from everything else?",
        other="the rest of the input",
        doubt="the rest says as much to this predictor",
    )


def _better_than(
    hearing: Hearing, masks: Sequence[Mask], *, check: str, question: str, other: str, doubt: str
) -> Finding:
    """Compare decisions from the rationale with those from other features, example by example."""
    right = hearing.decisions(hearing.rows, masks) == hearing.labels
    gain = paired_difference(hearing.right, right)
    better = gain.low > 0

    return Finding(
        check,
        question,
        "pass" if better else "fail",
        f"{_points(gain)} above {other}" + ("" if better else f"; {doubt}"),
        {"rationale": float(hearing.right.mean()), check: float(right.mean()), "p": gain.p},
    )


def outside_reader(hearing: Hearing) -> Finding | None:
    """(c) Can someone who never met the generator read the label from the rationales?"""
    if hearing.outsider is None:
        return None

    rows, labels = hearing.outsider
    named, fit = reader_for(hearing.system)
    reader = fit(rows, hearing.system.answer(rows).masks, labels)
    read = reader(hearing.rows, hearing.masks) == hearing.labels
    own, theirs = float(hearing.right.mean()), float(read.mean())
    least = hearing.guessing + HALF * max(0.0, own - hearing.guessing)
    enough = theirs >= least

    return Finding(
        "outside reader",
        "Does an independent predictor, trained on the frozen rationales alone, read the label from what they say?",
        "pass" if enough else "fail",
        f"{named} is right {theirs:.1%} of the time and its own predictor {own:.1%}; asked for is {least:.1%}"
        + ("" if enough else ", half of what is gained over guessing: the rationales may be a code between the two"),
        {"own": own, "outside_reader": theirs, "guessing": hearing.guessing, "reader": named},
    )


def empty_positions(hearing: Hearing) -> Finding:
    """(d) Do positions without content say anything?"""
    blank = hearing.rows.blanked([np.ones_like(mask) for mask in hearing.masks])
    right = hearing.decisions(blank, hearing.masks) == hearing.labels
    interval = bootstrap_interval(right.astype(float))
    most = hearing.guessing + SLACK
    honest = interval.low <= most

    return Finding(
        "empty positions",
        "Can the predictor tell the label from where the rationale stands, every word or patch being blank?",
        "pass" if honest else "fail",
        f"it is right {interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}] of the time, "
        f"guessing {hearing.guessing:.1%}"
        + ("" if honest else "; place or number of the selected features signals the label"),
        {"accuracy": interval.value, "guessing": hearing.guessing},
    )


def exchanged(hearing: Hearing) -> Finding | None:
    """(e) Does the decision follow another input's mask?"""
    donors = _donors(hearing)
    if donors is None:
        return None

    takers, givers = donors
    rows = _subset(hearing.rows, takers)
    lengths = [len(hearing.masks[i]) for i in takers]
    theirs = [_fitted(hearing.masks[j], length) for j, length in zip(givers, lengths, strict=True)]
    by_chance = [_shuffled(mask, hearing.rng) for mask in theirs]

    followed = hearing.decisions(rows, theirs) == hearing.decided[givers]
    expected = hearing.decisions(rows, by_chance) == hearing.decided[givers]
    excess = paired_difference(followed, expected)
    honest = excess.low <= SLACK

    return Finding(
        "exchanged masks",
        "Does an input get another one's label when it is shown at the features that were selected there?",
        "pass" if honest else "fail",
        f"{followed.mean():.1%} take the other's label, {expected.mean():.1%} at random features of that number"
        + ("" if honest else "; the mask itself carries the label"),
        {"followed": float(followed.mean()), "random": float(expected.mean()), "pairs": len(takers)},
    )


def signalling_tokens(hearing: Hearing) -> Finding | None:
    """(f) Are there tokens whose selection says more of the label than their presence?"""
    if not isinstance(hearing.rows, TextRows):
        return None

    found = signals(occurrences(hearing.rows, hearing.masks), hearing.labels, hearing.system.labels, LEAST_SHARE)
    suspects = sorted(
        (each for each in found if each.excess > SIGNAL and each.p < LEVEL / len(found)),
        key=lambda each: -each.excess,
    )
    named = ", ".join(f"{each.token!r} for {each.label}" for each in suspects[:3])

    return Finding(
        "signalling tokens",
        "Is a word selected for one label and passed over for another, while being as frequent in both?",
        "fail" if suspects else "pass",
        f"{named}: where they are selected, their label is over {SIGNAL:.0%} likelier than where they are there"
        if suspects
        else f"none of {len(found)} frequent pairs of token and label",
        {"tested": len(found), "tokens": [asdict(each) for each in suspects[:10]]},
    )


def over_selected(hearing: Hearing) -> Finding | None:
    """(f) Which tokens does each label's rationale prefer, against their frequency?"""
    if not isinstance(hearing.rows, TextRows):
        return None

    preferred: dict[str, list[str]] = {}
    found = occurrences(hearing.rows, hearing.masks)
    for label, name in enumerate(hearing.system.labels):
        mine = hearing.decided == label
        shares = [
            (float(each.selected[mine].sum() / each.present[mine].sum()), each.token)
            for each in found
            if each.present[mine].sum() >= SEEN
        ]
        preferred[name] = [f"{token} ({share:.0%})" for share, token in sorted(shares, reverse=True)[:5] if share > 0]

    listed = "; ".join(f"{name}: {', '.join(tokens) or 'none'}" for name, tokens in preferred.items())
    return Finding(
        "preferred tokens",
        "Which tokens are selected most often of the texts that hold them?",
        "note",
        f"read them: do they speak for their label? {listed}",
        {"tokens": preferred},
    )


def what_the_generator_knows(hearing: Hearing) -> Finding:
    """(g) Do mask and label stay when everything that was not selected is replaced?"""
    changed = hearing.rows.scrambled([~mask for mask in hearing.masks], hearing.rng)
    answers = hearing.system.answer(changed)
    same_mask = np.array([np.array_equal(one, other) for one, other in zip(hearing.masks, answers.masks, strict=True)])
    same_label = answers.logits.argmax(axis=1) == hearing.decided

    return Finding(
        "the generator",
        "How often do mask and label stay when all unselected features are replaced by others?",
        "note",
        f"the mask in {same_mask.mean():.1%}, the label in {same_label.mean():.1%} of the inputs: the generator reads "
        "the whole input, so that the choice of a word may depend on words that are not shown",
        {"mask": float(same_mask.mean()), "label": float(same_label.mean())},
    )


def replay(hearing: Hearing) -> Finding:
    """(h) Fed the rationale and its positions alone, does the predictor decide the same?"""
    question = (
        "Does the predictor alone, fed the rationale and its positions, give the same logits whatever else was there?"
    )
    if hearing.system.whole_input:
        return Finding(
            "replay", question, "fail", "this method decides from the whole input, its rationale is a by-product"
        )

    rest = [~mask for mask in hearing.masks]
    worst = 0.0
    for rows in (hearing.rows.blanked(rest), hearing.rows.scrambled(rest, hearing.rng)):
        gap = np.abs(hearing.system.classify(rows, hearing.masks) - hearing.answers.logits)
        worst = max(worst, float(gap.max(initial=0.0)))

    same = worst <= REPLAY_TOLERANCE
    return Finding(
        "replay",
        question,
        "pass" if same else "fail",
        f"logits of {len(hearing.rows)} inputs differ by at most {worst:.1g}"
        + ("" if same else "; more than the rationale is read"),
        {"largest_difference": worst, "inputs": len(hearing.rows)},
    )


CHECKS: tuple[Callable[[Hearing], Finding | None], ...] = (
    random_features,
    complement,
    outside_reader,
    empty_positions,
    exchanged,
    signalling_tokens,
    over_selected,
    what_the_generator_knows,
    replay,
)
"""In the order in which they are reported; one that does not apply gives None."""


def _donors(hearing: Hearing) -> tuple[list[int], list[int]] | None:
    """For each input one with another decision and the nearest length; None where all decisions are the same."""
    lengths = np.array([len(mask) for mask in hearing.masks])
    takers, givers = [], []
    for i, decision in enumerate(hearing.decided):
        others = np.flatnonzero((hearing.decided != decision) & (lengths > 0))
        if lengths[i] and others.size:
            takers.append(i)
            givers.append(int(others[np.abs(lengths[others] - lengths[i]).argmin()]))

    return (takers, givers) if takers else None


def _subset(rows: Rows, indices: Sequence[int]) -> Rows:
    if isinstance(rows, ImageRows):
        return replace(rows, pixels=rows.pixels[list(indices)])
    return replace(rows, encoded=[rows.encoded[i] for i in indices])


def _fitted(mask: Mask, length: int) -> Mask:
    """A mask of another length: cut, or with nothing selected at its end."""
    return np.pad(mask[:length], (0, max(0, length - len(mask))))


def _shuffled(mask: Mask, rng: np.random.Generator) -> Mask:
    return mask[rng.permutation(len(mask))]


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
