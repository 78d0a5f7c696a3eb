from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rekd_edge.data import Examples, ImageCollator, ImageFeatures, TextCollator, TextFeatures, train_tokenizer
from rekd_edge.data import features as features_module
from rekd_edge.data.features import augmented
from rekd_edge.runtime.image import ImageSettings

TEXTS = ["the good film", "good", "", "the bad film was bad, too bad"]
LABELS = np.array([1, 1, 0, 0])


@pytest.fixture
def tokenizer():
    tokenizer = train_tokenizer(TEXTS * 3, 200)
    tokenizer.enable_truncation(8)
    return tokenizer


def test_training_a_tokenizer_again_gives_the_same():
    words = [f"w{i} word{i % 17} thing{i % 5}" for i in range(300)]
    assert len({train_tokenizer(words, 150).to_str() for _ in range(5)}) == 1


def test_trained_tokenizer_is_uncased_bert(tokenizer):
    encoding = tokenizer.encode("The GOOD film")
    assert encoding.tokens == ["[CLS]", "the", "good", "film", "[SEP]"]
    assert [tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]


def test_text_items_hold_ids_label_and_index(tokenizer):
    items = TextFeatures(Examples(TEXTS, LABELS), tokenizer)
    assert len(items) == 4
    assert items[0] == {"input_ids": tokenizer.encode(TEXTS[0]).ids, "labels": 1, "index": 0}
    assert items.features[0].tolist() == [False, True, True, True, False]
    assert items.offsets[0][1:4].tolist() == [[0, 3], [4, 8], [9, 13]]
    assert len(items[3]["input_ids"]) == 8


def test_texts_are_encoded_the_same_in_parts(tokenizer, monkeypatch):
    whole = TextFeatures(Examples(TEXTS, LABELS), tokenizer)
    monkeypatch.setattr(features_module, "ENCODE_AT_ONCE", 3)
    parts = TextFeatures(Examples(TEXTS, LABELS), tokenizer)
    assert [ids.tolist() for ids in parts.input_ids] == [ids.tolist() for ids in whole.input_ids]


def test_text_batch_is_padded_to_its_longest_or_to_a_length(tokenizer):
    items = TextFeatures(Examples(TEXTS, LABELS), tokenizer)
    batch = TextCollator(pad_id=9)([items[1], items[0]])
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == batch["labels"].dtype == torch.int64
    assert batch["input_ids"].tolist() == [[*items[1]["input_ids"], 9, 9], items[0]["input_ids"]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["index"].tolist() == [1, 0]
    assert TextCollator(9, 12)([items[1]])["input_ids"].shape == (1, 12)


def test_teacher_targets_travel_with_their_example(tokenizer):
    items = TextFeatures(Examples(TEXTS, LABELS), tokenizer)
    lengths = [len(ids) for ids in items.input_ids]
    items.targets = {
        "teacher_selection_logits": [np.full((n, 2), i + 1, np.float32) for i, n in enumerate(lengths)],
        "teacher_logits": [np.array([i, -i], np.float32) for i in range(4)],
    }
    batch = TextCollator(0)([items[i] for i in (3, 1)])
    selection = batch["teacher_selection_logits"]
    assert (selection.shape, selection.dtype) == ((2, 8, 2), torch.float32)
    assert selection[0].eq(4).all()
    assert selection[1, :3].eq(2).all()
    assert selection[1, 3:].eq(0).all()
    assert batch["teacher_logits"].tolist() == [[3, -3], [1, -1]]


# images

SETTINGS = ImageSettings(8, 8, 4, Image.Resampling.BILINEAR, 1 / 255, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (5 + i, 6, 3), dtype=np.uint8) for i in range(5)]
    return Examples([Image.fromarray(p) for p in pixels], np.arange(5))


def test_pixel_values_are_resized_and_normalised(images):
    items = ImageFeatures(images, SETTINGS)
    resized = np.asarray(images.inputs[2].resize((8, 8), Image.Resampling.BILINEAR)) / 255
    expected = ((resized - SETTINGS.mean) / SETTINGS.std).transpose(2, 0, 1)
    item = items[2]
    assert item["pixel_values"].dtype == np.float32
    np.testing.assert_allclose(item["pixel_values"], expected, atol=1e-5)
    assert (item["labels"], item["index"]) == (2, 2)


def test_cached_and_uncached_pixels_are_equal(images, monkeypatch):
    cached = ImageFeatures(images, SETTINGS)
    monkeypatch.setattr(features_module, "PIXEL_CACHE_BYTES", 0)
    uncached = ImageFeatures(images, SETTINGS)
    for i in range(5):
        assert np.array_equal(cached[i]["pixel_values"], uncached[i]["pixel_values"])


def test_image_batches_come_from_a_loader_with_their_targets(images):
    selection = [np.full((4, 2), i, np.float32) for i in range(5)]
    items = ImageFeatures(images, SETTINGS, targets={"teacher_selection_logits": selection})
    batch = next(iter(DataLoader(items, batch_size=3, collate_fn=ImageCollator())))
    assert batch["pixel_values"].shape == (3, 3, 8, 8)
    assert batch["labels"].dtype == torch.int64
    assert batch["teacher_selection_logits"][:, 0, 0].tolist() == [0, 1, 2]
    assert np.array_equal(batch["pixel_values"][1], items[1]["pixel_values"])


def test_augmentation_is_a_padded_crop_or_its_mirror_and_all_of_them_occur():
    pixels = np.random.default_rng(1).integers(1, 256, (6, 5, 3), dtype=np.uint8)
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0)))
    crops = [padded[top : top + 6, left : left + 5] for top in range(9) for left in range(9)]
    possible = {crop.tobytes() for crop in crops} | {crop[:, ::-1].tobytes() for crop in crops}
    torch.manual_seed(0)
    seen = {np.asarray(augmented(Image.fromarray(pixels))).tobytes() for _ in range(2000)}
    assert seen == possible


def test_augmentation_follows_torchs_seed(images):
    items = ImageFeatures(images, SETTINGS, augment=True)

    def draw(seed):
        torch.manual_seed(seed)
        return np.stack([item["pixel_values"] for item in items.__getitems__([0, 1, 2, 3, 4])])

    assert np.array_equal(draw(3), draw(3))
    assert not np.array_equal(draw(3), draw(4))
