"""Texts for golden answers that belong to nobody: written for kdedge, so no test text travels."""

from __future__ import annotations

SENTENCES = (
    "The train leaves at nine.",
    "It rained all morning.",
    "She painted the door green.",
    "Where did you put the keys?",
    "The soup was cold and far too salty.",
    "He fixed the bicycle in an hour.",
    "Nobody answered the phone.",
    "What a wonderful concert that was!",
    "The library closes early on Fridays.",
    "Our team lost the final by one goal.",
    "Prices rose by three percent last year.",
    "I would buy this lamp again.",
    "The battery lasts for two days.",
    "This is the worst hotel I have ever stayed in.",
    "A new bridge will cross the river next spring.",
    "Scientists measured the temperature of the lake.",
    "Please send the invoice by Monday.",
    "The screen went black after an update.",
    "Her speech was short, clear and kind.",
    "They planted forty trees along the road.",
    "Can I change the date of my flight?",
    "The museum shows old maps and coins.",
    "Bread, milk, two lemons and a bag of rice.",
    "The judge asked both sides to wait.",
    "It was not bad, but it was not good either.",
    "The film has a slow start and a fine ending.",
    "Shares of the shipping company fell sharply.",
    "My order has still not arrived.",
    "The cat slept on the warm stone.",
    "Why is the sky red in the evening?",
    "The mayor opened a school in the old factory.",
    "I never want to see this play again.",
    "The engine makes a strange noise when it is cold.",
    "Two goals in five minutes decided the match.",
    "Turn left at the bank and walk to the end of the street.",
    "The coffee tastes bitter.",
    "The minister denied the report.",
    "Thank you, that solved my problem.",
    "The phone is light, fast and quite expensive.",
    "We met at the harbour at half past six.",
    "The recipe needs an hour and six eggs.",
    "The virus spreads faster in winter.",
    "How many people live in this town?",
    "The actors were better than the script.",
    "A storm damaged the roof of the station.",
    "The update made everything slower.",
    "He sold his car and bought a boat.",
    "The children laughed at every joke.",
    "Cancel my subscription, please.",
    "The company will hire two hundred engineers.",
    "The bus was late again, and nobody told us why.",
    "An unexpectedly moving story about an ordinary family.",
    "The old clock stopped at noon.",
    "The vote was postponed until autumn.",
    "I can't hear you; the line is bad.",
    "The runner broke her own record.",
    "This jacket keeps you warm but not dry.",
    "The garden is quiet after the rain.",
    "Who wrote the letter on the table?",
    "The doctor advised him to walk more.",
    "The new version fixes a serious bug.",
    "Nothing about this meal was worth the price.",
    "They say the winter will be mild.",
    "Good night and see you tomorrow.",
)
"""Short English sentences of several kinds: news, reviews, questions, requests."""

UNUSUAL = (
    "",
    " ",
    "a",
    "?!...",
    "1234567890 3.14159 -273.15 1e-9",
    "https://example.com/a?b=c#d user@example.com @name #tag",
    "Ünïcödé: déjà vu, naïve, Straße, Ångström, İstanbul",
    "е\u0301 e\u0301 é \u00e9",
    "日本語の文と中文句子和한국어 문장",
    "نص عربي وטקסט עברי",
    "👩\u200d👩\u200d👧 👍🏽 🇺🇳 ❤️",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break",
    "[CLS] [SEP] [MASK] <s> </s> <pad>",
    "tabs\tand\nnew lines\r\nof a form",
    '<b>not bold</b> &amp; {"key": [1, 2]}',
    "ALL CAPITALS AND   MANY    SPACES",
    "supercalifragilisticexpialidocious" * 4,
    "word " * 300,
)
"""Texts on which tokenizers differ, and one that is longer than most models read."""


def neutral_rows(*, pair: bool) -> list[tuple[str, ...]]:
    """Return rows of one text, or of two texts for a classifier of pairs."""
    texts = SENTENCES + UNUSUAL
    if not pair:
        return [(text,) for text in texts]
    # Each text meets its neighbour; every eighth one meets itself.
    rows: list[tuple[str, ...]] = []
    for i, text in enumerate(texts):
        second = text if i % 8 == 0 else texts[(i + 1) % len(texts)]
        rows.append((text, second))
    return rows
