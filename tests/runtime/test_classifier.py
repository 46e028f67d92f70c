"""Classifiers against torch, alone and in batches, and the commands predict and verify."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import pickle
import random
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import factories
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from kdedge.export import export
from kdedge.export.export import export_run
from kdedge.export.neutral_texts import neutral_rows

from kdedge.cli.predict import predict
from kdedge.cli.verify import verify
from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, DataError, IntegrityError, UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import load_tokenizer
from kdedge.runtime import Bundle, Classifier, Prediction
from kdedge.runtime import golden as golden_answers
from kdedge.runtime.golden import Replay, replay
from kdedge.runtime.manifest import Manifest, write_manifest
from kdedge.runtime.spec import TaskSpec
from kdedge.runtime.text_encoder import CHARACTERS_PER_TOKEN, length_batches
from kdedge.students.build import load_student

ODD = [
    "",
    " ",
    "good",
    "İstanbul ẞ straße",
    "👩‍👩‍👧 \u200b\u200d",
    "[MASK] [CLS] [SEP] [PAD]",
    "مرحبا film",
    "the\0film",
    "好" * 90,
    "e\u0301" * 40,
    "film " * 300,
]


def relabelled_task(spec: TaskSpec) -> Task:
    """Give the sentences of `single_task` multilabel or regression labels."""

    def relabel(split: Split) -> Split:
        long = np.array([len(text) > 40 for text in split.texts])
        if spec.kind == "multilabel":
            labels = np.stack([split.labels == 0, split.labels == 1, long], 1)
        else:
            labels = split.labels + 0.5 * long
        return Split(split.texts, None, labels.astype(np.float32))

    single = factories.single_task()
    return Task(spec, relabel(single.train), relabel(single.validation), relabel(single.test))


MULTILABEL = TaskSpec("tiny", "multilabel", ("bad", "good", "long"), "micro_f1", pair=False)
REGRESSION = TaskSpec("tiny", "regression", ("score",), "pearson", pair=False)


GOLDEN = len(neutral_rows(pair=False))
"""Golden texts of every bundle."""


@pytest.fixture(scope="module")
def student_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of a student and its bundle."""
    tasks = {
        "bert": ("tinybert", factories.single_task()),
        "single": ("bilstm", factories.single_task()),
        "pair": ("bilstm", factories.pair_task()),
        "bertpair": ("tinybert", factories.pair_task()),
        "multilabel": ("bilstm", relabelled_task(MULTILABEL)),
        "regression": ("bilstm", relabelled_task(REGRESSION)),
    }
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_export_teacher", lambda *_, **__: None)
        for name, (kind, task) in tasks.items():
            run = factories.make_run(
                tmp_path_factory.mktemp(name), task, (kind,), quantize={"steps": 0}
            )
            (bundle,) = export_run(run, [kind], task=task, options=factories.both_files())
            folders[name] = bundle.parent
    return folders


@pytest.fixture(scope="module")
def bundle(student_dirs: dict[str, Path]) -> Path:
    return student_dirs["single"] / "bundle"


def torch_classifier(student_dir: Path) -> TextClassifier:
    folder = student_dir / "student"
    return TextClassifier(load_student(folder), load_tokenizer(folder), factories.RUN_MAX_LENGTH)


def texts_of(name: str) -> tuple[list[str], list[str] | None]:
    texts = [*factories.single_task().test.texts, *ODD]
    return (texts, texts[::-1]) if "pair" in name else (texts, None)


@pytest.mark.parametrize("name", ["bert", "single", "pair", "bertpair", "multilabel", "regression"])
def test_logits_equal_those_of_torch(student_dirs: dict[str, Path], name: str) -> None:
    texts, pairs = texts_of(name)
    expected = torch_classifier(student_dirs[name]).predict_logits(
        tuple(texts), None if pairs is None else tuple(pairs)
    )
    logits = Classifier.load(student_dirs[name] / "bundle", "fp32").logits(texts, pairs)
    assert np.abs(logits - expected).max() <= 1e-5
    assert np.ptp(expected, axis=0).min() > 1e-3


