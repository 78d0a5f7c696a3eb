"""Augmentation of a whole batch against Pillow, image by image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers import TrainerCallback

from rekd_edge.data import Examples, ImageCollator, ImageFeatures
from rekd_edge.data import features as features_module
from rekd_edge.runtime.image import ImageSettings, image_pixels, normalise
from rekd_edge.training.augmentation import Crops, augment, draw_crops
from rekd_edge.training.objectives import Context
from rekd_edge.training.run import train
from rekd_edge.training.trainer import RationaleTrainer

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


def settings_for(size: int, resample: int) -> ImageSettings:
    return ImageSettings(size, size, 4, resample, 1 / 255, MEAN, STD)


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, height, width, 3]: gradients, edges and noise."""
    random = np.random.default_rng(0)
    smooth = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)) for image in smooth]
    noisy = np.stack(large) + random.normal(0, 20, (count, height, width, 3))
    noisy[:, height // 2 :, : width // 2] += 90
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [32, 96, 224, 16])
def test_batch_is_what_pillow_makes_of_each_image(size: int, resample: int) -> None:
    images, settings = photographs(40, 32, 32), settings_for(size, resample)
    crops = draw_crops(40, torch.Generator().manual_seed(1))
    found = augment(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), crops, settings)
    expected = []
    for image, left, top, flip in zip(images, *(each.tolist() for each in crops), strict=True):
        cut = ImageOps.expand(Image.fromarray(image), 4).crop((left, top, left + 32, top + 32))
        expected.append(normalise(image_pixels(ImageOps.mirror(cut) if flip else cut, settings), settings))
    std = np.array(STD, np.float32)[:, None, None]
    levels = np.abs(found.numpy() - np.stack(expected)) * std * 255  # steps of 1/255
    exact = size == 32 or resample == Image.Resampling.BILINEAR
    assert levels.max() < (1e-3 if exact else 2.01)
    assert (levels > 0.5).mean() < 2e-3


def test_every_crop_occurs_and_none_beyond_the_border() -> None:
    crops = draw_crops(20_000, torch.Generator().manual_seed(0))
    for place in (crops.left, crops.top):
        assert np.bincount(place.numpy(), minlength=9) == pytest.approx(20_000 / 9, rel=0.1)
    assert crops.flip.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_images_need_not_be_square() -> None:
    images = torch.arange(2 * 3 * 6 * 5).view(2, 3, 6, 5).to(torch.uint8)
    crops = Crops(torch.tensor([4, 0]), torch.tensor([4, 8]), torch.tensor([True, False]))
    found = augment(images, crops, ImageSettings(6, 5, 1, 2, 1.0, (0.0,) * 3, (1.0,) * 3))
    assert torch.equal(found[0], images[0].flip(-1).float())
    expected = np.pad(images[1].numpy(), ((0, 0), (4, 4), (4, 4)))[:, 8:14, 0:5]
    assert np.array_equal(found[1].numpy(), expected)


def test_images_of_one_size_travel_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    images, settings = photographs(6, 10, 8), settings_for(12, 3)
    alike = Examples([Image.fromarray(image) for image in images], np.arange(6))  # type: ignore[arg-type]
    items = ImageFeatures(alike, settings, augment=True)
    batch = ImageCollator()(items.__getitems__([4, 1]))
    assert batch.keys() == {"images", "labels", "index"}
    assert batch["images"].dtype == torch.uint8
    assert np.array_equal(batch["images"].numpy(), images[[4, 1]].transpose(0, 3, 1, 2))
    mixed = Examples([*alike.inputs[:5], Image.fromarray(images[5][1:])], np.arange(6))  # type: ignore[arg-type]
    for others in (
        ImageFeatures(mixed, settings, augment=True),
        ImageFeatures(alike, settings_for(12, Image.Resampling.LANCZOS), augment=True),
        ImageFeatures(alike, settings),
    ):
        assert others[0]["pixel_values"].shape == (3, 12, 12)
    monkeypatch.setattr(features_module, "PIXEL_CACHE_BYTES", 6 * 240 - 1)
    assert "pixel_values" in ImageFeatures(alike, settings, augment=True)[0]


def test_objective_and_teacher_see_the_same_augmented_pixels(
    settings: Callable, prepared: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("image", "re", data__augment=True)
    model, preprocessing, data = prepared(config)
    config = config.resolved("image")
    trainer = RationaleTrainer(
        model,
        Context(config, "image", tuple(data.label_names), None, preprocessing.image.grid),
        tmp_path,
        preprocessing.features(data.split("train"), augment=True),
        preprocessing.features(data.split("validation")),
        preprocessing.collator(),
        [],
    )
    seen: list[torch.Tensor] = []

    def objective(model: Any, batch: dict[str, torch.Tensor], *others: Any) -> dict[str, torch.Tensor]:
        seen.append(batch["pixel_values"])
        return {"loss": torch.zeros(())}

    monkeypatch.setattr("rekd_edge.training.trainer.objective_of", lambda name: objective)
    batch = next(iter(trainer.get_train_dataloader()))
    for step in (0, 1, 0):
        trainer.state.global_step = step
        trainer.compute_loss(model, batch)
    assert seen[0].shape == (16, 3, 8, 8)
    assert torch.equal(seen[0], seen[2])  # a step draws the same again
    assert not torch.equal(seen[0], seen[1])


class Interrupt(TrainerCallback):
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


def test_resumed_run_sees_the_same_crops(settings: Callable, tmp_path: Path) -> None:
    config = settings("image", "cls", data__augment=True)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=lambda stage: [Interrupt()])
    train(config, tmp_path / "run", resume=True)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name
