"""RTP: masks by their equation, blends against an encoder run by hand, and a frozen copy that learns nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.masking import padding_bias
from rekd_edge.modeling.rtp import RTPModel, RTPOutput, class_scores, marc_evidence, of_class, random_shares

PAD, CLS, SEP = {"bert": 0, "roberta": 1}, 2, 3
FAMILIES = pytest.mark.parametrize("family", ["bert", "roberta"])


@pytest.fixture(scope="module")
def make_rtp(config_folder: Callable[[str], Path]) -> Callable[..., RTPModel]:
    """An RTP model in `eval()` with 2 layers and 3 labels, the same weights each time."""

    def make(family: str = "bert", sigma: str = "sender", **fields: Any) -> RTPModel:
        torch.manual_seed(0)
        encoder = encoder_from_backbone(load_backbone(str(config_folder(family))))
        config = RationaleConfig(
            task="text",
            method="rtp",
            labels=["a", "b", "c"],
            predictor=encoder.config.to_dict(),
            head_dropout=0.0,
            target_ratio=0.3,
            max_length=24,
            special_token_ids=[CLS, SEP],
            pad_token_id=PAD[family],
            options={"sigma": sigma},
        )
        for name, value in fields.items():
            setattr(config, name, value)
        model = RTPModel(config, encoder, None)
        with torch.no_grad():
            model.token_head.weight.normal_(std=0.3)
        return model.eval()

    return make


def by_equation(sigma: np.ndarray, weight: np.ndarray, feature: np.ndarray, reading: str) -> np.ndarray:
    evidence = np.zeros(sigma.shape)
    for b, t, c in np.ndindex(*sigma.shape):
        for j in np.flatnonzero(feature[b]):
            width = sigma[b, j, c] if reading == "sender" else sigma[b, t, c]
            evidence[b, t, c] += weight[b, j, c] * np.exp(-((t - j) ** 2) / width)
    return evidence


@given(st.integers(0, 10_000), st.sampled_from(["sender", "receiver"]))
def test_evidence_is_that_of_the_equation(seed: int, reading: str) -> None:
    random = np.random.default_rng(seed)
    shape = random.integers(1, 4), random.integers(1, 9), random.integers(1, 4)
    sigma, weight = np.exp(random.uniform(-4, 6, shape)), random.normal(size=shape)
    feature = random.random(shape[:2]) < 0.7
    given_tensors = [torch.from_numpy(values.astype(np.float32)) for values in (sigma, weight)]
    found = marc_evidence(*given_tensors, torch.from_numpy(feature), reading)
    np.testing.assert_allclose(found, by_equation(sigma, weight, feature, reading), atol=1e-5)


def test_the_readings_differ_where_widths_do() -> None:
    sigma, weight = torch.tensor([[[0.5], [50.0]]]), torch.tensor([[[1.0], [0.0]]])
    feature = torch.ones(1, 2, dtype=torch.bool)
    sender, receiver = (marc_evidence(sigma, weight, feature, each)[0, 1, 0] for each in ("sender", "receiver"))
    assert sender == pytest.approx(np.exp(-1 / 0.5))
    assert receiver == pytest.approx(np.exp(-1 / 50))


def test_extreme_widths_stay_finite(make_rtp: Callable[..., RTPModel], make_batch: Callable) -> None:
    for extreme in (-1e4, 1e4):
        model = make_rtp().train()
        with torch.no_grad():
            model.token_head.bias.fill_(extreme)
        output = model(**make_batch("bert"), explained=torch.tensor([0, 1, 2]))
        assert torch.isfinite(output.selection.evidence).all()
        assert torch.isfinite(output.selection.sigma).all()
        output.rationale_logits.sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_a_fresh_model_spreads_by_about_three(config_folder: Callable[[str], Path], make_batch: Callable) -> None:
    encoder = encoder_from_backbone(load_backbone(str(config_folder("bert"))))
    config = RationaleConfig("text", "rtp", ["a", "b"], {}, special_token_ids=[2, 3], options={"sigma": "sender"})
    sigma = RTPModel(config, encoder, None).eval().select(*make_batch("bert").values()).sigma
    assert 2 < float(sigma.detach().log().mean().exp()) < 4.5


@FAMILIES
def test_labels_are_decided_from_the_whole_text(
    family: str, make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model, batch = make_rtp(family), make_batch(family)
    output = model(**batch)
    selection = output.selection
    torch.testing.assert_close(output.logits, selection.class_logits)
    everything = torch.ones_like(output.mask)
    torch.testing.assert_close(model.rationale_logits(*batch.values(), everything), output.logits)
    for mask in (everything, torch.zeros_like(everything)):
        assert torch.equal(model.classify(*batch.values(), mask, selection), output.logits)


@FAMILIES
def test_what_the_mask_leaves_out_is_padding_to_the_class_head(
    family: str, make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model, batch = make_rtp(family), make_batch(family)
    mask = model(**batch).mask
    _, special = model.feature_positions(*batch.values())
    replaced = batch["input_ids"].masked_fill(~mask & ~special, PAD[family])
    # the same text with padding's own id in place of what was left out, all of it attended to
    expected = model.predictor.read(model.predictor.encoder.embed(replaced), padding_bias(batch["attention_mask"]))[0]
    torch.testing.assert_close(model.rationale_logits(*batch.values(), mask), expected)


def test_rationale_and_complement_are_blends_with_padding(
    make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model, batch = make_rtp("roberta"), make_batch("roberta")
    explained = torch.tensor([2, 0, 1])
    output = model(**batch, explained=explained)
    table = model.predictor.encoder.embedding.weight
    own, padding = table[batch["input_ids"]], table[PAD["roberta"]]
    scores = torch.stack([class_scores(output.selection)[row, :, label] for row, label in enumerate(explained)])
    feature = output.selection.feature
    for logits, share in ((output.rationale_logits, scores), (output.complement_logits, 1 - scores)):
        kept = torch.where(feature, share, 1.0)[..., None]
        blended = kept * own + (1 - kept) * padding
        expected = model.predictor.read(blended, padding_bias(batch["attention_mask"]))[0]
        torch.testing.assert_close(logits, expected)


def learning(model: RTPModel, batch: dict[str, Tensor], part: str, **settings: Any) -> dict[str, float]:
    """The size of each weight's gradient from what the frozen copy says."""
    model.zero_grad()
    output = model(**batch, explained=torch.tensor([0, 1, 2]), **settings)
    getattr(output, part).square().sum().backward()
    return {
        name: 0.0 if weight.grad is None else float(weight.grad.abs().sum())
        for name, weight in model.named_parameters()
    }


