"""A teacher with a byte-level tokenizer, and students with WordPiece or the teacher's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kdedge.export import export
from kdedge.export.export import ExportOptions, export_run
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
)

from kdedge.augment.replace import Neighbours, whole_words
from kdedge.data import load_task
from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import BiLstmConfig, Recipe, TinyBertConfig
from kdedge.run.layout import RunDir
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.golden import replay
from kdedge.students.build import build_student
from kdedge.students.wordpiece import train_wordpiece
from kdedge.teacher.finetune import load_teacher
from kdedge.transfer.dataset import read_transfer_set

STRANGE = [
    "",
    "Ünïcödé  naïve\tfaçade",
    "北京 🙂 مرحبا",
    "<mask> [MASK] </s>",
    " leading and trailing ",
    "What's a “quote”—dash?",
]


def questions(shared: Path, count: int = 240) -> tuple[list[str], list[int]]:
    table = pq.read_table(shared / "data" / "trec" / "train.parquet").slice(0, count).to_pydict()
    return table["text"], table["label"]


def byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of RoBERTa's kind, trained on the texts."""
    inner = ByteLevelBPETokenizer()
    inner.train_from_iterator(
        texts,
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    merges = [tuple(pair) for pair in json.loads(inner.to_str())["model"]["merges"]]
    return RobertaTokenizer(vocab=inner.get_vocab(), merges=merges)


def roberta(tokenizer: PreTrainedTokenizerFast, outputs: int) -> RobertaForSequenceClassification:
    torch.manual_seed(0)
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 42,
    }
    return RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=len(tokenizer),
            pad_token_id=1,
            type_vocab_size=1,
            num_labels=outputs,
            initializer_range=0.3,
            **sizes,
        )
    ).eval()


PIECES = {
    "tokenizer": "wordpiece",
    "vocabulary": 500,
    "max_length": 32,
    "baseline": False,
    "quantize": {"steps": 0},
}
BILSTM = {
    "kind": "bilstm",
    "start": "scratch",
    "embedding": 16,
    "hidden": 8,
    "head": 8,
    "fit": {"epochs": 1.0, "checks": 1},
} | PIECES
OWN = factories.tinybert_config(
    name="own", objective={"hidden_weight": 0.1, "layer_map": [[1, 2]]}, quantize={"steps": 0}
)
STUDENTS = {
    "single": [
        factories.tinybert_config(**PIECES),
        BILSTM,
        OWN,
        {
            "kind": "bilstm",
            "name": "ownlstm",
            "embedding": 16,
            "hidden": 8,
            "head": 8,
            "max_length": 32,
        },
    ],
    "pair": [OWN, BILSTM],
}


@pytest.fixture(scope="module", params=["single", pytest.param("pair", marks=pytest.mark.slow)])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Path
) -> RunDir:
    """Distill and export small students of a RoBERTa."""
    folder = tmp_path_factory.mktemp("bytes")
    texts, labels = questions(shared)
    tokenizer = byte_pairs(texts)
    (folder / "data").mkdir()
    second: dict[str, Any] = (
        {} if request.param == "single" else {"second": [texts[(7 * i) % 240] for i in range(240)]}
    )
    for split, rows in (("train", slice(0, 180)), ("test", slice(180, 240))):
        columns = {"text": texts, "label": labels} | second
        pq.write_table(
            pa.table({name: values[rows] for name, values in columns.items()}),
            folder / "data" / f"{split}.parquet",
        )
    roberta(tokenizer, 6).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    data = {
        "source": str(folder / "data"),
        "validation": 0.2,
        "test": "test",
        "overlap": "allow",
    } | ({"pair": "second"} if second else {})
    document = {
        "name": "r",
        "threads": 1,
        "data": data,
        "teacher": {"model": str(folder / "model"), "max_length": 64},
        "transfer": {"precision": "fp32"},
    }
    students = [
        student | {"baseline": False, "quantize": {"steps": 0}, "fit": {"epochs": 1.0, "checks": 1}}
        for student in STUDENTS[request.param]
    ]
    run = distill(Recipe.model_validate(document | {"student": students}), folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            export, "_export_teacher", lambda *_, **__: None
        )  # tracing takes longer than all the rest
        export_run(
            run,
            list(run.students),
            options=ExportOptions(precisions=("fp32", "int8") if second else ("fp32",)),
        )
    return run


def test_a_byte_level_teacher_is_cut_at_its_positions(made: RunDir) -> None:
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    teacher = load_teacher(made.teacher, task.spec, 64)
    assert teacher.max_length == 40, (
        "42 positions, of which RoBERTa leaves those up to its padding index"
    )
    assert teacher.tokenizer.tokenize("a film")[1].startswith("Ġ")
    stored = read_transfer_set(made.transfer)
    direct = teacher.predict_logits(stored.texts.texts, stored.texts.pairs)
    assert (
        np.allclose(stored.logits.astype(np.float32), direct, rtol=2**-11 + 1e-6, atol=1e-4)
        and np.ptp(direct, axis=0).min() > 0.01
    )


