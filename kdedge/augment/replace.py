"""Texts with words replaced by a model's candidates: TinyBERT (Jiao et al. 2020), algorithm 1.

A word that is one word piece takes a masked language model's guesses, where there is such a model; any other word the
nearest words in an embedding matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.augment.source import AugmentedText
from kdedge.data.task import Split
from kdedge.nn.tokenization import CHARACTERS_PER_TOKEN
from kdedge.recipe import ReplaceConfig

BATCH = 64
"""Masked texts a language model reads at once."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest whole words in an embedding matrix (V, H), by cosine. A word of several pieces stands where their mean stands."""

    tokenizer: PreTrainedTokenizerFast
    matrix: np.ndarray
    candidates: int
    known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def learn(self, words: Iterable[str]) -> None:
        """Find the candidates of words not met before."""
        new = sorted({word for word in words if word not in self.known})
        names, ids = whole_words(self.tokenizer)
        if not len(ids):
            return
        targets = _unit(self.matrix[ids])
        for start in range(0, len(new), 512):
            batch = new[start : start + 512]
            inside = (
                [f" {word}" for word in batch] if byte_level(self.tokenizer) else batch
            )  # pieces as within a text, like those of `names`
            pieces = self.tokenizer(inside, add_special_tokens=False)["input_ids"] if batch else []
            points = _unit(
                np.stack(
                    [
                        self.matrix[p].mean(0) if p else np.zeros(self.matrix.shape[1], np.float32)
                        for p in pieces
                    ]
                )
            )
            near = np.argsort(-(points @ targets.T), axis=1, kind="stable")[
                :, : self.candidates + 1
            ]  # (B, K + 1): itself is the nearest
            for word, row in zip(batch, near, strict=True):
                self.known[word] = tuple(
                    name for name in (names[i] for i in row) if name != word.casefold()
                )[: self.candidates]


def byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a space before a word is a part of its piece, as in GPT-2 and RoBERTa."""
    return any(token[:1] == "Ġ" for token in tokenizer.get_vocab())


def whole_words(tokenizer: PreTrainedTokenizerFast) -> tuple[list[str], np.ndarray]:
    """Vocabulary entries that are words by themselves, as texts spell them, and their ids, by id."""
    special = set(tokenizer.all_special_tokens)
    words = []
    marked = any(token[:1] in "Ġ▁" for token in tokenizer.get_vocab() if token)
    for token, place in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        name = token[1:] if marked and token[:1] in "Ġ▁" else token
        if token not in special and name.isalpha() and (not marked or token[:1] in "Ġ▁"):
            words.append((name, place))
    return [name for name, _ in words], np.array([place for _, place in words], dtype=np.int64)


@dataclass(frozen=True)
class MaskedGuesses:
    """A masked language model's best whole words at each place of a text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    candidates: int
    max_length: int
    known: dict[tuple[str, str | None], dict[int, tuple[str, ...]]] = field(default_factory=dict)

    def at(self, text: str, second: str | None) -> dict[int, tuple[str, ...]]:
        """Character position in `text` where a word of one piece starts -> candidates, best first. `second` is read along with it."""
        if (text, second) not in self.known:
            self.known[text, second] = self._ask(text, second)
        return self.known[text, second]

    def _ask(self, text: str, second: str | None) -> dict[int, tuple[str, ...]]:
        budget = self.max_length * CHARACTERS_PER_TOKEN
        read = self.tokenizer(
            text[:budget],
            None if second is None else second[:budget],
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
        )
        self.tokenizer.backend_tokenizer.no_truncation()
        words = {
            i: word
            for i, (sequence, word) in enumerate(
                zip(read.sequence_ids(), read.word_ids(), strict=True)
            )
            if sequence == 0 and word is not None
        }
        pieces = Counter(words.values())
        whole = [i for i, word in words.items() if pieces[word] == 1]
        names, ids = whole_words(self.tokenizer)
        guesses: dict[int, tuple[str, ...]] = {}
        for start in range(0, len(whole), BATCH):
            at = whole[start : start + BATCH]
            rows = torch.tensor(read["input_ids"]).repeat(
                len(at), 1
            )  # (B, T), one place masked in each
            rows[torch.arange(len(at)), torch.tensor(at)] = self.tokenizer.mask_token_id
            rest = {
                name: torch.tensor(read[name]).repeat(len(at), 1)
                for name in read
                if name in ("attention_mask", "token_type_ids")
            }
            device = self.model.device
            with torch.inference_mode():
                logits = self.model(
                    input_ids=rows.to(device), **{k: v.to(device) for k, v in rest.items()}
                ).logits[torch.arange(len(at)), torch.tensor(at)]
            best = (
                logits[:, torch.from_numpy(ids).to(device)]
                .topk(min(self.candidates + 1, len(ids)), dim=1)
                .indices.tolist()
            )
            for place, row in zip(at, best, strict=True):
                begin, end = read["offset_mapping"][place]
                word = text[begin:end].casefold()
                guesses[begin] = tuple(name for name in (names[i] for i in row) if name != word)[
                    : self.candidates
                ]
        return guesses


@dataclass(frozen=True)
class ReplaceSource:
    """The source `replace`. guesses: None where no masked language model is to be had."""

    recipe: ReplaceConfig
    train: Split
    neighbours: Neighbours
    guesses: MaskedGuesses | None = None

    origin = "replace"
    renewable = True

    @property
    def starts(self) -> int:
        return len(self.train)

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        """One altered text for each training row (N,), of pairs both sides; a word is replaced with the recipe's probability."""
        self.neighbours.learn(
            word for row in rows for text in self._sides(int(row)) for word in text.split()
        )
        made = []
        for row in rows:
            sides = self._sides(int(row))
            new = [
                self._altered(text, sides[1 - i] if len(sides) == 2 else None, chance)
                for i, text in enumerate(sides)
            ]
            made.append(AugmentedText(new[0], new[1] if len(new) == 2 else None, int(row)))
        return made

    def _sides(self, row: int) -> list[str]:
        return [self.train.texts[row], *([self.train.pairs[row]] if self.train.pairs else [])]

    def _altered(self, text: str, other: str | None, chance: np.random.Generator) -> str:
        words = text.split()
        draws = chance.random(len(words)) < self.recipe.probability
        guesses = self.guesses.at(" ".join(words), other) if self.guesses and draws.any() else {}
        position, new = 0, []
        for word, drawn in zip(words, draws, strict=True):
            choices = (
                (guesses.get(position) or self.neighbours.known.get(word, ()))
                if drawn and word.isalpha()
                else ()
            )
            new.append(choices[int(chance.integers(len(choices)))] if choices else word)
            position += len(word) + 1
        return " ".join(new)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Each row (N, H) at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
