"""PLMR's loss terms against a numpy statement of the published code, and what each of them teaches."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from rekd_edge.modeling import RationaleOutput
from rekd_edge.modeling.plmr import PLMRSelection, cascade, kept_shares
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.objectives import Context, Moment, Terms
from rekd_edge.training.objectives.plmr import Settings, continuity_loss, gap_loss, objective, sparsity_loss

Floats = NDArray[np.float64]
MOMENT = Moment(temperature=2.0, progress=0.5)
MAX_LENGTH = 48

# lengths of the texts in words, pruning steps, target, seed
scenes = st.tuples(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 5),
    st.floats(0.05, 0.5),
    st.integers(0, 10**6),
)


def drawn(lengths: list[int], steps: int, seed: int) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks after each step [batch, steps, positions], features, and tokens attended to: [CLS], words, [SEP], padding.

    Masks are of any size between 0 and 1, which is harder to get right than 0 and 1.
    """
    random = np.random.default_rng(seed)
    width = max(lengths) + 2 + int(random.integers(0, 4))
    place = np.arange(width)
    attended = place < np.array(lengths)[:, None] + 2
    feature = attended & (place > 0) & (place < np.array(lengths)[:, None] + 1)
    kept = np.cumprod(random.random((len(lengths), steps, width)), axis=1) * feature[:, None]
    return kept, feature, attended


def schedule(p: float, steps: int) -> list[float]:
    return [math.log((math.exp(p) * (i + 1) + math.exp(1) * (steps - i - 1)) / steps) for i in range(steps)]


def published_terms(kept: Floats, attended: NDArray[np.bool_], p: float) -> tuple[float, float]:
    """Sparsity and continuity as the published `model.py` sums them over the steps, all texts padded to one length."""
    sparsity = continuity = 0.0
    for step, level in enumerate(schedule(p, kept.shape[1])):
        mask = np.zeros((len(kept), MAX_LENGTH))
        mask[:, : kept.shape[2]] = kept[:, step]
        mask = mask[:, 1:]  # the class token apart
        sparsity += abs(np.sum(mask) / np.sum(attended) - level)
        continuity += np.mean(np.abs(mask[:, 1:] - mask[:, :-1]))
    return sparsity, continuity


def terms_over_features(kept: Floats, feature: NDArray[np.bool_], p: float) -> tuple[float, float]:
    """The same over real tokens alone: shares of the features, and pairs of two of them."""
    sparsity = continuity = 0.0
    for step, level in enumerate(schedule(p, kept.shape[1])):
        rows = [kept[row, step][real] for row, real in enumerate(feature)]
        changes = np.concatenate([np.abs(np.diff(row)) for row in rows])
        sparsity += abs(np.concatenate(rows).mean() - level)
        continuity += changes.sum() / max(len(changes), 1)
    return sparsity, continuity


@given(scenes)
def test_terms_over_positions_are_the_published_ones(scene: tuple[list[int], int, float, int]) -> None:
    lengths, steps, p, seed = scene
    arrays = drawn(lengths, steps, seed)
    kept, feature, attended = (torch.from_numpy(each) for each in arrays)
    sparsity, continuity = published_terms(arrays[0], arrays[2], p)
    assert float(sparsity_loss(kept, attended, p)) == pytest.approx(sparsity, rel=0, abs=1e-9)
    assert float(continuity_loss(kept, feature, None, MAX_LENGTH)) == pytest.approx(continuity, rel=0, abs=1e-9)


@given(scenes)
def test_terms_over_features_leave_padding_and_special_tokens_out(scene: tuple[list[int], int, float, int]) -> None:
    lengths, steps, p, seed = scene
    arrays = drawn(lengths, steps, seed)
    kept, feature, _ = (torch.from_numpy(each) for each in arrays)
    sparsity, continuity = terms_over_features(arrays[0], arrays[1], p)
    assert float(sparsity_loss(kept, feature, p)) == pytest.approx(sparsity, rel=0, abs=1e-9)
    assert float(continuity_loss(kept, feature)) == pytest.approx(continuity, rel=0, abs=1e-9)


