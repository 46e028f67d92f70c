"""Steps on tensors that say that they are on a GPU: torch finds what is on the wrong device.

The tensors have shapes, types and a device, but no numbers. So a step also fails if it needs a
number, for which a CPU would wait for the GPU. Gradients need a real GPU.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest
import torch
from kdedge.export.fake_model import fake_quantized
from kdedge.export.lstm_steps import IntegerSteps, state_scale
from kdedge.export.qat_training import QatModule
from kdedge.export.scheme import QuantScheme
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import import_utils

from kdedge.augment.generator import Generator
from kdedge.augment.sampling import GPU_INTERVAL, sample
from kdedge.distillation import layer_cache
from kdedge.distillation.layer_cache import LayerCache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.losses import logit_mse
from kdedge.nn.signals import LayerSelection
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig, QuantizeConfig
from kdedge.students import lstm_states
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

TEXTS, TOKENS, VOCABULARY = 3, 5, 50

GPU = torch.device("cuda", 0)


@contextmanager
def on_gpu(*modules: nn.Module) -> Iterator[None]:
    """Replace the weights of modules, and then all new tensors, by such without numbers.

    transformers leaves out its looks at a mask if it knows such tensors, so it must not.
    """
    state_scale.cache_clear()  # It would keep scales without numbers.
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        patch.setattr(import_utils, "is_fake_tensor", lambda tensor: False)
        for module in (part for whole in modules for part in whole.modules()):
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(torch.empty_like(weight, device=GPU))
            for name, values in module._buffers.items():
                if values is not None:
                    module._buffers[name] = torch.empty_like(values, device=GPU)
        yield
    state_scale.cache_clear()


@pytest.fixture
def lstm_without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the LSTM of cuDNN, which looks for a real GPU."""

    def lstm(inputs: torch.Tensor, states: Any, weights: Any, *_: Any) -> tuple[torch.Tensor]:
        gates = inputs @ weights[0].T + states[0].transpose(0, 1) @ weights[1].T
        return (gates.chunk(4, dim=2)[0],)

    monkeypatch.setattr(torch, "lstm", lstm)


def batch() -> dict[str, torch.Tensor]:
    return {
        "input_ids": torch.ones(TEXTS, TOKENS, dtype=torch.long, device=GPU),
        "attention_mask": torch.ones(TEXTS, TOKENS, dtype=torch.long, device=GPU),
        "labels": torch.zeros(TEXTS, dtype=torch.long, device=GPU),
        "teacher_logits": torch.zeros(TEXTS, 2, dtype=torch.float16, device=GPU),
    }


def small_bilstm(kind: str = "bilstm") -> BiLstmForSequenceClassification:
    cross_attention = kind == "cross-attention"
    config = BiLstmModelConfig(
        VOCABULARY, 6, 4, 8, pair=kind != "bilstm", cross_attention=cross_attention
    )
    return BiLstmForSequenceClassification(config)


def test_a_number_and_a_wrong_device_are_errors() -> None:
    with on_gpu():
        with pytest.raises(DataDependentOutputException):
            torch.ones(2, device=GPU).sum().item()
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(2, device=GPU) + torch.ones(2)


def test_a_look_at_a_mask_is_an_error() -> None:
    model = factories.bert(layers=1, vocabulary=VOCABULARY)
    with on_gpu(model), pytest.raises(DataDependentOutputException):
        model(input_ids=batch()["input_ids"], attention_mask=batch()["attention_mask"])


@pytest.mark.parametrize("hidden", ["mse", "cosine", "pkd", "cka"])
@pytest.mark.parametrize("attention", ["scores", "minilm"])
def test_a_tinybert_learns_from_live_layers(hidden: str, attention: str) -> None:
    teacher = factories.bert(layers=2, vocabulary=VOCABULARY)
    student = factories.bert(layers=1, hidden=16, vocabulary=VOCABULARY)
    config = ObjectiveConfig(
        logits="kl",
        labels_weight=0.5,
        hidden=hidden,
        hidden_weight=1.0,
        embedding_weight=1.0,
        attention=attention,
        attention_weight=1.0,
    )
    objective = Objective(config, "classification", student.config, teacher.config)
    live = TextClassifier(teacher, factories.tokenizer(), 32)
    module = DistillationModule(student, objective, live).train()
    with on_gpu(module, teacher):
        assert module(**batch())["loss"].device == GPU


def test_a_teacher_is_fine_tuned() -> None:
    module = LabelLossModule(factories.bert(layers=1, vocabulary=VOCABULARY)).train()
    with on_gpu(module):
        inputs = batch()
        del inputs["teacher_logits"]
        assert module(**inputs)["loss"].device == GPU


