"""More malformed data sets: with those of test_faults.py they are at least 110."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from malformed import GOOD, JSONL, Case, csv_case, jsonl_case, load_from, write

from kdedge.errors import DataError, UsageError

PAIRS = "text,second,label\n" + "".join(
    f"text {i},second {i},{'no' if i % 2 else 'yes'}\n" for i in range(20)
)
LONG = "the quick brown fox number {} jumps over a lazy dog and {} sleeps"
LONG_ROWS = "text,label\n" + "".join(
    f"{LONG.format(i * 7919, i * 104729)},{'no' if i % 2 else 'yes'}\n" for i in range(20)
)


def leak_case(name: str, text: str, says: str) -> Case:
    files = {"train.csv": LONG_ROWS, "test.csv": f"text,label\n{text},no\n"}
    return Case(name, files, DataError, says, {"test": "test"})


FIRST = LONG.format(7919, 104729)
NEAR = (
    r"(?s)1 of 1 test examples are near copies of (train|validation).*train\.csv:\d+ .*test\.csv:2"
)

CASES = [
    leak_case("leak with a full stop", FIRST + ".", NEAR),
    leak_case("leak with a zero-width space", FIRST.replace("quick", "qui\u200bck"), NEAR),
    leak_case("leak with a byte order mark", FIRST.replace("fox", "\ufefffox"), NEAR),
    leak_case("leak in NFD", FIRST.replace("jumps", "ju\u0301mps"), NEAR),
    leak_case("leak in full width", FIRST.replace("lazy", "\uff4c\uff41zy"), NEAR),
    leak_case("leak in quotes", f"\u00ab{FIRST}\u00bb", NEAR),
    leak_case("leak with one word changed", FIRST.replace("lazy", "tired"), NEAR),
    leak_case("leak with one word removed", FIRST.replace("lazy ", ""), NEAR),
    leak_case("leak with one word added", "well " + FIRST, NEAR),
    Case(
        "pair leak with a full stop",
        {"train.csv": PAIRS, "test.csv": "text,second,label\ntext 3.,second 3!,no\n"},
        DataError,
        NEAR,
        {"test": "test", "pair": "second"},
    ),
    Case(
        "exact pair leak",
        {"train.csv": PAIRS, "test.csv": "text,second,label\nTEXT 3,second  3,no\n"},
        DataError,
        r"(?s)1 of 18 train .*train\.csv:5 .*test\.csv:2",
        {"test": "test", "pair": "second"},
    ),
    Case(
        "validation leaks into test",
        {
            "train.csv": GOOD,
            "dev.csv": "text,label\nnew one,no\nnew two,yes\n",
            "test.csv": "text,label\nnew one,no\n",
        },
        DataError,
        r"(?s)1 of 2 validation examples also stand in test.*dev\.csv:2.*test\.csv:2",
        {"validation": "dev", "test": "test"},
    ),
    Case(
        "blank second text",
        {"train.csv": PAIRS + "a, ,yes\n"},
        DataError,
        r"train\.csv:22: column 'second' is blank",
        {"pair": "second"},
    ),
    Case(
        "missing second column",
        {"train.csv": GOOD},
        UsageError,
        r"(?s)no column 'second' \(data\.pair\).*'text', 'label'",
        {"pair": "second"},
    ),
    Case(
        "NUL in the second text",
        {"train.csv": PAIRS + "a,b\0c,yes\n"},
        DataError,
        r"train\.csv:22: column 'second' holds a NUL",
        {"pair": "second"},
    ),
    csv_case("only a tab", "\t,yes\n", r"train\.csv:22: column 'text' is blank \('\\t'\)"),
    csv_case("only a no-break space", "\u00a0,yes\n", r"train\.csv:22: column 'text' is blank"),
    csv_case("label of white space", 'text 21," "\n', r"train\.csv:22: "),
    csv_case("label with a line break", 'text 21,"yes\n"\n', r"label 'yes\\n' has white space"),
    csv_case("label in other case", "text 21,YES\n", r"unknown label 'YES'", labels=["no", "yes"]),
    csv_case("a quoted line never ends", '"a\nb\nc\n', r"train\.csv:2\d: unexpected end"),
    csv_case("five fields", "a,b,c,d,e\n", r"train\.csv:22: 5 fields, but the header has 2"),
    csv_case("infinite score", "text 21,inf\n", r"not a finite number", kind="regression"),
    Case(
        "decimal comma",
        {"train.csv": 'text,label\na,"1,5"\nb,"2,5"\n'},
        DataError,
        r"train\.csv:2: the score is not a finite number \('1,5'\)",
        task={"kind": "regression"},
    ),
    Case(
        "unknown delimiter",
        {"train.csv": GOOD.replace(",", ";")},
        UsageError,
        r"(?s)no column 'label'.*data\.delimiter = ';'",
        {"delimiter": "|"},
    ),
    Case(
        "header in capitals",
        {"train.csv": GOOD.replace("text,label", "TEXT,LABEL")},
        UsageError,
        r"(?s)no column 'label'.*'TEXT', 'LABEL'",
    ),
    Case(
        "header with an empty name twice",
        {"train.csv": "text,label,,\na,yes,,\n"},
        DataError,
        r"train\.csv:1: two columns have the same name",
    ),
    Case(
        "many columns",
        {"train.csv": ",".join(f"column{i}" for i in range(200_000)) + ",text,label\na,yes\n"},
        DataError,
        r"train\.csv:2: 2 fields, but the header has 200002",
    ),
    Case(
        "long label",
        {"train.csv": GOOD + f"a third text,{'x' * 1001}\n"},
        UsageError,
        r"(?s)a label has 1,001 characters.*data\.label",
    ),
    Case(
        "binary file",
        {"train.csv": bytes(range(256)) * 8},
        DataError,
        r"train\.csv",
    ),
    Case(
        "gzip named csv",
        {"train.csv": b"\x1f\x8b\x08\x00" + bytes(range(200))},
        DataError,
        r"train\.csv",
    ),
    Case(
        "utf-32 as utf-8",
        {"train.csv": GOOD.encode("utf-32")},
        DataError,
        r"train\.csv:1",
    ),
    Case(
        "shift-jis as utf-8",
        {"train.csv": GOOD.encode() + "\u65e5\u672c,yes\n".encode("shift-jis")},
        DataError,
        r"train\.csv:22: byte 0x93 ",
    ),
    Case(
        "utf-8 cut inside a character",
        {"train.csv": GOOD.encode() + "caf\u00e9".encode()[:-1]},
        DataError,
        r"train\.csv:22",
    ),
    jsonl_case("trailing comma", '{"text": "a", "label": 1,}', r"train\.jsonl:21: not JSON"),
    jsonl_case("single quotes", "{'text': 'a', 'label': 1}", r"train\.jsonl:21: not JSON"),
    jsonl_case("two objects in a line", '{"text": "a", "label": 1} {}', r"train\.jsonl:21: "),
    jsonl_case("list as text", '{"text": ["a"], "label": 1}', r"train\.jsonl:21: .*not a text"),
    jsonl_case("object as label", '{"text": "a", "label": {}}', r"train\.jsonl:21: "),
    jsonl_case("list as a single label", '{"text": "a", "label": [1]}', r"train\.jsonl:21: "),
    jsonl_case("null label", '{"text": "a", "label": null}', r"21: the label is missing \(None\)"),
    jsonl_case("infinite label", '{"text": "a", "label": Infinity}', r"train\.jsonl:21: "),
    jsonl_case("a text of surrogates", '{"text": "\\udc00", "label": 1}', r"half a surrogate pair"),
    jsonl_case("a string", '"text"', r"train\.jsonl:21: not a JSON object"),
    Case(
        "a JSON list instead of lines",
        {"train.jsonl": json.dumps([{"text": f"t{i}", "label": i % 2} for i in range(9)])},
        DataError,
        r"train\.jsonl:1: not a JSON object",
    ),
    Case(
        "one name in a file",
        {"train.jsonl": JSONL, "labels.json": '["only"]'},
        UsageError,
        r"at least 2 labels",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(tmp_path: Path, case: Case) -> None:
    write(tmp_path, case.files)
    with pytest.raises(case.error, match=case.says) as caught:
        load_from(tmp_path, case.data, case.task)
    assert caught.value.hint


def test_there_are_110_cases() -> None:
    """Count the names of both files."""
    names = set(re.findall(r'_case\(\s*"([^"]+)"|Case\(\s*"([^"]+)"', both_files()))
    assert len(names) >= 110


def both_files() -> str:
    here = Path(__file__)
    return here.read_text() + here.with_name("test_faults.py").read_text()


def test_the_rows_without_a_leak_do_load(tmp_path: Path) -> None:
    write(tmp_path, {"train.csv": LONG_ROWS, "test.csv": "text,label\nquite another text,no\n"})
    assert len(load_from(tmp_path, {"test": "test"}, {}).test) == 1
    write(tmp_path, {"train.csv": PAIRS})
    assert load_from(tmp_path, {"pair": "second"}, {}).spec.pair
