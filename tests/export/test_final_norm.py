"""The graph of a ViT predictor without its final LayerNorm says what torch says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rekd_edge.export.graph import export_graph
from rekd_edge.export.parity import Feed, agreement, graph_answers, torch_answers
from rekd_edge.modeling import RationaleModel


@pytest.mark.parametrize("mask_mode", ["zero", "drop"])
def test_graph_answers_as_torch_does(
    mask_mode: str, make_run: Callable[..., Path], make_feeds: Callable[[str, int], list[Feed]], tmp_path: Path
) -> None:
    normed = RationaleModel.from_pretrained(make_run("image", mask_mode))
    encoders = normed.predictor.encoder, normed.generator.encoder
    normed.config.final_norm = False
    model = RationaleModel(normed.config, *encoders).eval()
    with torch.no_grad():
        model.load_state_dict(normed.state_dict(), strict=False)
        for weight in model.predictor.classifier.parameters():  # states that are not normalised are larger
            weight.mul_(0.1)

    feeds, path = make_feeds("image", 20), tmp_path / "model.onnx"
    export_graph(model, path)
    expected = torch_answers(model, feeds)
    for batch in (1, 7):
        found = agreement(expected, graph_answers(path, feeds, 0, batch=batch))
        assert found.mask_differences == found.near_ties == 0
        assert found.largest_logit_difference <= 1e-4