@pytest.mark.parametrize("kind", ["bilstm", "pair", "cross-attention"])
def test_a_bilstm_learns(kind: str, lstm_without_library: None) -> None:
    student = small_bilstm(kind)
    config = ObjectiveConfig(logits="mse", labels_weight=0.5)
    objective = Objective(config, "classification", student.config, student.config)
    module = DistillationModule(student, objective, None).train()
    with on_gpu(module):
        inputs = batch()
        if kind != "bilstm":
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        assert module(**inputs)["loss"].device == GPU


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("RNN module weights are not part of single contiguous chunk of memory. This means", set()),
        ("another", {"another"}),
    ],
)
def test_an_lstm_hides_that_weights_are_copied_and_no_other_warning(
    message: str, shown: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    read = torch.lstm

    def warn_and_read(*args: Any) -> Any:
        warnings.warn(message, UserWarning, stacklevel=2)
        return read(*args)

    monkeypatch.setattr(torch, "lstm", warn_and_read)
    with warnings.catch_warnings(record=True) as caught:
        module = importlib.reload(lstm_states)  # pytest forgets the filters of an import
        module.padded_final_states(lstm, torch.ones(2, 3, 6), torch.tensor([3, 1]))
    assert {str(warning.message) for warning in caught} == shown


@pytest.mark.parametrize("kind", ["tinybert", "bilstm", "cross-attention"])
def test_an_int8_student_is_tuned(kind: str, lstm_without_library: None) -> None:
    model: PreTrainedModel
    if kind == "tinybert":
        model = factories.bert(layers=2, vocabulary=VOCABULARY)
    else:
        model = small_bilstm(kind)
    quantized = fake_quantized(model, QuantScheme(activations="static"))
    module = QatModule(quantized, model, QuantizeConfig(), logit_mse).train()
    with on_gpu(module, model):
        inputs = batch()
        del inputs["labels"]
        if kind == "cross-attention":
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        assert module(**inputs)["loss"].device == GPU


@pytest.mark.parametrize("tokens", [1, 4])
def test_the_steps_of_an_int8_lstm_go_back(tokens: int) -> None:
    """Autograd needs a real GPU, so the backward pass is called by hand."""
    hidden = 6
    saved: list[torch.Tensor] = []
    context = SimpleNamespace(save_for_backward=lambda *tensors: saved.extend(tensors))
    with on_gpu():
        inputs = torch.ones(2, TEXTS, tokens, 4 * hidden, device=GPU)
        weight = torch.ones(2, hidden, 4 * hidden, device=GPU)
        is_token = torch.ones(tokens, TEXTS, dtype=torch.bool, device=GPU)
        scales = torch.ones(2, 1, 4 * hidden, device=GPU)
        states = IntegerSteps.forward(context, inputs, weight, scales, is_token, None)
        context.saved_tensors = saved
        gradients = IntegerSteps.backward(context, *states)
    assert gradients[0].shape == inputs.shape and gradients[0].device == GPU
    assert (gradients[1] is None) == (tokens == 1)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("prompts", [[[1]] * TEXTS, [[1], [1, 3, 4], [1, 5]]])
def test_generation_needs_no_number_before_its_interval(
    model_type: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        model_type, **sizes, intermediate_size=32, vocab_size=VOCABULARY, eos_token_id=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    tensor = torch.tensor

    def without_copy(values: Any, **options: Any) -> torch.Tensor:
        # An empty tensor, with which a cache begins, would be copied to a real GPU.
        return tensor(values, **options) if values else torch.empty(0, **options)

    monkeypatch.setattr(torch, "tensor", without_copy)
    steps: list[int] = []
    model.register_forward_hook(lambda *_: steps.append(1))
    generator = Generator(model, factories.tokenizer(), 1, 2)
    settings: dict[str, Any] = {"max_length": 60, "temperature": 1.0, "precision": None}
    with on_gpu(model), pytest.raises(DataDependentOutputException):
        sample(generator, prompts, top_p=0.9, **settings)
    assert len(steps) == GPU_INTERVAL


def test_cached_layers_arrive_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_cache, "to_device", lambda tensor, device: tensor.to(device))
    shapes = {"hidden": (TEXTS, TOKENS, 2, 6), "attention": (TEXTS, TOKENS, TOKENS, 1, 2)}
    files: Any = SimpleNamespace(
        arrays=shapes, read=lambda name, *_: np.zeros(shapes[name], np.float16)
    )
    cache = LayerCache(files, LayerSelection(hidden=(0, 2), attention=(1,)))
    with on_gpu():
        signals = cache.read(np.arange(TEXTS), torch.zeros(TEXTS, 2, device=GPU), TOKENS)
    assert all(layer.device == GPU for layer in (*signals.hidden, *signals.attention))
