"""Several teachers: each calibrated on the validation split, and combined by their mean."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from kdedge.benchmarks.collect import collect_subjects
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.torch_runner import load_runner
from kdedge.export.export import ExportOptions, export_run
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from kdedge.cli.distill import show
from kdedge.data import load_task
from kdedge.distillation.pipeline import distill
from kdedge.distillation.scores import scores
from kdedge.distillation.seeds import seed_stats
from kdedge.errors import UsageError
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import Recipe, load_recipe, with_values
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.teacher.ensemble import Ensemble, teacher_hash
from kdedge.teacher.finetune import load_teacher
from kdedge.teacher.temperature import LOWEST, fit_temperature, mean_logits
from kdedge.transfer.dataset import read_transfer_set

CHANCE = np.random.default_rng(0)


def by_search(loss) -> float:
    """Find the temperature with scipy, as a second opinion."""
    return float(
        np.exp(
            minimize_scalar(
                loss, bounds=(np.log(0.1), np.log(10)), method="bounded", options={"xatol": 1e-8}
            ).x
        )
    )


def test_the_temperature_is_where_the_likelihood_peaks() -> None:
    calm = CHANCE.normal(size=(400, 5))
    labels = np.array([CHANCE.choice(5, p=np.exp(row)) for row in log_softmax(calm, 1)])
    for factor in (0.5, 3.0):
        found = fit_temperature((factor * calm).astype(np.float32), labels, "classification")
        assert found == pytest.approx(
            by_search(
                lambda t, z=factor * calm: (
                    -log_softmax(z / np.exp(t), 1)[np.arange(400), labels].mean()
                )
            ),
            rel=1e-3,
        )
        assert found == pytest.approx(factor, rel=0.2)


def test_the_temperature_of_label_sets() -> None:
    z = CHANCE.normal(size=(300, 4))
    given = (CHANCE.random((300, 4)) < 1 / (1 + np.exp(-z))).astype(np.float32)
    found = fit_temperature(2 * z, given, "multilabel")
    assert found == pytest.approx(
        by_search(
            lambda t: (
                -(
                    given * log_expit(2 * z / np.exp(t))
                    + (1 - given) * log_expit(-2 * z / np.exp(t))
                ).mean()
            )
        ),
        rel=1e-3,
    )


def test_a_teacher_that_is_always_right_ends_at_the_lowest_and_a_regression_has_none() -> None:
    assert fit_temperature(np.eye(3), np.arange(3), "classification") == LOWEST
    assert fit_temperature(np.ones((3, 1)), np.arange(3.0), "regression") == 1.0


def test_the_mean_by_hand() -> None:
    assert mean_logits([np.array([[2.0, 4.0]]), np.array([[0.0, 9.0]])], [2.0, 3.0]).tolist() == [
        [0.5, 2.5]
    ]


BASE = {"name": "r", "data": {"source": "x"}, "student": factories.tinybert_config()}


def test_one_teacher_is_a_table_and_several_have_names() -> None:
    one = Recipe.model_validate(BASE | {"teacher": {"model": "a"}})
    assert "[teacher]" in one.to_toml() and one.model_dump()["teacher"]["model"] == "a"
    two = Recipe.model_validate(BASE | {"teacher": [{"model": "a"}, {"model": "b", "name": "big"}]})
    assert two.to_toml().count("[[teacher]]") == 2 and two.teacher_names == ["1", "big"]
    changed = with_values(
        with_values(two, {"teacher.1.max_length": 64}), {"teacher.big.fit.epochs": 1.0}
    )
    assert (changed.teacher[0].max_length, changed.teacher[1].fit.epochs) == (64, 1.0)
    assert with_values(one, {"teacher.model": "c"}).teacher[0].model == "c"


def test_several_teachers_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different names"):
        Recipe.model_validate(BASE | {"teacher": [{"model": "a", "name": "2"}, {"model": "b"}]})
    with pytest.raises(ValueError, match="cannot be called teacher-1"):
        Recipe.model_validate(
            BASE
            | {
                "student": factories.tinybert_config(name="teacher-1"),
                "teacher": [{"model": "a"}, {"model": "b"}],
            }
        )
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "r"\n[data]\nsource = "x"\n'
        '[[teacher]]\nmodel = "a"\n[[teacher]]\nmodel = "b"\n[student]\nkind = "bilstm"\n'
    )
    assert len(load_recipe(recipe, ("teacher.2.max_length=9",)).teacher) == 2
    with pytest.raises(
        UsageError, match=r"name one: teacher\.1\.max_length=9 or teacher\.2\.max_length=9"
    ):
        load_recipe(recipe, ("teacher.max_length=9",))
    with pytest.raises(UsageError, match="did you mean max_length"):
        load_recipe(recipe, ("teacher.2.max_lenth=9",))
    recipe.write_text(
        'name = "r"\n[data]\nsource = "x"\n[teacher]\nmodl = "a"\n[student]\nkind = "bilstm"\n'
    )
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe)
    assert "teacher.model: missing" in str(
        caught.value
    ) and "teacher.modl: no such key; did you mean model?" in str(caught.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Distill from two teachers; the second is overconfident."""
    folder = tmp_path_factory.mktemp("ensemble")
    document = factories.write_data_and_teacher(folder)
    torch.manual_seed(7)
    other = factories.bert(layers=1, vocabulary=len(factories.tokenizer()))
    with torch.no_grad():
        other.classifier.weight *= 8
    other.save_pretrained(folder / "other")
    factories.tokenizer().save_pretrained(folder / "other")
    fit = {
        "fine_tune": True,
        "fit": {"epochs": 4.0, "learning_rate": 2e-3, "batch_size": 16, "checks": 1},
    }
    teachers = [
        document["teacher"] | fit,
        {"name": "loud", "model": str(folder / "other"), "max_length": 24} | fit,
    ]
    student = factories.tinybert_config(
        objective={"hidden_weight": 0.1, "layer_map": [[1, 2]]}, quantize={"steps": 0}
    )
    return distill(
        factories.make_recipe(
            document, teacher=teachers, student=student, transfer={"precision": "fp32"}
        ),
        folder / "runs",
    )


