"""Texts on which tokenizers differ: scripts, marks, joiners, literal special tokens, NUL."""

from __future__ import annotations

import random
import unicodedata

SAMPLES = (
    "",
    " ",
    "\u0000",
    "a\u0000b",
    "\ufffd",
    "İstanbul ISPARTA ısı ΣΊΣΥΦΟΣ ẞ straße ŉ ǰ ΐ",
    "👩\u200d👩\u200d👧 👍🏽 🇺🇳 ❤️ 🥰🫠",
    "نص عربي \u202bוטקסט עברי\u202c \u0627\u064b\u0651",
    "zero\u200bwidth \u200c\u200d\u2060 soft\u00adhyphen no\u00a0break \ufeffbom",
    "日本語の文と中文句子和한국어 문장 𠀀𪜀𫝀𫠠 丽 \u3000",
    "e\u0301 \u00e9 \u1e69 s\u0323\u0307 s\u0307\u0323 \u212b \uac01 \u1100\u1161\u11a8",
    "[CLS] [SEP][MASK][MASK] [PAD]x[UNK] [cls] [MASK [[SEP]]",
    "tabs\tand\nnew lines\r\n\u000b\u000c\u0085\u2028\u2029of a form",
    "the film ##was ## # good film" * 3,
    "x" * 100 + " " + "x" * 101 + " " + "é" * 100 + " " + "é" * 101,
    "!?...\u00bf\u3002\u30fb\u2019\u201c\u2014$+<=>^`|~",
    "\U0001d15e\U0001d165\U0001d166\U0001d16d \u1b44\u0301 \U00011938 \u0958 \u0f73\u0f71",
    "\U00016ff0\U00010d24\u0898 \ua7c0\U00016ea0 \u1c89",
    "e" + "\u0301\u0316\u0345\u0334" * 50,
)
"""One text for each known difference."""

ALPHABETS = (
    "the film was good bad story ",
    "aàáâãäåAÀÁÂÃÄÅ çÇñÑøØßẞ",
    "ıİiIşŞğĞ",
    "\u0300\u0301\u0302\u0316\u0323\u0327\u0334\u0345\u05b0\u064bae",
    "\u200b\u200c\u200d\u2060\u00ad\ufeff\u202a\u202e ab",
    "אבגדהוز שلمرحبا ",
    "中文字 日本語 カタカナ 한국어각",
    "👩👨👧\u200d🏽❤\ufe0f🇺🇳🥰 ",
    "\u0000\u0001\u001f\u007f\u0080\u0085\u009f\t\n\r ab",
    "क्षिन\u093c\u0d4d\u1b44\u1b35\ua953",
    ".,;:!?-_()[]{}<>#$%&*+=/\\|~^`'\" ab",
)

PIECES = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "film", "##s", " ", "good")


def unusual_texts(count: int = 1000) -> list[str]:
    """Return the samples and random texts, the same at every call; one has a million characters."""
    chance = random.Random(20)
    texts = [*SAMPLES, "word " * 200_000, "\u0301é\U0001f469" * 333_334]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        texts += [unicodedata.normalize(form, sample) for sample in SAMPLES]
    makers = (_of_alphabet, _of_any_character, _of_pieces, _zalgo)
    while len(texts) < count:
        texts.append(makers[len(texts) % len(makers)](chance))
    return texts


def _of_alphabet(chance: random.Random) -> str:
    alphabet = chance.choice(ALPHABETS)
    return "".join(chance.choices(alphabet, k=chance.randint(1, 60)))


def _of_any_character(chance: random.Random) -> str:
    return "".join(_any_character(chance) for _ in range(chance.randint(1, 40)))


def _any_character(chance: random.Random) -> str:
    """Return a character from any plane, except half of a surrogate pair."""
    end = chance.choice((0x300, 0x2000, 0xD800, 0x20000, 0x110000))
    code = chance.randrange(end)
    return " " if 0xD800 <= code < 0xE000 else chr(code)


def _of_pieces(chance: random.Random) -> str:
    return "".join(chance.choices(PIECES, k=chance.randint(1, 30)))


def _zalgo(chance: random.Random) -> str:
    """Return letters under many marks, of all combining classes."""
    text = ""
    for letter in chance.choices("abc 中é", k=chance.randint(1, 12)):
        marks = [chr(chance.randrange(0x300, 0x370)) for _ in range(chance.randint(0, 20))]
        text += letter + "".join(marks)
    return text
