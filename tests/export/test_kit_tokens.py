"""The tokenizers of the kits in C, C++ and JavaScript against the library `tokenizers`."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import factories
import pytest
from kdedge.export.kits.unicode_tables import TABLES_FILE, UnicodeTables
from kdedge.export.kits.wordpiece import WordPiece
from kdedge.export.kits.write import write_kits
from kit_tools import change_tokenizer, records, require, run, token_lines
from odd_texts import LONG_TEXTS, odd_texts

from kdedge.errors import UsageError
from kdedge.runtime import Bundle
from kdedge.runtime.text_encoder import TextEncoder

pytestmark = pytest.mark.slow  # Compilers run for most tests.

HERE = Path(__file__).parent
TEXTS = [*LONG_TEXTS, *odd_texts(998)]
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
C_LANGUAGES = {"c": ("gcc", "-std=c11", "-x", "c"), "c++": ("g++", "-std=c++17", "-x", "c++")}

NORMALIZERS = {
    "uncased": {},
    "cased": {"lowercase": False, "strip_accents": None},
    "accents": {"strip_accents": False},
    "bare": {"clean_text": False, "handle_chinese_chars": False, "strip_accents": True},
}
"""Options of BertNormalizer; all others keep BERT's defaults."""


def rich_bundle(folder: Path, task: str = "single", normalizer: str = "uncased") -> Bundle:
    """Return a bundle whose vocabulary holds most characters of the texts, and some pairs.

    A small vocabulary would hide differences: nearly every word would be unknown.
    """
    copy = factories.copy_bundle(factories.tiny_bundle("bilstm", task), folder)
    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    characters = sorted(set("".join(text[:300] for text in TEXTS)))
    chosen = random.Random(3).sample(characters, 9 * len(characters) // 10)
    for character in chosen:
        for piece in (character, character.lower(), f"##{character}", f"##{character.lower()}"):
            vocabulary.setdefault(piece, len(vocabulary))
    for first, second in itertools.pairwise(chosen):
        vocabulary.setdefault(f"##{first}{second}", len(vocabulary))
    changes = NORMALIZERS[normalizer]
    return change_tokenizer(copy, model={"vocab": vocabulary}, normalizer=changes)


def expected_tokens(bundle: Bundle, texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    return token_lines(TextEncoder(bundle).tokenize(texts, pairs)[0])


def c_tokens(
    bundle: Bundle, texts: Sequence[bytes], pairs: Sequence[bytes] | None, language: str = "c"
) -> list[str]:
    """Compile the tokenizer of the C++ kit under sanitizers and run it."""
    require(C_LANGUAGES[language][0])
    kit = write_kits(bundle, ["cpp"])[0]
    headers = []
    for name in ("unicode_tables.h", "vocabulary.h", "wordpiece.h"):
        headers += ["-include", name]
    program = kit / "tokens"
    warnings = ("-Wall", "-Wextra", "-Werror")
    options = (*C_LANGUAGES[language], *SANITIZED, *warnings, "-I", kit, *headers)
    run(*options, HERE / "tokens_main.c", "-o", program)
    return run(program, stdin=records(texts, pairs)).splitlines()


def node_tokens(bundle: Bundle, texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    require("node")
    kit = write_kits(bundle, ["node"])[0]
    document = json.dumps({"texts": texts, "pairs": pairs})
    output = run("node", HERE / "tokens_main.mjs", kit, stdin=document.encode())
    return output.removesuffix("\n").split("\n")


def assert_same_lines(actual: list[str], expected: list[str], texts: Sequence[str]) -> None:
    assert len(actual) == len(expected)
    for text, line, wanted in zip(texts, actual, expected, strict=True):
        assert line == wanted, f"{text[:80]!r}"


def encoded(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def test_the_texts_use_many_pieces_and_reach_the_limit(tmp_path: Path) -> None:
    bundle = rich_bundle(tmp_path)
    assert len(TEXTS) == 1000
    rows, truncated = TextEncoder(bundle).tokenize(TEXTS, None)
    unknown = WordPiece.of(bundle).unknown
    ids = [number for row in rows for number in row["input_ids"]]
    assert len(set(ids)) > 1000
    assert 0 < ids.count(unknown) < len(ids) / 3
    assert 0 < sum(truncated) < 800
    assert max(map(len, TEXTS)) >= 1_000_000


@pytest.mark.parametrize("language", C_LANGUAGES)
def test_c_gives_the_same_tokens(tmp_path: Path, language: str) -> None:
    bundle = rich_bundle(tmp_path)
    actual = c_tokens(bundle, encoded(TEXTS), None, language)
    assert_same_lines(actual, expected_tokens(bundle, TEXTS, None), TEXTS)


def test_node_gives_the_same_tokens(tmp_path: Path) -> None:
    bundle = rich_bundle(tmp_path)
    actual = node_tokens(bundle, TEXTS, None)
    assert_same_lines(actual, expected_tokens(bundle, TEXTS, None), TEXTS)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_all_options_of_the_normalizer(tmp_path: Path, normalizer: str) -> None:
    bundle = rich_bundle(tmp_path, normalizer=normalizer)
    expected = expected_tokens(bundle, TEXTS, None)
    assert_same_lines(c_tokens(bundle, encoded(TEXTS), None), expected, TEXTS)
    assert_same_lines(node_tokens(bundle, TEXTS, None), expected, TEXTS)


@pytest.mark.parametrize("max_length", [24, 23, 3])
def test_pairs_are_truncated_the_same_way(tmp_path: Path, max_length: int) -> None:
    bundle = rich_bundle(tmp_path, "pair")
    object.__setattr__(bundle.manifest, "max_length", max_length)
    pairs = random.Random(4).sample(TEXTS, len(TEXTS))
    expected = expected_tokens(bundle, TEXTS, pairs)
    assert_same_lines(c_tokens(bundle, encoded(TEXTS), encoded(pairs)), expected, TEXTS)
    assert_same_lines(node_tokens(bundle, TEXTS, pairs), expected, TEXTS)


def test_invalid_utf8_is_replaced_as_python_does(tmp_path: Path) -> None:
    bundle = rich_bundle(tmp_path, normalizer="bare")  # clean_text would remove U+FFFD
    chance = random.Random(5)
    alphabet = "a é€😀\ufffd".encode() + b"\x80\xbf\xc0\xc1\xc2\xe0\xed\xa0\xf0\x90\xf4\x8f\xf5\xff"
    texts = [bytes(chance.choices(alphabet, k=chance.randint(0, 30))) for _ in range(3000)]
    decoded = [text.decode("utf-8", errors="replace") for text in texts]
    assert_same_lines(
        c_tokens(bundle, texts, None), expected_tokens(bundle, decoded, None), decoded
    )


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("pre_tokenizer", {"type": "Whitespace"}, "its pre_tokenizer is Whitespace"),
        ("normalizer", {"type": "NFC"}, "its normalizer is NFC"),
        ("model", {"type": "WordLevel", "unk_token": "[UNK]"}, "its model is WordLevel"),
    ],
)
def test_other_tokenizers_are_refused(
    tmp_path: Path, part: str, changes: dict[str, str], says: str
) -> None:
    copy = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    bundle = change_tokenizer(copy, **{part: changes})
    with pytest.raises(UsageError, match=says) as caught:
        write_kits(bundle, ["cpp"])
    assert "WordPiece" in caught.value.hint
    assert not (tmp_path / "kits").exists()


@pytest.mark.slow
def test_the_unicode_tables_are_those_of_tokenizers() -> None:
    assert UnicodeTables.measure().to_json() == TABLES_FILE.read_text(encoding="utf-8")
