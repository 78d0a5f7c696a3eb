"""Which part of the pipeline every node of a graph belongs to, written into its name so that a profile can tell."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto

from rekd_edge.runtime.profiling import GATHER, GENERATOR, PREDICTOR

__all__ = ["name_nodes", "needed_for"]


def name_nodes(model: ModelProto, selects: bool = True) -> None:
    """Rename every node, in place, to `generator/…`, `gather/…` or `predictor/…`, by what needs its output.

    - generator: all that `selection_margin` needs, also what the predictor reads as well (a shared table's lookup).
    - gather: the gathering of the kept features, and what computes its indices: the mask and the order.
    - predictor: the rest. Where unselected features are zeroed instead of dropped, that and the mask are part of it.

    Args:
        model: a pipeline graph.
        selects: False for a model without a generator (`cls`), which is all predictor.
    """
    nodes = model.graph.node
    generator: set[int] = set()
    gather: set[int] = set()

    if selects:
        generator = needed_for(model, ["selection_margin"])
        gather = {i for i, node in enumerate(nodes) if node.op_type == "GatherElements"} - generator
        gathered = needed_for(model, [nodes[i].input[0] for i in gather])
        gather |= needed_for(model, [nodes[i].input[1] for i in gather]) - generator - gathered

    for i, node in enumerate(nodes):
        stage = GENERATOR if i in generator else GATHER if i in gather else PREDICTOR
        node.name = f"{stage}/{i}/{node.op_type}"


def needed_for(model: ModelProto, tensors: Iterable[str]) -> set[int]:
    """The places of all nodes that some tensors are computed from."""
    nodes = model.graph.node
    makers = {output: i for i, node in enumerate(nodes) for output in node.output}
    needed: set[int] = set()
    waiting = [makers[name] for name in tensors if name in makers]

    while waiting:
        if (i := waiting.pop()) not in needed:
            needed.add(i)
            waiting += [makers[name] for name in nodes[i].input if name in makers]

    return needed
