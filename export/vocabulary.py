"""`--trim-vocabulary`: a text model with only the word pieces of its training texts.

WordPiece reads a word from its start and takes the longest piece that fits, again and again (MaxMatch,
arXiv 2012.15524). Removing a piece that it never took changes no choice, so training texts are tokenised exactly as
before. In other texts a missing piece is split into smaller ones, or the word becomes [UNK].
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from rekd_edge.data import Examples, TextFeatures
from rekd_edge.errors import InputError
from rekd_edge.modeling import RationaleModel
from rekd_edge.runtime.text import CHARACTERS_PER_TOKEN, encode_texts, limit_tokenizer
from rekd_edge.training.preparation import Preprocessing

__all__ = ["Trimmed", "check_trimmable", "trim_vocabulary", "trimming_effect"]

ENCODE_AT_ONCE = 1000
ASCII = frozenset(map(chr, range(128)))


@dataclass(frozen=True)
class Trimmed:
    """A model and its preprocessing with fewer pieces."""

    model: RationaleModel
    preprocessing: Preprocessing
    kept: NDArray[np.int64]
    """[pieces], ascending: the id that each piece had; its place here is its new one."""


def check_trimmable(preprocessing: Preprocessing) -> None:
    """Refuse what has no WordPiece vocabulary.

    Raises:
        InputError: images, or another kind of tokenizer.
    """
    if preprocessing.tokenizer is None:
        raise InputError("Images have no vocabulary to trim; leave --trim-vocabulary out.")
    kind = _document(preprocessing.tokenizer)["model"]["type"]
    if kind != "WordPiece":
        raise InputError(f"A {kind} vocabulary cannot be trimmed, WordPiece alone can; leave --trim-vocabulary out.")


def trim_vocabulary(model: RationaleModel, preprocessing: Preprocessing, texts: Sequence[str]) -> Trimmed:
    """Keep the pieces that training texts contain within `max_length`, and those that spell unseen words.

    The latter are the single characters of ASCII and of the texts, at the start of a word and inside one. Special and
    added tokens stay too. Pieces keep their order and are renumbered.

    Args:
        model: a text model; it stays as it is.
        preprocessing: that of the model.
        texts: all that the model was trained on.

    Raises:
        InputError: as `check_trimmable`.
    """
    check_trimmable(preprocessing)
    assert preprocessing.tokenizer is not None
    assert preprocessing.max_length is not None

    kept = _kept_ids(preprocessing.tokenizer, preprocessing.max_length, texts, preprocessing.pad_token_id)
    tokenizer = limit_tokenizer(_renumbered(preprocessing.tokenizer, kept), preprocessing.max_length)
    trimmed = replace(preprocessing, tokenizer=tokenizer)

    return Trimmed(_with_rows(model, kept, trimmed.pad_token_id), trimmed, kept)


def trimming_effect(
    model: RationaleModel, preprocessing: Preprocessing, trimmed: Trimmed, examples: Examples
) -> dict[str, Any]:
    """What trimming does to unseen texts.

    Args:
        model: before trimming.
        preprocessing: before trimming.
        trimmed: what became of them.
        examples: labelled texts.

    Returns:
        Pieces kept (`pieces`, `of`), `rows`, those tokenised otherwise (`changed_rows`), and the accuracy on all rows
        before (`accuracy_full`) and after (`accuracy_trimmed`).
    """
    assert preprocessing.tokenizer is not None
    whole, fewer = (cast(TextFeatures, p.features(examples)).input_ids for p in (preprocessing, trimmed.preprocessing))

    changed = [i for i, row in enumerate(fewer) if not np.array_equal(trimmed.kept[row], whole[i])]
    before = _labels(model, whole)
    after = before.copy()
    after[changed] = _labels(trimmed.model, [fewer[i] for i in changed])

    return {
        "pieces": len(trimmed.kept),
        "of": preprocessing.tokenizer.get_vocab_size(),
        "rows": len(examples),
        "changed_rows": len(changed),
        "accuracy_full": float((before == examples.labels).mean()),
        "accuracy_trimmed": float((after == examples.labels).mean()),
    }


@torch.no_grad()
def _labels(model: RationaleModel, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """The label ids that a model gives to rows of token ids, one at a time."""
    ids = (torch.from_numpy(row.astype(np.int64))[None] for row in rows)
    return np.array([int(model(row, torch.ones_like(row)).logits.argmax()) for row in ids], dtype=np.int64)


def _kept_ids(tokenizer: Tokenizer, max_length: int, texts: Sequence[str], pad_id: int) -> NDArray[np.int64]:
    document = _document(tokenizer)
    vocabulary, prefix = document["model"]["vocab"], document["model"]["continuing_subword_prefix"]

    pieces = set(_taken(tokenizer, document["model"], max_length, texts))
    alphabet = ASCII.union(*(piece.removeprefix(prefix) for piece in pieces))
    pieces |= {document["model"]["unk_token"], *alphabet, *(prefix + character for character in alphabet)}
    ids = {vocabulary[piece] for piece in pieces & vocabulary.keys()}
    ids |= {pad_id, *(token["id"] for token in document["added_tokens"])}

    return np.array(sorted(ids), dtype=np.int64)


def _taken(tokenizer: Tokenizer, model: dict[str, Any], max_length: int, texts: Sequence[str]) -> Iterator[str]:
    """Every piece that WordPiece takes on its way through the texts, up to the end of the word that is cut."""
    body = max_length - tokenizer.num_special_tokens_to_add(False)
    longer = max_length + model["max_input_chars_per_word"]  # a word has no more pieces than characters
    whole_words = limit_tokenizer(Tokenizer.from_str(tokenizer.to_str()), longer)

    for start in range(0, len(texts), ENCODE_AT_ONCE):
        part = [text[: max_length * CHARACTERS_PER_TOKEN] for text in texts[start : start + ENCODE_AT_ONCE]]

        for text, row in zip(part, encode_texts(whole_words, part), strict=True):
            features = [i for i, feature in enumerate(row.feature) if feature]

            for place, i in enumerate(features):
                if place >= body and not row.tokens[i].startswith(model["continuing_subword_prefix"]):
                    break

                yield row.tokens[i]
                if row.tokens[i] == model["unk_token"]:
                    yield from _tried(tokenizer, model, text[slice(*row.offsets[i])])


def _tried(tokenizer: Tokenizer, model: dict[str, Any], text: str) -> Iterator[str]:
    """The pieces of an unknown word up to where none fits: without one of them, the word might become known."""
    text = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    words = [(text, None)] if tokenizer.pre_tokenizer is None else tokenizer.pre_tokenizer.pre_tokenize_str(text)

    for word, _ in words:
        start = 0
        while start < len(word):
            prefix = model["continuing_subword_prefix"] if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in model["vocab"])
            if (end := next(ends, None)) is None:
                break

            yield prefix + word[start:end]
            start = end


def _renumbered(tokenizer: Tokenizer, kept: NDArray[np.int64]) -> Tokenizer:
    """The tokenizer with the pieces of these ids alone, in their order."""
    document = _document(tokenizer)
    new = {old: i for i, old in enumerate(kept.tolist())}
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {piece: new[old] for piece, old in vocabulary.items() if old in new}

    for token in document["added_tokens"]:
        token["id"] = new[token["id"]]

    _renumber_processor(document["post_processor"] or {}, new)
    return Tokenizer.from_str(json.dumps(document))


def _renumber_processor(processor: dict[str, Any], new: Mapping[int, int]) -> None:
    """In place: templates list ids by token, BERT's and RoBERTa's own kinds name two, a sequence holds others."""
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for name in processor.keys() & {"cls", "sep"}:
        token, old = processor[name]
        processor[name] = [token, new[old]]
    for inner in processor.get("processors", []):
        _renumber_processor(inner, new)


def _with_rows(model: RationaleModel, kept: NDArray[np.int64], pad_token_id: int) -> RationaleModel:
    """A copy whose word embeddings have the rows `kept` alone; generator and predictor may share them."""
    model = copy.deepcopy(model)
    config, new = model.config, {old: i for i, old in enumerate(kept.tolist())}
    config.pad_token_id = pad_token_id
    config.special_token_ids = [new[old] for old in config.special_token_ids]
    # an encoder's own pad_token_id stays, because RoBERTa counts positions from it
    config.predictor = {**config.predictor, "vocab_size": len(kept)}
    config.generator = config.generator and {**config.generator, "vocab_size": len(kept)}

    towers = [tower for tower in (model.generator, model.predictor) if tower is not None]
    tables = dict.fromkeys(tower.encoder.embedding for tower in towers)
    weights: dict[Any, nn.Parameter] = {}

    for table in tables:
        assert isinstance(table, nn.Embedding)
        rows = nn.Parameter(table.weight.detach()[torch.from_numpy(kept)], table.weight.requires_grad)
        table.weight = weights.setdefault(table.weight, rows)
        table.num_embeddings, table.padding_idx = len(kept), None  # the latter only stops gradients

    for tower in towers:
        tower.encoder.config.vocab_size = len(kept)
    if model.starts_word is not None:
        model.starts_word = model.starts_word[torch.from_numpy(kept)]

    return model


def _document(tokenizer: Tokenizer) -> dict[str, Any]:
    """`tokenizer.json`."""
    return json.loads(tokenizer.to_str())
