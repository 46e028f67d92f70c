"""Malformed data sets: each raises a KdedgeError that names file and line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import GOOD, JSONL, Case, csv_case, jsonl_case, load_from, write

from kdedge.data import load_task
from kdedge.errors import DataError, KdedgeError, MachineError, UsageError
from kdedge.recipe import DataConfig, TaskConfig

CASES = [
    Case("empty file", {"train.csv": ""}, DataError, r"train\.csv:1: no header line"),
    Case("header alone", {"train.csv": "text,label\n"}, DataError, r"train\.csv: no rows in train"),
    Case("empty jsonl", {"train.jsonl": "\n\n"}, DataError, r"train\.jsonl: no rows in train"),
    Case(
        "empty test",
        {"train.csv": GOOD, "dev.csv": "text,label\n"},
        DataError,
        r"dev\.csv: no rows in test",
        {"test": "dev"},
    ),
    Case(
        "missing column",
        {"train.csv": GOOD.replace("text,", "texts,")},
        UsageError,
        r"(?s)train\.csv: no column 'text'.*'texts', 'label'.*did you mean data\.text = 'texts'",
    ),
    Case(
        "missing label column",
        {"train.csv": GOOD.replace("label", "labelled")},
        UsageError,
        r"(?s)no column 'label' \(data\.label\).*'text', 'labelled'",
    ),
    Case(
        "column twice",
        {"train.csv": "text,label,text\na,b,c\n"},
        DataError,
        r"(?s)train\.csv:1: two columns have the same name.*'text'",
    ),
    csv_case("empty text", ",yes\n", r"train\.csv:22: column 'text' is blank \(''\); fill it in"),
    csv_case("blank text", '"  ",yes\n', r"train\.csv:22: column 'text' is blank"),
    csv_case("long text", "x" * 1_000_001 + ",yes\n", r"train\.csv:22: .*1,000,001 characters"),
    csv_case("NUL", "a\0b,yes\n", r"train\.csv:22: .*NUL character \('a\\x00b'\)"),
    csv_case("too many fields", "a,b,yes\n", r"train\.csv:22: 3 fields, but the header has 2"),
    csv_case("too few fields", "alone\n", r"train\.csv:22: 1 fields, but the header has 2"),
    csv_case("open quote", '"never closed,yes\n', r"train\.csv:22: unexpected end of data"),
    csv_case("letters after a quote", '"a"b,yes\n', r"train\.csv:22: "),
    csv_case("missing label", "text 21,\n", r"train\.csv:22: the label is missing \(''\)"),
    csv_case(
        "unknown label",
        "text 21,yess\n",
        r"train\.csv:22: unknown label 'yess'; did you mean 'yes'",
        labels=["no", "yes"],
    ),
    csv_case(
        "label with space",
        'text 21,"yes "\n',
        r"train\.csv:22: label 'yes ' has white space around it",
    ),
    csv_case(
        "index out of range",
        "text 21,2\n",
        r"train\.csv:22: unknown label '2'",
        labels=["no", "yes"],
    ),
    csv_case(
        "score is a word",
        "text 21,3\n",
        r"(?s)train\.csv:2: the score is not a finite number \('yes'\).*\.\.\. and 10 more",
        kind="regression",
    ),
    Case(
        "NaN score",
        {"train.csv": "text,label\na,1\nb,nan\nc,inf\nd,\n"},
        DataError,
        r"(?s)csv:3: .*'nan'.*csv:4: .*'inf'.*csv:5: the score is missing",
        task={"kind": "regression"},
    ),
    jsonl_case(
        "null text", '{"text": null, "label": 1}', r"train\.jsonl:21: column 'text' is missing"
    ),
    Case(
        "null text with first_words",
        {"train.jsonl": JSONL + '{"text": null, "label": 1}\n'},
        DataError,
        r"train\.jsonl:21: column 'text' is missing",
        {"first_words": 3},
    ),
    jsonl_case(
        "number as text",
        '{"text": 7, "label": 1}',
        r"train\.jsonl:21: column 'text' is not a text but 7 \(int\)",
    ),
    jsonl_case("key missing", '{"text": "a"}', r"train\.jsonl:21: the label is missing \(None\)"),
    csv_case("NaN as a label", "text 21,NaN\n", r"train\.csv:22: the label is missing \('NaN'\)"),
    csv_case(
        "f1 of three classes",
        "text 21,maybe\n",
        r"f1 measures two classes.*\n.*3 labels",
        UsageError,
        metric="f1",
    ),
    jsonl_case(
        "NaN label", '{"text": "a", "label": NaN}', r"train\.jsonl:21: the label is missing \(nan\)"
    ),
    jsonl_case(
        "label -1",
        '{"text": "a", "label": -1}',
        r"train\.jsonl:21: label -1 is negative; if -1 is a class",
    ),
    jsonl_case(
        "label out of range",
        '{"text": "a", "label": 2}',
        r"train\.jsonl:21: label 2 is out of range",
        labels=["no", "yes"],
    ),
    jsonl_case(
        "huge label",
        '{"text": "a", "label": 1000000000000}',
        r"train\.jsonl:21: label 1000000000000 is out of range",
    ),
    jsonl_case(
        "fraction",
        '{"text": "a", "label": 0.5}',
        r"(?s)train\.jsonl:21: label 0\.5 is a float.*task\.kind = .regression.*write whole",
    ),
    jsonl_case(
        "names among indices",
        '{"text": "a", "label": "no"}',
        r"train\.jsonl:21: label 'no' among labels such as 0",
    ),
    jsonl_case(
        "lone surrogate",
        '{"text": "a\\ud800", "label": 1}',
        r"train\.jsonl:21: .*half a surrogate pair at character 1",
    ),
    jsonl_case("broken json", '{"text": "a", "label"', r"train\.jsonl:21: not JSON"),
    jsonl_case("not an object", '["a", 1]', r"train\.jsonl:21: not a JSON object"),
    jsonl_case(
        "label twice",
        '{"text": "a", "label": [1, 0, 0]}',
        r"train\.jsonl:21: a label stands twice \(\[1, 0, 0\]\)",
        kind="multilabel",
    ),
    jsonl_case(
        "true among labels",
        '{"text": "a", "label": [true, false]}',
        r"train\.jsonl:21: true and false are no labels",
        kind="multilabel",
    ),
    Case(
        "switches and a list",
        {
            "train.jsonl": '{"text": "a", "label": [1, 0, 0]}\n{"text": "b", "label": [0, 0, 1]}\n',
            "test.jsonl": '{"text": "c", "label": [2]}\n',
        },
        DataError,
        r"test\.jsonl:1: the label is not 3 zeros and ones, as in train \(\[2\]\)",
        {"test": "test"},
        {"kind": "multilabel"},
    ),
    Case(
        "text is label",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)data\.text and data\.label are the same column.*'label'",
        {"text": "label"},
    ),
    Case(
        "pair is text",
        {"train.csv": GOOD},
        UsageError,
        r"data\.text and data\.pair are the same column",
        {"pair": "text"},
    ),
    jsonl_case("very deep json", "[" * 100_000, r"train\.jsonl:21: not JSON"),
    Case(
        "latin-1 as utf-8",
        {"train.csv": GOOD.encode() + b"caf\xe9,yes\n"},
        DataError,
        r'(?s)train\.csv:22: byte 0xe9 at offset \d+ is not utf-8.*encoding = "latin-1"',
    ),
    Case(
        "windows as utf-8",
        {"train.csv": GOOD.encode() + b"\x93a\x94,yes\n"},
        DataError,
        r'(?s)csv:22: byte 0x93 .*encoding = "cp1252"',
    ),
    Case(
        "utf-16 as utf-8",
        {"train.csv": GOOD.encode("utf-16")},
        DataError,
        r'(?s)train\.csv:1: the file is marked as utf-16.*set data\.encoding = "utf-16"',
    ),
    Case(
        "utf-16 without a mark",
        {"train.csv": GOOD.encode("utf-16-be")},
        DataError,
        r'(?s)train\.csv:1: the file looks like utf-16-be.*encoding = "utf-16-be"',
    ),
    Case(
        "unknown encoding",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)no such text encoding.*utf-9",
        {"encoding": "utf-9"},
    ),
    Case(
        "not a text encoding",
        {"train.csv": GOOD},
        UsageError,
        r"no such text encoding",
        {"encoding": "hex"},
    ),
    Case(
        "one class",
        {"train.csv": GOOD.replace("no", "yes")},
        DataError,
        r"(?s)have the same label.*'yes'.*train\.csv",
    ),
    Case(
        "one score",
        {"train.csv": "text,label\n" + "".join(f"t{i},1.0\n" for i in range(9))},
        DataError,
        "examples of train have the same label",
        task={"kind": "regression"},
    ),
    Case(
        "no multilabel at all",
        {"train.csv": "text,label\n" + "".join(f"t{i},\n" for i in range(9))},
        DataError,
        "no example of train has a label",
        task={"kind": "multilabel"},
    ),
    Case(
        "scores without a kind",
        {"train.csv": "text,label\n" + "".join(f"t{i},{i % 9 / 4}\n" for i in range(90))},
        UsageError,
        r"(?s)numbers with fractions.*0\.25.*task\.kind = .regression",
    ),
    Case(
        "scores with a decimal comma",
        {"train.csv": "text;label\n" + "".join(f"t{i};{i % 9},5\n" for i in range(90))},
        UsageError,
        r"(?s)numbers with a comma.*0,5.*write 3\.75 for 3,75",
        {"delimiter": ";"},
    ),
    Case(
        "whole numbers among scores with a decimal comma",
        {"train.csv": "text;label\n" + "good;4\nbetter;4,25\n" * 40},
        UsageError,
        r"(?s)numbers with a comma.*4,25",
        {"delimiter": ";"},
    ),
    Case(
        "texts as labels",
        {"train.csv": "text,label\n" + "".join(f"a{i},b{i}\n" for i in range(1500))},
        UsageError,
        "1500 different strings",
    ),
    Case(
        "class absent from train",
        {"train.csv": GOOD, "test.csv": "text,label\nnew,maybe\n"},
        DataError,
        r"(?s)test has classes that train lacks.*maybe.*test\.csv",
        {"test": "test"},
        {"labels": ["no", "yes", "maybe"]},
    ),
    Case(
        "unknown label in test",
        {"train.csv": GOOD, "test.csv": "text,label\nnew,maybe\n"},
        DataError,
        r"test\.csv:2: unknown label 'maybe'",
        {"test": "test"},
    ),
    Case(
        "exact leak",
        {"train.csv": GOOD, "test.csv": "text,label\ntext 3,no\n"},
        DataError,
        r"(?s)1 of 18 train .*train\.csv:5 \('text 3'\) and .*test\.csv:2.*\"drop\".*\"allow\"",
        {"test": "test"},
    ),
    Case(
        "near leak",
        {"train.csv": GOOD, "test.csv": "text,label\n  TEXT   3 ,no\n"},
        DataError,
        r"(?s)train\.csv:5 .*test\.csv:2",
        {"test": "test"},
    ),
    Case(
        "nothing left",
        {"train.csv": GOOD, "test.csv": GOOD},
        DataError,
        "no examples are left in",
        {"test": "test", "overlap": "drop"},
    ),
    Case(
        "train is test",
        {"train.csv": GOOD},
        UsageError,
        r"data\.train and data\.test are the same rows",
        {"test": "train"},
    ),
    Case(
        "split not there",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)'dev' is not in the folder.*it holds train\.csv.*share of train",
        {"test": "dev"},
    ),
    Case(
        "two files of a split",
        {"train.csv": GOOD, "train.jsonl": JSONL},
        UsageError,
        r"(?s)several files.*train\.csv, train\.jsonl",
    ),
    Case(
        "empty folder",
        {},
        UsageError,
        r"(?s)data\.train = 'train' is not in the folder.*it holds nothing",
    ),
    Case(
        "file not there",
        {},
        UsageError,
        r"(?s)data\.train: no such file.*gone\.csv",
        {"train": "gone.csv"},
    ),
    Case(
        "not parquet",
        {"train.parquet": b"PAR1 no more"},
        DataError,
        r"train\.parquet is not a parquet file",
    ),
    Case(
        "names twice",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)task\.labels: label names are distinct strings.*'no'",
        task={"labels": ["no", "no"]},
    ),
    Case("one name", {"train.csv": GOOD}, UsageError, "at least 2 labels", task={"labels": ["no"]}),
    Case(
        "names not JSON",
        {"train.csv": GOOD, "labels.json": "[1,"},
        UsageError,
        r"labels\.json: not JSON",
    ),
    Case(
        "names not strings",
        {"train.csv": GOOD, "labels.json": "[1, 2]"},
        UsageError,
        r"labels\.json: label names are distinct strings",
    ),
    Case(
        "names with holes",
        {"train.csv": GOOD, "labels.json": '{"0": "a", "2": "b"}'},
        UsageError,
        r"labels\.json: not a list of label names",
    ),
    Case(
        "unfitting metric",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)does not measure a classification.*'pearson'.*accuracy, f1",
        task={"metric": "pearson"},
    ),
    Case(
        "unknown metric",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)'bleu'.*use one of pearson, spearman",
        task={"metric": "bleu", "kind": "regression"},
    ),
    Case(
        "regression with names",
        {"train.csv": GOOD},
        UsageError,
        "a regression has no labels",
        task={"kind": "regression", "labels": ["a", "b"]},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(tmp_path: Path, case: Case) -> None:
    write(tmp_path, case.files)
    with pytest.raises(case.error, match=case.says) as caught:
        load_from(tmp_path, case.data, case.task)
    assert caught.value.hint


def test_good_rows_of_the_table_do_load(tmp_path: Path) -> None:
    """Every verdict above is about the row that was added: without it the same files load."""
    for name, content in (("train.csv", GOOD), ("train.jsonl", JSONL)):
        folder = tmp_path / name[6:]
        folder.mkdir()
        write(folder, {name: content})
        task = load_from(folder, {}, {})
        assert len(task.train) + len(task.validation) + len(task.test) == 20


def test_ten_faults_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": GOOD + ",yes\n" * 25})
    with pytest.raises(DataError) as caught:
        load_from(tmp_path, {}, {})
    assert "25 faults" in caught.value.message
    assert caught.value.detail.count("train.csv:") == 10
    assert caught.value.detail.endswith("... and 15 more")


def test_faults_of_parquet_name_the_row(tmp_path: Path) -> None:
    rows = {"text": [*(f"t{i}" for i in range(8)), None, "last"], "label": [0, 1] * 4 + [1, None]}
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    with pytest.raises(
        DataError,
        match=r"(?s)train\.parquet, row 9: column 'text' is missing.*row 10: the label is missing",
    ):
        load_from(tmp_path, {}, {})


def test_faults_of_class_folders_name_the_file(tmp_path: Path) -> None:
    for label in ("ham", "spam"):
        (tmp_path / label).mkdir()
        for i in range(10):
            (tmp_path / label / f"{i}.txt").write_text(f"{label} {i}")
    (tmp_path / "spam" / "7.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"spam/7\.txt: column 'text' is blank"):
        load_from(tmp_path, {}, {})
    (tmp_path / "spam" / "7.txt").write_bytes(b"one\nprice \xa3 7")
    with pytest.raises(DataError, match=r'(?s)spam/7\.txt:2: byte 0xa3 .*"latin-1"'):
        load_from(tmp_path, {}, {})
    with pytest.raises(UsageError, match="class folders hold single texts"):
        load_from(tmp_path, {"pair": "b"}, {})


@pytest.mark.parametrize(
    "split", ["x" * 5000, "a\0b", "~nobody", ".", "..", "../near", "inner/../.."]
)
def test_strange_split_names(tmp_path: Path, split: str) -> None:
    """No name of a split leads out of the folder, where another data set may stand."""
    for folder, label in itertools.product(("data", "data/inner", "near", "."), ("no", "yes")):
        (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
        write(tmp_path / folder / label, {f"{i}.txt": f"{folder} {label} {i}" for i in range(9)})
    with pytest.raises((UsageError, MachineError)):
        load_from(tmp_path / "data", {"test": split}, {})


@pytest.mark.parametrize("source", ["./not/here", "/not/here", "a b", "data/sets/mine", ""])
def test_source_that_is_nothing(source: str) -> None:
    with pytest.raises(UsageError, match=r"data\.source is a folder"):
        load_task(DataConfig(source=source), TaskConfig(), name="test", seed=0)


def test_no_source_and_no_file() -> None:
    with pytest.raises(UsageError, match=r"data\.train = 'train' needs data\.source"):
        load_task(DataConfig(test=0.1), TaskConfig(), name="test", seed=0)


FUZZ = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KINDS = st.sampled_from(["classification", "multilabel", "regression"])
NEAR_CSV = st.lists(
    st.sampled_from(
        ["text", "label", ",", "\n", "\r\n", '"', "a", "0", "1.5", "nan", "|", "é", "\0", "\t", " "]
    ),
    max_size=40,
).map("".join)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def assert_loads_or_raises(folder: Path, name: str, content: bytes, kind: str) -> None:
    """Whatever the bytes: a task that holds together, or a KdedgeError."""
    (folder / name).write_bytes(content)
    try:
        task = load_from(folder, {"train": name}, {"kind": kind})
    except KdedgeError as error:
        assert error.message
    else:
        assert len(task.train.texts) == len(task.train.labels) > 0
        assert task.content_hash()


@FUZZ
@given(
    content=st.binary(max_size=200)
    | NEAR_CSV.map(lambda text: ("text,label\n" + text).encode("utf-8", "surrogatepass")),
    kind=KINDS,
)
def test_any_csv(tmp_path: Path, content: bytes, kind: str) -> None:
    assert_loads_or_raises(tmp_path, "train.csv", content, kind)
    assert_loads_or_raises(tmp_path, "train.tsv", content.replace(b",", b"\t"), kind)


@FUZZ
@given(
    rows=st.lists(st.fixed_dictionaries({"text": JSON_VALUES, "label": JSON_VALUES}), max_size=6),
    raw=st.binary(max_size=30),
    kind=KINDS,
)
def test_any_jsonl(tmp_path: Path, rows: list[dict[str, object]], raw: bytes, kind: str) -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    assert_loads_or_raises(tmp_path, "train.jsonl", lines.encode(), kind)
    assert_loads_or_raises(tmp_path, "train.jsonl", lines.encode() + b"\n" + raw, kind)


@settings(FUZZ, max_examples=60)
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_damaged_parquet(tmp_path: Path, place: int, byte: int) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        pq.write_table(
            pa.table({"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}),
            whole,
        )
    content = bytearray(whole.read_bytes())
    content[place % len(content)] = byte
    assert_loads_or_raises(tmp_path, "train.parquet", bytes(content), "classification")
