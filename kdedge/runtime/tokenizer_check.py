"""Check a tokenizer.json before the library `tokenizers` builds it: known parts, bounded sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdedge.errors import IntegrityError

COMPONENTS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        """BertNormalizer Lowercase NFC NFD NFKC NFKD Nmt Precompiled Prepend Replace Sequence Strip
        StripAccents""".split()
    ),
    "pre_tokenizer": frozenset(
        """BertPreTokenizer ByteLevel Digits Metaspace Punctuation Sequence Split UnicodeScripts
        Whitespace WhitespaceSplit""".split()
    ),
    "model": frozenset(("BPE", "Unigram", "WordLevel", "WordPiece")),
    "post_processor": frozenset(
        ("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing")
    ),
    "decoder": frozenset(
        """BPEDecoder ByteFallback ByteLevel Fuse Metaspace Replace Sequence Strip
        WordPiece""".split()
    ),
}
"""Part of a tokenizer -> the types that fast tokenizers of BERT-like models have."""

LISTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
"""Part -> the field of its type Sequence that holds a list."""

MAX_STRUCTURE = 6_000_000
"""Most brackets, braces and commas: each of them can become an object in memory."""

MAX_COMPONENTS = 16
MAX_REPLACEMENTS = 8
MAX_PATTERN = 1000
MAX_CONTENT = 16
"""Most characters that a replacement or a prefix inserts, and most pieces of a template."""

MAX_ADDED_TOKENS = 20_000
MAX_VOCABULARY = 2_000_000
MAX_WORD = 200
"""Most characters of a word that WordPiece splits: the time grows with their square."""

PARTS = frozenset((*COMPONENTS, "version", "truncation", "padding", "added_tokens"))


def check_tokenizer(content: bytes) -> None:
    """Refuse a tokenizer.json with parts that no known tokenizer has, or that are too large.

    Raises:
        IntegrityError: If it is no tokenizer, or holds such a part.
    """
    structure = sum(content.count(mark) for mark in (b"[", b"{", b","))
    if structure > MAX_STRUCTURE:
        raise _refused(f"it has {structure:,} brackets and commas")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is not JSON: {str(error)[:200]}") from error
    try:
        _check(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise _refused(f"it has another form than a tokenizer: {error!r}"[:300]) from error


def _check(document: Any) -> None:
    if not isinstance(document, dict):
        raise _refused("it is not a JSON object")
    for name in document.keys() - PARTS:
        raise _refused(f"it has the unknown part {name[:80]!r}")
    for name in LISTS:
        component = document.get(name)
        if component is not None:
            _check_component(name, component)
    _check_model(document["model"])
    tokens = document.get("added_tokens") or []
    if len(tokens) > MAX_ADDED_TOKENS:
        raise _refused(f"it has {len(tokens):,} added tokens")


def _check_component(name: str, component: dict[str, Any]) -> None:
    """Check one part and the parts in its sequence; nested sequences are walked in a loop."""
    waiting = [component]
    count = replacements = 0
    while waiting:
        current = waiting.pop()
        count += 1
        if count > MAX_COMPONENTS:
            raise _refused(f"its {name} has more than {MAX_COMPONENTS} parts")
        kind = current["type"]
        if kind not in COMPONENTS[name]:
            raise _refused(f"its {name} has the type {str(kind)[:80]!r}")
        if kind == "Sequence":
            waiting += current[LISTS[name]]
        replacements += kind == "Replace"
        _check_fields(name, current)
    if replacements > MAX_REPLACEMENTS:
        raise _refused(f"its {name} has {replacements} replacements")


def _check_fields(name: str, component: dict[str, Any]) -> None:
    """Limit what a part inserts for each character or text, and its patterns."""
    for field in ("content", "prepend", "replacement"):
        if len(str(component.get(field) or "")) > MAX_CONTENT:
            raise _refused(f"its {name} inserts more than {MAX_CONTENT} characters")
    if len(str(component.get("pattern") or "")) > MAX_PATTERN:
        raise _refused(f"its {name} has a pattern of more than {MAX_PATTERN} characters")
    for field in ("single", "pair", "special_tokens"):
        if len(component.get(field) or "") > MAX_CONTENT:
            raise _refused(f"its {name} has a template of more than {MAX_CONTENT} pieces")
    for token in dict(component.get("special_tokens") or {}).values():
        if len(token["ids"]) > MAX_CONTENT:
            raise _refused(f"its {name} has a special token of {len(token['ids'])} ids")


def _check_model(model: dict[str, Any]) -> None:
    kind = model.get("type", "WordPiece")
    if kind not in COMPONENTS["model"]:
        raise _refused(f"its model has the type {str(kind)[:80]!r}")
    size = max(len(model["vocab"]), len(model.get("merges") or ()))
    if size > MAX_VOCABULARY:
        raise _refused(f"it has {size:,} pieces or merges")
    if (
        isinstance(model["vocab"], dict)
        and max(model["vocab"].values(), default=0) > MAX_VOCABULARY
    ):
        raise _refused("a piece has an id beyond every vocabulary")
    if int(model.get("max_input_chars_per_word") or 0) > MAX_WORD:
        raise _refused(f"it splits words of {model['max_input_chars_per_word']} characters")


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(
        "tokenizer.json of the bundle cannot be used",
        f"it is refused: {reason}",
        "do not use this bundle, or export it again with this kdedge",
    )
