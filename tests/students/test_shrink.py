"""A shrunk student: exact at the teacher's own shape, better than chance at a smaller one."""

from __future__ import annotations

from copy import deepcopy

import factories
import numpy as np
import pytest
import torch

from kdedge.errors import UsageError
from kdedge.nn.label_loss import LabelLossModule, validation_predictor
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig, TinyBertConfig
from kdedge.runtime.metrics import accuracy
from kdedge.students.activation_stats import collect_stats
from kdedge.students.build import build_student
from kdedge.students.low_rank_head import fit_low_rank_head
from kdedge.students.refit import _norm_states, refit_layers
from kdedge.students.shrink import fill_from_teacher, shrink, strongest
from kdedge.students.tinybert import teacher_layers
from kdedge.students.training_batches import TrainingBatches

TASK = factories.single_task(256)


def recipe(**settings) -> TinyBertConfig:
    return TinyBertConfig(
        kind="tinybert",
        start="shrink",
        **{"layers": 3, "hidden": 48, "heads": 4, "intermediate": 96, "max_length": 32} | settings,
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    """A BERT whose embeddings separate good from bad words, fine-tuned on the tiny task."""
    torch.manual_seed(0)
    tokenizer = factories.tokenizer()
    model = factories.bert(
        layers=3,
        hidden=48,
        heads=4,
        vocabulary=len(tokenizer),
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
    )
    kindness = torch.randn(48)
    with torch.no_grad():
        for words, sign in ((factories.GOOD, 1), (factories.BAD, -1)):
            model.bert.embeddings.word_embeddings.weight[
                tokenizer.convert_tokens_to_ids(words)
            ] += sign * kindness
    reader = TextClassifier(model, tokenizer, 32)
    plan = Training(
        fit=FitConfig(epochs=3, batch_size=16, learning_rate=1e-3, checks=1),
        seed=0,
        data=reader.encode(TASK.train.texts, None, labels=TASK.train.labels),
        pad=reader.pad,
        predict=validation_predictor(
            reader.encode(TASK.validation.texts, None), reader.pad, "fp32"
        ),
        score=lambda logits: accuracy(logits.argmax(1), TASK.validation.labels),
        title="teacher",
    )
    assert train(LabelLossModule(model), plan, tmp_path_factory.mktemp("teacher")) > 0.95
    model.eval()
    return reader


def shrunk(teacher: TextClassifier, seed: int = 0, **settings) -> TextClassifier:
    wish = recipe(**settings)
    torch.manual_seed(seed)
    student, tokenizer = build_student(wish, TASK.spec, teacher.model, teacher.tokenizer)
    shrink(
        student, teacher, TASK, teacher_layers(wish, teacher.model.config.num_hidden_layers), seed
    )
    return TextClassifier(student.eval(), tokenizer, 32)


def agreement(student: TextClassifier, teacher: TextClassifier) -> float:
    mine, theirs = (
        model.predict_logits(TASK.test.texts, None).argmax(1) for model in (student, teacher)
    )
    return float((mine == theirs).mean())


def test_at_its_own_shape_the_teacher_is_reproduced(teacher: TextClassifier) -> None:
    student = shrunk(teacher)
    mine, theirs = (model.predict_logits(TASK.test.texts, None) for model in (student, teacher))
    assert np.ptp(theirs) > 1, "the test needs logits that differ"
    assert np.abs(mine - theirs).max() < 1e-3


def test_a_smaller_student_knows_something_before_it_is_trained(teacher: TextClassifier) -> None:
    sizes = {"layers": 2, "hidden": 24, "heads": 2, "intermediate": 32}
    cut = shrunk(teacher, **sizes)
    scratch = []
    for seed in range(5):
        torch.manual_seed(seed)
        model, _ = build_student(
            recipe(**sizes).model_copy(update={"start": "scratch"}),
            TASK.spec,
            teacher.model,
            teacher.tokenizer,
        )
        scratch.append(agreement(TextClassifier(model.eval(), teacher.tokenizer, 32), teacher))
    assert agreement(cut, teacher) > max(scratch) + 0.1, (agreement(cut, teacher), scratch)


def hooks_of(model: TextClassifier) -> int:
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks)
        for module in model.model.modules()
    )


