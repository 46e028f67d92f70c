"""Students: their starts, their shapes, and that padding never changes an answer."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from kdedge.errors import KdedgeError, UsageError
from kdedge.nn.inference import predict_logits
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.recipe import BiLstmConfig, TinyBertConfig
from kdedge.students.bilstm import (
    BiLstmForSequenceClassification,
    BiLstmModelConfig,
    principal_columns,
)
from kdedge.students.build import build_student, load_student
from kdedge.students.wordpiece import train_wordpiece


def tinybert(**settings) -> TinyBertConfig:
    return TinyBertConfig(
        kind="tinybert",
        **{"layers": 2, "hidden": 24, "heads": 2, "intermediate": 48, "max_length": 32} | settings,
    )


@pytest.fixture(scope="module")
def teacher() -> TextClassifier:
    torch.manual_seed(0)
    tokenizer = factories.tokenizer()
    return TextClassifier(factories.bert(layers=4, vocabulary=len(tokenizer)).eval(), tokenizer, 32)


def bilstm(pair: bool) -> BiLstmForSequenceClassification:
    torch.manual_seed(1)
    return BiLstmForSequenceClassification(
        BiLstmModelConfig(
            vocab_size=200, embedding_dim=12, hidden_size=7, head_size=9, pair=pair, num_labels=3
        )
    ).eval()


@pytest.mark.parametrize("pair", [False, True])
def test_a_bilstm_gives_the_same_logits_alone_and_in_a_padded_batch(pair: bool) -> None:
    task = factories.pair_task() if pair else factories.single_task()
    data = encode(factories.tokenizer(), task.train.texts, task.train.pairs, 48)
    model, pad = bilstm(pair), TextClassifier(bilstm(pair), factories.tokenizer(), 48).pad
    together = predict_logits(model, data, pad, batch_tokens=4096)
    alone = predict_logits(model, data, pad, batch_tokens=1)
    assert np.abs(together - alone).max() < 1e-6
    assert np.ptp(alone, axis=0).min() > 1e-3, "the test needs logits that differ between texts"


def test_a_pair_bilstm_reads_each_text_as_a_single_one_would() -> None:
    """The head sees [u; v; |u - v|; u * v] of two separate passes (Tang et al. 2019, 3.2)."""
    model = bilstm(pair=True)
    first, second = [2, 11, 12, 13, 3], [21, 22, 3]
    ids = torch.tensor([first + second + [0, 0]])
    types = torch.tensor([[0] * 5 + [1] * 3 + [0, 0]])
    mask = torch.tensor([[1] * 8 + [0, 0]])
    with torch.no_grad():
        u = torch.cat(list(model.lstm(model.embedding(torch.tensor([first])))[1][0]), dim=1)
        v = torch.cat(list(model.lstm(model.embedding(torch.tensor([second])))[1][0]), dim=1)
        features = torch.cat([u, v, (u - v).abs(), u * v], dim=1)
        expected = model.classifier(torch.relu(model.dense(features)))
        assert torch.allclose(model(ids, mask, types).logits, expected, atol=1e-6)


def test_a_pair_bilstm_depends_on_the_order_of_its_texts() -> None:
    task, tokenizer = factories.pair_task(), factories.tokenizer()
    model = TextClassifier(bilstm(pair=True), tokenizer, 48)
    there = model.predict_logits(task.train.texts, task.train.pairs)
    back = model.predict_logits(task.train.pairs, task.train.texts)
    assert np.abs(there - back).max() > 1e-3


def test_a_loaded_student_gives_the_logits_of_the_saved_one(
    tmp_path: Path, teacher: TextClassifier
) -> None:
    task = factories.single_task()
    for name, recipe in {
        "b": tinybert(),
        "l": BiLstmConfig(kind="bilstm", hidden=5, head=6, max_length=32),
    }.items():
        model, tokenizer = build_student(recipe, task.spec, teacher.model, teacher.tokenizer)
        model.save_pretrained(tmp_path / name)
        before = TextClassifier(model.eval(), tokenizer, 32).predict_logits(task.test.texts, None)
        loaded = load_student(tmp_path / name)
        assert type(loaded) is type(model) and not loaded.training
        assert np.array_equal(
            TextClassifier(loaded, tokenizer, 32).predict_logits(task.test.texts, None), before
        )
        assert loaded.config.id2label == {0: "bad", 1: "good"}


def test_a_student_started_from_the_teacher_holds_its_layers(teacher: TextClassifier) -> None:
    spec = factories.single_task().spec
    uniform, _ = build_student(tinybert(), spec, teacher.model, teacher.tokenizer)
    chosen, _ = build_student(
        tinybert(teacher_layers=[1, 3]), spec, teacher.model, teacher.tokenizer
    )
    for student, numbers in ((uniform, (2, 4)), (chosen, (1, 3))):
        for layer, number in zip(student.bert.encoder.layer, numbers, strict=True):
            theirs = teacher.model.bert.encoder.layer[number - 1].state_dict()
            assert all(
                torch.equal(value, theirs[name]) for name, value in layer.state_dict().items()
            )
        assert torch.equal(
            student.bert.embeddings.word_embeddings.weight,
            teacher.model.bert.embeddings.word_embeddings.weight,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hidden": 36}, "only into a student of its width"),
        ({"teacher_layers": [1, 9]}, "does not exist"),
        ({"layers": 9}, "cannot start from"),
    ],
)
def test_a_start_that_does_not_fit_is_an_error(
    teacher: TextClassifier, settings: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_student(
            tinybert(**settings), factories.single_task().spec, teacher.model, teacher.tokenizer
        )


def test_a_checkpoint_start_keeps_its_encoder(tmp_path: Path, teacher: TextClassifier) -> None:
    factories.bert(layers=2, outputs=5, vocabulary=len(teacher.tokenizer)).save_pretrained(tmp_path)
    teacher.tokenizer.save_pretrained(tmp_path)
    start = load_student(tmp_path)
    student, _ = build_student(
        tinybert(start=str(tmp_path)),
        factories.single_task().spec,
        teacher.model,
        teacher.tokenizer,
    )
    assert torch.equal(
        student.bert.encoder.layer[1].output.dense.weight,
        start.bert.encoder.layer[1].output.dense.weight,
    )
    assert student.classifier.out_features == 2
    with pytest.raises(UsageError, match="differs from its checkpoint"):
        build_student(
            tinybert(start=str(tmp_path), layers=1),
            factories.single_task().spec,
            teacher.model,
            teacher.tokenizer,
        )


def test_a_checkpoint_with_another_tokenizer_keeps_the_embedding_of_each_piece(
    tmp_path: Path, teacher: TextClassifier
) -> None:
    old = teacher.tokenizer
    factories.bert(layers=2, outputs=2, vocabulary=len(old)).save_pretrained(tmp_path / "start")
    old.save_pretrained(tmp_path / "start")
    train_wordpiece(factories.sentences(40, 1)[0], 120).save_pretrained(tmp_path / "tokenizer")
    config = tinybert(start=str(tmp_path / "start"), tokenizer=str(tmp_path / "tokenizer"))
    student, new = build_student(config, factories.single_task().spec, teacher.model, old)
    table = student.get_input_embeddings().weight
    start = load_student(tmp_path / "start").get_input_embeddings().weight
    assert new.get_vocab() != old.get_vocab() and student.config.vocab_size == len(table)
    for piece in ("film", "[MASK]", "the"):
        row = start[old.convert_tokens_to_ids(piece)]
        assert torch.equal(table[new.convert_tokens_to_ids(piece)], row)


@pytest.mark.parametrize("start", ["scratch", "teacher", "shrink", "checkpoint"])
def test_another_activation_is_used_at_every_start(
    tmp_path: Path, teacher: TextClassifier, start: str
) -> None:
    if start == "checkpoint":
        factories.bert(layers=2, vocabulary=len(teacher.tokenizer)).save_pretrained(
            tmp_path / "start"
        )
        teacher.tokenizer.save_pretrained(tmp_path / "start")
        start = str(tmp_path / "start")
    spec = factories.single_task().spec
    plain, _ = build_student(tinybert(start=start), spec, teacher.model, teacher.tokenizer)
    other, _ = build_student(
        tinybert(start=start, activation="relu"), spec, teacher.model, teacher.tokenizer
    )
    other.save_pretrained(tmp_path / "saved")
    x = torch.linspace(-3, 3, 7)
    assert torch.equal(
        load_student(tmp_path / "saved").bert.encoder.layer[0].intermediate.intermediate_act_fn(x),
        torch.relu(x),
    )
    assert torch.equal(
        plain.bert.encoder.layer[0].intermediate.intermediate_act_fn(x), torch.nn.functional.gelu(x)
    )


def test_embeddings_start_from_the_teacher_or_its_principal_directions(
    teacher: TextClassifier,
) -> None:
    spec = factories.single_task().spec
    table = teacher.model.get_input_embeddings().weight.detach()
    full, _ = build_student(BiLstmConfig(kind="bilstm"), spec, teacher.model, teacher.tokenizer)
    assert torch.allclose(full.embedding.weight * table.std(), table, atol=1e-6)
    narrow = principal_columns(table, 6)
    assert float(full.embedding.weight.detach().std()) == pytest.approx(1) and float(
        narrow.std()
    ) == pytest.approx(1)
    exact = np.linalg.svd((table - table.mean(0)).numpy(), full_matrices=False)[1]
    kept = np.linalg.svd((narrow - narrow.mean(0)).numpy(), full_matrices=False)[1]
    assert np.allclose(kept / kept[0], exact[:6] / exact[0], atol=1e-3)
    with pytest.raises(UsageError, match="wider"):
        principal_columns(table, 25)


def test_a_folder_without_a_vocabulary_is_no_tokenizer(tmp_path: Path) -> None:
    from kdedge.nn.tokenization import load_tokenizer

    factories.bert().save_pretrained(tmp_path)
    with pytest.raises(KdedgeError, match="tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("width", [6, 24])
def test_a_bilstm_starts_from_a_teacher_with_weights_in_16_bits(width: int) -> None:
    """A teacher on a GPU keeps the number format of its file."""
    table = torch.randn(50, 24, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = principal_columns(table, width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, principal_columns(table.float(), width))
