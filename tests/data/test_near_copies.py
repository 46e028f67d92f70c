"""Near copies between splits are found, counted, and an error above a share."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import factories
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kdedge_process import call_kdedge

from kdedge.data import load_task
from kdedge.data.near_copies import NearCopy, find_near_copies, text_words
from kdedge.data.overlap import LARGEST_COPIES, LARGEST_SIMILAR
from kdedge.data.task import Overlap, Split, Task
from kdedge.errors import DataError
from kdedge.recipe import DataConfig, TaskConfig

WORDS = (
    "apple bread cloud dance eagle flame grape house island jungle kettle lemon mirror night ocean "
    "piano queen river stone table uncle valley water yellow zebra brave calm dusty early faint"
).split()


def split(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Split:
    return Split(tuple(texts), None if pairs is None else tuple(pairs), np.zeros(len(texts)))


def texts(count: int, words: int, seed: int) -> list[str]:
    """Make texts that are not similar to each other."""
    chance = random.Random(seed)
    return [f"{i}x" + " ".join(chance.choices(WORDS, k=words)) for i in range(count)]


def change_word(text: str) -> str:
    words = text.split()
    words[len(words) // 2] = "changed"
    return " ".join(words)


def drop_word(text: str) -> str:
    words = text.split()
    return " ".join(words[:2] + words[3:])


COPIES = {
    "full stop": lambda text: text + ".",
    "zero-width space": lambda text: text[:4] + "\u200b" + text[4:],
    "soft hyphen": lambda text: text[:5] + "\u00ad" + text[5:],
    "accent": lambda text: unicodedata.normalize("NFD", text.replace("e", "\u00e9")),
    "no-break space": lambda text: text.replace(" ", "\u00a0") + "!",
    "full width": lambda text: text.replace("a", "\uff41"),
    "quotes": lambda text: f"\u201c{text}\u201d",
}
SIMILAR = {
    "word changed": change_word,
    "word added": lambda text: "well " + text,
    "word removed": drop_word,
    "word changed and a full stop": lambda text: change_word(text) + ".",
}


@pytest.mark.parametrize("words", [6, 12, 25, 80])
@pytest.mark.parametrize("name", [*COPIES, *SIMILAR])
def test_a_changed_text_is_found(name: str, words: int) -> None:
    change: Callable[[str], str] = {**COPIES, **SIMILAR}[name]
    originals = texts(20, words, seed=0)
    found = list(find_near_copies(split(originals), split([change(t) for t in originals])))
    assert found == [NearCopy(row, row, is_copy=name in COPIES) for row in range(20)]


def test_texts_with_two_other_words_or_few_words_are_no_near_copies() -> None:
    originals = texts(20, 12, seed=0)
    twice = [change_word(text).replace(text.split()[1], "also") for text in originals]
    assert not list(find_near_copies(split(originals), split(twice)))
    assert not list(find_near_copies(split(["a good film"]), split(["a bad film"])))
    assert not list(find_near_copies(split(originals), split(texts(20, 12, seed=1))))


def test_characters_are_words_in_scripts_without_spaces() -> None:
    text = "这部电影非常好看演员的表演也很到位值得再看一遍"
    assert text_words(text) == tuple(text)
    (copy,) = find_near_copies(split([text]), split([text.replace("好", "难") + "！"]))
    assert not copy.is_copy


@pytest.mark.parametrize("words", [6, 30])
def test_both_texts_of_a_pair_must_be_near(words: int) -> None:
    first, second, other = (texts(10, words, seed) for seed in (0, 1, 2))
    pairs = split(first, second)
    near = split([t + "." for t in first], [change_word(t) for t in second])
    assert [copy.row for copy in find_near_copies(pairs, near)] == list(range(10))
    assert not list(find_near_copies(pairs, split(first, other)))
    assert not list(find_near_copies(pairs, split(second, first))), "the other order"


def test_pairs_with_different_short_texts_are_no_near_copies() -> None:
    questions = texts(10, 30, 0)
    same = [*["yes"] * 5, *["no it is"] * 5]
    other = [*["in Paris"] * 5, *["yes it was"] * 5]
    near = [change_word(text) for text in questions]
    assert len(list(find_near_copies(split(questions, same), split(near, same)))) == 10
    assert not list(find_near_copies(split(questions, same), split(near, other)))


word_lists = st.lists(st.sampled_from("a b c d e f".split()), min_size=0, max_size=9)


@given(st.lists(word_lists, max_size=8), st.lists(word_lists, max_size=8))
@settings(max_examples=300)
def test_finds_what_comparing_every_pair_of_texts_finds(
    some: list[list[str]], others: list[list[str]]
) -> None:
    """The second opinion removes a word from one text, or from each, in all ways."""

    def shorter(words: list[str]) -> set[tuple[str, ...]]:
        found = {tuple(words)}
        if len(words) >= 5:
            found |= {tuple(words[:i] + words[i + 1 :]) for i in range(len(words))}
        return found

    expected = set()
    for i, first in enumerate(some):
        for j, second in enumerate(others):
            both_long = min(len(first), len(second)) >= 5
            if first == second or (both_long and shorter(first) & shorter(second)):
                expected.add((i, j, first == second))
    found = find_near_copies(
        split([" ".join(words) for words in some]), split([" ".join(words) for words in others])
    )
    assert {(copy.row, copy.other, copy.is_copy) for copy in found} == expected


# Loading


def write(folder: Path, name: str, rows: Sequence[str], pairs: Sequence[str] | None = None) -> None:
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"] + (["second"] if pairs else []))
        for i, text in enumerate(rows):
            writer.writerow([text, f"label{i % 2}"] + ([pairs[i]] if pairs else []))


def load(folder: Path, rule: str, pair: str | None = None) -> Task:
    data = DataConfig(source=str(folder), validation="validation", pair=pair, overlap=rule)  # type: ignore[arg-type]
    return load_task(data, TaskConfig(), name="t", seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Splits without near copies."""
    for name, count, seed in (("train", 400, 0), ("validation", 200, 1), ("test", 200, 2)):
        write(tmp_path, name, texts(count, 8, seed))
    return tmp_path


