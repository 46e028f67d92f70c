"""Results that mean nothing are named on stderr, and fail under --strict."""

from __future__ import annotations

from pathlib import Path

import factories
import pytest
import torch

from kdedge.cli.meaning import run_warnings, warn


def test_a_run_whose_models_predict_one_class_is_named(tmp_path: Path) -> None:
    task = factories.single_task()
    constant = factories.random_student("tinybert", task.spec)
    with torch.no_grad():
        constant.classifier.weight.zero_()
        constant.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    run = factories.make_run(tmp_path, task, teacher=constant, model=constant)
    warnings = "\n".join(run_warnings(run, task))
    assert "48 texts, fewer than 100" in warnings
    assert "teacher predicts 'good' for every test text" in warnings
    assert "bilstm predicts 'good' for every test text" in warnings
    assert "a bag of words" in warnings


def test_strict_fails_only_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    warn([], strict=True)
    warn(["too few texts"], strict=False)
    assert capsys.readouterr().err == "warning: too few texts\n"
    with pytest.raises(SystemExit) as caught:
        warn(["too few texts"], strict=True)
    assert caught.value.code == 1
