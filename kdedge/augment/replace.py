"""Rewrite texts by replacing words: TinyBERT (Jiao et al. 2020), algorithm 1.

A masked language model predicts candidates for a word that is a single token. For any other
word, or without such a model, the candidates are the nearest words in an embedding matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers.models import WordPiece
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.augment.source import AugmentedText
from kdedge.data.task import Split
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import loadable_name
from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.device import this_device
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import ReplaceConfig
from kdedge.runtime.text_encoder import CHARACTERS_PER_TOKEN

MASKED_BATCH = 64
"""Copies of a text, each with one masked token, in one batch of the language model."""

NEIGHBOUR_BATCH = 512
"""Words whose neighbours are searched at once."""

MASKED_MODEL_HINT = 'name another as augment.replace.model, or "neighbours"'

Candidates = tuple[str, ...]


@dataclass(frozen=True)
class Neighbours:
    """Nearest whole words by cosine; a word's vector is the mean of its tokens' embeddings.

    Attributes:
        matrix: (V, H) embeddings of the vocabulary.
        candidates: Number of neighbours to find for a word.
        known: Word -> its neighbours, nearest first, for all words so far.
    """

    tokenizer: PreTrainedTokenizerFast
    matrix: np.ndarray
    candidates: int
    known: dict[str, Candidates] = field(default_factory=dict)

    def learn(self, words: Iterable[str]) -> None:
        """Find the neighbours of words that are not in `known`, and add them."""
        new = sorted({word for word in words if word not in self.known})
        names, ids = whole_words(self.tokenizer)
        if not names:
            return
        targets = _unit(self.matrix[ids])
        for start in range(0, len(new), NEIGHBOUR_BATCH):
            batch = new[start : start + NEIGHBOUR_BATCH]
            similarity = self._vectors(batch) @ targets.T  # (B, names)
            # One more than needed: a word is its own nearest neighbour.
            nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : self.candidates + 1]
            for word, columns in zip(batch, nearest, strict=True):
                self.known[word] = _other_words(word, names, columns, self.candidates)

    def _vectors(self, words: list[str]) -> np.ndarray:
        """Return the unit vectors (B, H) of words; 0 for a word without a token."""
        if _is_byte_level(self.tokenizer):
            words = [f" {word}" for word in words]  # tokens as inside a text
        vectors = []
        for ids in self.tokenizer(words, add_special_tokens=False)["input_ids"]:
            if ids:
                vectors.append(self.matrix[ids].mean(0))
            else:
                vectors.append(np.zeros(self.matrix.shape[1], np.float32))
        return _unit(np.stack(vectors))


def whole_words(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], np.ndarray]:
    """Return the tokens that are whole words, without token markers, and their ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    # Byte-level and SentencePiece vocabularies mark the tokens that begin a word. In a WordPiece
    # vocabulary these marks are letters.
    marks_words = not _is_wordpiece(tokenizer) and any(
        token.startswith(("Ġ", "▁")) for token, _ in vocabulary
    )
    special = set(tokenizer.all_special_tokens)
    names = []
    ids = []
    for token, token_id in vocabulary:
        if token in special:
            continue
        name = token
        if marks_words:
            if not token.startswith(("Ġ", "▁")):
                continue
            name = token[1:]
        if name.isalpha():
            names.append(name)
            ids.append(token_id)
    return names, np.array(ids, dtype=np.int64)


def _is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether tokens include the space before a word, as in GPT-2 and RoBERTa."""
    return not _is_wordpiece(tokenizer) and any(
        token.startswith("Ġ") for token in tokenizer.get_vocab()
    )


def _is_wordpiece(tokenizer: PreTrainedTokenizerFast) -> bool:
    return isinstance(tokenizer.backend_tokenizer.model, WordPiece)


def _other_words(word: str, names: list[str], columns: Iterable[int], count: int) -> Candidates:
    """Return the names at `columns`, in that order, without the word itself; at most `count`."""
    candidates = [names[column] for column in columns]
    others = [name for name in candidates if name.casefold() != word.casefold()]
    return tuple(others[:count])


@dataclass(frozen=True)
class MaskedGuesses:
    """The whole words that a masked language model predicts for the words of a text.

    Attributes:
        known: The results for each text so far.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    candidates: int
    max_length: int
    known: dict[tuple[str, str | None], dict[int, Candidates]] = field(default_factory=dict)

    def predict(self, text: str, context: str | None) -> dict[int, Candidates]:
        """Predict candidates, best first, for each word that is a single token.

        Args:
            context: The other text of a pair, which is part of the model's input.

        Returns:
            Index of the word's first character -> candidates.
        """
        if (text, context) not in self.known:
            self.known[text, context] = self._predict(text, context)
        return self.known[text, context]

    def _predict(self, text: str, context: str | None) -> dict[int, Candidates]:
        encoding = self._encode(text, context)
        positions = _single_token_words(encoding)
        names, ids = whole_words(self.tokenizer)
        count = min(self.candidates + 1, len(ids))
        guesses: dict[int, Candidates] = {}
        for start in range(0, len(positions), MASKED_BATCH):
            batch = positions[start : start + MASKED_BATCH]
            logits = self._masked_logits(encoding, batch)
            words = logits[:, torch.from_numpy(ids).to(logits.device)]  # (B, names)
            best = words.topk(count, dim=1).indices.tolist()
            for position, columns in zip(batch, best, strict=True):
                first, last = encoding["offset_mapping"][position]
                # Some tokenizers count the space before a word as a part of it.
                first += len(text[first:last]) - len(text[first:last].lstrip())
                guesses[first] = _other_words(text[first:last], names, columns, self.candidates)
        return guesses

    def _encode(self, text: str, context: str | None) -> Any:
        limit = self.max_length * CHARACTERS_PER_TOKEN
        encoding = self.tokenizer(
            text[:limit],
            None if context is None else context[:limit],
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
        )
        self.tokenizer.backend_tokenizer.no_truncation()
        return encoding

    def _masked_logits(self, encoding: Any, positions: list[int]) -> torch.Tensor:
        """Mask each of B positions in its own copy of the text; return their logits (B, V)."""
        device = self.model.device
        inputs = {}
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            if name in encoding:
                inputs[name] = torch.tensor(encoding[name]).repeat(len(positions), 1)  # (B, T)
        rows, columns = torch.arange(len(positions)), torch.tensor(positions)
        inputs["input_ids"][rows, columns] = self.tokenizer.mask_token_id
        on_device = {name: values.to(device) for name, values in inputs.items()}
        with torch.inference_mode():
            outputs = self.model(**with_additive_mask(self.model, on_device))
        logits: torch.Tensor = outputs.logits[rows, columns]
        return logits