@pytest.mark.parametrize("part", ["rationale_logits", "complement_logits"])
def test_the_frozen_copy_teaches_the_mask_alone(
    part: str, make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model, batch = make_rtp().train(), make_batch("bert")
    found = learning(model, batch, part)
    assert found["token_head.weight"] > 0
    assert found["predictor.classifier.1.weight"] == 0.0
    assert any(value > 0 for name, value in found.items() if name.startswith("predictor.encoder"))  # by way of the mask
    model.token_head.weight.data.zero_()  # the mask no longer depends on the encoder, so nothing may reach it
    cut = learning(model, batch, part)
    assert cut["token_head.bias"] > 0
    assert all(value == 0.0 for name, value in cut.items() if name.startswith("predictor."))


def test_the_copys_class_head_may_learn(make_rtp: Callable[..., RTPModel], make_batch: Callable) -> None:
    model = make_rtp().train()
    model.token_head.weight.data.zero_()
    found = learning(model, make_batch("bert"), "rationale_logits", freeze_class_head=False)
    assert found["predictor.classifier.1.weight"] > 0
    assert all(value == 0.0 for name, value in found.items() if name.startswith("predictor.encoder"))
    assert model.predictor.training


def test_the_model_learns_from_the_blends_that_it_is_given(
    make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model, batch = make_rtp().train(), make_batch("bert")
    shares = torch.rand(batch["input_ids"].shape, generator=torch.Generator().manual_seed(0))
    output: RTPOutput = model(**batch, fixed_masks=True, shares=shares)
    feature = output.selection.feature
    special = (batch["input_ids"] == CLS) | (batch["input_ids"] == SEP)
    visible = torch.where(special, 1.0, torch.where(feature, shares, 0.0))
    expected = model.predictor(batch["input_ids"], visible, padding_bias(batch["attention_mask"]))
    torch.testing.assert_close(output.blended_logits, expected)

    assert output.blended_logits is not None
    output.blended_logits.square().sum().backward()
    assert model.predictor.classifier[1].weight.grad.abs().sum() > 0
    assert model.predictor.encoder.embedding.weight.grad.abs().sum() > 0
    assert model.token_head.weight.grad is None
    assert model(**batch).blended_logits is None


def test_shares_at_random_keep_between_the_least_and_all() -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.rand((4000, 50, 2), generator=random)
    kept = random_shares(noise, 0.2).mean(dim=1)  # a chance uniform in [0.2, 1), then 50 draws
    assert set(random_shares(noise, 0.2).unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.6, abs=0.015)
    assert float(kept.var()) == pytest.approx(0.8**2 / 12 + (0.6 * 0.4 - 0.8**2 / 12) / 50, rel=0.06)
    assert random_shares(noise, 1.0).all()


def test_noise_is_uniform(make_rtp: Callable[..., RTPModel]) -> None:
    noise = make_rtp().draw_noise(3, 2000, torch.Generator().manual_seed(0))
    assert noise.shape == (3, 2000, 2)
    assert 0 <= float(noise.min()) < 0.01 < 0.99 < float(noise.max()) < 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.01)


@given(extra=st.integers(0, 10), reading=st.sampled_from(["sender", "receiver"]))
def test_padding_and_company_change_nothing(
    make_rtp: Callable[..., RTPModel], make_batch: Callable, extra: int, reading: str
) -> None:
    model = make_rtp(sigma=reading)
    together = model(**make_batch("bert", width=9 + extra))
    for row, length in enumerate((9, 5, 3)):
        batch = {name: values[row : row + 1, :length] for name, values in make_batch("bert").items()}
        alone = model(**batch)
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=1e-5)
        scores = class_scores(together.selection)[row]
        torch.testing.assert_close(class_scores(alone.selection)[0], scores[:length], atol=1e-5, rtol=1e-5)
        assert not scores[length:].any()
        assert torch.equal(alone.mask[0], together.mask[row, :length])


