"""Train a WordPiece vocabulary on a task's own texts, for a student with its own tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, models, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

MIN_FREQUENCY = 2
"""Two pieces are merged only if they occur next to each other at least this often."""


def train_wordpiece(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Train BERT's lower-casing tokenizer on the texts, with at most `size` pieces.

    The result depends only on the texts and the size, not on the order of the texts. The trainer
    prefers the piece with the lower number if two are equally frequent, so the characters are
    numbered before it starts.
    """
    bert = BertTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = bert.normalizer
    tokenizer.pre_tokenizer = bert.pre_tokenizer
    characters, continuations = _alphabet(tokenizer, texts, (size - len(SPECIAL)) // 2)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        # Otherwise the trainer numbers the continuations in the random order of a hash map.
        special_tokens=SPECIAL + continuations,
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab())


def _alphabet(
    tokenizer: Tokenizer, texts: Sequence[str], limit: int
) -> tuple[list[str], list[str]]:
    """Return the most frequent characters, and "##c" for each one that occurs in longer words."""
    counts: Counter[str] = Counter()
    in_longer_words: set[str] = set()
    for text in texts:
        normalized = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized):
            counts.update(word)
            if len(word) > 1:
                in_longer_words.update(word)
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    characters = sorted(by_frequency[:limit])
    continuations = [f"##{character}" for character in characters if character in in_longer_words]
    return characters, continuations