def test_continuity_of_patches_looks_right_and_down() -> None:
    kept = torch.tensor([[[1.0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 1]]])  # grids of 2 x 3 after two steps
    feature = torch.ones(1, 6, dtype=torch.bool)
    right, down = 1 + 1, 1 + 2  # changes of both steps over the 4 pairs side by side and the 3 one above the other
    assert float(continuity_loss(kept, feature, (2, 3))) == pytest.approx((right + down) / 7)


def test_sparsity_is_nothing_on_the_schedule_and_pulls_towards_it() -> None:
    feature = torch.ones(1, 1000, dtype=torch.bool)
    shares = kept_shares(0.1, 4)
    on = torch.stack([(torch.arange(1000) < share * 1000).float() for share in shares])[None]
    assert sparsity_loss(on, feature, 0.1).item() < 4e-3
    for share, sign in ((1.0, 1), (0.0, -1)):
        kept = torch.full((1, 4, 1000), share, requires_grad=True)
        sparsity_loss(kept, feature, 0.1).backward()
        assert (kept.grad * sign > 0).all()


def test_the_signed_gap_makes_the_rationale_count_twice_and_the_whole_once() -> None:
    rationale, whole = torch.tensor(0.9, requires_grad=True), torch.tensor(0.4, requires_grad=True)
    (rationale + 2.0 * whole + gap_loss(rationale, whole, "signed")).backward()
    assert (rationale.grad.item(), whole.grad.item()) == (2.0, 1.0)


