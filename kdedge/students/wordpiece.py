"""A WordPiece vocabulary learned from a task's own texts, for a student that shall not read as its teacher does.

Pieces are merged as byte-pair encoding merges them (Sennrich et al. 2016): again and again the pair that stands side by side
most often, of equal ones the first in the alphabet. The same texts so give the same vocabulary in every process, which
the trainers of `tokenizers` do not promise for pieces with a prefix.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

from transformers import BertTokenizer, PreTrainedTokenizerFast

SIZE = 8000
"""Pieces of a vocabulary when a recipe names no number."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

SELDOM = 2
"""A piece must stand at least so often in the texts to be merged."""

Pair = tuple[str, str]


def learned_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """BERT's lower-casing tokenizer with at most `size` pieces learned from the texts."""
    reader = BertTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        words.update(
            word
            for word, _ in reader.pre_tokenizer.pre_tokenize_str(
                reader.normalizer.normalize_str(text)
            )
        )
    return BertTokenizer(
        vocab={piece: number for number, piece in enumerate(learned_pieces(words, size))}
    )


def learned_pieces(words: Mapping[str, int], size: int) -> list[str]:
    """Special tokens, characters, then merged pieces, most frequent first. words: word -> how often it stands in the texts."""
    pieces = [*SPECIAL, *_alphabet(words, (size - len(SPECIAL)) // 2)]
    there = set(pieces)
    merging = _Merging(
        words, {word: letters for word in words if there.issuperset(letters := _letters(word))}
    )
    while len(pieces) < size and (pair := merging.commonest()) is not None:
        piece = merging.merge(pair)
        if piece not in there:
            there.add(piece)
            pieces.append(piece)
    return pieces


def _alphabet(words: Mapping[str, int], most: int) -> list[str]:
    """At most `most` pieces of one character, each as it begins a word and, where it is ever a part of a longer one, as it goes on in it.

    The rarest characters are left unknown where they are too many.
    """
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    inside = {
        letter for word in words if len(word) > 1 for letter in word
    }  # no character of Chinese is: BERT reads each as a word
    known: list[str] = []
    for letter in sorted(letters, key=lambda letter: (-letters[letter], letter)):
        most -= 2 if letter in inside else 1
        if most < 0:
            break
        known.append(letter)
    return [*sorted(known), *(f"##{letter}" for letter in sorted(known) if letter in inside)]


class _Merging:
    """Words as lists of pieces, and how often each pair of pieces stands side by side in them."""

    def __init__(self, words: Mapping[str, int], spelled: dict[str, list[str]]) -> None:
        self.words, self.spelled = words, spelled
        self.counts: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[str]] = defaultdict(set)
        for word in spelled:
            self._count(word, 1)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.heap)

    def commonest(self) -> Pair | None:
        """The most frequent pair, None where all are rare; the heap may hold counts that no longer are."""
        while self.heap:
            count, pair = heapq.heappop(self.heap)
            now = self.counts[pair]
            if now < SELDOM:
                continue
            if now == -count:
                return pair
            heapq.heappush(self.heap, (-now, pair))
        return None

    def merge(self, pair: Pair) -> str:
        """Make one piece of a pair wherever it stands."""
        whole = pair[0] + pair[1].removeprefix("##")
        touched: set[Pair] = set()
        for word in sorted(self.places[pair]):
            touched |= self._count(word, -1)
            self.spelled[word] = _joined(self.spelled[word], pair, whole)
            touched |= self._count(word, 1)
        del self.counts[pair], self.places[pair]
        for other in touched - {pair}:
            if self.counts[other] >= SELDOM:
                heapq.heappush(self.heap, (-self.counts[other], other))
        return whole

    def _count(self, word: str, sign: int) -> set[Pair]:
        pieces = self.spelled[word]
        pairs = list(pairwise(pieces))
        for pair in pairs:
            self.counts[pair] += sign * self.words[word]
            if sign > 0:
                self.places[pair].add(word)
            else:
                self.places[pair].discard(word)
        return set(pairs)


def _letters(word: str) -> list[str]:
    return [word[0], *(f"##{letter}" for letter in word[1:])]


def _joined(pieces: list[str], pair: Pair, whole: str) -> list[str]:
    new: list[str] = []
    place = 0
    while place < len(pieces):
        here = (pieces[place], pieces[place + 1]) == pair if place + 1 < len(pieces) else False
        new.append(whole if here else pieces[place])
        place += 2 if here else 1
    return new
