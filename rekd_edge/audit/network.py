"""An independent predictor of a run's own architecture, trained anew on frozen rationales alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rekd_edge.evaluation.masks import Mask
from rekd_edge.runtime.image import normalise
from rekd_edge.runtime.text import pad_ids
from rekd_edge.systems import ImageRows, Rows, TextRows

if TYPE_CHECKING:
    from rekd_edge.audit.reader import Reader
    from rekd_edge.modeling import RationaleModel
    from rekd_edge.systems import RunSystem

__all__ = ["fit_network", "packed"]

STEPS = 300
BATCH = 32
LEARNING_RATE = 1e-3
SEED = 2026


def fit_network(system: RunSystem, rows: Rows, masks: Sequence[Mask], labels: NDArray[np.int64]) -> Reader:
    """Train a predictor of the run's architecture to read the label from what is selected.

    Its layers begin anew, so it knows nothing that generator and predictor agreed on; only the embeddings of word
    pieces or patches are the run's. It sees the rationale moved together at the beginning, so that places say nothing,
    and averages what it sees (`pooling: mean`), which learns in hundreds of steps what a first position learns in
    thousands.

    Args:
        system: the run.
        rows: what it read.
        masks: its rationales.
        labels: true label ids.
    """
    device = next(system.model.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = _fresh(system.model).to(device)
        _train(network, system, packed(rows, masks), torch.from_numpy(labels).to(device))

    return lambda rows, masks: _decisions(network, system, packed(rows, masks))


def packed(rows: Rows, masks: Sequence[Mask]) -> tuple[Rows, list[Mask]]:
    """Rows whose selected features stand together at the beginning, and the masks of these.

    A text loses all else. An image keeps its size; its first patches are the selected ones in their order.
    """
    if isinstance(rows, TextRows):
        encoded = []
        for row, mask in zip(rows.encoded, masks, strict=True):
            kept = ~np.array(row.feature, dtype=bool)
            kept[np.flatnonzero(row.feature)] = mask
            encoded.append(
                replace(
                    row,
                    ids=_chosen(row.ids, kept),
                    tokens=_chosen(row.tokens, kept),
                    offsets=_chosen(row.offsets, kept),
                    feature=_chosen(row.feature, kept),
                )
            )

        return replace(rows, encoded=encoded), [np.ones(mask.sum(), dtype=bool) for mask in masks]

    first = [np.arange(len(mask)) < mask.sum() for mask in masks]
    return replace(rows, pixels=np.stack([_moved(rows, i, mask) for i, mask in enumerate(masks)])), first


def _fresh(model: RationaleModel) -> RationaleModel:
    """A predictor of the same architecture with fresh layers and the run's embeddings."""
    from rekd_edge.modeling import RationaleModel
    from rekd_edge.modeling.encoders import build_encoder

    config = replace(
        model.config,
        method="cls",
        generator=None,
        pooling="mean",
        share_embeddings=False,
        select_words=False,
        options={},
    )
    network = RationaleModel(config, build_encoder(config.predictor), None)
    network.predictor.encoder.embedding.load_state_dict(model.predictor.encoder.embedding.state_dict())
    return network


def _train(network: RationaleModel, system: RunSystem, given: tuple[Rows, list[Mask]], labels: Tensor) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, STEPS)
    rng = np.random.default_rng(SEED)
    network.train()

    for _ in range(STEPS):
        chosen = rng.choice(len(labels), min(BATCH, len(labels)), replace=False)
        loss = nn.functional.cross_entropy(_logits(network, system, given, chosen), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()

    network.eval()


@torch.no_grad()
def _decisions(network: RationaleModel, system: RunSystem, given: tuple[Rows, list[Mask]]) -> NDArray[np.int64]:
    parts = [_logits(network, system, given, chosen).argmax(dim=1).cpu().numpy() for chosen in _parts(len(given[1]))]
    return np.concatenate(parts)


def _logits(
    network: RationaleModel, system: RunSystem, given: tuple[Rows, list[Mask]], chosen: NDArray[np.int64]
) -> Tensor:
    """Class logits [chosen, classes] of some packed rows."""
    rows, masks = given
    device = next(network.parameters()).device

    if isinstance(rows, TextRows):
        ids, padding = pad_ids([rows.encoded[i].ids for i in chosen], system.config.pad_token_id)
        inputs, attention = torch.from_numpy(ids).to(device), torch.from_numpy(padding).to(device)
        seen = network.feature_positions(inputs, attention)[0]
    else:
        settings = system.preprocessing.image
        assert settings is not None
        inputs, attention = torch.from_numpy(normalise(rows.pixels[chosen], settings)).to(device), None
        seen = torch.from_numpy(np.stack([masks[i] for i in chosen])).to(device)

    return network.classify(
        inputs, attention, seen.float() if network.training else seen, network.select(inputs, attention)
    )


def _parts(count: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, count, BATCH):
        yield np.arange(start, min(start + BATCH, count))


def _chosen(values: Sequence[Any], kept: NDArray[np.bool_]) -> list[Any]:
    return [value for value, keep in zip(values, kept, strict=True) if keep]


def _moved(rows: ImageRows, row: int, mask: Mask) -> NDArray[np.uint8]:
    """An image whose selected patches stand first, the others after them."""
    (down, across), image = rows.grid, rows.pixels[row].copy()
    high, wide = image.shape[0] // down, image.shape[1] // across
    inside = image[: high * down, : wide * across]
    patches = inside.reshape(down, high, across, wide, 3).swapaxes(1, 2).reshape(len(mask), high, wide, 3)
    ordered = patches[np.argsort(~mask, kind="stable")]
    inside[:] = ordered.reshape(down, across, high, wide, 3).swapaxes(1, 2).reshape(inside.shape)
    return image