class Scene:
    """What a model says of two texts of 5 and 4 features after three steps, in numbers that gradients reach."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)

        def leaf(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_()

        feature = torch.tensor([[0, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0, 0]]).bool()
        self.attended = torch.tensor([[1] * 7, [1] * 6 + [0]])
        self.labels = torch.tensor([0, 1])
        self.logits, self.full_logits, self.margins = leaf(2, 2), leaf(2, 2), leaf(2, 3, 7)
        drawn = (torch.rand(2, 3, 7, generator=random) < 0.7) & feature[:, None]
        self.kept = drawn.long().cumprod(dim=1).double().requires_grad_()
        whole, mask = cascade(self.margins), self.kept[:, -1]
        selection = PLMRSelection(
            feature, whole, None, whole, None, mask, self.margins, self.kept[:, :-1].sum(1), self.kept, self.full_logits
        )
        self.output = RationaleOutput(self.logits, mask, self.margins[:, -1], selection)
        self.feature = feature
        self.batch: dict[str, Tensor] = {
            "input_ids": torch.zeros(2, 7),
            "attention_mask": self.attended,
            "labels": self.labels,
        }

    def terms(self, own: dict[str, Any] | None = None, **changes: Any) -> Terms:
        """Terms of the objective; `own` are settings of `plmr`."""
        options = Settings(**(own or {}))
        config = TrainingConfig(method="plmr", target_ratio=0.2, options=options, **changes).resolved("text")

        def model(**asked: Any) -> RationaleOutput:
            self.asked = asked
            return self.output

        return objective(model, self.batch, MOMENT, Context(config, "text", ("neg", "pos"), MAX_LENGTH))  # type: ignore[arg-type]


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    rows = zip(logits.detach().numpy(), labels.tolist(), strict=True)
    return float(np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in rows]))


@pytest.mark.parametrize("denominators", ["features", "positions"])
@pytest.mark.parametrize("gap", ["hinge", "signed", "absolute"])
@pytest.mark.parametrize("labels", [[0, 1], [1, 0]])
def test_the_loss_is_the_published_weighted_sum(gap: str, denominators: str, labels: list[int]) -> None:
    scene = Scene()
    scene.batch["labels"] = scene.labels = torch.tensor(labels)
    terms = scene.terms({"gap": gap, "denominators": denominators, "temperature": 0.7}, class_ratios={"pos": 0.4})
    assert scene.asked["temperature"] == 0.7
    rationale, whole = cross_entropy(scene.logits, scene.labels), cross_entropy(scene.full_logits, scene.labels)
    kept, p = scene.kept.detach().numpy(), 0.3  # the mean of 0.2 and 0.4
    if denominators == "positions":
        sparsity, continuity = published_terms(kept, scene.attended.numpy() == 1, p)
    else:
        sparsity, continuity = terms_over_features(kept, scene.feature.numpy(), p)
    gaps = {
        "signed": rationale - whole,
        "hinge": max(0.0, rationale - whole),
        "absolute": abs(rationale - whole),
    }
    expected = rationale + 5 * sparsity + 10 * continuity + 2 * whole + 1 * gaps[gap]
    # targets of labels are float32
    assert terms["loss"].item() == pytest.approx(expected, rel=0, abs=1e-6)
    assert terms["gap"].item() == pytest.approx(gaps[gap], rel=0, abs=1e-9)
    assert terms["continuity"].item() == pytest.approx(continuity, rel=0, abs=1e-9)


def test_labels_decide_the_sign_of_the_gap() -> None:
    scene = Scene()
    signs = set()
    for labels in ([0, 1], [1, 0]):
        scene.batch["labels"] = torch.tensor(labels)
        signs.add(scene.terms({"gap": "signed"})["gap"].item() > 0)
    assert signs == {True, False}  # so that the three kinds of gap differ above


def test_every_term_reaches_what_it_is_about() -> None:
    scene = Scene()
    weights = {"gap": "signed", "lambda_sparsity": 5.0, "lambda_continuity": 10.0}
    terms = scene.terms(weights)

    def gradient(of: Tensor, to: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(of, to, retain_graph=True)
        return found

    for name, leaf in (("task", scene.logits), ("full_text", scene.full_logits)):
        alone = gradient(terms[name], leaf)
        assert alone.abs().sum() > 0
        torch.testing.assert_close(gradient(terms["loss"], leaf), alone * {"task": 2.0, "full_text": 1.0}[name])
    sparsity, continuity = (gradient(terms[name], scene.kept) for name in ("sparsity", "continuity"))
    for step in range(3):
        assert sparsity[:, step].abs().sum() > 0
        assert continuity[:, step].abs().sum() > 0
    torch.testing.assert_close(gradient(terms["loss"], scene.kept), 5 * sparsity + 10 * continuity)


def test_distillation_adds_the_divergence_of_what_masks_are_drawn_from() -> None:
    scene = Scene()
    settings = {"alpha": 0.3, "lambda_r": 0.5}
    own = scene.terms(**settings)["loss"].item()
    random = torch.Generator().manual_seed(1)
    z, q = torch.randn(2, 7, 1, 2, generator=random), torch.randn(2, 1, 2, generator=random)
    scene.batch |= {"teacher_selection_logits": z, "teacher_logits": q, "teacher_mask": torch.ones(2, 7, 1)}
    terms = scene.terms(**settings)

    teacher = torch.softmax(z[:, :, 0].double(), dim=-1).numpy()
    keep = torch.sigmoid(scene.margins.detach()).prod(dim=1).numpy()
    student = np.stack([1 - keep, keep], axis=-1)
    divergence = (teacher * np.log(teacher / student)).sum(axis=-1) * scene.feature.numpy()
    softened = [torch.softmax(x.detach().double() / 2.0, dim=-1).numpy() for x in (q[:, 0], scene.logits)]
    prediction = (softened[0] * np.log(softened[0] / softened[1])).sum() / 2
    expected = 0.3 * own + 0.7 * (0.5 * divergence.sum() / 2 + 4.0 * prediction)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-6)
    (reached,) = torch.autograd.grad(terms["kd_rationale"], scene.margins)
    assert (reached.abs().sum(dim=1)[scene.feature] > 0).all()


def test_defaults_are_the_papers() -> None:
    assert asdict(Settings()) == {
        "full_layers": None,
        "temperature": 1.0,
        "lambda_sparsity": 5.0,
        "lambda_continuity": 10.0,
        "full_text_weight": 2.0,
        "gap_weight": 1.0,
        "gap": "hinge",
        "denominators": "features",
        "zeroed": "hidden_states",
        "zero_class_token": False,
    }
