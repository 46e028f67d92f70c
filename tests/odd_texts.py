"""Odd texts, on which tokenizers differ: scripts, marks, emoji, joiners, special tokens, NUL."""

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

PARTS = [
    *("the film was lovely", "CamelCaseWORD", "don't", "0.5", "!!!???", "a" * 101, "x" * 250),
    *("Zürich", "naïve", "İstanbul", "ıI", "ẞß", "ﬁﬂ", "Å", "ǅ", "Σς", "ŁØĐ", "Ⱥ", "ŉ", "ΐ", "ǰ"),
    *(
        "日本語テキスト",
        "한국어",
        "\u1112\u1161\u11ab",
        "العربية",
        "עִבְרִית",
        "ไทย",
        "हिन्दी",
        "Ꭰꭰ",
        "𐐀",
    ),
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324A\u0334\u0335\u031cL\u0320",
    *("e\u0301", "\u0301", "\u0345", "½", "①", "Ⅷ", "١٢٣", "々", "〆", "㍿", "𝕬𝖇𝖈"),
    *("\U00020000", "好\U0002a6df好", "\U0002f800film", "\U0002b820", "\U0002ceaf"),
    *("👩‍👩‍👧‍👦", "🇩🇪", "❤️", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2028", "\u0085"),
    *(
        "\u00a0",
        "\u3000",
        "\u202e",
        "\u180e",
        "\u2060",
        "\u1160",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x7f",
    ),
    *("\ufffd", "\ufffe", "\ue000", "\U000e0041", "\U0010ffff"),
    *(
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "[mask]",
        " [MASK] ",
        "##ing",
        "##s",
        "film",
        "good",
    ),
    *("http://a.b/c?d=e&f", "<script>alert(1)</script>", "$€£¥", "^`~|", "+<=>", "−–—", "…", "“”"),
]
"""Parts of a text; some are special tokens or pieces of words."""

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

LONG_TEXTS = ("word " * 200_000, "\u0301é\U0001f469" * 333_334)
"""Texts of a million characters."""


def odd_texts(count: int) -> list[str]:
    """Return the samples, their normal forms and random texts, the same in every process."""
    chance = random.Random(20)
    texts = list(SAMPLES)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        texts += [unicodedata.normalize(form, sample) for sample in SAMPLES]
    makers = (_of_alphabet, _of_any_character, _of_parts, _zalgo)
    while len(texts) < count:
        texts.append(makers[len(texts) % len(makers)](chance))
    return texts[:count]


def joined_parts(count: int) -> list[str]:
    """Return texts of parts alone, the same in every process.

    The tokenizer of the web page is tested with these. On 24 of 2,000 rows of `odd_texts`, such as
    Greek words in capitals, JavaScript's tokenizer differs.
    """
    chance = random.Random(0)
    return [_of_parts(chance) for _ in range(count)]


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


def _of_parts(chance: random.Random) -> str:
    parts = chance.choices(PARTS, k=chance.randint(1, 6))
    return chance.choice(["", " "]).join(parts)


def _zalgo(chance: random.Random) -> str:
    """Return letters under many marks, of all combining classes."""
    text = ""
    for letter in chance.choices("abc 中é", k=chance.randint(1, 12)):
        marks = [chr(chance.randrange(0x300, 0x370)) for _ in range(chance.randint(0, 20))]
        text += letter + "".join(marks)
    return text