def test_a_text_without_tokens_has_no_rationale(make_rtp: Callable[..., RTPModel], make_batch: Callable) -> None:
    batch = make_batch("bert", lengths=(9, 2, 0))
    output = make_rtp()(**batch, explained=torch.tensor([0, 1, 2]))
    assert not output.mask[1:].any()
    for logits in (output.logits, output.rationale_logits, output.complement_logits):
        assert torch.isfinite(logits).all()
    assert not class_scores(output.selection)[1:].any()


def test_the_mask_is_that_of_the_predicted_class_by_the_rule(
    make_rtp: Callable[..., RTPModel], make_batch: Callable, select_by_rule: Callable
) -> None:
    model = make_rtp()
    model.config.options["class_biases"] = [0.5, -0.25, -8.0]
    output = model(**make_batch("bert", lengths=(24, 20, 9, 5, 3)))
    predicted = output.logits.argmax(dim=-1)
    feature = output.selection.feature.numpy()
    own = of_class(output.selection.evidence, predicted).detach().numpy()
    margin = own + np.array([0.5, -0.25, -8.0], np.float32)[predicted.numpy()][:, None]
    np.testing.assert_array_equal(output.margin.detach().numpy()[feature], margin[feature])
    np.testing.assert_array_equal(output.mask.numpy(), select_by_rule(output.margin.detach().numpy(), feature))
    torch.testing.assert_close(output.selection.logits[..., 1] - output.selection.logits[..., 0], torch.tensor(own))


def test_a_threshold_on_scores_cuts_where_the_margin_does(
    make_rtp: Callable[..., RTPModel], make_batch: Callable
) -> None:
    model = make_rtp()
    model.config.options["class_biases"] = [0.5, -0.25, -1.0]
    output: RTPOutput = model(**make_batch("bert", lengths=(24, 20, 9)))
    scores = model.extra_outputs(output)["rationale_scores"]
    thresholds = torch.tensor(model.extra_fields()["class_thresholds"])
    predicted = output.logits.argmax(dim=-1)
    above = of_class(scores, predicted) > thresholds[predicted][:, None]
    assert torch.equal(above & output.selection.feature, output.margin > 0)
    assert above.any()


def test_pieces_of_a_word_share_their_score(make_rtp: Callable[..., RTPModel], make_batch: Callable) -> None:
    model, batch = make_rtp(select_words=True), make_batch("bert", lengths=(24,))
    assert model.starts_word is not None
    model.starts_word[torch.arange(0, 50, 2)] = False
    output = model(**batch)
    unit = output.selection.unit[0]
    evidence = output.selection.evidence[0]
    assert len(unit.unique()) < 24
    for first in unit.unique():
        assert (evidence[unit == first] == evidence[unit == first][0]).all()
        assert output.mask[0][unit == first].unique().numel() == 1


def test_a_saved_model_says_the_same(make_rtp: Callable[..., RTPModel], make_batch: Callable, tmp_path: Path) -> None:
    model = make_rtp(sigma="receiver", margin_bias=-0.5)
    model.config.options["class_biases"] = [0.0, -1.0, 1.0]
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert isinstance(loaded, RTPModel)
    ours, theirs = model(**make_batch("bert")), loaded(**make_batch("bert"))
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.margin, theirs.margin)
    assert torch.equal(ours.selection.evidence, theirs.selection.evidence)
