"""Coverage-guided fuzzing of the reader of a run's `config.json`; libFuzzer's options apply.

    python tests/fuzz/fuzz_run_config.py -max_total_time=600 [CORPUS]

Any bytes are a configuration that is saved and read back the same, or raise `InputError`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rekd_edge.modeling.configuration", "rekd_edge.settings", "json"]):
    from rekd_edge.errors import InputError
    from rekd_edge.modeling.configuration import RationaleConfig
    from rekd_edge.runtime.image import ImageSettings

from transformers import BertConfig, ViTConfig


def seeds() -> dict[str, RationaleConfig]:
    """A configuration of texts and one of images."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text = BertConfig(**sizes, vocab_size=50).to_dict()
    image = ViTConfig(**sizes, image_size=8, patch_size=4).to_dict()
    pixels = ImageSettings(8, 8, 4, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3).to_dict()
    return {
        "text": RationaleConfig("text", "re", ["a", "b"], text, text, max_length=16, special_token_ids=[2, 3]),
        "image": RationaleConfig("image", "cls", ["a", "b"], image, image=pixels),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run, corpus, dictionary = (Path(folder) / name for name in ("run", "seeds", "words"))
        run.mkdir()
        corpus.mkdir()
        for name, config in seeds().items():
            config.save(corpus / name)
        names = {field.name for field in fields(RationaleConfig)} | seeds()["text"].predictor.keys()
        dictionary.write_text("".join(f'"\\"{name}\\": "\n' for name in sorted(names)))

        def read_one(raw: bytes) -> None:
            (run / "config.json").write_bytes(raw)
            with suppress(InputError):
                config = RationaleConfig.load(run)
                config.save(run / "config.json")
                assert json.dumps(RationaleConfig.load(run).__dict__) == json.dumps(config.__dict__)

        atheris.Setup([*sys.argv, str(corpus), f"-dict={dictionary}"], read_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
