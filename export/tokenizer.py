"""The tokenizer file of a bundle, which reads the same in every runtime."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

__all__ = ["neutral_tokenizer"]


def neutral_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy without special added tokens, so that user text which spells "[SEP]" is text in every library.

    The tokenizers for JavaScript, Kotlin and Swift look for each added token in the text. Python's runtime can be told
    not to (`encode_special_tokens`), the file cannot say so. The post-processor holds the ids of the tokens that it
    adds itself, so it needs no added tokens. Tokens that somebody added to the vocabulary of the text stay.

    Args:
        tokenizer: as `limit_tokenizer` returns it; it is left as it is.

    Returns:
        A tokenizer with the same truncation, which gives the same ids, tokens and offsets for every text.
    """
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["special"]]

    return Tokenizer.from_str(json.dumps(document))
