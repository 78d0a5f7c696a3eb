"""Coverage-guided fuzzing of the walk over ONNX files; libFuzzer's options apply.

    python tests/fuzz/fuzz_graph.py -max_total_time=600 [CORPUS]

Any bytes pass or raise `ValueError`; and what passes has, as protobuf's own parser reads it, no control flow, function,
sparse tensor or external data.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rekd_edge.runtime.graph"]):
    from rekd_edge.runtime import graph

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
import test_graph_operators as behaviour

CHANGES = [
    behaviour.endless_loop,
    behaviour.branch,
    behaviour.list_of_subgraphs,
    behaviour.external_initializer,
    behaviour.external_attribute,
    behaviour.sparse_initializer,
    behaviour.training_graph,
]


def plain_model() -> behaviour.onnx.ModelProto:
    """A small graph as it should be: two nodes and a weight."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(behaviour.np.ones(3, behaviour.np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["z"], axis=1)]
    value = behaviour.tensor("x", 1, ["batch", 3])
    return helper.make_model(helper.make_graph(nodes, "plain", [value], [behaviour.tensor("z", 1, None)], [weight]))


def main() -> None:
    assert behaviour.check_operators is graph.check_operators
    with tempfile.TemporaryDirectory() as folder:
        for place, change in enumerate([lambda model: None, *CHANGES]):
            model = plain_model()
            change(model)
            (Path(folder) / str(place)).write_bytes(model.SerializeToString())
        atheris.Setup([*sys.argv, folder], behaviour.assert_agrees_with_protobuf)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
