from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from rekd_edge.data import PLANTED_CUE_RATIO, DataSettings, TextFeatures, load_data, train_tokenizer
from rekd_edge.data.planted import CUES, FILLER
from rekd_edge.data.planted import planted as generate

CHANCE = 4 * np.sqrt(0.25 / 1000)  # four standard errors of an accuracy over 1,000 examples


@pytest.fixture(scope="module")
def planted():
    return load_data("builtin:planted", DataSettings())


def cue_words(examples) -> list[list[str]]:
    return [
        [text[start:end] for start, end in spans]
        for text, spans in zip(examples.inputs, examples.rationale_spans, strict=True)
    ]


def accuracy(planted, represent) -> float:
    train, validation = planted.split("train"), planted.split("validation")
    model = LogisticRegression(max_iter=1000).fit(represent(train), train.labels)
    return model.score(represent(validation), validation.labels)


def without_cues(examples) -> list[str]:
    texts = []
    for text, spans in zip(examples.inputs, examples.rationale_spans, strict=True):
        for start, end in reversed(spans):
            text = text[:start] + text[end:]
        texts.append(text)
    return texts


def test_planted_sizes_and_balance(planted):
    sizes = {name: np.bincount(split.labels).tolist() for name, split in planted.splits.items()}
    assert sizes == {"train": [2000, 2000], "validation": [500, 500], "test": [500, 500]}
    assert planted.label_names == ["neg", "pos"]


def test_planted_is_the_same_for_the_same_seed(planted):
    generate.cache_clear()
    assert load_data("builtin:planted", DataSettings()).fingerprint == planted.fingerprint
    assert load_data("builtin:planted", DataSettings(split_seed=1)).fingerprint != planted.fingerprint


def test_planted_splits_share_no_review(planted):
    texts = [text for split in planted.splits.values() for text in split.inputs]
    assert len(set(texts)) == len(texts)


def test_every_cue_is_in_the_spans_and_their_majority_is_the_label(planted):
    split = planted.split("test")
    every_cue = {word: label for label, words in enumerate(CUES) for word in words}
    for text, label, words in zip(split.inputs, split.labels, cue_words(split), strict=True):
        plain = text.lower().replace(".", " ").replace(",", " ").split()
        assert sorted(words) == sorted(word for word in plain if word in every_cue)
        votes = np.bincount([every_cue[word] for word in words], minlength=2)
        assert votes[label] > votes[1 - label]


def test_some_reviews_hold_distractors_but_few_cues_are(planted):
    split = planted.split("train")
    share = [
        np.mean([word in CUES[1 - label] for word in words])
        for label, words in zip(split.labels, cue_words(split), strict=True)
    ]
    assert 0.1 < np.mean(np.array(share) > 0) < 0.4
    assert 0.03 < np.mean(share) < 0.1


def test_filler_and_cue_words_are_disjoint():
    filler = {word.lower() for words in FILLER.values() for word in words}
    assert len(filler) > 200
    assert not filler & {*CUES[0], *CUES[1]}
    assert not set(CUES[0]) & set(CUES[1])


def test_cues_decide_but_need_counting(planted):
    vectorizer = CountVectorizer(vocabulary=[*CUES[0], *CUES[1]])
    assert accuracy(planted, lambda split: vectorizer.transform(split.inputs)) > 0.99


def test_filler_says_nothing_about_the_label(planted):
    vectorizer = CountVectorizer(ngram_range=(1, 2)).fit(without_cues(planted.split("train")))
    assert abs(accuracy(planted, lambda split: vectorizer.transform(without_cues(split))) - 0.5) < CHANCE


def test_length_and_cue_count_say_nothing_about_the_label(planted):
    def represent(split):
        counts = [
            [len(text.split()), len(spans)] for text, spans in zip(split.inputs, split.rationale_spans, strict=True)
        ]
        return np.concatenate([np.eye(80)[column] for column in np.array(counts).T], axis=1)

    assert abs(accuracy(planted, represent) - 0.5) < CHANCE


def test_cue_positions_say_nothing_about_the_label(planted):
    def represent(split):
        occupied = np.zeros((len(split), 64))
        for row, text, spans in zip(range(len(split)), split.inputs, split.rationale_spans, strict=True):
            occupied[row, [len(text[:start].split()) for start, _ in spans]] = 1
        return occupied

    assert abs(accuracy(planted, represent) - 0.5) < CHANCE


def test_trained_tokenizer_gives_every_planted_word_one_token_and_the_cue_ratio_is_exact(planted):
    train, test = planted.split("train"), planted.split("test")
    tokenizer = train_tokenizer(train.inputs, 2000)
    tokenizer.enable_truncation(128)
    features = TextFeatures(test, tokenizer)
    for i, words in enumerate(cue_words(test)):
        start, end = features.offsets[i].T
        inside = [(start < last) & (end > first) for first, last in test.rationale_spans[i]]
        rationale = np.any(inside, axis=0) & features.features[i]
        assert rationale.sum() == len(words)
        assert rationale.sum() / features.features[i].sum() == pytest.approx(PLANTED_CUE_RATIO)
        assert [tokenizer.id_to_token(t) for t in features.input_ids[i][rationale]] == words


def test_digits_are_scikit_learns_in_three_balanced_parts():
    source = load_data("builtin:digits", DataSettings())
    assert source.task == "image"
    assert source.label_names == [str(i) for i in range(10)]
    assert {name: len(split) for name, split in source.splits.items()} == {
        "train": 1078,
        "validation": 359,
        "test": 360,
    }
    assert np.bincount(source.split("test").labels).min() >= 34

    scans = load_digits()
    expected = sorted(
        (int(y), *np.rint(x * 255 / 16).astype(int)) for x, y in zip(scans.data, scans.target, strict=True)
    )
    found = sorted(
        (int(label), *np.asarray(image)[:, :, 1].ravel().tolist())
        for split in source.splits.values()
        for image, label in zip(split.inputs, split.labels, strict=True)
    )
    assert found == expected


def test_digits_are_the_same_for_the_same_seed():
    first = load_data("builtin:digits", DataSettings())
    assert load_data("builtin:digits", DataSettings()).fingerprint == first.fingerprint
    assert load_data("builtin:digits", DataSettings(split_seed=1)).fingerprint != first.fingerprint