def test_exported_files_give_the_logits_of_students_with_their_own_tokenizer(made: RunDir) -> None:
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    for name, folders in made.students.items():
        tokenizer = load_tokenizer(folders.student)
        kind = tokenizer.backend_tokenizer.model.__class__.__name__
        assert kind == ("BPE" if name.startswith("own") else "WordPiece")
        if kind == "WordPiece":
            assert len(tokenizer) == 500 and not any(
                tokenizer.unk_token_id in ids
                for ids in tokenizer(list(task.train.texts))["input_ids"]
            )
        classifier = Classifier.load(folders.bundle, "fp32")
        stored = np.load(folders.student / "test_logits.npy")
        assert np.abs(classifier.logits(task.test.texts, task.test.pairs) - stored).max() < 1e-4
        assert all(replayed.passed for replayed in replay(Bundle.open(folders.bundle)))


def test_a_bundle_tokenizes_strange_texts_as_the_student_did(made: RunDir) -> None:
    for folders in made.students.values():
        tokenizer, classifier = (
            load_tokenizer(folders.student),
            Classifier.load(folders.bundle, "fp32"),
        )
        texts, pairs = STRANGE, STRANGE[::-1] if classifier.spec.pair else None
        mine = classifier.encode(texts, pairs)
        theirs = tokenizer(
            texts, pairs, truncation=True, max_length=32, padding=True, return_tensors="np"
        )
        assert np.array_equal(mine["input_ids"], theirs["input_ids"]) and np.array_equal(
            mine["attention_mask"], theirs["attention_mask"]
        )
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        row = classifier.encode(["a film"], ["a plot"] if pairs else None)["input_ids"][0].tolist()
        between = (2 if tokenizer.cls_token == "<s>" else 1) if pairs else 0
        assert (row[0], row[-1], row.count(end)) == (start, end, 1 + between), (
            "RoBERTa parts two texts by two marks"
        )


def test_a_student_that_does_not_fit_its_tokenizer_is_an_error(
    shared: Path, tmp_path: Path
) -> None:
    tokenizer = byte_pairs(questions(shared)[0])
    teacher, single, pair = (
        roberta(tokenizer, 2),
        factories.single_task().spec,
        factories.pair_task().spec,
    )
    with pytest.raises(UsageError, match="token_type_ids") as caught:
        build_student(BiLstmConfig(kind="bilstm"), pair, teacher, tokenizer)
    assert 'student.tokenizer = "wordpiece"' in str(caught.value.hint)
    teacher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="a TinyBERT starts from a BERT") as caught:
        build_student(
            TinyBertConfig(kind="tinybert", start=str(tmp_path)), single, teacher, tokenizer
        )
    assert "is a roberta" in str(caught.value)
    with pytest.raises(ValueError, match=r'set start = "teacher" or "scratch"'):
        TinyBertConfig(kind="tinybert", tokenizer="wordpiece", start=str(tmp_path))


def test_a_student_with_other_tokens_starts_from_its_teachers_layers(tmp_path: Path) -> None:
    theirs = factories.tokenizer()
    train_wordpiece(factories.sentences(40, 1)[0], 120).save_pretrained(tmp_path)
    recipe = TinyBertConfig(
        kind="tinybert",
        layers=1,
        hidden=24,
        heads=2,
        intermediate=48,
        tokenizer=str(tmp_path),
        max_length=32,
    )
    teacher = factories.bert(vocabulary=len(theirs))
    student, mine = build_student(recipe, factories.single_task().spec, teacher, theirs)
    table, old = student.get_input_embeddings().weight, teacher.get_input_embeddings().weight
    for piece in ("film", "[MASK]", "the"):
        number = mine.convert_tokens_to_ids(piece)
        assert number != mine.unk_token_id
        assert torch.equal(table[number], old[theirs.convert_tokens_to_ids(piece)])
    assert torch.equal(
        student.bert.encoder.layer[0].output.dense.weight,
        teacher.bert.encoder.layer[1].output.dense.weight,
    )


def test_neighbours_of_a_word_are_found_among_words_within_a_text(shared: Path) -> None:
    texts = questions(shared)[0]
    tokenizer = byte_pairs(texts)
    names, ids = whole_words(tokenizer)
    matrix = np.eye(len(tokenizer), dtype=np.float32)
    matrix[ids[1]] = (
        matrix[ids[0]] * 0.9 + matrix[ids[1]] * 0.1
    )  # the second word is the nearest to the first
    found = Neighbours(tokenizer, matrix, 1)
    found.learn([names[0]])
    assert found.known[names[0]] == (names[1],)
