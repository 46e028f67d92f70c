"""The steps of the study `gpu.py`: each measures one thing and returns JSON values.

Models have real shapes and random weights, because neither time nor synchronisation depends on
them. `--tiny` replaces the shapes by very small ones.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.benchmarks import machine
from kdedge.benchmarks.studies._speed_files import BertShape, BiLstmShape
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from kdedge.augment.generator import Generator
from kdedge.augment.sampling import sample
from kdedge.distillation.layer_cache import TeacherLayers
from kdedge.distillation.layer_choice import measure_layer_costs
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.nn.batch_tokens import measure_batch_tokens
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import describe_device, native_precision, this_device, to_device, wait_for
from kdedge.nn.inference import predict_logits
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.recipe import ObjectiveConfig
from kdedge.students.bilstm import BiLstmForSequenceClassification
from kdedge.students.lstm_states import padded_final_states
from kdedge.students.wordpiece import train_wordpiece

VOCABULARY = 30522
PAD = PaddingCollator(0)


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        texts: Texts that are labelled.
        steps: Training steps that are timed, after `warmup` others.
        batches: Batch sizes of the TinyBERT.
        budgets: Tokens per batch of the labelling teacher.
    """

    teacher: BertShape = field(default_factory=lambda: BertShape(12, 768, 12, 3072))
    student: BertShape = field(default_factory=BertShape)
    bilstm: BiLstmShape = field(default_factory=BiLstmShape)
    vocabulary: int = VOCABULARY
    texts: int = 16384
    steps: int = 50
    warmup: int = 5
    batches: tuple[int, ...] = (32, 128, 1024)
    budgets: tuple[int, ...] = (4096, 16384, 65536, 262144)
    generated: int = 256
    tokens: int = 48


TINY = Sizes(
    teacher=BertShape(2, 32, 2, 64),
    student=BertShape(1, 16, 2, 32),
    bilstm=BiLstmShape(16, 8, 8),
    vocabulary=500,
    texts=64,
    steps=2,
    warmup=1,
    batches=(4, 8),
    budgets=(64, 256),
    generated=4,
    tokens=8,
)


def random_texts(sizes: Sizes, count: int) -> Encoded:
    """Return token ids of `count` texts of 5 to 40 tokens."""
    chance = np.random.default_rng(0)
    lengths = chance.integers(5, 41, count)
    return Encoded.of([chance.integers(1, sizes.vocabulary, n).tolist() for n in lengths])


def environment(sizes: Sizes) -> dict[str, Any]:
    """Describe machine, packages and device."""
    return {"device": describe_device(), "machine": machine.describe(threads=1)}


def checks(sizes: Sizes) -> dict[str, Any]:
    """Compare device and CPU: a BERT's logits, and a BiLSTM's states without packing."""
    device = this_device()
    data = random_texts(sizes, 256)
    teacher = sizes.teacher.model(sizes.vocabulary)
    expected = predict_logits(teacher, data, PAD)
    found = predict_logits(teacher.to(device), data, PAD)
    short = predict_logits(teacher, data, PAD, precision=native_precision("auto", device))
    student: Any = sizes.bilstm.model(sizes.vocabulary).eval()
    packed = predict_logits(student, data, PAD)
    lengths = torch.from_numpy(data.lengths).to(device)
    batch = {name: value.to(device) for name, value in PAD(data).items()}
    assert isinstance(student, BiLstmForSequenceClassification)
    with torch.inference_mode():
        student.to(device)
        states = padded_final_states(student.lstm, student.embedding(batch["input_ids"]), lengths)
        padded = student.classifier(torch.relu(student.dense(states))).cpu().numpy()
    return {
        "largest difference of a logit, fp32": float(np.abs(found - expected).max()),
        "same labels in the device's own precision": _agreement(short, expected),
        "largest difference of a BiLSTM's logit without packing": float(
            np.abs(padded - packed).max()
        ),
    }


def _agreement(logits: np.ndarray, expected: np.ndarray) -> float:
    return float((logits.argmax(1) == expected.argmax(1)).mean())