@pytest.mark.parametrize("name", ["bert", "single", "pair"])
def test_the_tokens_are_those_of_training(student_dirs: dict[str, Path], name: str) -> None:
    texts, pairs = texts_of(name)
    expected = (
        torch_classifier(student_dirs[name])
        .encode(tuple(texts), None if pairs is None else tuple(pairs))
        .tokens["input_ids"][:]
    )
    encoded = Classifier.load(student_dirs[name] / "bundle").encode(texts, pairs)
    rows = [
        ids[mask == 1].tolist()
        for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]
    assert rows == expected
    assert all(values.dtype == np.int64 for values in encoded.values())


@pytest.mark.parametrize("name", ["bert", "single", "pair"])
def test_fp32_logits_do_not_depend_on_the_batch(student_dirs: dict[str, Path], name: str) -> None:
    classifier = Classifier.load(student_dirs[name] / "bundle", "fp32")
    texts, pairs = texts_of(name)
    alone = np.concatenate(
        [
            classifier.logits([text], None if pairs is None else [pairs[i]])
            for i, text in enumerate(texts)
        ]
    )
    order = random.Random(1).sample(range(len(texts)), len(texts))
    shuffled = classifier.run(
        classifier.encode(
            [texts[i] for i in order], None if pairs is None else [pairs[i] for i in order]
        )
    )
    for others in (classifier.logits(texts, pairs), classifier.logits(texts, pairs, batch_size=3)):
        assert np.abs(others - alone).max() <= 1e-6
    assert np.abs(shuffled - alone[order]).max() <= 1e-6


