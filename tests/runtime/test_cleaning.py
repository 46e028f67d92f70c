"""Cleaning: each step against a second opinion, and its work on texts of any length."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import factories
import ftfy
import numpy as np
import pytest
from counting_matcher import CountingMatcher
from forgery import edit_manifest
from hypothesis import given
from hypothesis import strategies as st
from kdedge.export.cleaning import require_no_cleaning
from kdedge.export.kits.write import write_kits
from kdedge.export.web_page import write_web_page

from kdedge.errors import IntegrityError, MachineError, UsageError
from kdedge.runtime import Bundle, Classifier, Manifest, cleaning
from kdedge.runtime.cleaning import STEPS, Cleaner, CountingCleaner, changes

EXPECTED = {
    "unicode": [
        ("âœ” No problems", "✔ No problems"),
        ("l’humanitÃ©", "l'humanité"),
        ("ﬁne ＡＢＣ", "fine ABC"),
        ("e\u0301te\u0301", "été"),
        ("naïve — “quoted”", 'naïve — "quoted"'),
    ],
    "html": [
        ("<p>One<br/>two</p>", " One two "),
        ("fish &amp; chips &lt;3", "fish & chips <3"),
        ("a &amp;amp; b &#233; &#xE9;", "a & b é é"),
        ("x <!-- <b>not shown</b> --> y", "x   y"),
        ("x<SCRIPT src='a.js'>var a = '<b>';</script>y", "x y"),
        ("2 < 3 and 5 > 4", "2 < 3 and 5 > 4"),
        ("a <!-- never closed", "a <!-- never closed"),
    ],
    "urls": [
        ("see https://example.org/a?b=c#d.", "see  ."),
        ("(www.example.org)", "( )"),
        ("HTTP://EXAMPLE.ORG is up", "  is up"),
        ("the http protocol, awww.", "the http protocol, awww."),
    ],
    "emails": [
        ("write to first.last+tag@mail.example.org!", "write to  !"),
        ("@someone at 5@home", "@someone at 5@home"),
        ("<ünal@örnek.example>", "< >"),
    ],
    "emoji": [
        ("good 👍🏽 film", "good   film"),
        ("👩‍👩‍👧 and 🇩🇪 and ❤️", "  and   and  "),
        ("1️⃣ first", "1  first"),
        ("क्‍ष ™ → 5€ ½", "क्‍ष ™ → 5€ ½"),
    ],
    "punctuation": [
        ("What?!?! Nooo!!!! Well... - -- yes", "What?!?! Nooo! Well. - - yes"),
        ("C++ 1,000 #tag && a/b//c", "C++ 1,000 #tag && a/b//c"),
        ("真的吗？？？好。。", "真的吗？好。"),
    ],
    "spaces": [("  a \t b\u00a0\nc ", "a b c")],
}
"""Step -> texts and what the step makes of them, written by hand."""


@pytest.mark.parametrize("step", STEPS)
def test_each_step_does_what_a_person_expects(step: str) -> None:
    assert EXPECTED.keys() == set(STEPS)
    for text, expected in EXPECTED[step]:
        assert Cleaner([step]).clean(text) == expected, text


def test_the_unicode_step_is_ftfy_without_its_entities() -> None:
    texts = [text for text, _ in EXPECTED["unicode"]] + ["plain", "ÃƒÂ©", "&eacute; Ã©"]
    for text in texts:
        expected = ftfy.fix_text(text, unescape_html=False)
        assert Cleaner(["unicode"]).clean(text) == expected


class ShownText(HTMLParser):
    """Collects the text that a page shows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.shown.append(data)


@pytest.mark.parametrize(
    "page",
    [
        "<html><head><style>p {color: red}</style></head><body><p class='a'>One &amp; two</p>",
        "<ul><li>caf&eacute;</li><li>2 &lt; 3</li></ul><!-- no --><script>if (a<b) {}</script>.",
        "<!DOCTYPE html><h1>Title</h1>text<br>more<img src='a.png' alt='b'> end &#8364;5",
        "no markup at all; 3 < 4",
    ],
)
def test_the_html_step_keeps_what_html_parser_shows(page: str) -> None:
    parser = ShownText()
    parser.feed(page)
    parser.close()
    cleaned = Cleaner(["html"]).clean(page)
    assert "".join(cleaned.split()) == "".join("".join(parser.shown).split())