def labelling(sizes: Sizes) -> dict[str, Any]:
    """Measure the teacher's rate by tokens per batch, and what kdedge chooses."""
    device = this_device()
    teacher = sizes.teacher.model(sizes.vocabulary).to(device)
    precision = native_precision("auto", device)
    data = random_texts(sizes, sizes.texts)
    rates = {}
    for budget in sizes.budgets:
        predict_logits(teacher, data, PAD, batch_tokens=budget, precision=precision)
        start = time.perf_counter()
        predict_logits(teacher, data, PAD, batch_tokens=budget, precision=precision)
        rates[str(budget)] = len(data) / (time.perf_counter() - start)
    tokens = float(data.lengths.sum()) / len(data)
    tokenized = tokenization_rate(sizes)
    weights = sizes.teacher.encoder_weights
    return {
        "texts per second by tokens per batch": rates,
        "chosen": measure_batch_tokens(teacher, data, PAD, precision),
        "tokens per text": tokens,
        "texts tokenized per second": tokenized,
        "share of tokenization if both took turns": 1 / (1 + tokenized / max(rates.values())),
        "TFLOP/s at best": 2e-12 * weights * tokens * max(rates.values()),
        "TFLOP/s of a large matrix product": matmul_rate(device, precision),
    }


def tokenization_rate(sizes: Sizes) -> float:
    """Return the texts of 5 to 40 words that are tokenized per second."""
    chance = np.random.default_rng(0)
    words = ["".join(map(chr, chance.integers(97, 123, chance.integers(2, 9)))) for _ in range(500)]
    texts = [" ".join(chance.choice(words, chance.integers(5, 41))) for _ in range(sizes.texts)]
    tokenizer = train_wordpiece(texts[:200], 2000)
    encode(tokenizer, texts[:200], None, 64)
    start = time.perf_counter()
    encode(tokenizer, texts, None, 64)
    return len(texts) / (time.perf_counter() - start)


def matmul_rate(device: torch.device, precision: torch.dtype | None) -> float:
    """Return the TFLOP/s of a product of two square matrices, the device's practical bound."""
    side = 256 if device.type == "cpu" else 8192
    matrix = torch.randn(side, side, device=device, dtype=precision or torch.float32)
    seconds = timed(lambda: matrix @ matrix, device, steps=10)
    return 2e-12 * side**3 / seconds


