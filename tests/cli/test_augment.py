"""What `kdedge augment` says about the teacher's labels of new texts, and without new texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from kdedge_process import call_kdedge

from kdedge.cli.augment import _labels_table, _point_out_end, _point_out_shift
from kdedge.distillation.learning_curve import CurvePoint, LearningCurve
from kdedge.recipe.augment import AugmentConfig, RulesConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.transfer.label_shift import LabelShift, measure_label_shift
from kdedge.transfer.texts import TransferTexts


def shifts(made: list[int], origin: str) -> dict[str, LabelShift]:
    """Two labelled texts, one with each label, and made texts with these labels."""
    spec = TaskSpec("test", "classification", ("bad", "good"), "accuracy", pair=False)
    origins = ["labelled", "labelled", *[origin] * len(made)]
    texts = TransferTexts.of(origins, None, origins, np.zeros(len(origins)))
    return measure_label_shift(spec, np.eye(2)[[0, 1, *made]], texts)


def test_a_source_that_destroys_labels_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    _point_out_shift(shifts([0, 0, 0, 0, 1], "replace"))
    said = capsys.readouterr().err
    assert said.startswith("replace: the teacher gives other labels")
    assert "label shift 0.30" in said and "lower augment.replace.probability" in said


@pytest.mark.parametrize(
    ("made", "origin"),
    [([0, 0, 0, 1], "replace"), ([0] * 9 + [1], "pool"), ([0] * 9 + [1], "generate")],
)
def test_small_shifts_and_texts_that_are_not_changed_are_not(
    made: list[int], origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _point_out_shift(shifts(made, origin))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("origin", ["pool", "generate"])
def test_new_texts_with_one_label_are_pointed_out(
    origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _point_out_shift(shifts([1] * 39 + [0], origin))
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(
        f"{origin}: the teacher gives 'good' to 97.5 % of these texts, and to 50.0 %"
    )
    assert "lower augment.filters.balance" in said


def curve(*points: tuple[float, tuple[str, ...], float]) -> LearningCurve:
    """Make a curve of points (size, sources, agreement); the first one is chosen."""
    all_points = []
    for size, sources, agreement in points:
        all_points.append(CurvePoint(size, sources, 100, agreement, agreement))
    return LearningCurve(tuple(all_points), all_points[0], 200)


NOTHING_HELPS = curve((0, (), 0.9), (1, ("rules",), 0.8), (1, ("replace",), 0.7))
ONE_HELPS = curve((0, (), 0.8), (1, ("rules",), 0.9), (1, ("replace",), 0.7))
ENDS_EARLY = curve((0, (), 0.8), (1, ("rules",), 0.9))


@pytest.mark.parametrize(
    ("found", "size", "line"),
    [
        (NOTHING_HELPS, "auto", "no source helps alone, so larger sizes were not measured\n"),
        (ONE_HELPS, "auto", "the curve ends at 1 texts per labelled one: there are no more\n"),
        (ENDS_EARLY, "auto", "the curve ends at 1 texts per labelled one: there are no more\n"),
        (ENDS_EARLY, 2.0, 'there are no more; augment.size = "auto" makes 16 and those kept'),
    ],
)
def test_why_a_curve_ends_is_said(
    found: LearningCurve, size: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _point_out_end(AugmentConfig(size=size, rules=RulesConfig()), found)
    assert line in capsys.readouterr().err


def test_the_most_frequent_labels_are_shown() -> None:
    table = _labels_table(shifts([0, 0, 0, 1], "rules"))
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["labelled", "rules"]
    assert cells[2] == ["bad 50 %, good 50 %", "bad 75 %, good 25 %"]
    assert cells[3] == ["0.00", "0.25"]


def test_a_recipe_that_asks_for_no_new_texts_is_an_error(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    document = factories.write_data_and_teacher(tmp_path) | {
        "augment": {"size": 0, "rules": {}},
        "student": [factories.tinybert_config()],
    }
    recipe.write_text(factories.make_recipe(document).to_toml())
    done = call_kdedge("augment", str(recipe), folder=tmp_path)
    assert done.returncode == 2
    assert "augment.size is 0" in done.stderr and not (tmp_path / "runs").exists()