def test_entities_are_those_of_the_standard_library() -> None:
    for name, character in html.entities.html5.items():
        if name.endswith(";") and character.strip():
            assert Cleaner(["html"]).clean(f"x&{name}") == f"x{character}", name
    assert Cleaner(["html"]).clean("x&#" + "1" * 5000 + ";"), "too long for an entity"


def test_emoji_are_symbols_and_never_letters_digits_or_punctuation() -> None:
    matched = []
    for code in range(sys.maxunicode + 1):
        if cleaning.EMOJI_RUN.fullmatch(chr(code)):
            matched.append(chr(code))
    categories = {unicodedata.category(char) for char in matched}
    assert categories <= {"So", "Sk", "Mn", "Me", "Cn"}, "symbols, marks, or not yet assigned"
    faces = [chr(code) for code in range(0x1F600, 0x1F650)]
    assert set(faces) <= set(matched)


def test_steps_are_taken_in_their_order_and_counted_by_text() -> None:
    cleaner = CountingCleaner(["spaces", "html", "urls"])
    texts = [
        "<a href='https://example.org'>here</a>",
        "see www.example.org  now",
        "clean",
        "http://a.b",
    ]
    cleaned = [cleaner.clean(text) for text in texts]
    assert cleaned == ["here", "see now", "clean", "http://a.b"], "the last would be empty"
    assert cleaner.counts() == {"html": 1, "urls": 1, "spaces": 2}
    assert list(cleaner.counts()) == ["html", "urls", "spaces"] and cleaner.texts == 4
    assert changes(cleaner.counts()) == "html 1, urls 1, spaces 2"
    assert changes({"html": 0}) == "none"


FRAGMENTS = [
    "good", " ", "&amp;", "&lt;", "b", "&gt;", "<", ">", "http://", "www.", "a.org", "@", "!!",
    "👍", "\ufe0f", "Ã©", "<!--", "-->", "&#233;", "script", "\n", "é", "...", "，，",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join))
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    """The texts of a run are clean already when its bundle reads them."""
    cleaner = Cleaner(STEPS)
    once = cleaner.clean(text)
    assert cleaner.clean(once) == once
    assert bool(once.strip()) == bool(text.strip()), "no text becomes empty"


PATTERNS = {
    "tag": cleaning.TAG,
    "entity": cleaning.ENTITY,
    "url": cleaning.URL,
    "email": cleaning.EMAIL,
    "emoji": cleaning.EMOJI_RUN,
    "mark": cleaning.REPEATED_MARK,
}
UNITS = [
    "a", "a ", "<", "<a", "<a ", "</", "<!", "<>", "&", "&a", "&amp;", "&amp;a", "&#1", "&#x1",
    "http://", "http://.", "http://a ", "www.", "www.,", "www. ", ".", ". ", "@", "a@", "a@a.",
    "@a.", "a.a", "a-@", "!", "!?", "!!?", "😀", "😀a", "\ufe0f", "\ufe0fa", " ", "-", "_", "é",
]  # fmt: skip
SHORT, LONG = 400, 1600


def steps(pattern: re.Pattern[str], text: str) -> int:
    """Count the steps on a text; the spans must be those of `re`."""
    matcher = CountingMatcher(pattern)
    assert matcher.spans(text) == [match.span() for match in pattern.finditer(text)]
    return matcher.steps


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_four_times_the_text_is_four_times_the_work(name: str) -> None:
    for unit in UNITS:
        for end in ("", "!", "@", ">", ";", "a"):
            work = []
            for length in (SHORT, LONG):
                repeated = (unit * length)[: length - 1]
                work.append(steps(PATTERNS[name], repeated + end))
            assert work[1] < 4.4 * work[0], (unit, end, work)


def test_the_count_finds_a_quadratic_pattern() -> None:
    short, long = (steps(re.compile(r"[a-z]+@"), "a" * length) for length in (250, 1000))
    assert long > 12 * short


