"""Every training method by its name: what it is and where its code stands. Imports nothing heavy.

A method is one file in `modeling` (or a model that is there already), one in `training/objectives`, and an entry here;
docs/adding-a-method.md walks through one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from rekd_edge.errors import InputError

__all__ = ["METHODS", "Method", "method_of"]


@dataclass(frozen=True)
class Method:
    """A training method."""

    summary: str
    """One line for the command line."""
    model: str
    """`module:class` of its model, a `RationaleModel`."""
    objective: str
    """Module of its objective, see `rekd_edge.training.objectives`."""
    tasks: tuple[str, ...] = ("text", "image")
    selects: bool = True
    """Whether it learns which features to select."""
    whole_input: bool = False
    """Whether it decides from the whole input, so that its rationale is a score and not all that it saw."""
    teacher: Literal["never", "may", "must"] = "never"
    """Whether it learns from a teacher: a run that selects, of a method that selects itself; else a `cls` run."""
    ignores: frozenset[str] = frozenset()
    """Settings of all methods that have no effect on it."""
    is_control: bool = False
    """Whether it is the control of others, which shows random features."""
    settings: bool = False
    """Whether its objective has `Settings`, a section of a recipe named after the method."""
    epochs: int = 35
    """Where the run does not say."""
    idle_weights: bool = False
    """Whether in some steps weights get no gradient, which processes that train together must know."""
    public: bool = True
    """Offered by `train --method`."""

    @property
    def has_ratio(self) -> bool:
        """Whether it shows a predictor a part of the input, of which `target_ratio` is the size."""
        return self.selects or self.is_control

    @property
    def needs_teacher(self) -> bool:
        """Whether it cannot do without a teacher."""
        return self.teacher == "must"

    def model_class(self) -> Any:
        """The class of its model."""
        module, _, name = self.model.partition(":")
        return getattr(import_module(module), name)

    def training(self) -> ModuleType:
        """The module of its objective."""
        return import_module(self.objective)


_RATIONALE = "rekd_edge.modeling.model:RationaleModel"
_OBJECTIVES = "rekd_edge.training.objectives"
_OF_EQUATION_3 = frozenset(("initial_ratio", "lambda_select", "normalise_selection", "selection_loss"))
"""What settings `re` and `rekd` have for the ratio; the other methods have losses of their own."""

METHODS: dict[str, Method] = {
    "cls": Method(
        "the whole input",
        _RATIONALE,
        f"{_OBJECTIVES}.cls",
        selects=False,
        whole_input=True,
        teacher="may",
        epochs=20,
    ),
    "control": Method(
        "random masks", _RATIONALE, f"{_OBJECTIVES}.control", selects=False, is_control=True, public=False
    ),
    "re": Method("rationale extraction", _RATIONALE, f"{_OBJECTIVES}.re"),
    "rekd": Method("rationale extraction, distilled", _RATIONALE, f"{_OBJECTIVES}.rekd", teacher="must"),
    "plmr": Method(
        "one encoder, split: it prunes layer by layer",
        "rekd_edge.modeling.plmr:PLMRModel",
        f"{_OBJECTIVES}.plmr",
        teacher="may",
        ignores=_OF_EQUATION_3 | {"share_embeddings", "pooling"},
        settings=True,
    ),
    "rtp": Method(
        "one pass that labels a text and scores its tokens for every label",
        "rekd_edge.modeling.rtp:RTPModel",
        f"{_OBJECTIVES}.rtp",
        tasks=("text",),
        whole_input=True,
        teacher="may",
        ignores=_OF_EQUATION_3 | {"share_embeddings", "generator_layers", "dev_masks"},
        settings=True,
        idle_weights=True,
    ),
}


def method_of(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METHODS:
        public = ", ".join(name for name, method in METHODS.items() if method.public)
        raise InputError(f"There is no method {name!r} in this version; choose one of {public}.")
    return METHODS[name]
