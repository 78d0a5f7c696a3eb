"""The black boxes to compare with: classifiers of the predictor's geometry with random weights, exported as usual.

- `optimum-classifier`: what `optimum-cli export onnx` and `optimum-cli onnxruntime quantize --avx512_vnni` write.
- `openvino-classifier`: OpenVINO's conversion, and NNCF's post-training int8 calibrated on real inputs, with a latency
  hint. In int8, OpenVINO picks the precision of what is not quantised, which is bfloat16 if the processor has it;
  its fp32 is forced to float32.

Every system is a `System`: a function on ready arrays.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bundles import GEOMETRIES, SEED, Feed, Material
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, ViTImageProcessor
from transformers import PreTrainedTokenizerFast as Tokenizer

from rekd_edge.files import staged_folder
from rekd_edge.modeling.encoders.backbones import backbone_config
from rekd_edge.progress import say
from rekd_edge.runtime.session import open_session

__all__ = ["BlackBox", "System", "onnx_system", "openvino_system"]

MODELS = {"text": AutoModelForSequenceClassification, "image": AutoModelForImageClassification}


@dataclass(frozen=True)
class System:
    """A function on ready arrays; `inputs` names those that it takes."""

    name: str
    precision: str
    inputs: Sequence[str]
    run: Callable[[Feed], Any]

    def feed(self, batch: Mapping[str, np.ndarray]) -> Feed:
        """The arrays that it takes of a batch; token types are zeros."""
        return {name: batch[name] if name in batch else np.zeros_like(batch["input_ids"]) for name in self.inputs}


def onnx_system(name: str, precision: str, graph: Path, threads: int) -> System:
    """A graph in ONNX Runtime."""
    session = open_session(graph, threads)
    return System(name, precision, [value.name for value in session.get_inputs()], lambda feed: session.run(None, feed))


def openvino_system(precision: str, graph: Path, threads: int) -> System:
    """A graph in OpenVINO."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}

    if precision == "fp32":
        options["INFERENCE_PRECISION_HINT"] = "f32"

    compiled = openvino.Core().compile_model(graph, "CPU", options)
    request = compiled.create_infer_request()
    names = [value.any_name for value in compiled.inputs]

    return System(
        "openvino-classifier",
        precision,
        names,
        lambda feed: request.infer(feed, share_inputs=True, share_outputs=True),
    )


class BlackBox:
    """One classifier of a geometry in every form, built into the work folder if it is missing."""

    def __init__(self, geometry: str, material: Material) -> None:
        self.geometry = geometry
        self.task = GEOMETRIES[geometry].task
        self.material = material
        self.root = material.work / f"{geometry}-black-box"

    def torch(self) -> Path:
        """A folder as `save_pretrained` writes it, with tokenizer or image processor."""
        return self._built("torch", self._save_torch)

    def optimum(self, precision: str) -> Path:
        """A folder as Optimum writes it."""
        return self._built(f"optimum-{precision}", self._save_fp32 if precision == "fp32" else self._save_int8)

    def optimum_graph(self, precision: str) -> Path:
        """The graph in that folder."""
        return next(self.optimum(precision).glob("*.onnx"))

    def openvino_graph(self, precision: str) -> Path:
        """OpenVINO's graph."""
        return self._built("openvino", self._save_openvino) / f"{precision}.xml"

    def systems(self, threads: int) -> list[System]:
        """All forms of the classifier, ready to run."""
        both = ("fp32", "int8")
        optimum = [onnx_system("optimum-classifier", p, self.optimum_graph(p), threads) for p in both]
        return optimum + [openvino_system(p, self.openvino_graph(p), threads) for p in both]

    def load(self) -> torch.nn.Module:
        """The classifier in torch."""
        return MODELS[self.task].from_pretrained(self.torch()).eval()

    def _built(self, name: str, build: Callable[[Path], None]) -> Path:
        if not (self.root / name).is_dir():
            say(f"building {self.root.name}/{name}")
            with staged_folder(self.root / name) as staging:
                build(staging)
        return self.root / name

    def _save_torch(self, folder: Path) -> None:
        config = backbone_config(f"random:{self.geometry}")
        config.num_labels = len(self.material.data(self.task).label_names)
        torch.manual_seed(SEED)
        MODELS[self.task].from_config(config).save_pretrained(folder)

        if self.task == "image":
            size = {"height": self.material.image.height, "width": self.material.image.width}
            ViTImageProcessor(size=size).save_pretrained(folder)
            return

        tokenizer = self.material.tokenizer()
        tokenizer.no_truncation()
        named = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
        Tokenizer(tokenizer_object=tokenizer, model_max_length=512, **named).save_pretrained(folder)

    def _save_fp32(self, folder: Path) -> None:
        from optimum.exporters.onnx import main_export

        task = {"text": "text-classification", "image": "image-classification"}[self.task]
        main_export(str(self.torch()), folder, task=task, do_validation=False)

    def _save_int8(self, folder: Path) -> None:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        scheme = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        ORTQuantizer.from_pretrained(self.optimum("fp32")).quantize(scheme, folder)

        for file in self.optimum("fp32").glob("*.json"):
            if not (folder / file.name).exists():
                shutil.copy(file, folder)

    def _save_openvino(self, folder: Path) -> None:
        import nncf
        import openvino

        rows = self.material.calibration(self.task)
        example = {name: torch.from_numpy(array) for name, array in rows[0].items()}

        graph = openvino.convert_model(self.load(), example_input=example)
        for port, name in zip(graph.inputs, example, strict=True):
            port.get_tensor().set_names({name})  # only the first keeps its own

        openvino.save_model(graph, folder / "fp32.xml", compress_to_fp16=False)
        dataset = nncf.Dataset(rows)
        quantized = nncf.quantize(graph, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
        openvino.save_model(quantized, folder / "int8.xml")
