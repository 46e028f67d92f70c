"""Writes the tables of the tokenizer: as C for `shared/wordpiece.h`, and as JSON for Node."""

from __future__ import annotations

from itertools import chain
from typing import Any

from kdedge.export.kits import unicode_tables
from kdedge.export.kits.c_text import c_array, c_bytes, c_macros, starts
from kdedge.export.kits.unicode_tables import CLASS_SHIFT, Mapping, UnicodeTables
from kdedge.export.kits.wordpiece import WordPiece

EMPTY_HASH = 2166136261
HASH_FACTOR = 16777619
"""FNV-1a with 32 bits (Fowler, Noll and Vo)."""

FLAGS = ("REMOVED", "BLANK", "SEPARATOR", "PUNCTUATION", "MARK", "IDEOGRAPH")


def unicode_source() -> str:
    """Return C tables of the properties and replacements of characters."""
    tables = UnicodeTables.load()
    macros: dict[str, object] = {f"KD_{flag}": getattr(unicode_tables, flag) for flag in FLAGS}
    macros |= {"KD_CLASS_SHIFT": CLASS_SHIFT, "KD_PROPERTIES": len(tables.properties)}
    return "\n".join(
        [
            "/* What `tokenizers` knows about characters. Written by kdedge. */\n",
            "#include <stdint.h>\n",
            c_macros(macros),
            c_array("uint32_t", "kd_property_first", (row[0] for row in tables.properties)),
            c_array("uint16_t", "kd_property_value", (row[1] for row in tables.properties)),
            c_array("uint16_t", "kd_ascii", _ascii_properties(tables)),
            _mapping_source("decomposition", tables.decompositions),
            _mapping_source("lowercase", tables.lowercase),
        ]
    )


def _ascii_properties(tables: UnicodeTables) -> list[int]:
    values: list[int] = []
    for first, value in tables.properties:
        if first >= 128:
            break
        values += [values[-1] if values else 0] * (first - len(values))
        values.append(value)
    return values + [values[-1]] * (128 - len(values))


def _mapping_source(name: str, rows: Mapping) -> str:
    replacements = [row[1:] for row in rows]
    return "\n".join(
        [
            c_macros({f"KD_{name.upper()}S": len(rows)}),
            c_array("uint32_t", f"kd_{name}_from", (row[0] for row in rows)),
            c_array("uint16_t", f"kd_{name}_start", starts(replacements)),
            c_array("uint32_t", f"kd_{name}_to", chain.from_iterable(replacements)),
        ]
    )


def vocabulary_source(tokenizer: WordPiece) -> str:
    """Return the vocabulary, its hash table and all settings of the tokenizer as C."""
    pieces = [piece.encode() for piece in tokenizer.pieces]
    slots = _hash_table(pieces)
    contents = [list(map(ord, token.content)) for token in tokenizer.special]
    prefix = tokenizer.prefix.encode()
    macros = {
        "KD_MAX_LENGTH": tokenizer.max_length,
        "KD_MAX_CHARACTERS": tokenizer.max_characters,
        "KD_MAX_WORD_CHARACTERS": tokenizer.max_word_characters,
        "KD_UNKNOWN": tokenizer.unknown,
        "KD_BEGIN": tokenizer.begin,
        "KD_BETWEEN": tokenizer.between,
        "KD_END": tokenizer.end,
        "KD_CLEAN_TEXT": int(tokenizer.clean_text),
        "KD_CHINESE": int(tokenizer.chinese),
        "KD_STRIP_ACCENTS": int(tokenizer.strip_accents),
        "KD_LOWERCASE": int(tokenizer.lowercase),
        "KD_PREFIX_BYTES": len(prefix),
        "KD_PREFIX_HASH": f"{_hash(prefix)}u",
        "KD_EMPTY_HASH": f"{EMPTY_HASH}u",
        "KD_HASH_FACTOR": f"{HASH_FACTOR}u",
        "KD_SLOT_MASK": f"{len(slots) - 1}u",
        "KD_SPECIALS": len(tokenizer.special),
    }
    return "\n".join(
        [
            "/* The vocabulary and the settings of the tokenizer. Written by kdedge. */\n",
            "#include <stdint.h>\n",
            c_macros(macros),
            c_bytes("char", "kd_prefix", prefix),
            c_array("int32_t", "kd_special_id", (token.id for token in tokenizer.special)),
            c_array("uint32_t", "kd_special_start", starts(contents)),
            c_array("uint32_t", "kd_special_codes", chain.from_iterable(contents)),
            c_bytes("char", "kd_pieces", b"".join(pieces)),
            c_array("uint32_t", "kd_piece_start", starts(pieces)),
            c_array("uint32_t", "kd_slots", slots),
        ]
    )


def _hash(content: bytes) -> int:
    value = EMPTY_HASH
    for byte in content:
        value = (value ^ byte) * HASH_FACTOR & 0xFFFFFFFF
    return value


def _hash_table(pieces: list[bytes]) -> list[int]:
    """Return slots that hold id + 1, or 0: a piece stands in the first free slot from its hash."""
    size = 1 << (2 * len(pieces)).bit_length()
    slots = [0] * size
    for number, piece in enumerate(pieces):
        if not piece:
            continue
        slot = _hash(piece) & (size - 1)
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = number + 1
    return slots


def tokenizer_document(tokenizer: WordPiece) -> dict[str, Any]:
    """Return the settings of the tokenizer for JSON, in the style of JavaScript."""
    special = [{"content": token.content, "id": token.id} for token in tokenizer.special]
    return {
        "begin": tokenizer.begin,
        "between": tokenizer.between,
        "chinese": tokenizer.chinese,
        "cleanText": tokenizer.clean_text,
        "end": tokenizer.end,
        "lowercase": tokenizer.lowercase,
        "maxCharacters": tokenizer.max_characters,
        "maxLength": tokenizer.max_length,
        "maxWordCharacters": tokenizer.max_word_characters,
        "pieces": list(tokenizer.pieces),
        "prefix": tokenizer.prefix,
        "special": special,
        "stripAccents": tokenizer.strip_accents,
        "unknown": tokenizer.unknown,
    }
