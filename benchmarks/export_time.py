"""What does an export to int8 take? Processor seconds of each stage, for a student of two layers of MiniLM.

    python benchmarks/export_time.py --backbone FOLDER --imdb FOLDER

The student has the backbone's weights, reads 256 tokens, and selects with a local generator (default) or one layer of
the backbone; nothing is trained but the margin's bias. Everything counts from the start of Python on. Writes
`results/export-time.json`, or `export-time-GENERATOR.json` of the other generator.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _bundles import GENERATORS, LOCAL
from _results import write_results

from rekd_edge.data import DataSettings, load_data
from rekd_edge.export import bundle, export_bundle
from rekd_edge.files import write_json
from rekd_edge.modeling import RationaleConfig, RationaleModel
from rekd_edge.modeling.encoders.backbones import backbone_tokenizer, load_backbone
from rekd_edge.modeling.encoders.local import WIDTH, LocalNet
from rekd_edge.modeling.encoders.registry import build_encoder, encoder_from_backbone
from rekd_edge.modeling.rounding import round_embeddings
from rekd_edge.progress import say
from rekd_edge.runs import RunFolder
from rekd_edge.runtime.text import encode_texts, limit_tokenizer, special_token_ids
from rekd_edge.training.inference import predict
from rekd_edge.training.preparation import Preprocessing

LAYERS, TOKENS, CALIBRATED_ON = 2, 256, 24
BAR = 20.0
STAGES = ("prepare", "trace", "verify", "quantise", "verify_shipped", "package")


def main() -> None:
    """Write one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--imdb", default="imdb", metavar="SPEC")
    parser.add_argument("--generator", choices=GENERATORS, default=LOCAL)
    given = parser.parse_args()
    torch.set_num_threads(1)
    imported = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder, "run"), given.backbone, given.imdb, given.generator)
        seconds: dict[str, float] = {}
        for stage in STAGES:
            setattr(bundle, stage, timed(stage, getattr(bundle, stage), seconds))

        start = time.process_time()
        manifest = export_bundle(Path(folder, "run"), Path(folder, "bundle"), "int8")
        total = imported + time.process_time() - start

    row = {"generator": given.generator, "layers": LAYERS, "tokens": TOKENS, "threads": 1}
    row |= {"rows": manifest["parity"]["rows"], "imports": round(imported, 2), **seconds}
    row |= {"processor_s": round(total, 2), "bar": BAR, "passed": total <= BAR}
    say(str(row))
    write_results("export-time" if given.generator == LOCAL else f"export-time-{given.generator}", [row])


def timed(name: str, stage: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    """The stage, which notes its processor seconds."""

    def run(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        result = stage(*arguments, **named)
        seconds[name] = round(time.process_time() - start, 2)
        return result

    return run


def write_run(folder: Path, backbone: str, spec: str, family: str) -> None:
    """A finished run with the backbone's weights, calibrated on a few reviews."""
    tokenizer = backbone_tokenizer(backbone)
    assert tokenizer is not None
    tokenizer = limit_tokenizer(tokenizer, TOKENS)
    data = load_data(spec, DataSettings())
    net = load_backbone(backbone, LAYERS, None, TOKENS)
    local = family == LOCAL
    other: Any = LocalNet.config_for(net.config) if local else load_backbone(backbone, 1, None, TOKENS)

    config = RationaleConfig(
        task="text",
        method="re",
        labels=data.label_names,
        predictor=net.config.to_dict(),
        generator=(other if local else other.config).to_dict(),
        head_hidden=WIDTH if local else 256,
        mask_mode="drop",
        share_embeddings=local,
        target_ratio=0.1,
        max_length=TOKENS,
        special_token_ids=special_token_ids(tokenizer),
    )
    torch.manual_seed(0)
    generator = build_encoder(config.generator or {}) if local else encoder_from_backbone(other)
    model = RationaleModel(config, encoder_from_backbone(net), generator).eval()
    if local:
        round_embeddings(model)

    texts = list(data.split("validation").inputs[:CALIBRATED_ON])
    ids = [torch.tensor([each.ids]) for each in encode_texts(tokenizer, texts)]
    rows = [{"labels": torch.zeros(1), "input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]
    predict(model, rows, calibrate=True)

    folder.mkdir()
    model.save_pretrained(folder)
    Preprocessing(tokenizer, TOKENS).save(folder)
    write_json(RunFolder(folder).record_file, {"recipe": {"data": {"spec": spec}}, "seed": 0})
    write_json(RunFolder(folder).metrics_file, {})


if __name__ == "__main__":
    main()
