"""`gradient_checkpointing`: the same gradients from layers that are computed twice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.configuration import RationaleConfig
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.plmr import PLMRModel
from rekd_edge.modeling.rtp import RTPModel

DROPOUT = 0.3


def model_of(method: str, backbone: str) -> RationaleModel:
    """A model of two layers a tower (PLMR: two of which one prunes, and one), with dropout everywhere."""
    torch.manual_seed(0)
    text = "vit" not in backbone
    options = {"max_length": 12, "vocabulary": 30} if text else {}
    predictor = encoder_from_backbone(load_backbone(backbone, 2, **options))
    generator = encoder_from_backbone(load_backbone(backbone, 2, **options))
    config = RationaleConfig(
        task="text" if text else "image",
        method=method,
        labels=["a", "b", "c"],
        predictor=predictor.config.to_dict(),
        generator=generator.config.to_dict(),
        head_dropout=DROPOUT,
        target_ratio=0.3,
        share_embeddings=method == "plmr",
        max_length=12 if text else None,
        special_token_ids=[2, 3],
        options={"plmr": {"full_layers": 1, "biases": [], "zero_class_token": False}, "rtp": {"sigma": "sender"}}.get(
            method, {}
        ),
    )
    kind = {"plmr": PLMRModel, "rtp": RTPModel}.get(method, RationaleModel)
    model = kind(config, predictor, generator)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = DROPOUT
    return model.train()


def gradients(model: RationaleModel, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Of a training pass from a fixed seed; and how often each layer ran."""
    runs = []
    for tower in (model.generator, model.predictor):
        for layer in [] if tower is None else tower.encoder.layer_stack():
            runs.append([0])
            layer.register_forward_pre_hook(lambda *_, count=runs[-1]: count.__setitem__(0, count[0] + 1))
    torch.manual_seed(7)
    extra = {"explained": batch["labels"]} if isinstance(model, RTPModel) else {}
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    output = model(**inputs, temperature=1.3, **extra)
    loss = nn.functional.cross_entropy(output.logits, batch["labels"]) + output.mask.float().mean()
    if extra:
        loss = loss + output.rationale_logits.square().mean()
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return found, [count[0] for count in runs]


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        *(("re", name) for name in ("random:bert-nano", "random:vit-nano")),
        *(("re", name) for name in ("bilstm:random:bert-nano", "cnn:random:bert-nano", "resnet:random:vit-nano")),
        ("plmr", "random:bert-nano"),
        ("plmr", "random:vit-nano"),
        ("rtp", "random:bert-nano"),
    ],
)
def test_layers_computed_again_give_the_same_gradients(method: str, backbone: str) -> None:
    plain = model_of(method, backbone)
    again = copy.deepcopy(plain)
    again.gradient_checkpointing_enable()
    random = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 1, 2, 0])
    if plain.config.task == "text":
        ids = torch.randint(4, 30, (4, 12), generator=random)
        attention = (torch.arange(12) < torch.tensor([[12], [9], [5], [3]])).long()
        batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    else:
        batch = {"pixel_values": torch.randn(4, 3, 8, 8, generator=random), "labels": labels}
    expected, once = gradients(plain, batch)
    found, twice = gradients(again, batch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-8, msg=name)
    frozen = 1 if method == "rtp" else 0  # the pass through the frozen copy is kept
    assert once == [1 + frozen] * len(once)
    assert twice == [2 + frozen] * len(twice)


def test_evaluation_computes_nothing_twice() -> None:
    model = model_of("re", "random:vit-nano")
    model.gradient_checkpointing_enable()
    batch = {"pixel_values": torch.randn(2, 3, 8, 8), "labels": torch.tensor([0, 1])}
    _, runs = gradients(model.eval(), batch)
    assert runs == [1, 1, 1, 1]
