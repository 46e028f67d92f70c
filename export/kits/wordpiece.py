"""Reads what a kit's tokenizer needs from a bundle, and refuses tokenizers that it cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Encoding, Tokenizer

from kdedge.errors import UsageError
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.text_encoder import CHARACTERS_PER_TOKEN

MAX_WORD_CHARACTERS = 200
"""Most characters of a word that a kit has room for; BERT splits words of up to 100."""


@dataclass(frozen=True)
class SpecialToken:
    """A token that a text may contain literally, such as `[MASK]`."""

    content: str
    id: int


@dataclass(frozen=True)
class WordPiece:
    """Everything that decides the tokens of a text.

    Attributes:
        pieces: The vocabulary by id; "" for an id without a piece.
        prefix: What continuing pieces begin with.
        unknown: Id of a word that cannot be split into pieces.
        max_word_characters: Longer words are unknown.
        special: Longest content first, as it is matched.
        begin, between, end: Ids around one text, and around and between two.
        max_length: Tokens, special ones included.
        max_characters: Each text is first cut to this many characters.
        clean_text, chinese, strip_accents, lowercase: The steps of BertNormalizer.
    """

    pieces: tuple[str, ...]
    prefix: str
    unknown: int
    max_word_characters: int
    special: tuple[SpecialToken, ...]
    begin: int
    between: int
    end: int
    max_length: int
    max_characters: int
    clean_text: bool
    chinese: bool
    strip_accents: bool
    lowercase: bool

    @property
    def highest_id(self) -> int:
        """The largest id that a text can have."""
        special = [token.id for token in self.special]
        return max(len(self.pieces) - 1, self.begin, self.between, self.end, *special)

    @classmethod
    def of(cls, bundle: Bundle) -> WordPiece:
        """Read a bundle's tokenizer.json.

        Raises:
            UsageError: If it is not BERT's WordPiece.
        """
        content = bundle.contents["tokenizer.json"]
        document = json.loads(content)
        _require_parts(document)
        model, normalizer = document["model"], document["normalizer"]
        begin, between, end = _ids_around(Tokenizer.from_buffer(content))
        accents = normalizer["strip_accents"]
        max_length = bundle.manifest.max_length
        if max_length < 3:
            raise _refused(f"the bundle reads only {max_length} tokens")
        return cls(
            pieces=_pieces_by_id(model["vocab"]),
            prefix=model["continuing_subword_prefix"],
            unknown=_unknown_id(model),
            max_word_characters=_word_limit(model),
            special=_special_tokens(document),
            begin=begin,
            between=between,
            end=end,
            max_length=max_length,
            max_characters=max_length * CHARACTERS_PER_TOKEN,
            clean_text=normalizer["clean_text"],
            chinese=normalizer["handle_chinese_chars"],
            strip_accents=normalizer["lowercase"] if accents is None else accents,
            lowercase=normalizer["lowercase"],
        )


def _require_parts(document: Mapping[str, Any]) -> None:
    """Raise UsageError if a part of the tokenizer is not BERT's."""
    expected = {
        "model": "WordPiece",
        "normalizer": "BertNormalizer",
        "pre_tokenizer": "BertPreTokenizer",
    }
    for part, kind in expected.items():
        found = (document.get(part) or {}).get("type", "none")
        if found != kind:
            raise _refused(f"its {part} is {found}, and not {kind}")


def _pieces_by_id(vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    pieces = [""] * (max(vocabulary.values()) + 1)
    for piece, number in vocabulary.items():
        pieces[number] = piece
    return tuple(pieces)


def _unknown_id(model: Mapping[str, Any]) -> int:
    unknown = model["unk_token"]
    if unknown not in model["vocab"]:
        raise _refused(f"its vocabulary has no {unknown}")
    return int(model["vocab"][unknown])


def _word_limit(model: Mapping[str, Any]) -> int:
    limit = int(model["max_input_chars_per_word"])
    if limit > MAX_WORD_CHARACTERS:
        raise _refused(f"it splits words of {limit} characters; at most {MAX_WORD_CHARACTERS}")
    return limit


def _special_tokens(document: Mapping[str, Any]) -> tuple[SpecialToken, ...]:
    tokens = []
    for token in document["added_tokens"]:
        for option in ("single_word", "lstrip", "rstrip", "normalized"):
            if token[option]:
                raise _refused(f"its added token {token['content']!r} has the option {option}")
        tokens.append(SpecialToken(token["content"], token["id"]))
    return tuple(sorted(tokens, key=lambda token: (-len(token.content), token.id)))


def _ids_around(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Return the ids that surround texts, as the tokenizer itself adds them."""
    alone = tokenizer.encode("a")
    both = tokenizer.encode("a", "a")
    words = len(alone.ids) - 2
    is_pair = [0] * (words + 2) + [1] * (words + 1)
    as_expected = (
        alone.special_tokens_mask == _mask(words, 1)
        and both.special_tokens_mask == _mask(words, 2)
        and both.type_ids == is_pair
        and alone.ids == both.ids[: words + 1] + both.ids[-1:]
    )
    if not as_expected:
        raise _refused(f"it puts {_template(both)} around two texts, and not [CLS] A [SEP] B [SEP]")
    return both.ids[0], both.ids[words + 1], both.ids[-1]


def _mask(words: int, texts: int) -> list[int]:
    return [1] + ([0] * words + [1]) * texts


def _template(encoding: Encoding) -> str:
    return " ".join(encoding.tokens)[:80]


def _refused(reason: str) -> UsageError:
    return UsageError(
        "a kit has no tokenizer for this bundle",
        reason,
        "kits support BERT's WordPiece only: use the Python package `kdedge` on the device, or a "
        "student whose teacher or recipe has a WordPiece vocabulary",
    )