def test_each_teacher_is_measured_and_the_logits_are_the_mean(made: RunDir) -> None:
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    result = read_stage(made.teacher).result
    alone = [
        load_teacher(folder, task.spec, one.max_length)
        for one, folder in zip(made.recipe.teacher, made.teachers.values(), strict=True)
    ]
    temperatures = [one["temperature"] for one in result["teachers"].values()]
    assert list(result["teachers"]) == ["1", "loud"] and temperatures[1] > 2 * temperatures[0]
    for model, name, temperature in zip(alone, result["teachers"], temperatures, strict=True):
        said = model.predict_logits(task.validation.texts, None)
        assert temperature == fit_temperature(said, task.validation.labels, "classification")
        assert result["teachers"][name]["validation"] == pytest.approx(
            (said.argmax(1) == task.validation.labels).mean()
        )
    together = mean_logits(
        [model.predict_logits(task.test.texts, None) for model in alone], temperatures
    )
    assert np.allclose(np.load(made.teacher / "test_logits.npy"), together, atol=1e-5)
    assert result["test"] == pytest.approx((together.argmax(1) == task.test.labels).mean())
    stored = read_transfer_set(made.transfer)
    taught = mean_logits(
        [model.predict_logits(stored.texts.texts, None) for model in alone], temperatures
    )
    assert np.allclose(stored.logits.astype(np.float32), taught, rtol=2**-11 + 1e-6, atol=1e-4)


