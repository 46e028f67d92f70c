"""`--device`: a missing GPU ends a command, and a run says what it computed on."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import pytest
import torch
from click.testing import CliRunner

from kdedge.cli.main import cli
from kdedge.errors import MachineError
from kdedge.run.processes import DEVICE_VARIABLE


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DEVICE_VARIABLE, "auto")  # restored afterwards: the option changes it
    document = factories.write_data_and_teacher(tmp_path)
    student = factories.tinybert_config(fit={"epochs": 1.0, "checks": 1}, baseline=False)
    made = factories.make_recipe(document, name="device", student=[student])
    path = tmp_path / "recipe.toml"
    path.write_text(made.to_toml())
    return path


@pytest.mark.slow
def test_a_run_says_what_it_computed_on(recipe: Path, tmp_path: Path) -> None:
    arguments = ["distill", str(recipe), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "computing on CPU, " in result.stderr
    metadata = json.loads((tmp_path / "runs" / "device" / "run.json").read_text())
    assert metadata["device"].startswith("CPU, ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_exit_code_4(recipe: Path, tmp_path: Path) -> None:
    arguments = ["distill", str(recipe), "--runs", str(tmp_path / "runs"), "--device", "cuda"]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, MachineError) and result.exception.exit_code == 4
    assert "CUDA cannot be used" in result.exception.message
    assert not (tmp_path / "runs" / "device" / "teacher").exists()
