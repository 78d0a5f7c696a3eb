"""A cascade as one graph: it says what the run says, in every mode, batch and length, and so does its int8 form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from rekd_edge.export.graph import export_graph
from rekd_edge.export.nodes import name_nodes
from rekd_edge.export.parity import Feed, agreement, graph_answers, invariance, torch_answers
from rekd_edge.export.quantization import quantize
from rekd_edge.modeling import Depth, RationaleConfig
from rekd_edge.modeling.encoders import encoder_from_backbone
from rekd_edge.modeling.encoders.backbones import load_backbone
from rekd_edge.modeling.plmr import SHED, PLMRModel
from rekd_edge.training.objectives.plmr import Settings

Rule = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.bool_]]
LOWEST = np.finfo(np.float32).min
GEOMETRY = {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 128}
IMAGE = {"height": 8, "width": 8, "patch_size": 1, "resample": 3, "rescale_factor": 1 / 255}
OTHERS = [("image", "drop"), ("text", "zero"), ("image", "zero")]
every_variant = pytest.mark.parametrize(
    ("task", "mask_mode"), [("text", "drop"), *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS)]
)


@pytest.fixture(scope="module")
def make_model(
    tmp_path_factory: pytest.TempPathFactory, make_feeds: Callable[[str, int], list[Feed]]
) -> Callable[..., PLMRModel]:
    """A model with random weights in `eval()`: 1 layer of the whole input, 2 that prune, 2 that decide."""

    def make(task: str, mask_mode: str, **fields: Any) -> PLMRModel:
        is_text = task == "text"
        kind = {"model_type": "bert"} if is_text else {"model_type": "vit", "image_size": 8, "patch_size": 1}
        folder = tmp_path_factory.mktemp("plmr")
        (folder / "config.json").write_text(json.dumps({**GEOMETRY, **kind}))
        facts = RationaleConfig(
            task=task,
            method="plmr",
            labels=["a", "b", "c"],
            predictor={},
            mask_mode=mask_mode,
            max_length=32 if is_text else None,
            special_token_ids=[2, 3] if is_text else [],
            image=None if is_text else {**IMAGE, "mean": [0.5] * 3, "std": [0.5] * 3},
            **fields,
        )
        words = {"max_length": 32, "vocabulary": 80} if is_text else {}
        torch.manual_seed(0)

        def encoder(layers: int | None) -> Any:
            return encoder_from_backbone(load_backbone(str(folder), layers, **words))

        model = PLMRModel.build(facts, encoder, Depth(None, 3), Settings()).eval()
        with torch.no_grad():
            for weight in model.parameters():  # far enough from 0 that what a layer sees shows in what it says
                weight.copy_(0.15 * torch.randn(weight.shape) + (weight if weight.dim() == 1 else 0))
            if model.starts_word is not None:
                model.starts_word[:] = torch.arange(80) % 2 == 0
            feeds = [{name: torch.from_numpy(value) for name, value in feed.items()} for feed in make_feeds(task, 12)]
            model.calibrate(
                lambda: [
                    model.select(f.get("input_ids", f.get("pixel_values")), f.get("attention_mask")) for f in feeds
                ],
                half,
            )
        return model

    return make


def half(found: list[Any], *how: Any) -> float:
    return -float(torch.cat([margin[candidate] for margin, _, candidate, _ in found]).quantile(0.5))


@every_variant
def test_graph_answers_as_torch_does(
    task: str,
    mask_mode: str,
    make_model: Callable[..., PLMRModel],
    make_feeds: Callable[[str, int], list[Feed]],
    select_by_rule: Rule,
    tmp_path: Path,
) -> None:
    model, feeds, path = make_model(task, mask_mode), make_feeds(task, 40), tmp_path / "model.onnx"
    export_graph(model, path)
    expected = torch_answers(model, feeds)
    for batch, width in ((1, 0), (7, 0), (7, 32)):
        found = graph_answers(path, feeds, 0, batch=batch, width=width)
        measured = agreement(expected, found)
        assert measured.mask_differences == measured.near_ties == 0
        assert measured.largest_logit_difference <= 1e-4
        for margin, mask in zip(found.margins, found.masks, strict=True):
            feature = margin > LOWEST
            np.testing.assert_array_equal(mask, select_by_rule(margin[None], feature[None])[0])
    assert {float(value) for margin in found.margins for value in margin if LOWEST < value < SHED / 2} == {SHED}
    assert sum(mask.sum() for mask in found.masks) > 2 * len(feeds)
    assert {node.domain for node in onnx.load(path).graph.node} <= {"", "com.microsoft"}


@every_variant
@pytest.mark.parametrize("calibrated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_int8_answers_depend_on_nothing_else(
    task: str,
    mask_mode: str,
    calibrated: bool,
    make_model: Callable[..., PLMRModel],
    make_feeds: Callable[[str, int], list[Feed]],
    tmp_path: Path,
) -> None:
    model, feeds, path = make_model(task, mask_mode), make_feeds(task, 40), tmp_path / "model.onnx"
    export_graph(model, path)
    onnx.save(quantize(onnx.load(path), feeds[:16] if calibrated else []), path)
    found = invariance(path, feeds, 0)
    assert found["mask_differences"] == found["near_ties"] == found["label_differences"] == 0
    assert agreement(torch_answers(model, feeds), graph_answers(path, feeds, 0)).mask_agreement > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("mask_mode", ["drop", "zero"])
def test_words_share_each_decision_in_the_graph(
    mask_mode: str, make_model: Callable[..., PLMRModel], make_feeds: Callable[[str, int], list[Feed]], tmp_path: Path
) -> None:
    model = make_model("text", mask_mode, select_words=True, min_selected=2, max_selected=6)
    feeds, path = make_feeds("text", 30), tmp_path / "model.onnx"
    export_graph(model, path)
    expected = torch_answers(model, feeds)
    for batch in (1, 6):
        found = agreement(expected, graph_answers(path, feeds, 0, batch=batch))
        assert found.mask_differences == found.near_ties == 0
        assert found.largest_logit_difference <= 1e-4


@pytest.mark.slow
def test_the_graph_sheds_tokens_layer_by_layer(
    make_model: Callable[..., PLMRModel], make_feeds: Callable[[str, int], list[Feed]], tmp_path: Path
) -> None:
    model, path = make_model("text", "drop"), tmp_path / "model.onnx"
    export_graph(model, path)
    graph = onnx.load(path)
    name_nodes(graph)
    attended = [node.input[1] for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    stages = [node.name.split("/")[0] for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    assert stages == ["generator"] * 3 + ["predictor"] * 2
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in attended)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = max(make_feeds("text", 12), key=lambda row: row["input_ids"].shape[1])
    lengths = [keys.shape[1] for keys in session.run(attended, feed)]
    margin, mask = session.run(["selection_margin", "rationale_mask"], feed)
    whole, selected = feed["input_ids"].shape[1], int(mask.sum())
    left = int((margin > SHED / 2).sum()) + 2  # and [CLS] and [SEP]
    assert lengths == [whole, whole, left, selected + 2, selected + 2]
    assert whole > left > selected + 2
