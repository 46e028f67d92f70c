"""Training depends only on its inputs, and continues after it was killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdedge.errors import CheckFailed, Interrupted
from kdedge.nn.batching import LengthGrouped, PaddingCollator
from kdedge.nn.device import native_precision
from kdedge.nn.tokenization import encode
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("training_program.py")


def child(
    folder: Path, threads: int = 1, seconds: float = 0.1, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), str(threads), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder.parent,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
    )


def steps_of(process: subprocess.Popen[str]) -> Iterator[int]:
    assert process.stdout is not None
    return (int(line.split()[1]) for line in process.stdout if line.startswith("step"))


def weights_of(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out.split("weights ")[1].strip()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of the weights of a training without interruption."""
    return weights_of(child(tmp_path_factory.mktemp("undisturbed") / "run", seconds=1e9))


def test_killed_at_random_points_and_resumed_gives_the_same_weights(
    tmp_path: Path, undisturbed: str
) -> None:
    chance = random.Random(7)
    stops = sorted(chance.sample(range(3, 72), 3))
    for number, stop in enumerate(stops):
        process = child(tmp_path / "run")
        for step in steps_of(process):
            if step >= stop:
                time.sleep(chance.random() * 0.2)
                process.kill()
                break
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"kill {number} came too late"
    assert weights_of(child(tmp_path / "run")) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_with_its_own_code(
    tmp_path: Path, undisturbed: str, number: int
) -> None:
    process = child(tmp_path / "run", seconds=1e9)
    for step in steps_of(process):
        if step >= 40:
            process.send_signal(number)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "interrupted" in out
    assert list((tmp_path / "run").glob("checkpoint-*/complete"))
    assert weights_of(child(tmp_path / "run", seconds=1e9)) == undisturbed


def test_hash_seed_locale_and_folder_do_not_change_the_weights(
    tmp_path: Path, undisturbed: str
) -> None:
    other = child(tmp_path / "elsewhere", seconds=1e9, PYTHONHASHSEED="77", LC_ALL="C")
    assert weights_of(other) == undisturbed


class Exploding(nn.Module):
    """A model whose loss is NaN from its third step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.steps = 0

    def forward(self, labels: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += 1
        loss = self.weight.sum() * (float("nan") if self.steps > 2 else 1.0)
        return {"loss": loss, "logits": self.weight.expand(len(labels), 2)}


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, labels: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.weight.sum(), "logits": self.weight.expand(len(labels), 2)}


def all_zero(model: nn.Module) -> np.ndarray:
    """Logits of 32 texts and two labels."""
    return np.zeros((32, 2), np.float32)


def plan(
    epochs: float, checks: int, predict: Callable[[nn.Module], np.ndarray] = all_zero
) -> Training:
    """A training on 64 texts, eight steps an epoch, whose validation score is always 0."""
    import factories

    task, tokenizer = factories.single_task(64), factories.tokenizer()
    return Training(
        fit=FitConfig(epochs=epochs, batch_size=8, checks=checks),
        seed=0,
        data=encode(tokenizer, task.train.texts, None, 32, labels=task.train.labels),
        pad=PaddingCollator(0),
        predict=predict,
        score=lambda logits: 0.0,
        title="planned",
    )


@pytest.mark.parametrize("checks", [3, 4])
def test_the_validation_split_is_scored_once_at_each_check(tmp_path: Path, checks: int) -> None:
    scored = []

    def predict(model: nn.Module) -> np.ndarray:
        scored.append(model)
        return all_zero(model)

    train(Sum(), plan(3, checks, predict), tmp_path)
    assert len(scored) == checks
    log = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert log.count("validation_score") == checks


@pytest.mark.parametrize("epochs", [3, 2.5])
def test_a_signal_in_the_last_evaluation_loses_nothing(tmp_path: Path, epochs: float) -> None:
    signals: list[int] = []

    def predict(model: nn.Module) -> np.ndarray:
        for number in signals:
            os.kill(os.getpid(), number)
        return all_zero(model)

    def trained(folder: Path) -> torch.Tensor:
        model = Sum()
        train(model, plan(epochs, 1, predict), folder)
        return model.weight

    undisturbed = trained(tmp_path / "undisturbed")
    signals.append(signal.SIGTERM)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run")
    steps = round(epochs * 8)
    assert (tmp_path / "run" / f"checkpoint-{steps}" / "complete").exists()
    signals.clear()
    assert trained(tmp_path / "run").equal(undisturbed)


def test_a_loss_that_is_not_a_number_stops_training(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="the loss is not finite"):
        train(Exploding(), plan(1, 1), tmp_path)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_batches_hold_each_text_once_and_texts_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, size=1003)
    order = list(LengthGrouped(lengths, 16, seed=1))
    assert sorted(order) == list(range(1003))
    spread = [np.ptp(lengths[order[i : i + 16]]) for i in range(0, 1003 - 16, 16)]
    assert np.mean(spread) < 5
    other = LengthGrouped(lengths, 16, seed=1)
    assert list(other) == order
    other.set_epoch(1)
    assert list(other) != order


def test_auto_precision_is_never_an_emulated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda s=supported: s)
        assert native_precision("auto", torch.device("cpu")) is expected
    assert native_precision("bf16", torch.device("cpu")) is torch.bfloat16
