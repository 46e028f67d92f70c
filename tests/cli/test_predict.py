"""`kdedge predict` as users see it: one line per text, all file types, errors with exit codes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factories
import pytest
from kdedge_process import kdedge_command

from kdedge.cli import predict as command
from kdedge.cli.main import main
from kdedge.errors import DataError
from kdedge.io.tabular import stream_texts
from kdedge.runtime import Classifier
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest, write_manifest

TEXTS = ["the film was good", 'a "cold", grim plot', "", "  the cast  ", "naïve café 好 👩‍👩‍👧"]


class Output:
    """The exit code, stdout and stderr of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def predict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Output]:
    def run(*words: str | Path) -> Output:
        monkeypatch.setattr(sys, "argv", ["kdedge", "predict", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Output(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def single() -> Path:
    return factories.tiny_bundle("bilstm", "single")


def assert_predictions(
    output: Output, classifier: Classifier, texts: list[str], pairs: list[str] | None = None
) -> None:
    """Each line equals the prediction of the library for that text alone."""
    assert output.code == 0, output.err
    assert len(output.rows) == len(texts)
    for i, row in enumerate(output.rows):
        expected = classifier.predict(texts[i], None if pairs is None else pairs[i]).to_json()
        given = {"id": i + 1, "text": texts[i]}
        if pairs is not None:
            given["pair"] = pairs[i]
        assert list(row) == [*given, *expected] and row["label"] == expected["label"]
        assert {name: row[name] for name in given} == given
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5) and row[
            "scores"
        ] == pytest.approx(expected["scores"], abs=1e-5)


@pytest.mark.parametrize(
    "kind, task",
    [("bilstm", "single"), ("bert", "pair"), ("bert", "multilabel"), ("bert", "regression")],
)
def test_texts_as_arguments_are_classified_for_every_kind_of_task(
    kind: str, task: str, predict: Callable[..., Output]
) -> None:
    folder, texts = factories.tiny_bundle(kind, task), TEXTS[:2]
    classifier = Classifier.load(folder, "fp32", threads=1)
    pairs = TEXTS[3:5] if classifier.spec.pair else None
    output = predict(
        folder,
        *texts,
        *(word for pair in pairs or () for word in ("--pair", pair)),
        "--precision",
        "fp32",
        "--threads",
        "1",
        "--json",
    )
    assert_predictions(output, classifier, texts, pairs)
    names = {"id", "text", "label", "score", "scores"} | ({"pair"} if pairs else set())
    assert [set(row) for row in output.rows] == [names] * 2


# Files


FILES: dict[str, tuple[str, list[str]]] = {
    "lf.txt": ("one\n\n three \n", ["one", "", " three "]),
    "crlf.txt": ("one\r\ntwo\r\n", ["one", "two"]),
    "bom.txt": ("\ufeffone\ntwo", ["one", "two"]),
    "tab.txt": ("one\ttwo\n", ["one\ttwo"]),
    "quoted.csv": (
        'id,text\n1,"one, two"\n2,"a ""quote"""\n3,"two\nlines"\n',
        ["one, two", 'a "quote"', "two\nlines"],
    ),
    "crlf.csv": ("text,id\r\none,1\r\ntwo,2\r\n", ["one", "two"]),
    "bom.csv": ("\ufefftext\none\n", ["one"]),
    "words.csv": ("text\nNA\nnull\n007\nnan\n", ["NA", "null", "007", "nan"]),
    "quotes.tsv": ('id\ttext\n1\t"one\n2\tsay "two", please\n', ['"one', 'say "two", please']),
    "crlf.tsv": ("text\tid\r\none\t1\r\n", ["one"]),
    "bom.jsonl": (
        '\ufeff{"text": "one"}\n{"id": 3, "text": "\\u597d\\ttwo"}\n\n',
        ["one", "好\ttwo"],
    ),
    "crlf.jsonl": ('{"text": "one"}\r\n{"text": ""}\r\n', ["one", ""]),
    "UPPER.CSV": ("text\none\n", ["one"]),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_type_is_read_exactly(name: str, tmp_path: Path) -> None:
    content, texts = FILES[name]
    (tmp_path / name).write_bytes(content.encode())
    assert list(stream_texts(tmp_path / name, ("text",))) == [(text,) for text in texts]


@pytest.mark.parametrize("name", ["bom.txt", "quoted.csv", "quotes.tsv", "bom.jsonl"])
def test_every_file_type_is_classified(
    name: str, tmp_path: Path, single: Path, predict: Callable[..., Output]
) -> None:
    content, texts = FILES[name]
    (tmp_path / name).write_bytes(content.encode())
    assert_predictions(
        predict(single, "--file", tmp_path / name, "--precision", "fp32", "--json"),
        Classifier.load(single, "fp32"),
        texts,
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
def test_pairs_come_from_two_columns(
    name: str, tmp_path: Path, predict: Callable[..., Output]
) -> None:
    """The order of the columns in the file does not matter."""
    folder = factories.tiny_bundle("bert", "pair")
    first, second = factories.sentences(5, 21)[0], factories.sentences(5, 22)[0]
    lines = {
        "a.csv": ["b,a", *(f"{b},{a}" for a, b in zip(first, second, strict=True))],
        "a.tsv": ["b\tx\ta", *(f"{b}\tx\t{a}" for a, b in zip(first, second, strict=True))],
        "a.jsonl": [json.dumps({"b": b, "a": a}) for a, b in zip(first, second, strict=True)],
        "a.txt": [f"{a}\t{b}" for a, b in zip(first, second, strict=True)],
    }[name]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    output = predict(
        folder,
        "--file",
        tmp_path / name,
        "--column",
        "a",
        "--pair-column",
        "b",
        "--precision",
        "fp32",
        "--json",
    )
    classifier = Classifier.load(folder, "fp32")
    assert_predictions(output, classifier, list(first), list(second))
    assert (
        abs(
            classifier.predict(first[0], second[0]).score
            - classifier.predict(second[0], first[0]).score
        )
        > 1e-3
    ), "the order of the texts must matter"


def test_ten_thousand_lines_are_classified_in_order(
    tmp_path: Path, single: Path, predict: Callable[..., Output]
) -> None:
    classifier, texts = (
        Classifier.load(single, "fp32", threads=1),
        list(factories.sentences(40, 31)[0]),
    )
    alone = {text: classifier.predict(text).score for text in texts}
    chance = random.Random(5)
    lines = [chance.choice(texts) for _ in range(10_000)]
    (tmp_path / "many.txt").write_text("\n".join(lines) + "\n")
    output = predict(
        single, "--file", tmp_path / "many.txt", "--precision", "fp32", "--threads", "1", "--json"
    )
    scores = [row["score"] for row in output.rows]
    assert len(scores) == 10_000 and len({round(score, 3) for score in alone.values()}) > 15
    assert max(abs(score - alone[text]) for score, text in zip(scores, lines, strict=True)) <= 1e-5


def test_predictions_are_printed_while_the_file_is_read(
    single: Path, predict: Callable[..., Output], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def endless(*_: object) -> Iterator[tuple[str, ...]]:
        for number in range(100):
            yield (f"the film {number}",)
        raise DataError("the rest is broken", "many.txt:101")

    monkeypatch.setattr(command, "stream_texts", endless)
    output = predict(single, "--file", tmp_path / "many.txt", "--json")
    assert output.code == 3 and "many.txt:101" in output.err
    assert len(output.rows) == 96, "three batches of 32 come before the broken line"


# Errors


@pytest.mark.parametrize(
    "name, content, location",
    [
        ("a.csv", b"id,text\n1,fine\n2,a,b\n", "a.csv:3"),
        ("a.csv", b'id,text\n1,"two\nlines"\n2\n', "a.csv:4"),
        ("a.tsv", b"id\ttext\n1\n", "a.tsv:2"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": null}\n', "a.jsonl:2"),
        ("a.jsonl", b'{"text": "fine"}\n\nno json\n', "a.jsonl:3"),
        ("a.jsonl", b'{"text": "\\udc80"}\n', "a.jsonl:1"),
        ("a.txt", b"fine\ncaf\xe9\n", "a.txt:2"),
        ("missing.csv", None, "missing.csv"),
    ],
)
def test_an_invalid_line_is_named_with_exit_code_3(
    name: str,
    content: bytes | None,
    location: str,
    tmp_path: Path,
    single: Path,
    predict: Callable[..., Output],
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    output = predict(single, "--file", tmp_path / name, "--json")
    assert output.code == 3 and location in output.err.replace("\n", ""), output.err
    assert output.out == "" and "Traceback" not in output.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "--file", "a.txt"],
        ["a", "--pair", "b"],
        ["--file", "a.xlsx"],
        ["a", "--precision", "int4"],
        ["a", "--threads", "0"],
        ["a", "--no-such"],
    ],
)
def test_wrong_usage_has_exit_code_2(
    words: list[str], single: Path, predict: Callable[..., Output]
) -> None:
    output = predict(single, *words)
    assert output.code == 2 and output.out == "" and output.err


def test_a_missing_column_has_exit_code_2(
    tmp_path: Path, single: Path, predict: Callable[..., Output]
) -> None:
    (tmp_path / "a.csv").write_text("texts\nfine\n")
    output = predict(single, "--file", tmp_path / "a.csv", "--json")
    assert output.code == 2 and "did you mean --column 'texts'?" in output.err


def test_missing_pairs_have_exit_code_2(predict: Callable[..., Output]) -> None:
    output = predict(factories.tiny_bundle("bert", "pair"), "one", "two", "--pair", "three")
    assert output.code == 2 and "2 texts, 1 pairs" in output.err


def test_an_unavailable_provider_has_exit_code_4(
    single: Path, predict: Callable[..., Output]
) -> None:
    output = predict(single, "the film", "--provider", "qnn")
    assert output.code == 4 and output.out == ""


def test_a_changed_bundle_has_exit_code_5(
    tmp_path: Path, single: Path, predict: Callable[..., Output]
) -> None:
    folder = factories.copy_bundle(single, tmp_path)
    with (folder / "tokenizer.json").open("ab") as stream:
        stream.write(b" ")
    output = predict(folder, "the film", "--json")
    assert output.code == 5 and "tokenizer.json" in output.err and output.out == ""


def test_a_folder_that_is_not_a_bundle_has_exit_code_2(
    tmp_path: Path, predict: Callable[..., Output]
) -> None:
    output = predict(tmp_path / "nowhere", "the film")
    assert output.code == 2 and "kdedge export" in output.err


# Output for people


def forge_labels(folder: Path, labels: list[str]) -> None:
    """Write other labels, and a new digest, as a forger would."""
    (folder / "config.json").write_text("{}")
    document = json.loads((folder / MANIFEST).read_text())
    document["spec"]["labels"] = labels
    write_manifest(folder, Manifest.from_json(document))


def test_markup_in_labels_and_texts_is_printed_literally(
    tmp_path: Path, predict: Callable[..., Output]
) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bert", "multilabel"), tmp_path)
    labels = ["[bold red]x[/]", "<script>[/red]", "[link=file:///etc]y[/link]\\"]
    forge_labels(folder, labels)
    classifier = Classifier.load(folder, "fp32")
    texts = ["[blink]film[/blink]", "[/nothing] plot", "trailing \\", ":smile: [1] cast"]
    output = predict(folder, *texts, "--precision", "fp32")
    assert output.code == 0, output.err
    lines = output.out.splitlines()
    assert len(lines) == len(texts)
    seen = set()
    for text, line in zip(texts, lines, strict=True):
        prediction = classifier.predict(text)
        assert isinstance(prediction.label, tuple)
        assert line == f"{', '.join(prediction.label) or '(none)'}  {prediction.score:.3f}  {text}"
        seen.update(prediction.label)
    assert seen, "at least one label must be printed"


def test_control_characters_are_not_printed(tmp_path: Path, predict: Callable[..., Output]) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm", "single"), tmp_path)
    forge_labels(folder, ["\x1b[2Jbad", "\x1b]0;good\x07"])
    output = predict(folder, "\x1b[31mthe film\x9b1m was\x08 good")
    assert output.code == 0, output.err
    assert not set(output.out) & {
        chr(code) for code in (*range(10), *range(11, 32), *range(127, 160))
    }
    assert output.out.endswith(r"\x1b[31mthe film\x9b1m was\x08 good" + "\n")


def test_three_dots_stand_for_the_end_of_a_long_text(
    single: Path, predict: Callable[..., Output]
) -> None:
    whole, cut = predict(single, "film " * 12, "film " * 13).out.splitlines()
    assert whole.endswith("film" + " film" * 11) and cut.endswith(" film fi...")


def test_a_truncated_text_is_marked_for_people_and_in_json(
    single: Path, predict: Callable[..., Output]
) -> None:
    fits, long = (
        "film " * (factories.BUNDLE_MAX_LENGTH - 2),
        "film " * (factories.BUNDLE_MAX_LENGTH - 1),
    )
    lines = predict(single, fits, long).out.splitlines()
    assert [line.endswith("(truncated)") for line in lines] == [False, True]
    rows = predict(single, fits, long, "--json").rows
    assert "truncated" not in rows[0] and rows[1]["truncated"] is True


def test_blank_lines_of_a_csv_file_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\none\n\ntwo\n")
    assert list(stream_texts(tmp_path / "t.csv", ("text",))) == [("one",), ("two",)]


def test_texts_are_read_from_a_pipe(single: Path) -> None:
    texts = "the film was good\nthe plot was \u202e bad\n"
    for arguments in (["-"], []):
        done = subprocess.run(
            kdedge_command("predict", str(single), *arguments, "--json"),
            input=texts,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(row["id"], row["text"]) for row in rows] == [
            (1, "the film was good"),
            (2, "the plot was \u202e bad"),
        ]
        assert "\u202e" not in done.stdout


@pytest.mark.parametrize(
    "task, lines, texts",
    [
        ("single", "one\n\n \r\ntwo\n\n", [("one",), ("",), (" ",), ("two",), ("",)]),
        ("pair", "one\ttwo\n\nthree\tfour\n", [("one", "two"), ("", ""), ("three", "four")]),
    ],
)
def test_a_blank_line_of_stdin_gets_a_line_of_output_in_its_place(
    task: str, lines: str, texts: list[tuple[str, ...]]
) -> None:
    folder = factories.tiny_bundle("bilstm", task)
    done = subprocess.run(
        kdedge_command("predict", str(folder), "-", "--json", "--precision", "fp32"),
        input=lines.encode(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(1, len(texts) + 1))
    classifier = Classifier.load(folder, "fp32")
    for row, row_texts in zip(rows, texts, strict=True):
        assert tuple(row[name] for name in ("text", "pair") if name in row) == row_texts
        assert row["score"] == pytest.approx(classifier.predict(*row_texts).score, abs=1e-5)
    empty = sum(not any(text.strip() for text in row_texts) for row_texts in texts)
    assert empty and f"{empty} text" in done.stderr.decode()


def test_a_file_called_dash_is_stdin() -> None:
    folder = str(factories.tiny_bundle("bilstm", "single"))
    done = subprocess.run(
        kdedge_command("predict", folder, "--file", "-", "--json"),
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one", "two"]


def test_a_byte_order_mark_is_no_part_of_the_first_text() -> None:
    done = subprocess.run(
        kdedge_command("predict", str(factories.tiny_bundle("bilstm", "single")), "-", "--json"),
        input="\ufeffa lovely film\n".encode(),
        capture_output=True,
        timeout=120,
    )
    assert json.loads(done.stdout)["text"] == "a lovely film"


def test_a_pair_option_beside_texts_of_stdin_is_refused() -> None:
    folder = str(factories.tiny_bundle("bilstm", "single"))
    done = subprocess.run(
        kdedge_command("predict", folder, "-", "--pair", "x"),
        input="one\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "--pair goes with texts that are arguments" in done.stderr


def test_a_line_of_stdin_that_is_not_a_pair_is_named() -> None:
    done = subprocess.run(
        kdedge_command("predict", str(factories.tiny_bundle("bilstm", "pair")), "-"),
        input="one\ttwo\nalone\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3 and "stdin:2" in done.stderr
