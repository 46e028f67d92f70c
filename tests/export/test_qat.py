"""Ranges that learn, and tuning that goes on where a signal cut it off."""

from __future__ import annotations

import math
import os
import signal
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import factories
import numpy as np
import pytest
import torch
from factories import Batches, calibrated_bert
from kdedge.export import qat
from kdedge.export.calibrate import logits_of
from kdedge.export.fake_model import range_owners
from kdedge.export.fake_quant import ActivationRange, to_integers
from kdedge.export.prepare import transfer_set_of
from kdedge.export.qat_score import ScoreWithAgreement
from kdedge.export.qat_training import QatData, QatModule, epochs_of, range_rates
from kdedge.export.scheme import UINT8_MAX, QuantScheme
from safetensors.torch import load_file
from torch import nn

from kdedge.errors import Interrupted
from kdedge.nn import losses
from kdedge.nn.batching import PaddingCollator
from kdedge.nn.inference import predict_logits
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig, ObjectiveConfig, QuantizeConfig
from kdedge.run.progress import Silent
from kdedge.transfer.dataset import TransferSet
from kdedge.transfer.texts import TransferTexts, collect_texts

STATIC = QuantScheme(activations="static")


@pytest.mark.parametrize(("value", "low", "high"), [(5.0, 0.0, 1.0), (-5.0, 1.0, 0.0)])
def test_a_value_beyond_an_end_moves_that_end_alone(value: float, low: float, high: float) -> None:
    found = ActivationRange()
    with torch.no_grad():
        found.low.fill_(-1.0)
        found.high.fill_(2.0)
    scale, zero = found(values=16)
    ((to_integers(torch.tensor(value), scale, zero, 0, UINT8_MAX) - zero) * scale).backward()
    assert found.low.grad is not None and found.high.grad is not None
    gradients = torch.stack([found.low.grad, found.high.grad]) * (16 / UINT8_MAX) ** 0.5
    assert gradients.tolist() == pytest.approx([low, high], abs=1 / UINT8_MAX), (
        "to within the zero point's rounding"
    )


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, nn.Module, Batches]:
    return calibrated_bert(STATIC)


def apart(model: nn.Module, reference: nn.Module, batches: Batches) -> float:
    """Root mean squared difference of logits."""
    return float((logits_of(model, batches) - logits_of(reference, batches)).square().mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("classifier", "high"),
        ("bert.pooler.dense", "high"),
        ("bert.encoder.layer.0.output.dense", "low"),
    ],
)
def test_an_end_that_starts_a_fifth_short_recovers(
    small: tuple, tmp_path: Path, name: str, end: str
) -> None:
    """Only this end is trained, so nothing else can compensate; at the weights' rate it stays."""
    model, quantized, batches = small
    spoiled = deepcopy(quantized)
    learned = getattr(range_owners(spoiled)[name].range, end)
    before = learned.item()
    with torch.no_grad():
        learned.mul_(0.8)
    worse = apart(spoiled, model, batches)
    for parameter in spoiled.parameters():
        parameter.requires_grad_(parameter is learned)
    recipe = QuantizeConfig(batch_size=16)
    tuning, good, started = (
        QatModule(spoiled, model, recipe, losses.logit_mse),
        apart(quantized, model, batches),
        learned.item(),
    )  # type: ignore[arg-type]
    encoded = encode(factories.tokenizer(), factories.sentences(256, 9)[0], None, 48)
    data = replace(
        encoded, columns={"teacher_logits": predict_logits(model, encoded, PaddingCollator(0))}
    )
    fit = FitConfig(
        epochs=10,
        batch_size=16,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        checks=1,
        precision="fp32",
    )
    plan = Training(
        fit, 0, data, PaddingCollator(0), lambda _: np.zeros(1), lambda _: 0.0, "ranges"
    )
    train(tuning, plan, tmp_path / "slow")
    assert abs(learned.item() - started) < 0.01 * abs(before)
    with torch.no_grad():
        learned.fill_(started)
    train(tuning, replace(plan, rates=range_rates(tuning, recipe)), tmp_path / "own")
    assert learned.item() / before > 0.85 and apart(spoiled, model, batches) < good + 0.3 * (
        worse - good
    )


@pytest.mark.parametrize("texts, steps", [(100, 300), (13_896, 300), (7, 5000), (32, 1)])
def test_tuning_takes_as_many_steps_as_the_recipe_says(texts: int, steps: int) -> None:
    recipe = QuantizeConfig(steps=steps, batch_size=32)
    batches = math.ceil(texts / 32)
    assert math.ceil(batches * epochs_of(recipe, texts)) == steps


def test_masked_texts_have_the_mask_token_of_the_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = factories.tokenizer(), factories.tokenizer()
    teacher.save_pretrained(tmp_path)
    student.add_special_tokens({"mask_token": "<mask>"})
    texts = TransferTexts.of(
        ("a film", "a [MASK]"), None, ("labelled", "rules"), np.array([0, -1], np.int64)
    )
    stored = TransferSet(texts, np.zeros((2, 2), np.float16))
    monkeypatch.setattr("kdedge.export.prepare.read_transfer_set", lambda _: stored)
    run = SimpleNamespace(teacher=tmp_path, transfer=tmp_path)
    assert list(transfer_set_of(run, teacher).texts.texts) == ["a film", "a [MASK]"]
    assert list(transfer_set_of(run, student).texts.texts) == ["a film", "a <mask>"]


class Stopping(Silent):
    """Sends a signal after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, done: int, note: str = "") -> None:
        if done == self.steps:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_tuning_that_a_signal_cut_off_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScoreWithAgreement, "calibration_suffices", lambda _: False)
    monkeypatch.setattr(ScoreWithAgreement, "agrees", lambda *_: True)
    monkeypatch.setattr(
        ScoreWithAgreement,
        "score",
        lambda judge, logits: -float(np.square(judge.reference - logits).mean()),
    )
    task, tokenizer = factories.single_task(), factories.tokenizer()
    model = factories.random_student("bert", task.spec)
    student = TextClassifier(model.eval(), tokenizer, 48)
    context = QatData(
        task,
        TransferSet(collect_texts(task), student.predict_logits(task.train.texts, None)),
        QuantizeConfig(steps=40, batch_size=8, checks=2),
        ObjectiveConfig(),
        0,
    )
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    figures = qat.quantize_aware_tune(student, STATIC, context, tmp_path / "whole")
    with pytest.raises(Interrupted):
        qat.quantize_aware_tune(student, STATIC, context, tmp_path / "cut", progress=Stopping(27))
    assert list((tmp_path / "cut").glob("checkpoint-27/complete"))
    assert (
        qat.quantize_aware_tune(student, STATIC, context, tmp_path / "cut") == figures
        and figures.weights == "tuned"
    )
    whole, cut, calibrated = (
        load_file(tmp_path / name)
        for name in (
            "whole/model.safetensors",
            "cut/model.safetensors",
            "cut/calibrated.safetensors",
        )
    )
    assert all(torch.equal(whole[name], value) for name, value in cut.items())
    ranges = {
        name: float(value - calibrated[name]) for name, value in cut.items() if ".range." in name
    }
    assert sum(abs(moved) > 1e-3 for moved in ranges.values()) > len(ranges) / 2
