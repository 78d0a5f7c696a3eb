"""Rationales of ERASER Movies beside people's, and beside those of explainers of a classifier of the same size.

    python benchmarks/rationales.py prepare --eraser FOLDER --backbone NAME
    rekd-edge sweep eraser-movies --output runs/movies/sweep
    python benchmarks/rationales.py explain --eraser FOLDER --documents 100
    python benchmarks/rationales.py table --eraser FOLDER

`prepare` cuts the training documents into windows, each with its document's label, and keeps a part of the documents
apart as the dev split; `val` is not looked at. The sweep trains without what people marked. `explain` scores the words
of the first documents of a seeded sample of `val` for the first seed's classifier, one file an explainer and one line a
document, and goes on where it stopped. `table` asks every system about whole documents, in overlapping windows, cuts
scores to the ratio that people marked on train, and writes `results/rationales.json`: figures with 95 % bootstrap
intervals over documents, and paired differences between ours and the explainers' on the same documents.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _attributions import ATTRIBUTIONS, Explained
from _results import write_results
from numpy.typing import NDArray

from rekd_edge.data import Examples
from rekd_edge.data.eraser import eraser, words_of
from rekd_edge.data.sampling import stratified_split
from rekd_edge.evaluate import text_windows
from rekd_edge.evaluation import iou_f1, probabilities, rationale_auprc, top_share
from rekd_edge.evaluation.faithfulness import comprehensiveness, sufficiency
from rekd_edge.evaluation.intervals import bootstrap_interval, paired_difference
from rekd_edge.evaluation.masks import Mask
from rekd_edge.evaluation.words import in_pieces, in_words, mask_of, merged, words_within
from rekd_edge.modeling.encoders.backbones import backbone_tokenizer
from rekd_edge.progress import say
from rekd_edge.runtime.text import limit_tokenizer
from rekd_edge.systems import RunSystem, TextRows

TOKENS = 128
DEV_SHARE = 0.15
SEED = 2026
RATIO = 0.09
"""What people marked on train, 9.3 % of the words, as the grid has it."""
SYSTEMS = ("re", "rekd", "plmr", "rtp")
Scores = NDArray[np.float64]


@dataclass
class Document:
    """A document of `val` in words, with what people marked, and its windows."""

    text: str
    label: int
    words: list[tuple[int, int]]
    marked: list[tuple[int, int]]
    windows: list[Any]

    def parts(self) -> list[str]:
        """The texts of the windows."""
        return [self.text[each.start : each.end] for each in self.windows]


@dataclass
class Judged:
    """What a system says of documents: one entry each."""

    masks: list[Mask]
    scores: list[Scores]
    probabilities: Scores
    """`[documents, classes]`."""
    sufficiency: Scores
    comprehensiveness: Scores


def prepare(eraser_folder: Path, work: Path, backbone: str) -> None:
    """Write `windows/{train,validation}.jsonl`."""
    data = eraser(eraser_folder)
    train, tokenizer = data.split("train"), backbone_tokenizer(backbone)
    if tokenizer is None:
        raise SystemExit(f"{backbone} holds no tokenizer; give --backbone another.")

    limit_tokenizer(tokenizer, TOKENS)
    splits = dict(zip(("train", "validation"), stratified_split(train.labels, DEV_SHARE, SEED), strict=True))
    (work / "windows").mkdir(parents=True, exist_ok=True)

    for name, rows in splits.items():
        with open(work / "windows" / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row in rows:
                text, label = str(train.inputs[row]), data.label_names[train.labels[row]]
                for each in text_windows(tokenizer, text)[::2]:  # the others overlap
                    file.write(json.dumps({"text": text[each.start : each.end], "label": label}) + "\n")

    masks = _marked(train)
    say(f"{len(splits['train'])} documents to train on; people marked {np.mean([m.mean() for m in masks]):.1%}")


def explain(documents: Sequence[Document], system: RunSystem, work: Path, samples: int, chosen: Sequence[str]) -> None:
    """Append each explainer's scores of the words, a line a document."""
    folder = work / "scores"
    folder.mkdir(parents=True, exist_ok=True)

    for name in chosen:
        file = folder / f"{name}.jsonl"
        done = len(file.read_text().splitlines()) if file.exists() else 0
        for document in documents[done:]:
            start = time.process_time()
            target = int(_asked(system, document).argmax())
            scores = _explained(name, system, document, target, samples)
            line = {"scores": scores.tolist(), "label": system.labels[target]}
            with open(file, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
            say(f"{name}: {time.process_time() - start:.1f} s of processor time")


def _explained(name: str, system: RunSystem, document: Document, target: int, samples: int) -> Scores:
    windows = [*document.windows[:-1:2], document.windows[-1]]
    rows = [
        ATTRIBUTIONS[name](Explained(system, document.text[each.start : each.end], target, samples)) for each in windows
    ]
    return merged(windows, [np.zeros(len(row), dtype=bool) for row in rows], rows)[1]


def table(documents: Sequence[Document], sweep: Path, work: Path) -> None:
    """Judge every system that is there and write the results."""
    runs = {name: sorted((sweep / "runs").glob(f"student-{name}-20*")) for name in (*SYSTEMS, "cls")}
    ours = {name: _judged_runs(documents, name, paths) for name, paths in runs.items() if paths and name != "cls"}
    rows = [{"system": name, "seeds": len(each), **row(documents, each)} for name, each in ours.items()]

    classifier = RunSystem(runs["cls"][0])
    for name, each in _judged_scores(documents, classifier, work / "scores").items():
        same = documents[: len(each.masks)]
        figures = {"system": name, "seeds": 1, **row(same, [each])}
        rows.append(figures | {"against": {name: differences(same, judged, each) for name, judged in ours.items()}})

    write_results("rationales", rows, note=f"scores are cut to {RATIO:.0%} of the words; {len(documents)} documents")


def row(documents: Sequence[Document], seeds: Sequence[Judged]) -> dict[str, Any]:
    """The figures of a system, means over its seeds, with intervals over documents."""
    columns = {name: np.mean([figures(documents, each)[name] for each in seeds], axis=0) for name in FIGURES}
    truth = [mask_of(len(each.words), each.marked) for each in documents]
    count = np.array([[sum((m & t).sum() for m in each), sum(m.sum() for m in each), len(each) * t.sum()]
                      for each, t in ((tuple(s.masks[i] for s in seeds), t) for i, t in enumerate(truth))])  # fmt: skip

    found: dict[str, Any] = {"documents": len(documents)}
    micro = bootstrap_interval(
        *count.T, statistic=lambda hits, chosen, true: 2 * hits.sum() / (chosen.sum() + true.sum())
    )
    overlap = bootstrap_interval(
        np.arange(len(documents)),
        statistic=lambda at: np.mean(
            [iou_f1([s.masks[i] for i in at], [documents[i].marked for i in at]) for s in seeds]
        ),
        resamples=200,
    )
    for name, each in {
        "token_f1": micro,
        "iou_f1": overlap,
        **{n: bootstrap_interval(c) for n, c in columns.items()},
    }.items():
        found |= {name: round(each.value, 4), f"{name}_interval": [round(each.low, 4), round(each.high, 4)]}

    return found


FIGURES = ("token_f1_macro", "auprc", "sufficiency", "comprehensiveness", "accuracy", "rationale_ratio")


def figures(documents: Sequence[Document], judged: Judged) -> dict[str, Scores]:
    """Figures of each document `[documents]`."""
    truth = [mask_of(len(each.words), each.marked) for each in documents]
    pairs = list(zip(judged.masks, truth, strict=True))
    labels = np.array([each.label for each in documents])
    return {
        "token_f1_macro": np.array([2 * (m & t).sum() / max(m.sum() + t.sum(), 1) for m, t in pairs]),
        "auprc": np.array([rationale_auprc([s], [t]) for s, t in zip(judged.scores, truth, strict=True)]),
        "sufficiency": judged.sufficiency,
        "comprehensiveness": judged.comprehensiveness,
        "accuracy": (judged.probabilities.argmax(axis=1) == labels).astype(float),
        "rationale_ratio": np.array([mask.mean() for mask in judged.masks]),
    }


def differences(documents: Sequence[Document], ours: Sequence[Judged], theirs: Judged) -> dict[str, Any]:
    """Ours less theirs on the same documents, both cut to `RATIO`; `shown` where the interval excludes 0."""
    count, found = len(documents), {}
    of_ours = [figures(documents, _at_ratio(_first(each, count))) for each in ours]
    of_theirs = figures(documents, theirs)
    for name in ("token_f1_macro", "auprc"):
        gap = paired_difference(np.mean([each[name] for each in of_ours], axis=0), of_theirs[name])
        found[name] = {
            "difference": round(gap.value, 4),
            "interval": [round(gap.low, 4), round(gap.high, 4)],
            "p": round(gap.p, 4),
            "verdict": "shown" if gap.shown else "not shown",
        }
    return found


def _judged_runs(documents: Sequence[Document], name: str, paths: Sequence[Path]) -> list[Judged]:
    seeds = []
    for path in paths:
        say(f"{path.name}: {len(documents)} documents")
        system = RunSystem(path)
        answers = [_answered(system, document) for document in documents]
        seeds.append(_faithful(system, documents, [each[0] for each in answers], [each[1] for each in answers]))
    return seeds


def _judged_scores(documents: Sequence[Document], system: RunSystem, folder: Path) -> dict[str, Judged]:
    """What the explainers' files say, and random scores, judged by the classifier that they explain."""
    rng = np.random.default_rng(SEED)
    scores = {"random": [rng.random(len(each.words)) for each in documents]}
    for file in sorted(folder.glob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()[: len(documents)]
        scores[file.stem] = [np.array(json.loads(line)["scores"]) for line in lines]

    found = {}
    for name, rows in scores.items():
        say(f"{name}: {len(rows)} documents")
        found[name] = _faithful(system, documents[: len(rows)], [top_share(each, RATIO) for each in rows], rows)
    return found


def _faithful(system: RunSystem, documents: Sequence[Document], masks: list[Mask], scores: list[Scores]) -> Judged:
    """Ask a system about whole documents, their rationales, and the rest of them."""
    parts: list[list[Scores]] = [[], [], []]
    decided = []
    for document, mask in zip(documents, masks, strict=True):
        decided.append(_asked(system, document))
        for place, shown in enumerate((np.ones_like(mask), mask, ~mask)):
            parts[place].append(_classified(system, document, shown))

    whole, alone, rest = map(np.stack, parts)
    return Judged(masks, scores, np.stack(decided), sufficiency(whole, alone), comprehensiveness(whole, rest))


def _answered(system: RunSystem, document: Document) -> tuple[Mask, Scores]:
    """Mask and margins of a document's words."""
    rows = system.encode(document.parts())
    assert isinstance(rows, TextRows)
    answers, found = system.answer(rows), []
    for at, each in enumerate(document.windows):
        offsets = [(a + each.start, b + each.start) for a, b in rows.offsets(at)]
        found.append(in_words(document.words[each.first : each.last], offsets, answers.masks[at], answers.margins[at]))
    mask, scores = merged(document.windows, [each[0] for each in found], [each[1] for each in found])
    return mask[: len(document.words)], scores[: len(document.words)]


def _asked(system: RunSystem, document: Document) -> Scores:
    """The system's own decision: the mean probabilities of the windows."""
    return probabilities(system.answer(system.encode(document.parts())).logits).mean(axis=0)


def _classified(system: RunSystem, document: Document, shown: Mask) -> Scores:
    """The same from some words alone."""
    rows = system.encode(document.parts())
    assert isinstance(rows, TextRows)
    masks = []
    for at, each in enumerate(document.windows):
        offsets = [(a + each.start, b + each.start) for a, b in rows.offsets(at)]
        masks.append(in_pieces(document.words[each.first : each.last], offsets, shown[each.first : each.last]))
    if system.method == "cls":  # it was trained on whole texts: what is left out becomes [UNK]
        return probabilities(system.answer(rows.blanked([~mask for mask in masks])).logits).mean(axis=0)
    return probabilities(system.classify(rows, masks)).mean(axis=0)


def _first(judged: Judged, count: int) -> Judged:
    return Judged(*(getattr(judged, name)[:count] for name in judged.__dataclass_fields__))


def _at_ratio(judged: Judged) -> Judged:
    return replace(judged, masks=[top_share(scores, RATIO) for scores in judged.scores])


def _marked(examples: Examples) -> list[Mask]:
    assert examples.rationale_spans is not None
    words = [words_of(str(text)) for text in examples.inputs]
    return [mask_of(len(w), words_within(w, s)) for w, s in zip(words, examples.rationale_spans, strict=True)]


def documents_of(folder: Path, tokenizer: Any, limit: int | None) -> list[Document]:
    """Documents of `val` in a seeded order, so that the first ones are a sample."""
    examples = eraser(folder).split("val")
    assert examples.rationale_spans is not None
    found = []
    for i in np.random.default_rng(SEED).permutation(len(examples))[:limit]:
        text = str(examples.inputs[i])
        words = words_of(text)
        marked = words_within(words, examples.rationale_spans[i])
        found.append(Document(text, int(examples.labels[i]), words, marked, text_windows(tokenizer, text)))
    return found


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "explain", "table"])
    parser.add_argument("--eraser", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--backbone", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--work", type=Path, default=Path("runs/movies"))
    parser.add_argument("--documents", type=int, help="at most so many of val")
    parser.add_argument("--samples", type=int, default=500, help="of LIME and KernelSHAP, a window")
    parser.add_argument("--explainers", nargs="+", choices=list(ATTRIBUTIONS), default=list(ATTRIBUTIONS))
    arguments = parser.parse_args()

    if arguments.step == "prepare":
        prepare(arguments.eraser, arguments.work, arguments.backbone)
        return

    sweep = arguments.work / "sweep"
    classifier = RunSystem(min((sweep / "runs").glob("student-cls-20*")))
    documents = documents_of(arguments.eraser, classifier.tokenizer, arguments.documents)
    if arguments.step == "explain":
        explain(documents, classifier, arguments.work, arguments.samples, arguments.explainers)
    else:
        table(documents, sweep, arguments.work)


if __name__ == "__main__":
    main()