def test_retention_is_relative_to_the_ensemble(made: RunDir) -> None:
    rows = {row.model: row for row in scores(made)}
    assert list(rows) == ["teacher", "teacher 1", "teacher loud", "tinybert"]
    assert rows["tinybert"].retention == pytest.approx(
        rows["tinybert"].test / read_stage(made.teacher).result["test"]
    )
    assert (
        rows["teacher"].parameters == rows["teacher 1"].parameters + rows["teacher loud"].parameters
    )
    assert rows["teacher loud"].temperature is not None and rows["teacher"].temperature is None
    assert len(seed_stats([made, made])["teacher loud"].values) == 1


def test_the_table_shows_each_temperature(made: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    show(made)
    said = capsys.readouterr().out
    assert "temperature" in said and all(
        f"{one['temperature']:.4g}" in said
        for one in read_stage(made.teacher).result["teachers"].values()
    )


class Echo(TextClassifier):
    """A model whose logit is how often its own mask token occurs in the text."""

    def predict_logits(self, texts, pairs, **settings):
        return np.array([[float(text.count(self.tokenizer.mask_token))] for text in texts])


def test_each_teacher_gets_its_own_mask_token() -> None:
    other = factories.tokenizer()
    other.mask_token = "<mask>"
    first, second = (
        Echo(factories.bert(), factories.tokenizer(), 32),
        Echo(factories.bert(), other, 32),
    )
    both = Ensemble(first.model, first.tokenizer, 32, (first, second), (1.0, 1.0))
    assert both.predict_logits(("a [MASK] film", "[MASK] [MASK]"), None).tolist() == [[1.0], [2.0]]


def test_other_temperatures_or_weights_change_the_hash(made: RunDir) -> None:
    before = teacher_hash(made)
    note = made.teacher / "ensemble.json"
    text = note.read_text()
    for key, value in (("temperature", 0.5), ("weights", "other"), ("max_length", 12)):
        document = json.loads(text)
        document["teachers"][1][key] = value
        note.write_text(json.dumps(document))
        assert teacher_hash(made) != before, key
    note.write_text(text)


def test_a_third_teacher_keeps_the_other_two(made: RunDir) -> None:
    third = made.recipe.teacher[0].model_copy(update={"name": "third", "max_length": 12})
    recipe = made.recipe.model_copy(update={"teacher": [*made.recipe.teacher, third]})
    with pytest.raises(UsageError, match=r"teachers\.third: was null"):
        distill(recipe, made.folder.parent)
    assert {path.name for path in made.folder.glob("teacher*")} == {
        "teacher",
        "teacher-1",
        "teacher-loud",
        "teacher-third",
    }
    assert distill(made.recipe, made.folder.parent).recipe == made.recipe, "all stages are kept"


def test_the_bench_measures_all_teachers_and_a_bundle_holds_their_score(made: RunDir) -> None:
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    (bundle,) = export_run(
        made, ["tinybert"], options=ExportOptions(precisions=("fp32",)), task=task
    )
    assert not (made.folder / "teacher-bundle").exists()
    told = json.loads((bundle / "kdedge.json").read_text())
    assert (
        told["scores"]["teacher"] == read_stage(made.teacher).result["test"]
        and told["teacher"]["model"] == "model + other"
    )
    together, *each = collect_subjects(made, [], task, Options())
    each = [one for one in each if one.subject.startswith("teacher ")]
    assert (together.subject, together.provider) == ("teacher", "torch cpu"), (
        "the reference of speed and scores"
    )
    assert [one.subject for one in each] == ["teacher 1", "teacher loud"] and together.bytes == sum(
        one.bytes or 0 for one in each
    )
    assert np.array_equal(together.logits, np.load(made.teacher / "test_logits.npy"))
    for one in (together, *each):
        for runner in (one.runner, load_runner(one.job)):
            assert np.allclose(
                runner.run(runner.encode(task.test.texts[:3], None)), one.logits[:3], atol=1e-4
            ), one.subject
    unmoved = next(collect_subjects(made, [], task, Options(teacher=False)))
    assert unmoved.runner is None and unmoved.bytes == together.bytes
