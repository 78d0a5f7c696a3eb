"""Export: a finished run to one verified ONNX graph with everything a device needs."""

from rekd_edge.export.bundle import export_bundle

__all__ = ["export_bundle"]
