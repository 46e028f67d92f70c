"""A training step, a labelled batch and a generated token do not wait for the device.

A CPU cannot show a wait, so a spy counts the calls that would wait for a GPU: reading a number of a
tensor, copying it to the CPU, and choosing rows by a mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import torch
from kdedge.export.fake_model import fake_quantized
from kdedge.export.qat_training import QatModule
from kdedge.export.scheme import QuantScheme
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from kdedge.augment import sampling
from kdedge.augment.generator import Generator
from kdedge.augment.generator_stage import LanguageModelLoss
from kdedge.augment.replace import MaskedGuesses
from kdedge.augment.sampling import sample
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.nn import attention_mask
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.inference import predict_logits
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.losses import logit_mse
from kdedge.nn.micro_batches import micro_batches
from kdedge.nn.signals import read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig, ObjectiveConfig, QuantizeConfig
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.lstm_states import padded_final_states

WAITING = {"item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__"}


class Spy(TorchFunctionMode):
    """Counts calls that would make the CPU wait for a GPU."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITING:
            self.calls[name] += 1
        if name == "__getitem__" and _has_mask(args[1]):
            self.calls["index by a mask"] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype is torch.bool for part in parts)


@contextmanager
def spied() -> Iterator[Counter[str]]:
    with Spy() as spy:
        yield spy.calls


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give models the mask that they get on a GPU."""
    monkeypatch.setattr(attention_mask, "_on_gpu", lambda tensor: True)


def batch(kind: str) -> dict[str, Any]:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    labels = {
        "classification": torch.tensor([1, -1, 0]),
        "regression": torch.tensor([0.5, float("nan"), 1.0]),
        "multilabel": torch.tensor([[1.0, 0.0], [float("nan")] * 2, [0.0, 1.0]]),
    }
    outputs = 1 if kind == "regression" else 2
    return {
        "input_ids": torch.arange(12).reshape(3, 4) + 5,
        "attention_mask": mask,
        "labels": labels[kind],
        "teacher_logits": torch.zeros(3, outputs),
    }


def test_the_spy_sees_what_waits() -> None:
    with spied() as calls:
        values = torch.arange(3.0)
        values[values > 1].sum().item()
        bool(values.any())
        values.tolist()
    assert calls == {"index by a mask": 1, "item": 1, "__bool__": 1, "tolist": 1}


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
@pytest.mark.parametrize("hidden", ["mse", "cosine", "pkd", "cka"])
def test_a_step_of_a_tinybert_does_not_wait(kind: Any, hidden: str, as_on_gpu: None) -> None:
    outputs = 1 if kind == "regression" else 2
    teacher = factories.bert(layers=2, vocabulary=50, outputs=outputs)
    student = factories.bert(layers=2, vocabulary=50, outputs=outputs)
    config = ObjectiveConfig(
        logits="mse", labels_weight=0.5, hidden=hidden, hidden_weight=1.0, attention_weight=1.0
    )
    objective = Objective(config, kind, student.config, teacher.config)
    live = TextClassifier(teacher, factories.tokenizer(), 32)
    module = DistillationModule(student, objective, live).train()
    inputs = batch(kind)
    module(**inputs)
    with spied() as calls:
        module(**inputs)["loss"].backward()
    assert not calls


def test_a_step_of_an_int8_tinybert_does_not_wait(as_on_gpu: None) -> None:
    student = factories.bert(layers=2, vocabulary=50)
    quantized = fake_quantized(student, QuantScheme(activations="static"))
    module = QatModule(quantized, student, QuantizeConfig(), logit_mse).train()
    inputs = batch("classification")
    del inputs["labels"]
    module(**inputs)
    with spied() as calls:
        module(**inputs)["loss"].backward()
    assert not calls


def test_masked_words_are_guessed_with_one_look(as_on_gpu: None) -> None:
    model = BertForMaskedLM(factories.bert().config).eval()
    guesses = MaskedGuesses(model, factories.tokenizer(), 3, 48)
    with spied() as calls:
        assert guesses.predict("the film is good", None)
    assert calls == {"tolist": 1}


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_the_shares_of_micro_batches_do_not_wait(kind: str) -> None:
    inputs = batch(kind)
    with spied() as calls:
        found = [micro_batch for _, micro_batch in micro_batches(inputs, 2)]
    assert not calls
    assert [float(micro_batch.labelled) for micro_batch in found] == [0.5, 0.5]


def test_a_bilstm_reads_padded_texts_as_packed_ones_without_waiting() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(7, 5, batch_first=True, bidirectional=True)
    vectors = torch.randn(6, 9, 7, requires_grad=True)
    lengths = torch.tensor([1, 9, 3, 4, 8, 2])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        vectors, lengths, batch_first=True, enforce_sorted=False
    )
    state = lstm(packed)[1][0]
    expected = torch.cat([state[0], state[1]], dim=1)
    with spied() as calls:
        found = padded_final_states(lstm, vectors, lengths)
    assert not calls
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    inputs = [vectors, *lstm.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    # oneDNN has no bf16 LSTM for a CPU without AVX512; torch's own does not need one.
    with torch.backends.mkldnn.flags(enabled=False), torch.autocast("cpu", torch.bfloat16):
        short = padded_final_states(lstm, vectors, lengths)
    torch.testing.assert_close(short.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("model_type", ["albert", "bert", "roberta", "distilbert", "electra"])
def test_the_mask_of_a_gpu_changes_no_output(
    model_type: str, layers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(model_type, **sizes, intermediate_size=32, dim=16, n_heads=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = {name: batch("regression")[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = read_signals(model, inputs, layers=layers).logits
        monkeypatch.setattr(attention_mask, "_on_gpu", lambda tensor: True)
        with spied() as calls:
            found = read_signals(model, inputs, layers=layers).logits
    assert not calls
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_a_decoder_on_a_gpu_needs_no_mask(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    config = AutoConfig.for_model(model_type, **sizes, **heads, pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = {name: batch("regression")[name] for name in ("input_ids", "attention_mask")}
    inputs["input_ids"] *= inputs["attention_mask"]
    with torch.no_grad():
        expected = read_signals(model, inputs, layers=False).logits
        monkeypatch.setattr(attention_mask, "_on_gpu", lambda tensor: True)
        with spied() as calls:
            found = read_signals(model, inputs, layers=False).logits
    assert not calls
    torch.testing.assert_close(found, expected)


def test_a_generator_rates_texts_and_learns_alike_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    generator = Generator(GPT2LMHeadModel(config).eval(), factories.tokenizer(), 1, 2)
    texts = [[1, 5, 6, 7, 2], [1, 8, 2], [1, 9, 10, 2]]
    data = PaddingCollator(2)(Encoded.of(texts))
    module = LanguageModelLoss(generator.model)
    expected, loss = generator.mean_nll(texts), module(**data)["loss"]
    monkeypatch.setattr(attention_mask, "_on_gpu", lambda tensor: True)
    np.testing.assert_allclose(generator.mean_nll(texts), expected, rtol=1e-5)
    with spied() as calls:
        found = module(**data)["loss"]
    assert not calls
    torch.testing.assert_close(found, loss)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_teacher_with_weights_in_16_bits_reads_the_mask_of_a_gpu(
    precision: torch.dtype, layers: bool, as_on_gpu: None
) -> None:
    torch.manual_seed(0)
    model = factories.bert(layers=2, vocabulary=50, initializer_range=0.02).eval()
    inputs = {name: batch("regression")[name] for name in ("input_ids", "attention_mask")}
    masks: list[torch.dtype] = []

    def note_mask(_: Any, __: Any, named: dict[str, Any]) -> None:
        masks.append(named["attention_mask"].dtype)

    model.register_forward_pre_hook(note_mask, with_kwargs=True)
    with torch.no_grad():
        expected = read_signals(model, inputs, layers=layers).logits
        found = read_signals(model.to(precision), inputs, layers=layers).logits
    assert masks == [torch.float32, precision]
    torch.testing.assert_close(found.float(), expected, atol=0.01, rtol=0.01)


def test_labelling_waits_once_for_all_batches(as_on_gpu: None) -> None:
    model = factories.bert(layers=1, vocabulary=50).eval()
    data = Encoded.of([[5, 6, 7]] * 40)
    with spied() as calls:
        predict_logits(model, data, PaddingCollator(0), batch_tokens=12)
    assert calls["cpu"] == 1 and calls["numpy"] <= 1
    assert set(calls) <= {"cpu", "numpy"}


def test_training_waits_once_for_each_line_of_the_log(tmp_path: Path, as_on_gpu: None) -> None:
    """Trainer's own looks at the gradient's norm and the loss happen then, too."""
    counted: list[int] = []

    class Counted(LabelLossModule):
        def forward(self, *inputs: Any, **named: Any) -> dict[str, torch.Tensor]:
            counted.append(sum(spy.calls.values()))
            return super().forward(*inputs, **named)

    data = Encoded.of([[5, 6, 7]] * 80)
    data.columns["labels"] = np.arange(80) % 2
    plan = Training(
        fit=FitConfig(epochs=1, batch_size=4, checks=1, precision="fp32"),
        seed=0,
        data=data,
        pad=PaddingCollator(0),
        predict=lambda model: np.zeros((1, 2), np.float32),
        score=lambda logits: 0.0,
        title="counted",
    )
    with Spy() as spy:
        train(Counted(factories.bert(layers=1, vocabulary=50)), plan, tmp_path)
    steps = np.diff(counted)
    # 20 steps, a line of the log every 2: half of the steps end without a look.
    assert len(steps) == 19 and (steps == 0).sum() >= 9


@pytest.mark.parametrize("interval", [1, 4, 64])
@pytest.mark.parametrize("lengths", [[1] * 6, [1, 5, 2, 1, 3, 4]])
def test_generated_texts_end_alike_however_rarely_the_cpu_looks(
    lengths: list[int], interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "draw_until_inside", sampling.draw_from_sorted)
    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    generator = Generator(GPT2LMHeadModel(config).eval(), factories.tokenizer(), 1, 2)
    prompts = [[generator.start, *range(5, 4 + length)] for length in lengths]
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "max_length": 14,
        "top_p": 0.9,
        "temperature": 1.0,
        "precision": None,
        "interval": interval,
    }
    with spied() as calls:
        texts = sample(generator, prompts, **settings)
    assert set(calls) == {"tolist"} and calls["tolist"] <= -(-13 // interval)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text[: len(prompt)] == prompt and len(text) <= 14
        assert generator.end not in text[1:-1]
        assert len(text) == 14 or text[-1] == generator.end


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("bert", torch.bfloat16),
        ("bert", torch.float16),
        ("bilstm", torch.bfloat16),
        ("bilstm", torch.float16),
    ],
)
def test_sixteen_bits_change_logits_little(kind: str, precision: torch.dtype) -> None:
    """The paths of a GPU in 16 bits, on a CPU; a BiLSTM is packed, and in fp16 its LSTM is fp32."""
    torch.manual_seed(0)
    model: Any = factories.bert(layers=2, vocabulary=50, initializer_range=0.02)
    if kind == "bilstm":
        config = BiLstmModelConfig(vocab_size=50, embedding_dim=16, hidden_size=8, head_size=8)
        model = BiLstmForSequenceClassification(config)
    chance = np.random.default_rng(0)
    lengths = chance.integers(1, 20, 30)
    data = Encoded.of([chance.integers(1, 50, length).tolist() for length in lengths])
    exact = predict_logits(model, data, PaddingCollator(0))
    rounded = predict_logits(model, data, PaddingCollator(0), precision=precision)
    assert 0 < np.abs(rounded - exact).max() < 0.02 * np.ptp(exact) + 0.005