class CountingPattern:
    """A pattern that counts the characters it reads."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.characters = 0

    def search(self, text: str, position: int) -> re.Match[str] | None:
        match = self.pattern.search(text, position)
        self.characters += (match.end() if match else len(text)) - position
        return match


@pytest.mark.parametrize("text", ["<!--", "-->", "<!---->", "--><!--", "<!-- --> "])
def test_what_is_hidden_is_read_at_most_twice(text: str) -> None:
    whole = text * (1_000_000 // len(text))
    start, end = map(CountingPattern, cleaning.HIDDEN[0])
    cleaning._remove_spans(whole, start, end)  # type: ignore[arg-type]
    assert start.characters + end.characters <= 2 * len(whole)


def test_ftfy_reads_a_long_text_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def fix_text(text: str, config: object) -> str:
        lengths.append(len(text))
        return text

    monkeypatch.setattr(ftfy, "fix_text", fix_text)
    Cleaner(["unicode"]).clean("a" * 1_000_001)
    assert max(lengths) == cleaning.REPAIRED_PIECE and sum(lengths) == 1_000_001


def test_a_hostile_text_takes_few_passes() -> None:
    calls = []
    cleaner = Cleaner(["html"])
    step = cleaner.steps["html"]
    cleaner.steps["html"] = lambda text: calls.append(0) or step(text)  # type: ignore[func-returns-value]
    cleaner.clean("&" + "#38;" * 1000 + "lt;b&gt;")
    assert 1 < len(calls) <= cleaning.MOST_PASSES


def test_without_ftfy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MachineError) as caught:
        Cleaner(["unicode"])
    assert 'pip install "kdedge-toolkit[clean]"' in str(caught.value.hint)
    assert Cleaner(set(STEPS) - {"unicode"}).clean("<b>a</b>  b") == "a b"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path / "plain")


@pytest.fixture
def cleaning_bundle(tmp_path: Path) -> Path:
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path / "cleaning")
    steps = ["html", "urls", "punctuation", "spaces"]
    edit_manifest(folder, lambda document: document.update(clean=steps))
    return folder


def test_a_bundle_cleans_what_it_reads(plain: Path, cleaning_bundle: Path) -> None:
    raw = ["<b>the film</b> was good!!! https://example.org/x", "the plot   was dull", "the cast"]
    by_hand = ["the film was good!", "the plot was dull", "the cast"]
    cleaner, reader = Classifier.load(cleaning_bundle), Classifier.load(plain)
    assert np.array_equal(cleaner.logits(raw), reader.logits(by_hand))
    assert not np.array_equal(reader.logits(raw), reader.logits(by_hand))
    for text, clean in zip(raw, by_hand, strict=True):
        assert cleaner.predict(text) == reader.predict(clean), "one text takes another path"
    long = "<i>" * 100_000 + "the film was good"
    assert not cleaner.predict(long).truncated and reader.predict(long).truncated


def test_a_manifest_without_steps_stays_as_it_was(plain: Path) -> None:
    manifest = Bundle.open(plain).manifest
    assert manifest.clean == () and "clean" not in manifest.to_json()
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "steps",
    [
        [],
        "html",
        ["html", "html"],
        ["spaces", "html"],
        ["(a+)+$"],
        [["html"]],
        [None],
        {"html": 1},
        1,
    ],
)
def test_a_manifest_can_only_name_known_steps(plain: Path, steps: object) -> None:
    edit_manifest(plain, lambda document: document.update(clean=steps))
    with pytest.raises(IntegrityError, match="clean is"):
        Bundle.open(plain)


def test_other_forms_refuse_a_bundle_that_cleans(cleaning_bundle: Path, plain: Path) -> None:
    opened = Bundle.open(cleaning_bundle)
    for write in (lambda: write_web_page(cleaning_bundle), lambda: write_kits(opened, ["c"])):
        with pytest.raises(UsageError, match="cannot clean texts") as caught:
            write()
        assert "html, urls" in str(caught.value.detail)
    assert not list(cleaning_bundle.parent.glob("kits")) + list(cleaning_bundle.parent.glob("web"))
    require_no_cleaning(Bundle.open(plain).manifest, "a kit")