def test_watching_the_teacher_leaves_it_as_it_was(teacher: TextClassifier) -> None:
    shrunk(
        teacher, hidden=24
    )  # transformers leaves hooks of its own when it is first asked for hidden states
    before, hooks = (
        {name: value.clone() for name, value in teacher.model.state_dict().items()},
        hooks_of(teacher),
    )
    shrunk(teacher, hidden=24)
    assert all(
        torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items()
    )
    assert all(p.grad is None for p in teacher.model.parameters())
    assert hooks_of(teacher) == hooks


def test_importance_is_what_removing_a_part_costs_to_first_order(teacher: TextClassifier) -> None:
    """A head's output scaled by 1 - ε changes the loss of a text by ε times its importance."""
    batch = teacher.pad(teacher.encode(TASK.train.texts[3:4], None, labels=TASK.train.labels[3:4]))
    found = collect_stats(teacher.model, [batch], "classification")
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    epsilon = 1e-2
    for layer, head in ((0, 1), (2, 3)):
        dense = teacher.model.bert.encoder.layer[layer].attention.output.dense
        losses = []
        for factor in (1 - epsilon, 1 + epsilon):
            scale = torch.ones(48).index_fill(0, torch.arange(head * 12, head * 12 + 12), factor)
            hook = dense.register_forward_pre_hook(
                lambda _, inputs, scale=scale: (inputs[0] * scale,)
            )
            with torch.no_grad():
                losses.append(
                    float(
                        torch.nn.functional.cross_entropy(
                            teacher.model.double()(**inputs).logits, batch["labels"]
                        )
                    )
                )
            hook.remove()
            teacher.model.float()
        assert abs(losses[1] - losses[0]) / (2 * epsilon) == pytest.approx(
            float(found.heads[layer, head]), rel=0.02, abs=1e-7
        )


def test_each_text_counts_alike_in_batches_of_any_size(teacher: TextClassifier) -> None:
    train = TASK.train

    def importance(*batches: range) -> torch.Tensor:
        padded = []
        for rows in batches:
            part = train.take(np.array(rows))
            padded.append(teacher.pad(teacher.encode(part.texts, None, labels=part.labels)))
        return collect_stats(teacher.model, padded, "classification").heads

    torch.testing.assert_close(
        importance(range(9)), importance(range(8), range(8, 9)), rtol=1e-4, atol=1e-9
    )


def test_a_narrowed_head_keeps_the_best_of_its_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(200, 8, generator=generator).double()
        @ torch.randn(8, 8, generator=generator).double()
        for _ in range(3)
    )
    output = torch.randn(5, 8, generator=generator).double()
    moments = torch.stack([rows.T @ rows for rows in (queries, keys, values)])
    scores = queries @ keys.T / 8**0.5
    best = torch.linalg.svdvals(scores)
    for width in (3, 6, 8, 10):
        narrow = fit_low_rank_head(moments, output, width)
        mine = (queries @ narrow.query.T) @ (keys @ narrow.key.T).T / width**0.5
        assert float((mine - scores).norm()) == pytest.approx(
            float(best[width:].norm()), rel=1e-3, abs=1e-6
        ), "Eckart-Young: no rank does better"
        added = values @ output.T
        mine = values @ narrow.value.T @ narrow.output.T
        assert float((mine - added).norm()) == pytest.approx(
            float(torch.linalg.svdvals(added)[width:].norm()), rel=1e-3, abs=1e-6
        )


