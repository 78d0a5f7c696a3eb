"""Nothing that lies in a backbone, a run or a data set is executed, and nobody is asked whether it may be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rekd_edge.data import load_data
from rekd_edge.data.settings import DataSettings
from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.modeling.encoders.backbones import backbone_config, backbone_tokenizer, load_backbone
from rekd_edge.training.configuration import load_config
from rekd_edge.training.run import train

FOREIGN = "from pathlib import Path\nPath({trace!r}).write_text('executed')\n"
AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", None],
}


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Appears when foreign code runs. Whoever reads standard input fails the test."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    return tmp_path / "executed"


@pytest.fixture
def backbone(tmp_path: Path, trace: Path) -> Path:
    """A small BERT with a module beside it."""
    folder = tmp_path / "backbone"
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "evil.py").write_text(FOREIGN.format(trace=str(trace)))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmno"]))
    return folder


def edit(file: Path, **fields: Any) -> None:
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**found, **fields}))


@pytest.mark.parametrize("family", ["bert", "evil"])
def test_a_backbone_with_code_of_its_own_is_refused(
    family: str, backbone: Path, trace: Path, settings: Callable, tmp_path: Path
) -> None:
    edit(backbone / "config.json", auto_map=AUTO_MAP, model_type=family)
    for name in (str(backbone), f"bilstm:{backbone}"):
        with pytest.raises(InputError, match=r"names Python code of its own \(auto_map\), which rekd-edge never runs"):
            train(settings("text", "cls", backbone=name), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not trace.exists()


def test_a_tokenizer_with_code_of_its_own_is_not_run(backbone: Path, trace: Path) -> None:
    edit(backbone / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="EvilTokenizer")
    with suppress(InputError):  # its vocabulary may be read all the same
        backbone_tokenizer(str(backbone))
    assert not trace.exists()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_weights_that_are_a_pickle_are_loaded_only_as_tensors(backbone: Path, trace: Path) -> None:
    weights = load_backbone(str(backbone)).state_dict()
    (backbone / "model.safetensors").unlink()
    torch.save(weights, backbone / "pytorch_model.bin")
    for name, weight in load_backbone(str(backbone)).state_dict().items():
        assert torch.equal(weight, weights[name])
    for write in (lambda evil, file: file.write_bytes(pickle.dumps(evil)), torch.save):
        write(Evil(trace), backbone / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"pickle with more than tensors in it|cannot be loaded") as caught:
            load_backbone(str(backbone))
        assert "weights_only=False" not in str(caught.value)
        assert not trace.exists()


def test_a_run_whose_encoder_has_code_of_its_own_is_refused(
    make_run: Callable[..., Path], tmp_path: Path, trace: Path
) -> None:
    run = Path(shutil.copytree(make_run("text"), tmp_path / "run"))
    (run / "evil.py").write_text(FOREIGN.format(trace=str(trace)))
    saved = json.loads((run / "config.json").read_text())
    edit(run / "config.json", predictor={**saved["predictor"], "auto_map": AUTO_MAP})
    with pytest.raises(InputError, match="auto_map"):
        RationaleModel.from_pretrained(run)
    assert not trace.exists()


def test_data_and_recipes_run_nothing(tmp_path: Path, trace: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "data.py").write_text(FOREIGN.format(trace=str(trace)))
    with pytest.raises(InputError, match="holds no data"):
        load_data(str(data), DataSettings())
    np.save(data / "train.npy", np.array([Evil(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds no data"):
        load_data(str(data), DataSettings())
    (tmp_path / "recipe.yaml").write_text(f"method: !!python/object/apply:os.mkdir [{str(trace)!r}]\n")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_config(tmp_path / "recipe.yaml", {})
    assert not trace.exists()


def test_an_encoder_that_transformers_has_needs_no_code(backbone: Path, trace: Path) -> None:
    assert backbone_config(str(backbone)).model_type == "bert"
    assert backbone_tokenizer(str(backbone)) is not None
    assert not trace.exists()
