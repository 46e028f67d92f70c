"""The BiLSTM as a transformers model: Auto classes, arguments, loss."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import factories
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    ElectraConfig,
    Gemma3Config,
)

from kdedge.errors import UsageError
from kdedge.recipe import BiLstmConfig
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmKind, BiLstmModelConfig

IDS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def bilstm(**settings) -> BiLstmForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "embedding_dim": 6, "hidden_size": 5, "head_size": 4}
    return BiLstmForSequenceClassification(BiLstmModelConfig(**sizes | settings)).eval()


@pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModel])
def test_auto_classes_load_a_saved_student(tmp_path: Path, auto: type) -> None:
    model = bilstm(num_labels=3)
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is BiLstmForSequenceClassification
    assert torch.equal(loaded(IDS, MASK).logits, model(IDS, MASK).logits)
    assert AutoConfig.from_pretrained(tmp_path).hidden_size == 5


def test_an_unknown_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="inputs_embeds"):
        bilstm()(IDS, MASK, inputs_embeds=torch.zeros(2, 4, 6))


@pytest.mark.parametrize(
    "problem, outputs, labels, loss",
    [
        ("single_label_classification", 3, torch.tensor([2, 0]), torch.nn.CrossEntropyLoss()),
        ("multi_label_classification", 3, torch.eye(3)[:2], torch.nn.BCEWithLogitsLoss()),
        ("regression", 1, torch.tensor([[0.5], [2.0]]), torch.nn.MSELoss()),
    ],
)
def test_labels_give_the_loss_of_the_problem_type(
    problem: str, outputs: int, labels: torch.Tensor, loss: torch.nn.Module
) -> None:
    model = bilstm(num_labels=outputs, problem_type=problem)
    output = model(input_ids=IDS, attention_mask=MASK, labels=labels)
    assert output.loss.item() == pytest.approx(loss(output.logits, labels).item())
    assert model(IDS, MASK).loss is None


def test_a_tuple_holds_the_same_numbers() -> None:
    model = bilstm()
    (logits,) = model(IDS, MASK, return_dict=False)
    assert torch.equal(logits, model(IDS, MASK).logits)


def test_without_a_mask_every_token_counts() -> None:
    model = bilstm()
    whole = model(IDS, torch.ones_like(IDS)).logits
    assert torch.equal(model(IDS).logits, whole)
    assert not torch.equal(model(IDS, MASK).logits, whole)


def test_a_pair_model_needs_token_types() -> None:
    with pytest.raises(ValueError, match="token_type_ids"):
        bilstm(pair=True)(IDS, MASK)


@pytest.mark.parametrize(("width", "fits"), [(16, True), (24, False)])
def test_the_width_of_narrow_embeddings_is_checked(width: int, *, fits: bool) -> None:
    """An ELECTRA's embeddings are narrower than its layers: no embedding of 24 fits them."""
    source = ElectraConfig(embedding_size=16, hidden_size=32)
    config = BiLstmConfig(kind="bilstm", embedding=width)
    with nullcontext() if fits else pytest.raises(UsageError, match="cannot be wider"):
        BiLstmKind().check(config, factories.single_task().spec, source, factories.tokenizer())


def test_the_width_of_a_teacher_of_texts_and_images_is_that_of_its_texts() -> None:
    source = Gemma3Config(text_config={"hidden_size": 16})
    config = BiLstmConfig(kind="bilstm", embedding=24)
    with pytest.raises(UsageError, match="cannot be wider"):
        BiLstmKind().check(config, factories.single_task().spec, source, factories.tokenizer())
