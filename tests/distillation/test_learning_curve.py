"""The learning curve and the choice of a size, with students whose agreement is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import factories
import numpy as np
import pytest

from kdedge.data.task import Task
from kdedge.distillation.apart import keep_apart
from kdedge.distillation.learning_curve import (
    NOT_WORSE,
    CurvePoint,
    LearningCurve,
    Predictions,
    TrainAndPredict,
    fit_learning_curve,
    subset,
)
from kdedge.distillation.learning_curve_plot import helpful_sources
from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.recipe import AugmentConfig, PoolConfig, RulesConfig
from kdedge.transfer.dataset import TransferSet
from kdedge.transfer.texts import TransferTexts

NOWHERE = Path("nowhere")


def set_of(*origins: str) -> TransferSet:
    """Texts t0, t1, ... of these origins; the teacher gives each the second of two labels."""
    texts = [f"t{i}" for i in range(len(origins))]
    whole = TransferTexts.of(texts, None, origins, np.zeros(len(origins), np.int64))
    logits = np.stack([np.zeros(len(origins)), 1 + np.arange(len(origins))], axis=1)
    return TransferSet(whole, logits.astype(np.float16))


def agreeing(with_teacher: np.ndarray) -> np.ndarray:
    """Return logits (N, 2) that agree with the teacher of `set_of` where (N,) is true."""
    return np.eye(2, dtype=np.float32)[with_teacher.astype(int)]


def known_student(
    task: Task, agrees: Callable[[TransferSet, int, int], np.ndarray]
) -> TrainAndPredict:
    """Return a stand-in for training; on the validation split it predicts the first label."""

    def train(texts: TransferSet, apart: TransferSet, number: int, _: Path) -> Predictions:
        validation = np.eye(2, dtype=np.float32)[np.zeros(len(task.validation), int)]
        return Predictions(validation, agreeing(agrees(texts, number, len(apart))))

    return train


def count(texts: TransferSet, origin: str) -> int:
    return len(texts.texts.rows(origin))


def test_a_part_is_the_labelled_texts_and_the_first_new_ones() -> None:
    whole = set_of("labelled", "labelled", "rules", "replace", "rules", "replace", "rules")
    assert subset(whole, 1.0, ("rules",)).texts.texts == ("t0", "t1", "t2", "t4")
    assert subset(whole, 1.5, ("rules", "replace")).texts.texts == ("t0", "t1", "t2", "t3", "t4")
    assert subset(whole, 9.0, ()).logits.tolist() == whole.logits[:2].tolist()


def test_the_texts_apart_are_the_last_of_the_most_real_source() -> None:
    origins = ["labelled"] * 4 + ["rules", "generate", "replace"] * 30
    whole = set_of(*origins)
    parts = keep_apart(whole, 7)
    assert set(parts.apart.texts.origins) == {"generate"} and len(parts.apart) == 7
    generated = [f"t{row}" for row in whole.texts.rows("generate")]
    assert list(parts.apart.texts.texts) == generated[-7:]
    rest = [text for text in whole.texts.texts if text not in generated[-7:]]
    assert list(parts.training.texts.texts) == rest, "nothing is trained on and judged on"
    assert len(keep_apart(whole, 1000).apart) == 10, "at most a third of a source"
    assert len(keep_apart(set_of("labelled", "labelled"), 10).apart) == 0
    pool = set_of(*origins, *["pool"] * 9)
    assert keep_apart(pool, 3).apart.texts.texts == ("t100", "t101", "t102")
    assert set(keep_apart(pool, 9).apart.texts.origins) == {"generate"}, "the pool has too few"
    few = set_of(*["labelled"] * 4, "pool", *["rules"] * 300)
    assert set(keep_apart(few, 2000).apart.texts.origins) == {"rules"}, "none has enough"


def test_auto_makes_the_largest_size_and_the_texts_apart() -> None:
    config = AugmentConfig(size="auto", curve=[1, 4], apart=500, rules=RulesConfig())
    assert config.size_to_make(1000) == 4.5
    two = config.model_copy(update={"pool": PoolConfig(beyond_limit=True)})
    assert two.size_to_make(1000) == 5.0, "each of two sources can give 500"
    assert two.model_copy(update={"size": 2.0}).size_to_make(1000) == 2.0


def test_the_curve_leaves_out_what_hurts_and_stops_where_it_is_flat() -> None:
    """Rules help up to 2 texts for each labelled one; replacement hurts."""
    task = factories.single_task(40)
    asked = []

    def agrees(texts: TransferSet, number: int, size: int) -> np.ndarray:
        rules, replaced = count(texts, "rules"), count(texts, "replace")
        asked.append((rules, replaced))
        share = 0.5 + 0.2 * min(2, rules // 40) - 0.1 * (replaced // 40)
        return np.arange(size) < share * size

    config = AugmentConfig(curve=[1, 2, 4], apart=100, rules=RulesConfig())
    whole = set_of(*["labelled"] * 40, *["rules", "replace"] * 300)
    curve = fit_learning_curve(config, whole, task, known_student(task, agrees), NOWHERE)
    assert asked == [(0, 0), (40, 0), (0, 40), (80, 0), (160, 0)]
    assert [point.agreement for point in curve.points] == [0.5, 0.7, 0.4, 0.9, 0.9]
    assert (curve.chosen.sources, curve.chosen.size) == (("rules",), 2)
    assert curve.apart == 100 and curve.best.size in (2, 4)
    assert [point.error for point in curve.points[3:]] == [0.0, 0.0]
    assert curve.points[1].error == pytest.approx(np.sqrt(0.2 * 0.8 / 100), rel=0.15)
    assert LearningCurve.from_json(json.loads(json.dumps(curve.to_json()))) == curve
    assert helpful_sources(curve) == ("rules",), "the line of the plot"


def point(size: float, *sources: str) -> CurvePoint:
    return CurvePoint(size, sources, 100 + int(size), 0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    "points, expected",
    [
        ([point(0), point(1, "rules")], ("rules",)),
        ([point(0), point(1, "rules"), point(1, "pool")], None),
        ([point(0), point(1, "rules"), point(1, "pool"), point(2, "pool")], ("pool",)),
        (
            [point(0), point(1, "rules"), point(1, "pool"), point(1, "rules", "pool")],
            ("rules", "pool"),
        ),
        ([point(0)], None),
    ],
)
def test_the_line_of_the_plot_joins_points_of_helpful_sources(
    points: list[CurvePoint], expected: tuple[str, ...] | None
) -> None:
    assert helpful_sources(LearningCurve(tuple(points), points[0], 9)) == expected


def test_sizes_without_new_texts_are_not_measured() -> None:
    task = factories.single_task(40)
    config = AugmentConfig(curve=[1, 4, 16], apart=10, rules=RulesConfig())
    student = known_student(task, lambda texts, number, size: np.arange(size) < len(texts) % 7)
    curve = fit_learning_curve(
        config, set_of(*["labelled"] * 40, *["rules"] * 90), task, student, NOWHERE
    )
    assert [point.size for point in curve.points] == [0, 1, 2]


GAINS = {
    "flat": (0.0, 0.0),
    "one step": (0.05, 0.051),
    "two steps": (0.05, 0.1),
    "harm": (-0.05, -0.1),
}
RIGHT = {"flat": 0, "one step": 1, "two steps": 4, "harm": 0}


@pytest.mark.parametrize("world", GAINS)
def test_the_smallest_size_that_is_as_good_is_chosen(world: str) -> None:
    """2,000 texts and 3 seeds; texts differ in difficulty, seeds by half a percent.

    The validation split says nothing: every student scores the same there. An inverted rule, one
    that takes the largest size and one that takes none are each wrong in at least one world.
    """
    task = factories.single_task(100)
    config = AugmentConfig(curve=[1, 4], apart=2000, seeds=3, rules=RulesConfig())
    whole = set_of(*["labelled"] * 100, *["rules"] * 6000)
    right = 0
    for attempt in range(20):
        rng = np.random.default_rng(attempt)
        difficulty = rng.random(2000)

        def agrees(
            texts: TransferSet,
            number: int,
            size: int,
            difficulty: np.ndarray = difficulty,
            rng: np.random.Generator = rng,
        ) -> np.ndarray:
            gain = {0: 0.0, 100: GAINS[world][0], 400: GAINS[world][1]}[count(texts, "rules")]
            luck = rng.normal(0, 0.005) + rng.normal(0, 0.05, size)
            return difficulty + luck < 0.85 + gain

        curve = fit_learning_curve(config, whole, task, known_student(task, agrees), NOWHERE)
        assert len({point.validation for point in curve.points}) == 1 and curve.apart == 2000
        right += curve.chosen.size == RIGHT[world]
    assert right >= 17, right


def test_each_seed_has_a_folder_and_counts_in_the_error() -> None:
    """Replacement looks better than the labelled texts from the first seed alone."""
    task = factories.single_task(40)
    places: list[Path] = []
    right = {"rules": (65, 70, 75), "replace": (60, 35, 40), "labelled": (50, 50, 50)}

    def train(texts: TransferSet, apart: TransferSet, number: int, place: Path) -> Predictions:
        places.append(place)
        agrees = np.arange(100) < right[texts.texts.origins[-1]][number]
        return Predictions(agreeing(np.zeros(len(task.validation))), agreeing(agrees))

    whole = set_of(*["labelled"] * 40, *["rules", "replace"] * 300)
    curves = []
    for seeds in (1, 3):
        config = AugmentConfig(curve=[1], seeds=seeds, apart=100, rules=RulesConfig())
        curves.append(fit_learning_curve(config, whole, task, train, NOWHERE))
    lucky, told = curves
    assert lucky.points[-1].sources == ("rules", "replace") and lucky.points[0].sd is None
    assert [point.sources for point in told.points] == [(), ("rules",), ("replace",)]
    assert told.chosen.sources == ("rules",) and told.chosen.agreement == pytest.approx(0.7)
    assert told.chosen.sd == pytest.approx(0.05)
    texts = np.stack([np.arange(100) < n for n in (65, 70, 75)]) * 1.0 - (np.arange(100) < 50)
    over_texts = texts.mean(0).std() / 10
    error = told.points[0].error
    assert error == pytest.approx(np.hypot(over_texts, 0.05 / np.sqrt(3)), rel=0.1)
    assert NOT_WORSE * error < 0.2, "so the labelled texts alone are not as good"
    assert len(set(places[4:])) == 9, "every training has a folder of its own"


def test_auto_needs_new_texts_to_compare_students_on(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    pool = tmp_path / "pool.csv"
    pool.write_text("text\na warm story\na dull plot\n")
    document["augment"] = {"size": "auto", "curve": [0.02], "pool": {"file": str(pool)}}
    (tmp_path / "texts.txt").write_text("a warm film\n" * 20)
    texts = [{"file": str(tmp_path / "texts.txt")}]
    general = {"texts": texts, "max_length": 32, "fit": {"epochs": 1}}
    student = factories.tinybert_config(general=general)
    recipe = factories.make_recipe(document, student=student)
    with pytest.raises(UsageError, match="too few new texts to compare students on") as caught:
        distill(recipe, tmp_path / "runs")
    assert not (tmp_path / "runs" / "r" / "general").exists(), "it is found before more is trained"
    assert caught.value.detail.startswith("0 new texts"), "both are shorter than any training text"


def test_auto_refuses_a_student_that_is_trained_in_two_stages(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    document["augment"] = {"size": "auto", "curve": [1.0], "rules": {}}
    student = factories.tinybert_config(layers_first={}, objective={"hidden_weight": 1.0})
    recipe = factories.make_recipe(document, student=student)
    with pytest.raises(UsageError, match="trains each student in one stage"):
        distill(recipe, tmp_path / "runs")
