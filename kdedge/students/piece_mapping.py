"""Give a model another tokenizer: each piece gets the embedding of the same piece or its parts.

Two tokenizers write one piece differently: "film" and "##s" of a WordPiece are "Ġfilm" and "s" of a
byte-level tokenizer. So pieces are compared by the text that they decode to within a longer text.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from tokenizers import decoders
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from kdedge.errors import UsageError

ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
"""Special tokens are matched by their role, not by their text."""

SAME_ROLE = {"cls": "bos", "sep": "eos", "bos": "cls", "eos": "sep"}
"""The role that stands in if a tokenizer has none: both mark the start or the end of a text."""


def check_vocabulary(model: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise UsageError if a tokenizer has more tokens than a model has embeddings."""
    embeddings = model.get_text_config().vocab_size
    if len(tokenizer) > embeddings:
        raise UsageError(
            "the tokenizer has more tokens than the model has embeddings",
            f"{len(tokenizer)} tokens, {embeddings} embeddings",
            "use the tokenizer that belongs to the model, or resize its embeddings",
        )


def with_vocabulary(
    model: PreTrainedModel, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> PreTrainedModel:
    """Return a copy of a model for tokenizer `old` that works with the tokens of `new`.

    If both have the same vocabulary, the model itself is returned.
    """
    if old.get_vocab() == new.get_vocab():
        return model
    copy = deepcopy(model)
    rows = mapped_embeddings(model.get_input_embeddings().weight.detach(), old, new)
    table = nn.Embedding(len(rows), rows.shape[1], padding_idx=new.pad_token_id)
    table.weight = nn.Parameter(rows)
    copy.set_input_embeddings(table)
    copy.config.vocab_size = len(rows)
    copy.config.pad_token_id = new.pad_token_id
    return copy


def mapped_embeddings(
    table: torch.Tensor, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> torch.Tensor:
    """Return an embedding for each piece of `new`: the mean over its pieces of `old`.

    Args:
        table: *Shape:* (pieces of old, H)

    Returns:
        *Shape:* (pieces of new, H)
    """
    rows = table.new_zeros(max(new.get_vocab().values()) + 1, table.shape[1])
    for number, sources in source_pieces(old, new).items():
        rows[number] = table[sources].mean(0)
    return rows


def source_pieces(
    old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> dict[int, list[int]]:
    """Return id of `new` -> ids of `old` that replace it; at least one each.

    A special token is replaced by the one with the same role, a piece by the piece with the same
    text, and any other piece by the pieces into which `old` splits its text. If there are none, the
    unknown token replaces it.
    """
    by_text: dict[str, int] = {}
    for number, text in sorted(piece_texts(old).items()):
        by_text.setdefault(text, number)
    unknown = _id_of_role(old, "unk")
    sources: dict[int, list[int]] = {}
    to_split: dict[int, str] = {}
    texts = piece_texts(new)
    for number in sorted(new.get_vocab().values()):
        if number not in texts:
            sources[number] = [unknown]
        elif texts[number] in by_text:
            sources[number] = [by_text[texts[number]]]
        else:
            to_split[number] = texts[number]
    sources |= _split(old, to_split, unknown)
    for role in ROLES:
        own = getattr(new, f"{role}_token_id")
        if own is not None:
            sources[own] = [_id_of_role(old, role)]
    return sources


def piece_texts(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """Return id -> text of a piece within a longer text; a space marks the start of a word.

    Pieces without a text are left out: special tokens, and single bytes of longer characters.
    """
    decoder = tokenizer.backend_tokenizer.decoder
    is_wordpiece = type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"
    if is_wordpiece or decoder is None:
        decoder = decoders.WordPiece()
    special = set(tokenizer.all_special_ids)
    vocabulary = tokenizer.get_vocab()
    # A decoder removes the space before the first piece, so each piece is decoded after another.
    anchor = min(vocabulary, key=lambda piece: (not piece.isalnum(), len(piece), piece))
    start = len(decoder.decode([anchor]))
    texts = {}
    for piece, number in vocabulary.items():
        text = decoder.decode([anchor, piece])[start:]
        if number not in special and text.strip() and "\ufffd" not in text:
            texts[number] = text
    return texts


def _split(
    tokenizer: PreTrainedTokenizerFast, texts: dict[int, str], unknown: int
) -> dict[int, list[int]]:
    """Tokenize each text without unknown pieces; if none is left, use the unknown token."""
    encodings = tokenizer.backend_tokenizer.encode_batch(
        list(texts.values()), add_special_tokens=False
    )
    split = {}
    for number, encoding in zip(texts, encodings, strict=True):
        known = [piece for piece in encoding.ids if piece != unknown]
        split[number] = known or [unknown]
    return split


def _id_of_role(tokenizer: PreTrainedTokenizerFast, role: str) -> int:
    """Return the id of the special token with a role, or of the best substitute."""
    for name in (role, SAME_ROLE.get(role, role), "unk", "eos", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            return int(number)
    return 0
