"""A ViT predictor whose classifier reads the last hidden states as they are, as in REKD's published code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.plmr import PLMRModel

NORM = "predictor.encoder.backbone.layernorm"


@pytest.mark.parametrize("method", ["re", "cls"])
@torch.no_grad()
def test_the_classifier_reads_the_last_layer_itself(
    method: str, make_model: Callable[..., RationaleModel], make_batch: Callable[..., dict[str, Tensor]]
) -> None:
    model, normed = (make_model("vit", method=method, final_norm=final_norm) for final_norm in (False, True))
    read: list[Tensor] = []
    model.predictor.encoder.layer_stack()[-1].register_forward_hook(
        lambda module, inputs, output: read.append(output[0] if isinstance(output, tuple) else output)
    )
    batch = make_batch("vit")
    output = model(**batch)
    torch.testing.assert_close(output.logits, model.predictor.classifier(read[-1][:, 0]))
    assert (output.logits - normed(**batch).logits).abs().max() > 1e-3
    assert torch.equal(output.margin, normed(**batch).margin)  # the generator keeps its own


def test_a_saved_run_reads_the_same(
    make_model: Callable[..., RationaleModel], make_batch: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    model, batch = make_model("vit", final_norm=False), make_batch("vit")
    model.save_pretrained(tmp_path)
    loaded = RationaleModel.from_pretrained(tmp_path)
    assert not loaded.config.final_norm
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    names = load_file(str(tmp_path / "model.safetensors")).keys()
    assert not any(name.startswith(NORM) for name in names)
    assert any(name.startswith(NORM.replace("predictor", "generator")) for name in names)


def test_encoders_without_a_final_norm_refuse(
    make_model: Callable[..., RationaleModel], make_plmr: Callable[..., PLMRModel]
) -> None:
    for family in ("bert", "roberta", "resnet"):
        with pytest.raises(InputError, match="leave final_norm out"):
            make_model(family, final_norm=False)
    with pytest.raises(InputError, match="leave final_norm out"):
        make_plmr("vit", final_norm=False)
