"""RTP's loss terms against a numpy statement of the published code, and what each of them teaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rekd_edge.modeling.rtp import RTPOutput, RTPSelection
from rekd_edge.training.configuration import TrainingConfig
from rekd_edge.training.inference import Predictions
from rekd_edge.training.objectives import Context, Moment, Terms, rtp

Floats = NDArray[np.float64]
Texts = list[tuple[Floats, Floats, int]]
"""Of each text the mask λ and the width σ, [features, classes], and the label."""

shapes = st.tuples(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(2, 6), st.integers(0, 10**6))


def published_regulariser(mask: Floats, sigma: Floats, label: int, smoothness: str = "sum") -> float:
    """`calculate_regularization_loss` of the published code for one text of one label."""
    classes = range(mask.shape[1])
    averages = [np.mean(mask[:, c]) for c in classes]
    loss = 0.2 * averages[label] ** 2
    loss += 0.05 * sum(averages[c] ** 2 for c in classes if c != label)
    loss += 0.001 * averages[label]
    loss += 0.001 * sum(averages[c] for c in classes if c != label)
    loss += 0.02 * sum(np.mean((sigma[:, c] - 3) ** 2) for c in classes)
    squares = (mask[1:] - mask[:-1]) ** 2
    over_the_text = squares.sum(0) if smoothness == "sum" else squares.sum(0) / max(len(squares), 1)
    return loss + 0.05 * over_the_text.mean()


def drawn(lengths: list[int], classes: int, seed: int) -> Texts:
    random = np.random.default_rng(seed)
    return [
        (random.random((n, classes)), np.exp(random.normal(1, 1, (n, classes))), int(random.integers(classes)))
        for n in lengths
    ]


def batched(texts: Texts, seed: int) -> tuple[torch.Tensor, ...]:
    """`scores`, `sigma`, `feature` and `labels` as the model gives them: special tokens around, then padding."""
    width, classes = max(len(mask) for mask, _, _ in texts) + 3, texts[0][0].shape[1]
    random = np.random.default_rng(seed)
    scores, feature = np.zeros((len(texts), width, classes)), np.zeros((len(texts), width), bool)
    sigma = np.exp(random.normal(size=scores.shape))  # the head widens special tokens and padding too
    for row, (mask, widths, _) in enumerate(texts):
        inside = slice(1, 1 + len(mask))
        scores[row, inside], sigma[row, inside], feature[row, inside] = mask, widths, True
    return tuple(torch.from_numpy(each) for each in (scores, sigma, feature, np.array([y for _, _, y in texts])))


@given(shapes, st.sampled_from(["sum", "mean"]))
def test_the_regulariser_is_the_published_one(shape: tuple[list[int], int, int], smoothness: str) -> None:
    texts = drawn(*shape)
    found = rtp.regulariser(*batched(texts, shape[2]), rtp.Settings(smoothness=smoothness))
    assert found.dtype == torch.float64
    expected = np.mean([published_regulariser(*text, smoothness) for text in texts])
    assert float(found) == pytest.approx(expected, rel=0, abs=1e-9)


def test_smoothness_grows_with_the_text_unless_it_is_averaged() -> None:
    def smoothness_of(length: int, reduction: str) -> float:
        scores = (torch.arange(length) % 2)[None, :, None].double().expand(1, length, 2)  # 0, 1, 0, 1 …
        nothing = dict.fromkeys(("lambda_l1", "lambda_label", "lambda_others", "lambda_sigma"), 0.0)
        own = rtp.Settings(**nothing, lambda_smooth=1.0, smoothness=reduction)
        feature = torch.ones(1, length, dtype=torch.bool)
        return float(rtp.regulariser(scores, scores, feature, torch.tensor([0]), own))

    assert [smoothness_of(length, "sum") for length in (128, 512)] == [127, 511]
    assert [smoothness_of(length, "mean") for length in (128, 512)] == [1, 1]


def test_a_text_without_features_adds_nothing() -> None:
    scores, sigma, feature, labels = batched(drawn([5], 3, 0), 0)
    nothing = rtp.regulariser(0 * scores, sigma, torch.zeros_like(feature), labels, rtp.Settings())
    assert float(nothing) == 0


logits_and_labels = st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(0, 10**6))


def drawn_logits(rows: int, classes: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return random.normal(scale=4.0, size=(rows, classes)), random.integers(0, classes, rows)


@given(logits_and_labels)
def test_the_rationale_is_held_to_the_sigmoid_of_its_label(shape: tuple[int, int, int]) -> None:
    logits, labels = drawn_logits(*shape)
    found = rtp.rationale_loss(torch.from_numpy(logits), torch.from_numpy(labels), "log_sigmoid")
    expected = np.mean([-np.log(1 / (1 + np.exp(-row[label]))) for row, label in zip(logits, labels, strict=True)])
    assert float(found) == pytest.approx(expected, rel=0, abs=1e-9)


@given(logits_and_labels)
def test_the_rationale_may_be_held_to_the_softmax_instead(shape: tuple[int, int, int]) -> None:
    logits, labels = drawn_logits(*shape)
    found = rtp.rationale_loss(torch.from_numpy(logits), torch.from_numpy(labels), "cross_entropy")
    softmax = [np.exp(row) / np.exp(row).sum() for row in logits]
    expected = np.mean([-np.log(row[label]) for row, label in zip(softmax, labels, strict=True)])
    assert float(found) == pytest.approx(expected, rel=0, abs=1e-9)


@given(logits_and_labels)
def test_the_complement_may_say_what_chance_says(shape: tuple[int, int, int]) -> None:
    logits, labels = drawn_logits(*shape)
    found = rtp.complement_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    softmax = [np.exp(row) / np.exp(row).sum() for row in logits]
    chance = 1 / logits.shape[1]
    expected = np.mean([max(0.0, row[label] - chance) for row, label in zip(softmax, labels, strict=True)])
    assert float(found) == pytest.approx(expected, rel=0, abs=1e-9)


class Scene:
    """A batch of three texts and what a model says of it, every number a leaf that gradients reach."""

    def __init__(self, **settings: Any) -> None:
        random = torch.Generator().manual_seed(0)
        self.labels = torch.tensor([0, 2, 1])
        feature = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]]).bool()
        self.evidence, self.sigma = (
            torch.randn(3, 6, 3, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2)
        )
        self.logits, self.rationale, self.complement = (
            torch.randn(3, 3, generator=random, dtype=torch.float64).requires_grad_() for _ in range(3)
        )
        selection = RTPSelection(
            feature=feature, class_logits=self.logits, evidence=self.evidence, sigma=self.sigma.exp()
        )
        self.output = RTPOutput(
            self.logits,
            feature,
            torch.zeros(3, 6),
            selection=selection,
            rationale_logits=self.rationale,
            complement_logits=self.complement,
        )
        self.feature, self.settings = feature, settings
        self.noise = torch.rand(3, 6, 2, generator=random)
        self.blended = torch.randn(3, 3, generator=random, dtype=torch.float64).requires_grad_()
        self.taught: dict[str, torch.Tensor] = {}

    def terms(self, progress: float, **changes: Any) -> Terms:
        """Terms of the objective after a share of four epochs, of which two are warm-up."""
        options = rtp.Settings(warmup_epochs=2, **self.settings)
        config = TrainingConfig(method="rtp", epochs=4, options=options, **changes).resolved("text")
        context = Context(config, "text", ("a", "b", "c"))

        def model(**given: Any) -> RTPOutput:
            self.asked = given
            blended = self.blended if "shares" in given else None
            if "explained" not in given:
                plain = RTPOutput(self.logits, self.feature, torch.zeros(3, 6), selection=self.output.selection)
                return replace(plain, blended_logits=blended)
            return replace(self.output, blended_logits=blended)

        batch = {"input_ids": torch.zeros(3, 6), "labels": self.labels, **self.taught}
        moment = Moment(1.7, progress, noise=self.noise)
        return rtp.objective(model, batch, moment, context)  # type: ignore[arg-type]


def test_the_loss_is_the_published_weighted_sum() -> None:
    scene = Scene()
    terms = scene.terms(0.9)
    mask = 1 / (1 + np.exp(-scene.evidence.detach().numpy()))
    sigma, expected = scene.sigma.detach().exp().numpy(), 0.0
    for row, (real, label) in enumerate(zip(scene.feature.numpy(), scene.labels.tolist(), strict=True)):
        whole, rationale, complement = (
            each.detach().numpy()[row] for each in (scene.logits, scene.rationale, scene.complement)
        )
        expected -= np.log(np.exp(whole[label]) / np.exp(whole).sum())
        expected += 2.5 * np.log1p(np.exp(-rationale[label]))
        expected += 2.5 * max(0.0, np.exp(complement[label]) / np.exp(complement).sum() - 1 / 3)
        expected += 1.5 * published_regulariser(mask[row][real], sigma[row][real], label)
    assert terms["loss"].item() == pytest.approx(expected / 3, rel=0, abs=1e-9)
    assert scene.asked["explained"] is scene.labels
    pairs = zip(scene.feature, scene.labels, strict=True)
    own = [mask[row][real][:, label].mean() for row, (real, label) in enumerate(pairs)]
    assert terms["mean_mask"].item() == pytest.approx(np.mean(own), abs=1e-9)


def test_every_term_reaches_what_it_is_about() -> None:
    scene = Scene()
    terms = scene.terms(1.0)
    about = {"task": scene.logits, "rationale": scene.rationale, "complement": scene.complement}
    for name, leaf in about.items():
        (alone,) = torch.autograd.grad(terms[name], leaf, retain_graph=True)
        (whole,) = torch.autograd.grad(terms["loss"], leaf, retain_graph=True)
        assert alone.abs().sum() > 0
        torch.testing.assert_close(whole, alone * {"task": 1.0}.get(name, 2.5))
    for leaf in (scene.evidence, scene.sigma):
        (alone,) = torch.autograd.grad(terms["regulariser"], leaf, retain_graph=True)
        (whole,) = torch.autograd.grad(terms["loss"], leaf, retain_graph=True)
        assert (alone[scene.feature] != 0).all()
        assert (alone[~scene.feature] == 0).all()
        torch.testing.assert_close(whole, 1.5 * alone)


def test_the_first_epochs_classify_alone() -> None:
    scene = Scene()
    for progress in (0.0, 0.25, 0.499):
        terms = scene.terms(progress)
        assert terms.keys() == {"loss", "task"}
        assert terms["loss"] is terms["task"]
        assert scene.asked["fixed_masks"] is True
    for progress in (0.5, 0.1 + 0.2 + 0.2, 1.0):
        assert "rationale" in scene.terms(progress)


@pytest.mark.parametrize("progress", [0.2, 1.0])
def test_a_text_blended_at_random_is_classified_too(progress: float) -> None:
    plain = Scene().terms(progress, target_ratio=0.25)
    assert "blended" not in plain

    scene = Scene(lambda_blended=0.7)
    terms = scene.terms(progress, target_ratio=0.25)
    logits, noise = scene.blended.detach().numpy(), scene.noise.numpy()
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(softmax[range(3), scene.labels]).mean()
    assert terms["blended"].item() == pytest.approx(expected, abs=1e-9)
    assert (terms["loss"] - plain["loss"]).item() == pytest.approx(0.7 * expected, abs=1e-9)

    (gradient,) = torch.autograd.grad(terms["loss"], scene.blended)
    assert (gradient != 0).all()
    for row in range(3):
        chance = 0.25 + 0.75 * noise[row, 0, 1]
        assert scene.asked["shares"][row].tolist() == [float(u < chance) for u in noise[row, :, 0]]


def test_a_teacher_weighs_against_all_terms_of_the_students_own_loss() -> None:
    """Blended texts are part of it: α times task and blend, in the warm-up."""
    scene, random = Scene(lambda_blended=0.7), torch.Generator().manual_seed(1)
    own = scene.terms(0.2)["loss"].item()
    scene.taught = {
        "teacher_selection_logits": torch.randn(3, 6, 1, 2, generator=random),
        "teacher_logits": torch.randn(3, 1, 3, generator=random),
        "teacher_mask": torch.ones(3, 6, 1),
    }
    zero, half = (scene.terms(0.2, alpha=alpha)["loss"].item() for alpha in (0.0, 0.5))
    assert half == pytest.approx(0.5 * own + 0.5 * zero, rel=1e-6)


@pytest.mark.parametrize(
    ("epochs", "teacher", "begun"),
    [(1, None, False), (2, None, False), (2.5, None, True), (3, None, True), (1, "a", True)],
)
def test_an_epoch_of_the_warm_up_is_no_candidate(epochs: float, teacher: str | None, begun: bool) -> None:
    config = TrainingConfig(method="rtp", epochs=4, teacher=teacher, options=rtp.Settings(warmup_epochs=2))
    assert rtp.has_begun(epochs, config) is begun


def test_contiguity_is_that_of_the_labels_mask() -> None:
    scene = Scene()
    without, terms = scene.terms(1.0), scene.terms(1.0, lambda_contiguity=0.3)
    mask = 1 / (1 + np.exp(-scene.evidence.detach().numpy()))
    changes = [
        abs(mask[row, t + 1, label] - mask[row, t, label])
        for row, label in enumerate(scene.labels.tolist())
        for t in range(5)
        if scene.feature[row, t] and scene.feature[row, t + 1]
    ]
    assert terms["contiguity"].item() == pytest.approx(np.mean(changes), abs=1e-9)
    assert (terms["loss"] - without["loss"]).item() == pytest.approx(0.3 * np.mean(changes), abs=1e-9)


@pytest.mark.parametrize("freeze", [True, False])
def test_the_model_is_told_whether_its_copys_class_head_learns(freeze: bool) -> None:
    scene = Scene(freeze_class_head=freeze)
    scene.terms(1.0)
    assert scene.asked["freeze_class_head"] is freeze


@pytest.mark.parametrize("progress", [0.2, 1.0])
def test_a_teacher_is_followed_by_the_mask_of_the_label_from_the_first_epoch(progress: float) -> None:
    scene, random = Scene(), torch.Generator().manual_seed(1)
    own = scene.terms(progress, alpha=0.3, lambda_r=0.5)["loss"].item()
    z, q = torch.randn(3, 6, 1, 2, generator=random), torch.randn(3, 1, 3, generator=random)
    scene.taught = {"teacher_selection_logits": z, "teacher_logits": q, "teacher_mask": torch.ones(3, 6, 1)}
    terms = scene.terms(progress, alpha=0.3, lambda_r=0.5)
    assert scene.asked.get("fixed_masks", False) is False

    mask = 1 / (1 + np.exp(-scene.evidence.detach().numpy()))[np.arange(3), :, scene.labels]
    student, theirs = np.stack([1 - mask, mask], axis=-1), np.exp(z[:, :, 0].double().numpy())
    theirs /= theirs.sum(axis=-1, keepdims=True)
    rationale = ((theirs * np.log(theirs / student)).sum(axis=-1) * scene.feature.numpy()).sum(axis=1).mean()
    labels, ours = (np.exp(each.detach().double().numpy() / 1.7) for each in (q[:, 0], scene.logits))
    labels, ours = labels / labels.sum(axis=1, keepdims=True), ours / ours.sum(axis=1, keepdims=True)
    prediction = (labels * np.log(labels / ours)).sum(axis=1).mean()
    expected = 0.3 * own + 0.7 * (0.5 * rationale + 1.7**2 * prediction)
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_dev_loss_adds_what_the_rationale_alone_is_worth() -> None:
    logits, labels = drawn_logits(4, 3, 0)
    found = Predictions(np.zeros((4, 3)), [], [], labels, rationale_logits=logits)
    softmax = [np.exp(row) / np.exp(row).sum() for row in logits]
    expected = np.mean([-np.log(row[label]) for row, label in zip(softmax, labels, strict=True)])
    config = TrainingConfig(method="rtp", epochs=4).resolved("text")
    terms = rtp.dev_terms(found, Context(config, "text", ("a", "b", "c")))
    assert terms == {"rationale_loss": pytest.approx(expected)}


def test_the_warm_up_and_the_class_head_are_the_papers() -> None:
    assert (rtp.Settings().warmup_epochs, rtp.Settings().freeze_class_head) == (3, True)
