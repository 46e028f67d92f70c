"""The objective: its terms, its checks, and the projections that are not exported."""

from __future__ import annotations

import factories
import pytest
import torch

from kdedge.distillation.layer_sizes import LayerSizes, layer_sizes
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.errors import UsageError
from kdedge.nn import losses
from kdedge.nn.signals import Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig

BATCH = {
    "input_ids": torch.tensor([[2, 10, 11, 12, 3], [2, 13, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "token_type_ids": torch.zeros(2, 5, dtype=torch.long),
}


def test_attention_signals_are_the_scores_before_softmax() -> None:
    torch.manual_seed(0)
    model = factories.bert(layers=3).eval()
    signals = read_signals(model, BATCH, layers=True)
    model.config._attn_implementation = "eager"
    outputs = model(**BATCH, output_hidden_states=True, output_attentions=True)
    masked = torch.where(
        BATCH["attention_mask"][:, None, None, :] == 1, 0.0, torch.finfo(torch.float32).min
    )
    assert len(signals.attention) == 3 and len(signals.hidden) == 4
    for scores, probabilities in zip(signals.attention, outputs.attentions, strict=True):
        assert torch.allclose((scores + masked).softmax(-1), probabilities, atol=1e-6)
        assert (scores.sum(-1) - 1).abs().max() > 0.1, "these are probabilities, not scores"
    for mine, theirs in zip(signals.hidden, outputs.hidden_states, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert torch.allclose(signals.logits, outputs.logits, atol=1e-6)


def test_reading_scores_does_not_change_the_model() -> None:
    model = factories.bert().eval()
    before = model.config._attn_implementation
    read_signals(model, BATCH, layers=True)
    assert model.config._attn_implementation == before != "kdedge_scores"


def test_total_is_the_weighted_sum_of_the_parts() -> None:
    torch.manual_seed(0)
    student, teacher = factories.bert(layers=2).eval(), factories.bert(layers=4).eval()
    weights = {
        "logits_weight": 0.5,
        "labels_weight": 2.0,
        "hidden_weight": 3.0,
        "attention_weight": 0.25,
        "embedding_weight": 1.5,
    }
    objective = Objective(
        ObjectiveConfig(**weights), "classification", student.config, teacher.config
    )
    mine, theirs = (
        read_signals(student, BATCH, layers=True),
        read_signals(teacher, BATCH, layers=True),
    )
    labels = torch.tensor([1, 0])
    total, parts = objective(mine, theirs, labels, BATCH["attention_mask"])
    assert set(parts) == {"logits", "labels", "hidden", "attention", "embedding"}
    assert float(total) == pytest.approx(
        sum(weights[f"{name}_weight"] * float(value) for name, value in parts.items()), rel=1e-5
    )
    mask = BATCH["attention_mask"]
    expected = (
        sum(losses.hidden_mse(mine.hidden[s], theirs.hidden[t], mask) for s, t in ((1, 2), (2, 4)))
        / 2
    )
    assert float(parts["hidden"]) == pytest.approx(float(expected), rel=1e-5)
    expected = (
        sum(
            losses.attention_mse(mine.attention[s - 1], theirs.attention[t - 1], mask)
            for s, t in ((1, 2), (2, 4))
        )
        / 2
    )
    assert float(parts["attention"]) == pytest.approx(float(expected), rel=1e-5)


def test_projections_of_a_narrower_student_are_trained_and_not_saved() -> None:
    student, teacher = factories.bert(hidden=12), factories.bert(layers=4)
    objective = Objective(
        ObjectiveConfig(hidden_weight=1.0, embedding_weight=1.0),
        "classification",
        student.config,
        teacher.config,
    )
    assert set(objective.projections) == {"0", "1", "2"}
    assert objective.projections["1"].weight.shape == (24, 12)
    model = DistillationModule(
        student, objective, TextClassifier(teacher, factories.tokenizer(), 32)
    )
    model(teacher_logits=torch.zeros(2, 2), labels=torch.tensor([0, 1]), **BATCH)["loss"].backward()
    assert all(p.weight.grad.abs().sum() > 0 for p in objective.projections.values())
    assert not any("projections" in name for name in student.state_dict())
    assert all(p.grad is None for p in teacher.parameters()), "the teacher must not learn"
    assert not any("_teacher" in name for name in model.state_dict())


def test_an_objective_on_logits_never_runs_the_teacher() -> None:
    student = factories.bert()
    model = DistillationModule(
        student, Objective(ObjectiveConfig(), "classification", student.config, None), None
    )
    outputs = model(teacher_logits=torch.ones(2, 2), labels=torch.tensor([0, 1]), **BATCH)
    assert set(outputs["parts"]) == {"logits"}
    assert float(outputs["loss"]) == pytest.approx(
        float(losses.soft_cross_entropy_kl(outputs["logits"], torch.ones(2, 2), 1.0))
    )


def test_objectives_that_do_not_fit_are_usage_errors() -> None:
    student, teacher = factories.bert(heads=2), factories.bert(layers=4, heads=4)
    with pytest.raises(UsageError, match="head by head"):
        Objective(
            ObjectiveConfig(attention_weight=1.0), "classification", student.config, teacher.config
        )
    with pytest.raises(UsageError, match="no distribution"):
        Objective(ObjectiveConfig(), "regression", student.config, teacher.config)


def test_each_kind_of_task_has_its_own_kl() -> None:
    mine, theirs = Signals(torch.randn(4, 3)), Signals(torch.randn(4, 3))
    mask = torch.ones(4, 5)
    recipe = ObjectiveConfig(logits="kl", temperature=2.0)
    for kind, loss in (
        ("classification", losses.soft_cross_entropy_kl),
        ("multilabel", losses.soft_binary_kl),
    ):
        total, _ = Objective(recipe, kind, None, None)(mine, theirs, None, mask)
        assert float(total) == pytest.approx(float(loss(mine.logits, theirs.logits, 2.0)), rel=1e-5)


def test_layer_sizes_of_any_architecture() -> None:
    from transformers import BertConfig, DistilBertConfig, ElectraConfig, RobertaConfig

    from kdedge.students.bilstm import BiLstmModelConfig

    assert layer_sizes(DistilBertConfig(n_layers=3, n_heads=4, dim=32)) == LayerSizes(3, 4, 32, 8)
    for config in (BertConfig, RobertaConfig, ElectraConfig):
        assert layer_sizes(
            config(num_hidden_layers=5, num_attention_heads=2, hidden_size=16)
        ) == LayerSizes(5, 2, 16, 8)
    with pytest.raises(UsageError, match="cannot be matched"):
        layer_sizes(BiLstmModelConfig())


def layer_parts(
    recipe: ObjectiveConfig, student, teacher
) -> tuple[Objective, dict[str, torch.Tensor]]:
    objective = Objective(recipe, "classification", student.config, teacher.config)
    mine, theirs = (
        read_signals(student.eval(), BATCH, layers=True),
        read_signals(teacher.eval(), BATCH, layers=True),
    )
    return objective, objective(mine, theirs, torch.tensor([1, 0]), BATCH["attention_mask"])[1]


def test_vectors_reproduce_the_attention_scores() -> None:
    signals = read_signals(factories.bert(layers=3).eval(), BATCH, layers=True)
    assert len(signals.vectors) == 3
    for (queries, keys, values), scores in zip(signals.vectors, signals.attention, strict=True):
        assert queries.shape == keys.shape == values.shape == (2, 2, 5, 12)
        assert torch.allclose(queries @ keys.transpose(-1, -2) / 12**0.5, scores, atol=1e-5)


@pytest.mark.parametrize("hidden", ["mse", "cosine", "pkd", "cka"])
def test_every_hidden_loss_is_zero_at_the_teacher_itself(hidden: str) -> None:
    teacher, other = factories.bert(layers=2), factories.bert(layers=2)
    recipe = ObjectiveConfig(hidden=hidden, hidden_weight=1.0)
    assert float(layer_parts(recipe, teacher, teacher)[1]["hidden"]) == pytest.approx(0, abs=1e-5)
    assert float(layer_parts(recipe, other, teacher)[1]["hidden"]) > 1e-3
    narrow, parts = layer_parts(recipe, factories.bert(layers=2, hidden=12), teacher)
    assert (
        set(narrow.projections) == (set() if hidden == "cka" else {"1", "2"})
        and float(parts["hidden"]) > 1e-3
    )


@pytest.mark.parametrize(
    "attention", ["scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"]
)
def test_every_attention_loss_is_zero_at_the_teacher_itself(attention: str) -> None:
    teacher, other = factories.bert(layers=2), factories.bert(layers=2)
    recipe = ObjectiveConfig(attention=attention, attention_weight=1.0)
    assert float(layer_parts(recipe, teacher, teacher)[1]["attention"]) == pytest.approx(
        0, abs=1e-5
    )
    assert float(layer_parts(recipe, other, teacher)[1]["attention"]) > 1e-4


@pytest.mark.parametrize("attention", ["value_relation", "qk_relation", "minilm"])
def test_relations_fit_any_heads_and_widths(attention: str) -> None:
    recipe = ObjectiveConfig(attention=attention, attention_weight=1.0)
    objective, parts = layer_parts(
        recipe, factories.bert(layers=2, hidden=18, heads=3), factories.bert(layers=4, heads=4)
    )
    assert objective.relation_heads == 2 and float(parts["attention"]) > 1e-4
    with pytest.raises(UsageError, match="must divide the widths"):
        layer_parts(
            recipe.model_copy(update={"relation_heads": 4}),
            factories.bert(hidden=18),
            factories.bert(layers=4),
        )


@pytest.mark.parametrize("attention", ["scores", "probabilities", "kl"])
def test_the_error_for_other_numbers_of_heads_names_losses_that_fit(attention: str) -> None:
    recipe = ObjectiveConfig(attention=attention, attention_weight=1.0)
    with pytest.raises(
        UsageError,
        match=r"(?s)head by head.*2 student and 4 teacher.*value_relation, qk_relation, minilm",
    ):
        Objective(
            recipe,
            "classification",
            factories.bert(heads=2).config,
            factories.bert(layers=4, heads=4).config,
        )