def timed(step: Callable[[], object], device: torch.device, steps: int, warmup: int = 2) -> float:
    """Return the seconds of one step."""
    for _ in range(warmup):
        step()
    wait_for(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait_for(device)
    return (time.perf_counter() - start) / steps


def train_step(
    module: torch.nn.Module, batches: list[dict[str, Any]], device: torch.device
) -> Callable[[], None]:
    """Return a function that trains on the next batch, as kdedge does, without a log."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    precision = native_precision("auto", device)
    number = 0

    def step() -> None:
        nonlocal number
        batch = batches[number % len(batches)]
        number += 1
        moved = {}
        for name, value in batch.items():
            on_device = isinstance(value, torch.Tensor)
            moved[name] = to_device(value, device) if on_device else value
        with torch.autocast(device.type, precision, enabled=precision is not None):
            loss = module(**moved)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _batches(sizes: Sizes, batch_size: int, *, with_logits: bool = False) -> list[dict[str, Any]]:
    """Return 4 batches with labels, and with teacher logits if they are wanted."""
    data = random_texts(sizes, 4 * batch_size)
    data.columns["labels"] = np.arange(len(data)) % 2
    if with_logits:
        data.columns["teacher_logits"] = np.zeros((len(data), 2), np.float16)
    return [PAD(data.take(range(i, i + batch_size))) for i in range(0, len(data), batch_size)]


def _training(
    sizes: Sizes, module: torch.nn.Module, batches: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the texts per second of a training, and whether a step waits for the device."""
    device = this_device()
    module.to(device).train()
    step = train_step(module, batches, device)
    seconds = timed(step, device, sizes.steps, sizes.warmup)
    return {
        "texts per second": len(batches[0]["input_ids"]) / seconds,
        "ms per step": 1e3 * seconds,
        "waits for the device": waits(step, device),
    }


def waits(step: Callable[[], object], device: torch.device) -> str:
    """Return the first place at which a step waits for the GPU, or 'no'."""
    if device.type != "cuda":
        return "not a GPU"
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"


def teacher_training(sizes: Sizes) -> dict[str, Any]:
    """Fine-tune a teacher of the shape of BERT-base."""
    module = LabelLossModule(sizes.teacher.model(sizes.vocabulary))
    return _training(sizes, module, _batches(sizes, sizes.batches[0]))


def _distillation(student: PreTrainedModel, **objective: Any) -> DistillationModule:
    config = ObjectiveConfig(logits="mse", **objective)
    return DistillationModule(
        student, Objective(config, "classification", student.config, None), None
    )


def tinybert_training(sizes: Sizes) -> dict[str, Any]:
    """Distil a TinyBERT on logits, by batch size."""
    results = {}
    for batch_size in sizes.batches:
        module = _distillation(sizes.student.model(sizes.vocabulary), labels_weight=0.5)
        batches = _batches(sizes, batch_size, with_logits=True)
        results[str(batch_size)] = _training(sizes, module, batches)
    return results


def bilstm_training(sizes: Sizes) -> dict[str, Any]:
    """Distil a BiLSTM on logits."""
    module = _distillation(sizes.bilstm.model(sizes.vocabulary), labels_weight=0.5)
    return _training(sizes, module, _batches(sizes, sizes.batches[0], with_logits=True))


def layers(sizes: Sizes) -> dict[str, Any]:
    """Compare cached and live layers of the teacher."""
    teacher = sizes.teacher.model(sizes.vocabulary).to(this_device())
    student = sizes.student.model(sizes.vocabulary)
    config = ObjectiveConfig(logits="mse", hidden="mse", hidden_weight=1.0)
    reads = Objective(config, "classification", student.config, teacher.config).reads
    data = random_texts(sizes, 8 * sizes.batches[-1])
    classifier = TextClassifier(teacher, _TokenizerOfIds(), 64)  # type: ignore[arg-type]
    source = TeacherLayers(classifier, "random", data, reads)
    with tempfile.TemporaryDirectory() as folder:
        precision = native_precision("auto", this_device())
        costs = measure_layer_costs(source, Path(folder), sizes.batches[-1], precision)
    return {
        "microseconds per text, live": 1e6 * costs.live,
        "microseconds per text, write": 1e6 * costs.write,
        "microseconds per text, read": 1e6 * costs.read,
        "live is faster in 3 epochs": costs.live_is_faster(3),
    }


class _TokenizerOfIds:
    """Stands in for a tokenizer where texts are token ids already."""

    pad_token_id = 0


def generation(sizes: Sizes) -> dict[str, Any]:
    """Sample texts with kdedge, also from prompts of 2 to 20 tokens, and with transformers."""
    device = this_device()
    width = sizes.student.hidden // sizes.student.heads * sizes.student.heads
    config = GPT2Config(
        vocab_size=sizes.vocabulary,
        n_positions=2 * sizes.tokens,
        n_embd=width,
        n_layer=sizes.student.layers,
        n_head=sizes.student.heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval().to(device)
    generator = Generator(model, None, 0, 0)  # type: ignore[arg-type]
    prompts = [[0]] * sizes.generated
    chance = np.random.default_rng(0)
    lengths = chance.integers(2, min(21, sizes.tokens), sizes.generated)
    mixed = [[0] * length for length in lengths]
    precision = native_precision("auto", device)

    def ours(prompts: list[list[int]]) -> None:
        sample(
            generator,
            prompts,
            max_length=sizes.tokens,
            top_p=0.95,
            temperature=1.0,
            precision=precision,
        )

    def theirs() -> None:
        with torch.autocast(device.type, precision, enabled=precision is not None):
            model.generate(
                torch.tensor(prompts, device=device),
                attention_mask=torch.ones(len(prompts), 1, dtype=torch.long, device=device),
                do_sample=True,
                top_p=0.95,
                top_k=0,
                max_length=sizes.tokens,
                pad_token_id=0,
            )

    def rate(step: Callable[[], None]) -> float:
        return sizes.generated / timed(step, device, 3, 1)

    return {
        "kdedge, texts per second": rate(lambda: ours(prompts)),
        "kdedge, texts per second from prompts of many lengths": rate(lambda: ours(mixed)),
        "transformers, texts per second": rate(theirs),
    }


STEPS: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    "environment": environment,
    "checks": checks,
    "labelling": labelling,
    "teacher training": teacher_training,
    "TinyBERT training": tinybert_training,
    "BiLSTM training": bilstm_training,
    "layers": layers,
    "generation": generation,
}