@pytest.mark.parametrize("name", ["bert", "single", "pair"])
def test_int8_logits_are_bit_identical_alone_and_in_a_batch(
    student_dirs: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text is padded in a batch on a CPU, nor is one of the two texts of a pair."""
    run, padded = Classifier.run, []

    def run_and_note(self: Classifier, encoded: dict[str, np.ndarray]) -> np.ndarray:
        is_padded = not encoded["attention_mask"].all()
        if "token_type_ids" in encoded:
            is_padded |= len(set(encoded["token_type_ids"].sum(1).tolist())) > 1
        padded.append(is_padded)
        return run(self, encoded)

    monkeypatch.setattr(Classifier, "run", run_and_note)
    classifier = Classifier.load(student_dirs[name] / "bundle", "int8")
    texts, pairs = texts_of(name)
    alone = np.concatenate(
        [
            classifier.logits([text], None if pairs is None else [pairs[i]])
            for i, text in enumerate(texts)
        ]
    )
    assert np.array_equal(classifier.logits(texts, pairs), alone) and np.array_equal(
        classifier.logits(texts, pairs, batch_size=3), alone
    )
    assert len(padded) > len(texts) and not any(padded)
    lengths = classifier.encode(texts, pairs)["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 5, "texts of many lengths, or this shows nothing"


@given(
    lengths=st.lists(st.integers(1, 9), max_size=40),
    size=st.integers(1, 8),
    equal_lengths=st.booleans(),
)
def test_length_batches_hold_every_text_once(
    lengths: list[int], size: int, equal_lengths: bool
) -> None:
    batches = list(length_batches(lengths, size, equal_lengths=equal_lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size for batch in batches)
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    if equal_lengths:
        assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)
    else:
        assert len(batches) == -(-len(lengths) // size)


def test_probabilities_against_scipy(student_dirs: dict[str, Path]) -> None:
    from scipy.special import expit, softmax

    single, many, one = (
        Classifier.load(student_dirs[name] / "bundle", "fp32")
        for name in ("single", "multilabel", "regression")
    )
    for text in factories.single_task().test.texts[:8]:
        answer, logits = single.predict(text), single.logits([text])[0]
        assert (
            list(answer.scores) == ["bad", "good"]
            and answer.label == ("bad", "good")[int(logits.argmax())]
        )
        assert np.allclose(
            list(answer.scores.values()), softmax(logits.astype(float) / single.temperature)
        ) and answer.score == max(answer.scores.values())
        several, logits = many.predict(text), many.logits([text])[0]
        assert np.allclose(list(several.scores.values()), expit(logits.astype(float)))
        assert several.label == tuple(name for name, score in several.scores.items() if score > 0.5)
        value = one.predict(text)
        assert value == Prediction("score", float(one.logits([text])[0, 0]), {"score": value.score})


def test_sixteen_threads_get_the_predictions_of_one(bundle: Path) -> None:
    classifier = Classifier.load(bundle, "fp32", threads=1)
    texts = [*factories.single_task().test.texts, *ODD]
    expected = [classifier.predict(text) for text in texts]

    def ask(seed: int) -> int:
        chance, wrong = random.Random(seed), 0
        for _ in range(60):
            i = chance.randrange(len(texts))
            wrong += classifier.predict(texts[i]) != expected[i]
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 0


@pytest.mark.parametrize("unit", ["x", "word ", "好", "\u0301", " "])
def test_ten_million_characters_are_cut_before_they_are_read(bundle: Path, unit: str) -> None:
    classifier = Classifier.load(bundle, threads=1)
    text = unit * (10_000_000 // len(unit))
    tokenizer = mock.Mock(wraps=classifier._encoder._tokenizer)
    with mock.patch.object(classifier._encoder, "_tokenizer", tokenizer):
        assert classifier.predict(text).truncated
        assert classifier.predict_batch([text])[0].truncated
    limit = factories.RUN_MAX_LENGTH * CHARACTERS_PER_TOKEN
    assert len(tokenizer.encode.call_args.args[0]) == limit
    assert len(tokenizer.encode_batch.call_args.args[0][0]) == limit


def test_one_text_gets_the_prediction_of_a_batch(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    texts = [*ODD, *factories.sentences(20, seed=8)[0]]
    assert [classifier.predict(text) for text in texts] == classifier.predict_batch(texts)


def test_stream_reads_as_it_answers(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)
    texts = list(factories.sentences(200, seed=8)[0])
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    answers = classifier.predict_stream(lines(), batch_size=2)
    first = next(answers)
    assert read < len(texts)
    assert [first, *answers] == classifier.predict_batch(texts)
    with pytest.raises(UsageError, match="iterable of texts"):
        list(classifier.predict_stream("a text"))


def test_async_predictions_are_the_same(bundle: Path) -> None:
    classifier = Classifier.load(bundle, threads=1)

    async def ask() -> list[Prediction]:
        return list(await asyncio.gather(*(classifier.predict_async(text) for text in ODD)))

    assert asyncio.run(ask()) == classifier.predict_batch(ODD)


def test_pickled_classifier_opens_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    copy = factories.copy_bundle(bundle, tmp_path)
    classifier = Classifier.load(copy, threads=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(classifier.predict, "the film").result() == classifier.predict(
            "the film"
        )
    pickled = pickle.dumps(classifier)
    manifest = Bundle.open(copy).manifest
    write_manifest(copy, replace(manifest, name="another"))
    with pytest.raises(IntegrityError, match="digest"):
        pickle.loads(pickled)


def test_closed_classifier_says_so(bundle: Path) -> None:
    with Classifier.load(bundle) as classifier:
        assert classifier.predict("the film")
    with pytest.raises(UsageError, match="closed"):
        classifier.predict("the film")


def test_truncated_means_that_tokens_were_left_out(bundle: Path) -> None:
    classifier = Classifier.load(bundle)
    fits = " ".join(["film"] * (factories.RUN_MAX_LENGTH - 2))
    assert [
        prediction.truncated
        for prediction in classifier.predict_batch(["film", fits, fits + " film"])
    ] == [
        False,
        False,
        True,
    ]
    assert classifier.encode([fits + " film"])["input_ids"].shape == (1, factories.RUN_MAX_LENGTH)


def test_no_texts_give_no_predictions(bundle: Path) -> None:
    classifier = Classifier.load(bundle)
    assert classifier.predict_batch([]) == [] and classifier.logits([]).shape == (0, 2)


def test_half_a_character_is_a_data_error(bundle: Path) -> None:
    with pytest.raises(DataError, match="surrogate"):
        Classifier.load(bundle).predict("half \ud83d")


def test_pairs_are_required_exactly_for_pair_tasks(student_dirs: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="one text at a time"):
        Classifier.load(student_dirs["single"] / "bundle").predict("a", "b")
    pair = Classifier.load(student_dirs["pair"] / "bundle")
    with pytest.raises(UsageError, match="two texts"):
        pair.predict("a")
    with pytest.raises(UsageError, match="each text needs"):
        pair.logits(["a", "b"], ["c"])


# kdedge predict


def run_predict(*words: str | Path) -> Result:
    return CliRunner().invoke(predict, [str(word) for word in words], catch_exceptions=True)


def predictions(result: Result) -> list[dict[str, Any]]:
    assert result.exception is None, result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return [text.replace("\t", " ") for text in factories.sentences(70, 9)[0]]


def write_texts(folder: Path, ending: str, texts: list[str]) -> Path:
    path = folder / f"texts.{ending}"
    lines = {
        "txt": texts,
        "csv": ["id,review", *(f'{i},"{text}, ""so""\nthey say"' for i, text in enumerate(texts))],
        "tsv": ["id\treview", *(f'{i}\t"{text}' for i, text in enumerate(texts))],
        "jsonl": [json.dumps({"id": i, "review": text}) for i, text in enumerate(texts)],
    }
    path.write_text("\n".join(lines[ending]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["txt", "csv", "tsv", "jsonl"])
def test_a_file_is_classified_line_by_line_in_order(
    bundle: Path, tmp_path: Path, rows: list[str], ending: str
) -> None:
    read = {"csv": lambda text: f'{text}, "so"\nthey say', "tsv": lambda text: f'"{text}'}.get(
        ending, str
    )
    predicted = predictions(
        run_predict(
            bundle,
            "--file",
            write_texts(tmp_path, ending, rows),
            "--column",
            "review",
            "--json",
            "--precision",
            "fp32",
        )
    )
    classifier = Classifier.load(bundle, "fp32")
    assert len(predicted) == len(rows)
    for text, answer in zip(rows, predicted, strict=True):
        expected = classifier.predict(read(text)).to_json()
        assert answer["label"] == expected["label"] and answer["scores"] == pytest.approx(
            expected["scores"], abs=1e-6
        )
        assert set(answer) == {"id", "text", "label", "score", "scores"}
    assert len({answer["score"] for answer in predicted}) > 20, (
        "scores must differ, or the order would not show"
    )


def test_pairs_come_from_two_columns_or_the_command_line(
    student_dirs: dict[str, Path], tmp_path: Path, rows: list[str]
) -> None:
    bundle, path = student_dirs["pair"] / "bundle", tmp_path / "pairs.jsonl"
    classifier = Classifier.load(bundle, "fp32")
    path.write_text(
        "".join(
            json.dumps({"a": left, "b": right}) + "\n"
            for left, right in zip(rows, rows[::-1], strict=True)
        )
    )
    predicted = predictions(
        run_predict(
            bundle,
            "--file",
            path,
            "--column",
            "a",
            "--pair-column",
            "b",
            "--json",
            "--precision",
            "fp32",
        )
    )
    for left, right, answer in zip(rows, rows[::-1], predicted, strict=True):
        assert answer["score"] == pytest.approx(classifier.predict(left, right).score, abs=1e-6)
    (prediction,) = predictions(
        run_predict(bundle, rows[0], "--pair", rows[1], "--json", "--precision", "fp32")
    )
    assert prediction["score"] == pytest.approx(classifier.predict(rows[0], rows[1]).score)
    assert isinstance(run_predict(bundle, rows[0]).exception, UsageError)


def test_a_truncated_text_is_marked(bundle: Path) -> None:
    long, short = predictions(run_predict(bundle, "film " * 200, "film", "--json"))
    assert long["truncated"] is True and "truncated" not in short


def test_markup_in_labels_and_texts_is_printed_literally(bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    document = json.loads((folder / "kdedge.json").read_text())
    document["spec"]["labels"] = ["[bold]x[/]", "<script>[/red]"]
    (folder / "config.json").write_text("{}")
    write_manifest(folder, Manifest.from_json(document))
    result = run_predict(folder, "a [link=evil]film[/link]")
    assert result.exception is None
    assert (
        any(label in result.stdout for label in document["spec"]["labels"])
        and "[link=evil]film[/link]" in result.stdout
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"id,text\n1,fine\n2\n", r"a\.csv:3"),
        ("a.csv", b'text\n"fine"\n"never closed\n', r"a\.csv:\d"),
        ("a.tsv", b"id\ttext\n1\tfine\n2\ta\tb\n", r"a\.tsv:3"),
        ("a.csv", b"", "no header line"),
        ("a.jsonl", b'{"text": "fine"}\n\n{"text": 3}\n', r"a\.jsonl:3"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl:2"),
        ("a.jsonl", b'{"text": "fine"}\n["text"]\n', r"a\.jsonl:2"),
        (
            "a.jsonl",
            b'{"text": "fine"}\n{"txt": "fine"}\n',
            r"a\.jsonl:2: column 'text' is missing",
        ),
        ("a.jsonl", b'{"text": "half \\ud83d"}\n', r"a\.jsonl:1"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1"),
        ("a.txt", b"fine\n" * 5000 + b"br\xffken\n", r"a\.txt:5001: byte 0xff"),
        ("a.csv", "text\nfine\n".encode("utf-16"), "marked as utf-16"),
    ],
)
def test_an_invalid_line_is_named(
    bundle: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run_predict(bundle, "--file", tmp_path / name, "--json")
    assert isinstance(result.exception, DataError), result.exception
    assert re.search(message, str(result.exception)), str(result.exception)


@pytest.mark.parametrize(
    "name, content",
    [("a.csv", b"id,texts\n1,fine\n"), ("a.jsonl", b'{"texts": "fine"}\n{"text": "late"}\n')],
)
def test_a_missing_column_is_a_wrong_option(
    bundle: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run_predict(bundle, "--file", tmp_path / name)
    assert isinstance(result.exception, UsageError), result.exception
    assert re.search(
        r"(?s)no column 'text' \(--column\).*did you mean --column 'texts'",
        str(result.exception),
    )


def test_texts_come_from_arguments_or_a_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("film\n")
    for words in (
        [],
        ["film", "--file", tmp_path / "a.txt"],
        ["film", "--pair", "x"],
        ["--file", tmp_path / "a.xml"],
    ):
        assert isinstance(run_predict(bundle, *words).exception, UsageError), words
    assert isinstance(run_predict(bundle, "--file", tmp_path / "missing.txt").exception, DataError)


# kdedge verify


def test_verify_replays_every_golden_text_with_every_file(student_dirs: dict[str, Path]) -> None:
    for name in ("bert", "pair", "regression"):
        result = CliRunner().invoke(verify, [str(student_dirs[name] / "bundle"), "--json"])
        assert result.exception is None, result.exception
        document = json.loads(result.stdout.splitlines()[-1])
        assert {file["precision"]: file["texts"] for file in document["replays"]} == {
            "fp32": GOLDEN,
            "int8": GOLDEN,
        }
        assert all(file["max_abs_logit"] < 1e-5 and file["passed"] for file in document["replays"])


def forged_golden(bundle: Path, folder: Path, key: str, change: float) -> Path:
    copy = Path(shutil.copytree(bundle, folder / key))
    golden = json.loads((copy / "golden.json").read_text())
    if key == "input_ids":
        golden["rows"][3][key][1] += 1
    else:
        golden["rows"][3]["logits"][key][0] += change
    (copy / "golden.json").write_text(json.dumps(golden))
    write_manifest(copy, Manifest.from_json(json.loads((copy / "kdedge.json").read_text())))
    return copy


@pytest.mark.parametrize("key, change", [("fp32", 2e-4), ("int8", 0.6), ("input_ids", 0)])
def test_verify_fails_if_a_logit_or_token_differs(
    bundle: Path, tmp_path: Path, key: str, change: float
) -> None:
    result = CliRunner().invoke(verify, [str(forged_golden(bundle, tmp_path, key, change))])
    assert isinstance(result.exception, CheckFailed) and result.exception.exit_code == 1


def test_verify_accepts_rounding_in_some_texts_but_not_in_all(bundle: Path) -> None:
    def replay_shifted(texts: int, by: float) -> Replay:
        """Replay the int8 file after the golden logits of some texts were changed."""
        golden = json.loads((bundle / "golden.json").read_text())
        for row in golden["rows"][:texts]:
            row["logits"]["int8"][0] += by
        with mock.patch.object(golden_answers, "_read_golden", lambda _: golden):
            return next(file for file in replay(Bundle.open(bundle)) if file.precision == "int8")

    most = GOLDEN - (GOLDEN - 1) // 4 - 1
    assert replay_shifted(3, 0.1).passed and replay_shifted(most, 0.1).passed
    assert not replay_shifted(most + 1, 0.002).passed and not replay_shifted(1, 0.6).passed


def test_verify_rejects_changed_files(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (copy / "golden.json").write_text("{}")
    result = CliRunner().invoke(verify, [str(copy)])
    assert isinstance(result.exception, IntegrityError) and result.exception.exit_code == 5
    assert Bundle.open(bundle)
