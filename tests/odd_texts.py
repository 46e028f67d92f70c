"""Odd texts, on which two tokenizers may differ: scripts, marks, emoji, control characters."""

from __future__ import annotations

import random

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
    *("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[mask]", " [MASK] ", "##ing"),
    *("http://a.b/c?d=e&f", "<script>alert(1)</script>", "$€£¥", "^`~|", "+<=>", "−–—", "…", "“”"),
]


def odd_texts(count: int) -> list[str]:
    """Return `count` texts of one to six parts, the same in every process."""
    chance = random.Random(0)
    texts = []
    for _ in range(count):
        parts = [chance.choice(PARTS) for _ in range(chance.randint(1, 6))]
        texts.append(chance.choice(["", " "]).join(parts))
    return texts
