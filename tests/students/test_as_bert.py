"""Encoders of other types as BERTs: exact where they can be, and closer after a fit."""

from __future__ import annotations

from typing import Any

import encoders
import factories
import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, PreTrainedModel

from kdedge.errors import UsageError
from kdedge.nn.signals import read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TinyBertConfig
from kdedge.students import position_bias
from kdedge.students.as_bert import as_bert
from kdedge.students.build import build_student
from kdedge.students.fit_to_teacher import fitted_bert
from kdedge.students.position_bias import absorb_position_bias
from kdedge.students.training_batches import TrainingBatches

TASK = factories.single_task(256)

IDS = torch.tensor([[5, 9, 17, 30, 41, 6], [7, 8, 55, 60, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def batch_for(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Two texts, of which the second is padded with the model's own token."""
    ids = IDS.masked_fill(MASK == 0, model.config.pad_token_id)
    return {"input_ids": ids, "attention_mask": MASK}


def without_bias(model: PreTrainedModel) -> PreTrainedModel:
    torch.nn.init.zeros_(model.mpnet.encoder.relative_attention_bias.weight)
    return model


@pytest.mark.parametrize("name", ["roberta", "xlm_roberta"])
def test_an_exact_type_gives_the_same_logits(name: str) -> None:
    model = encoders.encoder(name)
    copy = as_bert(model)
    assert not copy.differences
    batch = batch_for(model)
    with torch.no_grad():
        expected, found = model(**batch).logits, copy.model(**batch).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 1e-2, "the test needs logits that differ"


@pytest.mark.parametrize("name", ["mpnet", "distilbert", "electra", "roberta", "xlm_roberta"])
def test_hidden_states_are_those_of_the_encoder(name: str) -> None:
    model = encoders.encoder(name)
    if name == "mpnet":
        model = without_bias(model)
    batch = batch_for(model)
    with torch.no_grad():
        expected = read_signals(model, batch, layers=True)
        found = read_signals(as_bert(model).model, batch, layers=True)
    assert len(expected.hidden) == 5
    for mine, theirs in zip(found.hidden, expected.hidden, strict=True):
        assert torch.allclose(mine[MASK.bool()], theirs[MASK.bool()], atol=1e-5)
    if name == "mpnet":
        assert torch.allclose(found.logits, expected.logits, atol=1e-5), "the head is BERT's"


def test_only_the_bias_is_missing_from_an_mpnet() -> None:
    model = encoders.encoder("mpnet")
    with torch.no_grad():
        expected = read_signals(model, batch_for(model), layers=True)
        found = read_signals(as_bert(model).model, batch_for(model), layers=True)
    real = MASK.bool()
    assert torch.allclose(found.hidden[0][real], expected.hidden[0][real], atol=1e-5)
    assert not torch.allclose(found.hidden[1][real], expected.hidden[1][real], atol=1e-2)


def teacher_of(name: str) -> TextClassifier:
    tokenizer = factories.tokenizer()
    model = encoders.encoder(name, len(tokenizer))
    if name == "mpnet":
        # Its padding index is 1 whatever the tokenizer says; [UNK] does not occur in these texts.
        model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return TextClassifier(model, tokenizer, 32)


def distance(first: PreTrainedModel, second: PreTrainedModel, reader: TextClassifier) -> float:
    """Return the share of the last hidden states' variance by which two models differ."""
    batch = reader.pad(reader.encode(TASK.validation.texts, None))
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        mine = read_signals(first, batch, layers=True).hidden[-1][real]
        theirs = read_signals(second, batch, layers=True).hidden[-1][real]
    return float((mine - theirs).square().sum() / (theirs - theirs.mean(0)).square().sum())


def positional_teacher() -> TextClassifier:
    """An MPNet whose states show positions, and whose heads look at near tokens."""
    teacher = teacher_of("mpnet")
    distance = torch.arange(16.0)
    with torch.no_grad():
        encoder = teacher.model.mpnet.encoder
        encoder.relative_attention_bias.weight[:16] = -0.5 * distance[:, None]
        encoder.relative_attention_bias.weight[16:] = -0.5 * distance[:, None]
        teacher.model.mpnet.embeddings.position_embeddings.weight *= 4
        teacher.model.mpnet.embeddings.word_embeddings.weight *= 0.3
        for layer in encoder.layer:
            for linear in (layer.attention.attn.q, layer.attention.attn.k):
                linear.weight *= 0.1
                linear.bias *= 0.1
    return teacher


def test_absorbing_the_bias_brings_hidden_states_closer_than_dropping_it() -> None:
    teacher = positional_teacher()
    plain, absorbed = as_bert(teacher.model).model, as_bert(teacher.model).model
    texts = TrainingBatches(teacher, TASK, 0)
    absorb_position_bias(absorbed, teacher.model, texts.inputs())
    before = distance(plain, teacher.model, teacher)
    assert distance(absorbed, teacher.model, teacher) < 0.8 * before


def test_absorbed_scores_are_closer_on_texts_that_were_not_fitted() -> None:
    teacher = teacher_of("mpnet")
    plain, absorbed = as_bert(teacher.model).model, as_bert(teacher.model).model
    absorb_position_bias(absorbed, teacher.model, TrainingBatches(teacher, TASK, 0).inputs())
    batch = teacher.pad(teacher.encode(TASK.validation.texts, None))
    real = batch["attention_mask"].bool()
    pairs = (real[:, None, :, None] & real[:, None, None, :]).expand(-1, 2, -1, -1)
    scores = []
    with torch.no_grad():
        for model in (teacher.model, plain, absorbed):
            scores.append(read_signals(model, batch, layers=True).attention[0][pairs])
    wanted, dropped, found = scores
    assert (found - wanted).square().mean() < (dropped - wanted).square().mean()


def test_absorbed_scores_are_the_best_that_a_head_can_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Least squares over all pairs of tokens, then the best scores of the head's rank."""
    monkeypatch.setattr(position_bias, "RIDGE", 1e-7)
    teacher = teacher_of("mpnet")
    batches = TrainingBatches(teacher, TASK, 0).inputs()[:1]
    absorbed = as_bert(teacher.model).model
    absorb_position_bias(absorbed, teacher.model, batches)
    real = batches[0]["attention_mask"].bool()
    with torch.no_grad():
        states = read_signals(teacher.model, batches[0], layers=True).hidden[0][real].double()
    x = torch.cat([states, torch.ones(len(states), 1)], 1)
    positions = torch.arange(real.shape[1]).expand(real.shape)[real]
    attention, mine = teacher.model.mpnet.encoder.layer[0].attention.attn, absorbed.double()
    layer = mine.bert.encoder.layer[0].attention.self
    bias = teacher.model.mpnet.encoder.compute_position_bias(torch.zeros(1, real.shape[1], 1))
    with torch.no_grad():
        for head in range(2):
            rows = slice(12 * head, 12 * head + 12)
            wanted = heads_product(attention.q, attention.k, rows, states)
            wanted += bias[0, head].double()[positions[:, None], positions]
            directions, extents, _ = torch.linalg.svd(x, full_matrices=False)
            # The outputs of a norm and a 1 are linearly dependent.
            basis = directions[:, extents > 1e-5 * extents[0]]
            u, sizes, v = torch.linalg.svd(basis.T @ wanted @ basis)
            best = basis @ (u[:, :12] * sizes[:12] @ v[:12]) @ basis.T
            found = heads_product(layer.query, layer.key, rows, states)
            assert float((found - best).norm() / best.norm()) < 5e-3


def heads_product(query: Any, key: Any, rows: slice, states: torch.Tensor) -> torch.Tensor:
    """Return the scores (N, N) between all tokens."""
    left = states @ query.weight[rows].double().T + query.bias[rows].double()
    right = states @ key.weight[rows].double().T + key.bias[rows].double()
    return left @ right.T / 12**0.5


@pytest.mark.parametrize("name", ["mpnet", "distilbert", "electra", "projected_electra"])
def test_a_fit_brings_logits_closer(name: str) -> None:
    teacher = positional_teacher() if name == "mpnet" else teacher_of(name)
    batch = teacher.pad(teacher.encode(TASK.validation.texts, None))
    plain, fitted = as_bert(teacher.model).model, fitted_bert(teacher, TASK, 0).model
    with torch.no_grad():
        wanted = teacher.model(**batch).logits
        before = (plain(**batch).logits - wanted).square().mean()
        after = (fitted(**batch).logits - wanted).square().mean()
    assert after < 0.8 * before


def test_a_projected_embedding_is_closer_after_a_fit() -> None:
    teacher = teacher_of("projected_electra")
    plain, fitted = as_bert(teacher.model).model, fitted_bert(teacher, TASK, 0).model
    assert distance(fitted, teacher.model, teacher) < distance(plain, teacher.model, teacher)


def test_a_bert_is_returned_as_it_is() -> None:
    tokenizer = factories.tokenizer()
    teacher = TextClassifier(factories.bert(vocabulary=len(tokenizer)), tokenizer, 32)
    assert fitted_bert(teacher, TASK, 0).model is teacher.model


@pytest.mark.parametrize("start", ["teacher", "shrink"])
def test_a_student_starts_from_a_teacher_of_another_type(start: str) -> None:
    teacher = teacher_of("mpnet")
    config = TinyBertConfig(
        kind="tinybert", start=start, layers=2, hidden=24, heads=2, intermediate=48, max_length=32
    )
    student, _ = build_student(config, TASK.spec, teacher.model, teacher.tokenizer)
    assert student.config.model_type == "bert"
    assert student.config.max_position_embeddings == 64
    expected = config.parameters(len(teacher.tokenizer), teacher.model.config.to_dict(), TASK.spec)
    assert expected == student.num_parameters()
    if start == "teacher":
        mine = student.bert.encoder.layer[1].output.dense.weight
        assert torch.equal(mine, teacher.model.mpnet.encoder.layer[3].output.dense.weight)


def test_an_unknown_type_is_an_error() -> None:
    tokenizer = factories.tokenizer()
    config = AlbertConfig(
        vocab_size=len(tokenizer),
        embedding_size=8,
        hidden_size=24,
        num_attention_heads=2,
        intermediate_size=48,
    )
    student = TinyBertConfig(kind="tinybert", layers=1, hidden=24, heads=2, intermediate=48)
    with pytest.raises(UsageError, match="cannot take layers from this type") as caught:
        build_student(student, TASK.spec, AlbertForSequenceClassification(config), tokenizer)
    assert "albert" in str(caught.value) and "mpnet" in str(caught.value)