def leak(folder: Path, change: Callable[[str], str], count: int) -> None:
    """Replace the first test texts by changed train texts."""
    train, test = texts(400, 8, 0), texts(200, 8, 2)
    write(folder, "test", [change(text) for text in train[:count]] + test[count:])


def allowed(share: float) -> int:
    return int(200 * share)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("full stop", allowed(LARGEST_COPIES)),
        ("zero-width space", allowed(LARGEST_COPIES)),
        ("accent", allowed(LARGEST_COPIES)),
        ("word changed", allowed(LARGEST_SIMILAR)),
    ],
)
def test_more_near_copies_than_a_share_are_an_error(folder: Path, name: str, most: int) -> None:
    change: Callable[[str], str] = {**COPIES, **SIMILAR}[name]
    leak(folder, change, most)
    (note,) = load(folder, "error").notes
    assert f"{most} of 200 test examples are near copies of train examples" in note
    assert note.endswith("such as train.csv:2 and test.csv:2.")
    assert len(f"data: {note}") <= 160, "two lines of a terminal"
    leak(folder, change, most + 1)
    with pytest.raises(DataError, match=f"{most + 1} of 200 test examples are near") as caught:
        load(folder, "error")
    assert "train.csv:2 " in caught.value.detail and "test.csv:2 " in caught.value.detail
    assert "drop" in caught.value.hint and "allow" in caught.value.hint
    assert load(folder, "allow").notes[0].endswith("allowed by data.overlap.")
    assert len(load(folder, "allow").train) == 400
    assert len(load(folder, "drop").train) == 400 - most - 1


def test_few_near_copies_are_noted_and_kept(folder: Path) -> None:
    for change in (COPIES["full stop"], change_word):
        leak(folder, change, 1)
        for rule in ("error", "drop", "allow"):
            task = load(folder, rule)
            assert len(task.train) == 400
            assert "1 of 200 test examples are near copies" in task.notes[0]


