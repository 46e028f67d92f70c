"""A trained WordPiece vocabulary: known texts, short encodings, the same pieces everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kdedge.students.wordpiece import SPECIAL, train_wordpiece

PRINT_VOCABULARY = """
import json, sys
from kdedge.students.wordpiece import train_wordpiece

vocabulary = train_wordpiece(json.load(sys.stdin), 400).get_vocab()
print(json.dumps(vocabulary, sort_keys=True))
"""


@pytest.fixture(scope="module")
def texts(shared: Path) -> list[str]:
    table = pq.read_table(shared / "data" / "trec" / "train.parquet")
    return list(table["text"].to_pylist()[:240])


def test_every_word_of_its_texts_is_known(texts: list[str]) -> None:
    tokenizer = train_wordpiece(texts, 400)
    assert len(tokenizer) == 400
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts)["input_ids"])
    assert tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]


def test_more_pieces_give_fewer_tokens(texts: list[str]) -> None:
    lengths = []
    for size in (250, 400, 800):
        encoded = train_wordpiece(texts, size)(texts)["input_ids"]
        lengths.append(np.mean([len(ids) for ids in encoded]))
    assert lengths[0] > lengths[1] > lengths[2]


def test_the_order_of_the_texts_does_not_matter(texts: list[str]) -> None:
    forward = train_wordpiece(texts, 400)
    assert forward.get_vocab() == train_wordpiece(texts[::-1], 400).get_vocab()


@pytest.mark.slow
def test_every_process_trains_the_same_pieces(texts: list[str]) -> None:
    expected = json.dumps(train_wordpiece(texts, 400).get_vocab(), sort_keys=True)
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_VOCABULARY],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert done.stdout.strip() == expected


def test_pieces_by_hand() -> None:
    vocabulary = train_wordpiece(["ab"] * 5 + ["aab"] * 3 + ["b"], 40).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    assert pieces[: len(SPECIAL)] == SPECIAL
    assert set(pieces[len(SPECIAL) :]) == {"a", "b", "##a", "##b", "ab", "##ab", "aab"}


def test_the_most_frequent_characters_are_known() -> None:
    vocabulary = train_wordpiece(["的"] * 9 + ["一"] + ["乙"] * 3, 9).get_vocab()
    assert set(vocabulary) - set(SPECIAL) == {"的", "乙"}, "each is a word, so none continues one"