def test_a_narrowed_head_has_values_as_large_as_before() -> None:
    """Tiny value weights and a huge output layer would compute the same, but not train."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(5, 8, generator=generator).double()
    for tokens in (200, 20_000):
        values = 0.3 * torch.randn(tokens, 8, generator=generator).double()
        moments = torch.stack([values.T @ values] * 3)
        narrow = fit_low_rank_head(moments, output, 4)
        size = float((values @ narrow.value.T).square().mean().sqrt())
        assert size == pytest.approx(0.3, rel=0.05), tokens


def test_refitted_layers_come_closer_to_the_teachers_states(teacher: TextClassifier) -> None:
    wish = recipe(layers=2, hidden=24, heads=2, intermediate=32)
    layers = teacher_layers(wish, 3)
    texts = TrainingBatches(teacher, TASK, seed=0)
    student, _ = build_student(wish, TASK.spec, teacher.model, teacher.tokenizer)
    stats = collect_stats(teacher.model, texts.with_labels(), "classification")
    space = fill_from_teacher(student, teacher.model, stats, layers)
    unseen = teacher.pad(teacher.encode(TASK.test.texts, None))
    real = unseen["attention_mask"].bool()

    def error() -> float:
        with torch.no_grad():
            mine = student.bert(**unseen).last_hidden_state[real]
            theirs = teacher.model.bert(**unseen).last_hidden_state[real]
        return float((mine - theirs @ space.directions.float()).square().mean())

    student.eval()
    before = error()
    refit_layers(student, teacher.model, texts.for_layers(), space.directions, layers)
    assert error() < 0.5 * before, (error(), before)


@pytest.mark.parametrize("layers", [[3, 1, 2], [2, 2, 3], [1, 2, 3]])
def test_each_layer_is_fitted_to_its_own_teacher_layer(
    teacher: TextClassifier, layers: list[int]
) -> None:
    """Layers may be named in any order, and several times."""
    batches = TrainingBatches(teacher, TASK, seed=0).for_layers()[:1]
    directions = torch.eye(48)
    found = _norm_states(teacher.model, batches, directions, layers)
    alone = [_norm_states(teacher.model, batches, directions, [number]) for number in layers]
    expected = [alone[0][0], *(states for each in alone for states in each[1:])]
    assert len(found) == len(expected) == 1 + 2 * len(layers)
    for states, right in zip(found, expected, strict=True):
        assert torch.equal(states.before, right.before)
        assert torch.equal(states.after, right.after)


def test_the_strongest_keep_their_order() -> None:
    assert strongest(torch.tensor([1.0, 5.0, 2.0, 9.0]), 2).tolist() == [1, 3]


def test_layers_are_spread_evenly_and_end_with_the_last() -> None:
    assert teacher_layers(recipe(layers=4), 12) == [3, 6, 9, 12]
    assert teacher_layers(recipe(layers=4), 6) == [2, 3, 4, 6]
    assert teacher_layers(recipe(layers=2, teacher_layers=[1, 3]), 4) == [1, 3]


@pytest.mark.parametrize(
    "settings", [{"hidden": 60}, {"layers": 4}, {"heads": 6}, {"intermediate": 97}]
)
def test_a_shrunk_student_cannot_be_bigger_than_its_teacher(
    teacher: TextClassifier, settings: dict
) -> None:
    with pytest.raises(UsageError, match="cannot be bigger"):
        build_student(recipe(**settings), TASK.spec, teacher.model, teacher.tokenizer)


def test_a_teacher_in_16_bits_can_be_cut(teacher: TextClassifier) -> None:
    """On a GPU, teachers keep the type of their file."""
    half = TextClassifier(deepcopy(teacher.model).bfloat16(), teacher.tokenizer, 32)
    cut = shrunk(half, hidden=24, heads=2)
    assert cut.model.dtype == torch.float32
    assert agreement(cut, teacher) > 0.8


def test_a_shrunk_student_trains_without_dropout(teacher: TextClassifier) -> None:
    source = TextClassifier(deepcopy(teacher.model), teacher.tokenizer, 32)
    source.model.config.hidden_dropout_prob = 0.1
    student = shrunk(source, hidden=24).model.train()
    batch = teacher.pad(teacher.encode(TASK.test.texts[:8], None))
    with torch.no_grad():
        assert torch.equal(student(**batch).logits, student(**batch).logits)
