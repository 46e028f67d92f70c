"""Training, labelling and generation on this machine's device give what its CPU gives.

`benchmarks/studies/gpu.py` runs these tests on a GPU. There a step also fails if it waits for the
GPU. On a CPU they only show that they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import torch
from kdedge.export.calibrate import calibrate, unpadded_batches
from kdedge.export.fake_model import fake_quantized
from kdedge.export.lstm_steps import IntegerSteps
from kdedge.export.qat_training import QatModule
from kdedge.export.scheme import QuantScheme
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from kdedge.augment.generator import Generator
from kdedge.augment.generator_stage import LanguageModelLoss
from kdedge.augment.sampling import sample
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import native_precision, this_device, to_device
from kdedge.nn.inference import predict_logits
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.losses import logit_mse
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig, QuantizeConfig
from kdedge.students.build import load_student

PAD = PaddingCollator(0)

DEVICE = this_device()

Inputs = dict[str, torch.Tensor]


@contextmanager
def without_waiting() -> Iterator[None]:
    """Make a wait for the GPU an error."""
    if DEVICE.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def student(kind: str) -> PreTrainedModel:
    return factories.random_student(kind, factories.single_task().spec)


def texts(**columns: np.ndarray) -> Encoded:
    chance = np.random.default_rng(0)
    data = Encoded.of([chance.integers(1, 100, n).tolist() for n in chance.integers(1, 30, 24)])
    data.columns.update(columns)
    return data


def distillation(kind: str) -> torch.nn.Module:
    model = student(kind)
    layers = {"hidden_weight": 1.0, "attention_weight": 1.0} if kind == "tinybert" else {}
    config = ObjectiveConfig(logits="kl", labels_weight=0.5, **layers)
    teacher = student("tinybert")
    objective = Objective(config, "classification", model.config, teacher.config)
    live = TextClassifier(teacher.to(DEVICE), factories.tokenizer(), 32)
    return DistillationModule(model, objective, live if layers else None)


def tuning(kind: str) -> torch.nn.Module:
    model = student(kind).eval()
    quantized = fake_quantized(model, QuantScheme(activations="static"))
    calibrate(quantized, model, unpadded_batches(PAD, texts()))
    return QatModule(quantized, deepcopy(model).to(DEVICE), QuantizeConfig(), logit_mse)


def generator() -> Generator:
    sizes = {"vocab_size": 100, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
    return Generator(model.eval().to(DEVICE), factories.tokenizer(), 1, 2)


MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "teacher": lambda: LabelLossModule(student("tinybert")),
    "tinybert": lambda: distillation("tinybert"),
    "bilstm": lambda: distillation("bilstm"),
    "int8 tinybert": lambda: tuning("tinybert"),
    "int8 bilstm": lambda: tuning("bilstm"),
    "generator": lambda: LanguageModelLoss(generator().model),
}


def inputs_of(name: str) -> Inputs:
    data = texts()
    if name in ("teacher", "tinybert", "bilstm"):
        data.columns["labels"] = np.arange(len(data)) % 2
    if name in ("tinybert", "bilstm", "int8 tinybert", "int8 bilstm"):
        data.columns["teacher_logits"] = np.tile(np.float16([0.5, -1]), (len(data), 1))
    return PAD(data)


@pytest.mark.parametrize("name", MODULES)
def test_a_step_learns_without_waiting_in_the_precision_of_the_device(name: str) -> None:
    module = MODULES[name]().to(DEVICE).train()
    precision = None if name.startswith("int8") else native_precision("auto", DEVICE)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for step in range(4):
        optimizer.zero_grad()
        with without_waiting() if step > 1 else nullcontext():
            batch = {key: to_device(value, DEVICE) for key, value in inputs_of(name).items()}
            with torch.autocast(DEVICE.type, precision, enabled=precision is not None):
                loss = module(**batch)["loss"]
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and len(set(losses)) > 1


@pytest.mark.parametrize("kind", ["tinybert", "bilstm"])
@pytest.mark.parametrize("int8", [False, True])
def test_logits_are_those_of_the_cpu(kind: str, int8: bool) -> None:
    model: Any = tuning(kind).model if int8 else student(kind)
    expected = predict_logits(model, texts(), PAD)
    found = predict_logits(model.to(DEVICE), texts(), PAD)
    # A number near the middle of two integers may round to the other one.
    assert np.median(np.abs(found - expected)) < 1e-4 and np.abs(found - expected).max() < 0.1


def test_the_gradients_of_an_int8_lstm_are_those_of_the_cpu() -> None:
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 9, 28, generator=chance, dtype=torch.float64)
    weight = torch.randint(-63, 64, (2, 7, 28), generator=chance).double()
    scales = torch.rand(2, 1, 28, generator=chance, dtype=torch.float64) / 63
    is_token = torch.arange(9)[:, None] < torch.tensor([9, 1, 4, 6])
    found = []
    for device in (torch.device("cpu"), DEVICE):
        leaves = [
            inputs.to(device, copy=True).requires_grad_(),
            weight.to(device, copy=True).requires_grad_(),
        ]
        states = IntegerSteps.apply(*leaves, scales.to(device), is_token.to(device), None)
        gradients = torch.autograd.grad((states[0] * states[1]).sum(), leaves)
        found.append([value.cpu() for value in gradients])
    torch.testing.assert_close(found[1], found[0])


def test_a_teacher_in_16_bits_labels_and_lends_its_layers() -> None:
    model = student("tinybert").to(DEVICE, torch.bfloat16).eval()
    assert np.isfinite(predict_logits(model, texts(), PAD)).all()
    module = distillation("tinybert").to(DEVICE)
    module._teacher[0].bfloat16()
    batch = {key: value.to(DEVICE) for key, value in inputs_of("tinybert").items()}
    assert bool(torch.isfinite(module(**batch)["loss"]))


def test_texts_are_generated_and_rated() -> None:
    source = generator()
    settings: dict[str, Any] = {"max_length": 40, "top_p": 0.9, "temperature": 1.0}
    precision = native_precision("auto", DEVICE)
    prompts = [[1, *range(5, 5 + length)] for length in (1, 1, 4, 12, 7, 1, 30, 2)]
    found = sample(source, prompts, precision=precision, **settings)
    for prompt, text in zip(prompts, found, strict=True):
        assert text[: len(prompt)] == prompt and len(prompt) < len(text) <= 40
    assert np.isfinite(source.mean_nll(found)).all()


def test_a_bilstm_on_the_device_can_be_saved(tmp_path: Path) -> None:
    """A GPU keeps the weights of an LSTM in one piece of memory."""
    model = student("bilstm")
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(DEVICE).save_pretrained(tmp_path)
    loaded = load_student(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