def _single_token_words(encoding: Any) -> list[int]:
    """Return the positions of those words of the first text that are a single token."""
    word_at = {}
    sequences_and_words = zip(encoding.sequence_ids(), encoding.word_ids(), strict=True)
    for position, (sequence, word) in enumerate(sequences_and_words):
        if sequence == 0 and word is not None:
            word_at[position] = word
    tokens_of = Counter(word_at.values())
    return [position for position, word in word_at.items() if tokens_of[word] == 1]


def load_masked_guesses(
    name: str, revision: str | None, candidates: int, max_length: int
) -> MaskedGuesses:
    """Load a masked language model by its folder, `package:` path or hub id.

    Raises:
        MachineError: If it cannot be loaded.
        UsageError: If it cannot predict masked words.
    """
    try:
        model, loading = AutoModelForMaskedLM.from_pretrained(
            loadable_name(name),
            revision=revision or "main",  # as in kdedge.teacher.finetune
            output_loading_info=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error
    if loading["missing_keys"]:
        raise UsageError(
            "the model for masked words has no head that predicts them",
            f"{name} lacks {sorted(loading['missing_keys'])[0]}",
            MASKED_MODEL_HINT,
        )
    tokenizer = _load_tokenizer_with_mask(name, revision)
    return MaskedGuesses(model.to(this_device()).eval(), tokenizer, candidates, max_length)


def check_masked_model(name: str, revision: str | None = None) -> None:
    """Check that a masked language model is there; its weights are not loaded.

    Raises:
        MachineError: If its configuration or its tokenizer cannot be loaded.
        UsageError: If no model of its type predicts masked words, or its tokenizer has no mask.
    """
    try:
        config = AutoConfig.from_pretrained(loadable_name(name), revision=revision)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise UsageError(
            "the model for masked words has no head that predicts them",
            f"{name} has the type {config.model_type}",
            MASKED_MODEL_HINT,
        )
    _load_tokenizer_with_mask(name, revision)


def _load_tokenizer_with_mask(name: str, revision: str | None) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(name, revision)
    if tokenizer.mask_token is None:
        raise UsageError(
            "the masked language model's tokenizer has no mask token", name, MASKED_MODEL_HINT
        )
    return tokenizer


def _cannot_load(name: str, error: Exception) -> MachineError:
    return MachineError(
        "the masked language model cannot be loaded",
        f"{name}: {first_line(error)}",
        MASKED_MODEL_HINT,
    )


@dataclass(frozen=True)
class ReplaceSource:
    """The source `replace`: each word is replaced with the recipe's probability.

    Attributes:
        guesses: None if there is no masked language model.
    """

    recipe: ReplaceConfig
    train: Split
    neighbours: Neighbours
    guesses: MaskedGuesses | None = None

    origin = "replace"
    reuses_rows = True

    @property
    def num_rows(self) -> int:
        return len(self.train)

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Rewrite the text of each training row, or both texts of a pair."""
        self._learn_neighbours(rows)
        texts = []
        for row in rows:
            text = self.train.texts[row]
            if self.train.pairs is None:
                new = AugmentedText(self._rewrite(text, None, rng), None, int(row))
            else:
                pair = self.train.pairs[row]
                new_text = self._rewrite(text, pair, rng)
                new = AugmentedText(new_text, self._rewrite(pair, text, rng), int(row))
            texts.append(new)
        return texts

    def _learn_neighbours(self, rows: np.ndarray) -> None:
        words: set[str] = set()
        for row in rows:
            words.update(self.train.texts[row].split())
            if self.train.pairs is not None:
                words.update(self.train.pairs[row].split())
        self.neighbours.learn(words)

    def _rewrite(self, text: str, context: str | None, rng: np.random.Generator) -> str:
        words = text.split()
        replaced = rng.random(len(words)) < self.recipe.probability
        guesses: dict[int, Candidates] = {}
        if self.guesses is not None and replaced.any():
            guesses = self.guesses.predict(" ".join(words), context)
        first = 0  # character of the word
        new_words = []
        for word, is_replaced in zip(words, replaced, strict=True):
            new_word = word
            if is_replaced and word.isalpha():
                candidates = guesses.get(first) or self.neighbours.known.get(word, ())
                if candidates:
                    new_word = candidates[int(rng.integers(len(candidates)))]
            new_words.append(new_word)
            first += len(word) + 1
        return " ".join(new_words)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; rows of zeros stay unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
