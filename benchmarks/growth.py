"""How does our latency grow with the text, with the rationale and with the generator? Beside Optimum's int8 classifier.

    python benchmarks/growth.py --imdb FOLDER --tokenizer FOLDER

BERT-mini in int8, one text at a time, on ready arrays, on one thread: 16 to 512 tokens; rationales of 5 to 75 % and
generators of one to four layers at 256 tokens; a local generator beside one of transformer layers. Whatever a plot
compares took turns in one process. A model is built for each ratio and depth. Writes `results/growth.json` and
`results/growth.png`.
"""

from __future__ import annotations

import argparse
from typing import Any

from _bundles import GENERATORS, LOCAL, TRANSFORMER, Material, Recipe, rationale_ratio, selected
from _peers import BlackBox, onnx_system
from _results import RESULTS, write_results
from latency import OURS, add_ratios, timed

from rekd_edge.runtime.bundle import LAYOUT
from rekd_edge.runtime.session import open_session

GEOMETRY = "bert-mini"
TOKENS = (16, 32, 64, 128, 256, 384, 512)
LENGTH = 256
RATIOS = (0.05, 0.10, 0.20, 0.35, 0.50, 0.75)
DEPTHS = (1, 2, 3, 4)
ROWS = 8


def main() -> None:
    """Write one row a point, and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=40)
    Material.add_arguments(parser)
    arguments = parser.parse_args()
    material = Material(arguments)

    def at_length(generator: str, **changes: Any) -> tuple[Recipe, int]:
        return Recipe.of(GEOMETRY, [LENGTH], generator, **changes), LENGTH

    by_length = [Recipe.of(GEOMETRY, TOKENS, generator) for generator in GENERATORS]
    points = {
        "tokens": [[(recipe, tokens) for recipe in by_length] for tokens in TOKENS],
        "rationale_ratio": [[at_length(generator, ratio=ratio) for generator in GENERATORS for ratio in RATIOS]],
        "generator_layers": [[at_length(LOCAL), *(at_length(TRANSFORMER, generator_layers=depth) for depth in DEPTHS)]],
    }
    sweeps = {name: [measured(group, arguments, material) for group in groups] for name, groups in points.items()}
    rows = [{"sweep": name, **row} for name, groups in sweeps.items() for group in groups for row in group]
    plot(rows)
    write_results("growth", rows, plot="growth.png")


def measured(
    points: list[tuple[Recipe, int]], arguments: argparse.Namespace, material: Material
) -> list[dict[str, Any]]:
    """One row for each recipe at its number of tokens, and one for the black box, all measured in turn."""
    facts, systems = [], []
    same = {"geometry": GEOMETRY, "precision": "int8", "batch_size": 1, "threads": arguments.threads}

    for recipe, tokens in points:
        graph = recipe.bundle(material, "int8") / LAYOUT.graph
        session, feeds = open_session(graph, 1), material.feeds("text", tokens)
        feeds = [feeds[i] for i in selected([session], feeds, recipe.ratio, ROWS)]
        systems.append((onnx_system(OURS, "int8", graph, arguments.threads), feeds))
        ratio = rationale_ratio(session, feeds)
        facts.append({**recipe.facts(), "tokens": tokens, "rationale_ratio": ratio})

    classifier = BlackBox(GEOMETRY, material).optimum_graph("int8")
    systems.append((onnx_system("optimum-classifier", "int8", classifier, arguments.threads), systems[0][1]))
    facts.append({"generator": None, "generator_layers": None, "tokens": points[0][1], "rationale_ratio": 1.0})
    rows = [
        {"system": system.name, **same, **fact, **time}
        for (system, _), fact, time in zip(systems, facts, timed(systems, arguments.repeats), strict=True)
    ]
    add_ratios(rows)

    return rows


def plot(rows: list[dict[str, Any]]) -> None:
    """One panel a sweep: ours and the black box."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {"tokens": "tokens", "rationale_ratio": "rationale ratio (%)", "generator_layers": "generator layers of 4"}

    figure, panels = pyplot.subplots(1, len(labels), figsize=(12, 3.6), layout="constrained")
    for panel, (sweep, label) in zip(panels, labels.items(), strict=True):
        scale = 100 if sweep == "rationale_ratio" else 1
        own = [row for row in rows if row["sweep"] == sweep]
        peers = [row for row in own if row["system"] != OURS]

        for generator, line in ((TRANSFORMER, "o-C0"), (LOCAL, "o-C2")):
            ours = [row for row in own if row["generator"] == generator]
            name = f"REKD Edge, explained, {generator} generator"
            if (sweep, generator) == ("generator_layers", LOCAL):
                panel.axhline(ours[0]["p50_ms"], color="C2", label=name)
            else:
                panel.plot([scale * row[sweep] for row in ours], [row["p50_ms"] for row in ours], line, label=name)

        if sweep == "tokens":
            panel.plot(
                [row[sweep] for row in peers], [row["p50_ms"] for row in peers], "s--", label="Optimum, black box"
            )
        else:
            panel.axhline(peers[0]["p50_ms"], linestyle="--", color="C1", label="Optimum, black box")

        panel.set(xlabel=label, ylabel="ms", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")

    panels[2].set_xticks(DEPTHS)
    figure.savefig(RESULTS / "growth.png", dpi=100)


if __name__ == "__main__":
    main()