def test_splits_that_kdedge_draws_from_one_file_are_only_noted(tmp_path: Path) -> None:
    rows = texts(100, 8, 0)
    write(tmp_path, "train", [*rows, *(text + "." for text in rows)])
    data = DataConfig(train=str(tmp_path / "train.csv"), validation=0.2, test=0.2)
    task = load_task(data, TaskConfig(), name="t", seed=0)
    assert len(task.train) + len(task.validation) + len(task.test) == 200
    assert any("near copies" in note for note in task.notes)
    assert sum(overlap.copies for overlap in task.overlaps) > 20


def test_the_task_counts_the_overlaps(folder: Path) -> None:
    train = texts(400, 8, 0)
    shared = [train[0], train[1].upper(), train[2] + ".", change_word(train[3])]
    write(folder, "test", shared + texts(200, 8, 2)[4:])
    assert load(folder, "allow").overlaps == (
        Overlap("train", "validation", 0, 0, 0, 200),
        Overlap("train", "test", 2, 1, 1, 200),
        Overlap("validation", "test", 0, 0, 0, 200),
    )


def test_pairs_leak_only_with_both_texts(folder: Path) -> None:
    for name, count, seed in (("train", 400, 0), ("validation", 200, 1), ("test", 200, 2)):
        write(folder, name, texts(count, 8, seed), texts(count, 8, seed + 10))
    train, second = texts(400, 8, 0), texts(400, 8, 10)
    write(folder, "test", [t + "." for t in train[:200]], texts(200, 8, 12))
    assert not load(folder, "error", "second").notes
    write(folder, "test", [t + "." for t in train[:200]], [t + "!" for t in second[:200]])
    with pytest.raises(DataError, match="200 of 200 test examples are near copies"):
        load(folder, "error", "second")


def test_an_example_is_short_and_has_no_control_characters(folder: Path) -> None:
    secret = "\u200b\x1b[31m" + " ".join(WORDS) + " secret"
    for name, end in (("train", ""), ("test", "!")):
        write(folder, name, [f"{secret} {number}{end}" for number in range(20)])
    with pytest.raises(DataError) as caught:
        load(folder, "error")
    detail = caught.value.detail
    assert "apple" in detail and "train.csv:2 " in detail and "test.csv:2 " in detail
    assert "secret" not in detail and "\x1b" not in detail and "\u200b" not in detail


def test_check_reports_the_overlaps(folder: Path) -> None:
    leak(folder, COPIES["full stop"], 2)
    recipe = folder / "r.toml"
    recipe.write_text(
        f'name = "r"\ndata.source = "{folder}"\ndata.validation = "validation"\n'
        f'teacher.model = "{folder}/model"\nstudent.kind = "bilstm"\n'
    )
    factories.write_teacher(folder / "model")
    done = call_kdedge("check", str(recipe), "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["overlaps"][1] == {
        "split": "train",
        "other": "test",
        "equal": 0,
        "copies": 2,
        "similar": 0,
        "examples": 200,
    }
    assert "copies apart from punctuation" in done.stdout


@pytest.mark.slow
def test_genuine_data_sets_are_below_the_limits(shared: Path) -> None:
    """The largest shares of all sets that were measured; see the limits in overlap.py."""
    sets = {
        "banking77": ("test", None, "text"),
        "clinc150": ("validation", None, "text"),
        "sst2": ("validation", None, "text"),
        "bbc_news": ("test", None, "text"),
        "mrpc": ("test", "second", "text"),
    }
    import pyarrow.parquet as pq

    for name, (test, pair, _) in sets.items():
        columns = []
        for part in ("train", test):
            table = pq.read_table(shared / "data" / name / f"{part}.parquet")
            strings = [c for c in table.column_names if table.schema.field(c).type == "string"]
            sides = [table[column].to_pylist() for column in strings[: 2 if pair else 1]]
            columns.append(split(*sides))
        found = list(find_near_copies(*columns))
        equal = set(columns[0].texts) & set(columns[1].texts) if pair is None else set()
        for is_copy, largest in ((True, LARGEST_COPIES), (False, LARGEST_SIMILAR)):
            rows = {copy.other for copy in found if copy.is_copy == is_copy}
            rows = {row for row in rows if columns[1].texts[row] not in equal}
            assert len(rows) <= largest * len(columns[1].texts), name
