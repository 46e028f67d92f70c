"""Micro-batches add up to the gradient of the batch, and memory that runs out halves them."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
import torch
from torch import nn

from kdedge.augment.generator_stage import LanguageModelLoss
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.errors import MachineError
from kdedge.nn.batch_size import SIZE_FILE
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.memory import is_out_of_memory
from kdedge.nn.micro_batches import micro_batches
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig, ObjectiveConfig
from kdedge.run.progress import Silent

# Half of what a whole batch of memory_program.py needs.
LIMIT_MB = 450
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc of Linux"
)
LENGTHS = (9, 7, 7, 5, 3)
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def batch(**columns: torch.Tensor) -> dict[str, torch.Tensor]:
    """Five texts of different lengths, padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 30, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, **columns}


def gradients(module: nn.Module, calls: Any) -> dict[str, torch.Tensor]:
    """Add up the gradients of calls of a module in double precision; losses are in fp32."""
    module = copy.deepcopy(module).double().train()
    for arguments in calls:
        module(**arguments)["loss"].backward()
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad
    return found


def assert_micro_batches_add_up(
    module: nn.Module, whole: dict[str, torch.Tensor], size: int
) -> None:
    parts = [
        {**part, "micro_batch": micro_batch} for part, micro_batch in micro_batches(whole, size)
    ]
    assert len(parts) == -(-len(LENGTHS) // size)
    expected = gradients(module, [whole])
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 1e-4
    added = gradients(module, parts)
    assert added.keys() == expected.keys()
    for name, value in expected.items():
        assert float((added[name] - value).abs().max()) < 1e-5 * largest, name


LABELS = {
    "classification": torch.tensor([1, -1, 0, -1, 1]),
    "multilabel": torch.tensor([[1.0, 0], [0, 0], [np.nan, np.nan], [1, 1], [0, 1]]),
    "regression": torch.tensor([1.5, np.nan, 0.0, 2.0, np.nan]),
}
LAYERS = {"hidden_weight": 0.7, "attention_weight": 0.5, "embedding_weight": 0.3}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("classification", {"labels_weight": 0.5}),
        ("classification", {"labels_weight": 0.5, "logits": "kl", "temperature": 2.0}),
        ("classification", {"logits": "cosine", **LAYERS}),
        ("classification", {"hidden": "pkd", "attention": "probabilities", **LAYERS}),
        ("classification", {"hidden": "cosine", "attention": "kl", **LAYERS}),
        ("classification", {"attention": "minilm", **LAYERS}),
        ("multilabel", {"labels_weight": 1.0, "logits": "soft_ce"}),
        ("multilabel", {"labels_weight": 1.0, "logits": "kl"}),
        ("regression", {"labels_weight": 1.0, "logits": "mse"}),
    ],
)
def test_the_micro_batches_of_an_objective_add_up(
    kind: Any, objective: dict[str, Any], size: int
) -> None:
    torch.manual_seed(0)
    outputs = 1 if kind == "regression" else 2
    student = factories.bert(layers=1, outputs=outputs, **NO_DROPOUT)
    teacher = TextClassifier(factories.bert(layers=2, outputs=outputs).double(), None, 32)  # type: ignore[arg-type]
    config = ObjectiveConfig(**objective)
    module = DistillationModule(
        student,
        Objective(config, kind, student.config, teacher.model.config),
        teacher if config.reads_layers else None,
    )
    columns = {"labels": LABELS[kind], "teacher_logits": torch.randn(5, outputs).double()}
    assert_micro_batches_add_up(module, batch(**columns), size)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_micro_batches_of_a_label_loss_and_of_a_language_model_add_up(size: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    classifier = LabelLossModule(factories.bert(layers=1, **NO_DROPOUT))
    assert_micro_batches_add_up(classifier, batch(labels=torch.tensor([0, 1, 1, 0, 1])), size)
    sizes = {"vocab_size": 30, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    assert_micro_batches_add_up(LanguageModelLoss(GPT2LMHeadModel(config)), batch(), size)


@pytest.mark.parametrize("kind", ["tinybert", "bilstm"])
def test_the_micro_batches_of_quantization_aware_tuning_add_up(kind: str) -> None:
    from kdedge.export.qat_training import QatModule

    from kdedge.nn.losses import logit_mse
    from kdedge.recipe import QuantizeConfig

    task = factories.single_task()
    student = factories.random_student(kind, task.spec, seed=3, lstm_std=None)
    reference = factories.random_student(kind, task.spec, seed=4, lstm_std=None).double()
    recipe = QuantizeConfig(float_weight=0.5, hidden_weight=0.5)
    whole = batch(teacher_logits=torch.randn(5, task.spec.outputs).double())
    assert_micro_batches_add_up(QatModule(student, reference, recipe, logit_mse), whole, 2)


# Training


def cuda_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def cpu_error() -> Exception:
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")


def windows_error() -> Exception:
    return RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")


class Small(nn.Module):
    """A linear classifier of token counts; memory runs out above a number of texts.

    Attributes:
        seen: The number of texts of each successful call.
        from_call: The first call at which memory may run out.
    """

    def __init__(self, limit: int, error: Callable[[], Exception], from_call: int = 0) -> None:
        super().__init__()
        # Adam divides by the size of the gradient, which would enlarge rounding in fp32.
        self.weight = nn.Parameter(torch.zeros(30, 2, dtype=torch.double))
        self.limit = limit
        self.error = error
        self.from_call = from_call
        self.calls = 0
        self.seen: list[int] = []

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        **rest: Any,
    ) -> dict[str, torch.Tensor]:
        self.calls += 1
        if len(labels) > self.limit and self.calls > self.from_call:
            # Half of the gradient is there when memory runs out.
            self.weight.grad = torch.ones_like(self.weight)
            raise self.error()
        self.seen.append(len(labels))
        counts = nn.functional.one_hot(input_ids, 30).double().sum(1)
        loss = nn.functional.cross_entropy(counts @ self.weight, labels)
        share = rest["micro_batch"].texts if "micro_batch" in rest else 1.0
        return {"loss": share * loss, "logits": counts @ self.weight}


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def plan(batch_size: int = 8, accumulation: int = 1) -> Training:
    chance = np.random.default_rng(0)
    ids = [chance.integers(5, 30, chance.integers(3, 9)).tolist() for _ in range(60)]
    data = Encoded.of(ids)
    data.columns["labels"] = chance.integers(0, 2, 60)
    fit = FitConfig(
        epochs=2,
        batch_size=batch_size,
        gradient_accumulation=accumulation,
        learning_rate=1e-2,
        checks=1,
    )
    return Training(
        fit=fit,
        seed=0,
        data=data,
        pad=PaddingCollator(0),
        predict=lambda model: np.zeros((60, 2), np.float32),
        score=lambda logits: 0.0,
        title="toy",
    )


@pytest.mark.parametrize("error", [cuda_error, cpu_error, windows_error, MemoryError])
@pytest.mark.parametrize(("accumulation", "from_call"), [(1, 0), (2, 0), (2, 3), (4, 6)])
def test_training_continues_with_halved_batches_and_learns_the_same(
    tmp_path: Path, error: Callable[[], Exception], accumulation: int, from_call: int
) -> None:
    whole, halved, lines = Small(99, error), Small(3, error, from_call), Lines()
    train(whole, plan(accumulation=accumulation), tmp_path / "whole")
    train(halved, plan(accumulation=accumulation), tmp_path / "halved", progress=lines)
    torch.testing.assert_close(halved.weight, whole.weight, rtol=1e-5, atol=1e-6)
    assert float(whole.weight.detach().abs().max()) > 0.01
    assert max(halved.seen[from_call + 1 :]) == 2 and max(whole.seen) == 8
    (line,) = [line for line in lines.lines if "memory" in line]
    assert "2 texts are computed at once" in line and "learns from 8" in line


def test_the_log_has_the_loss_of_whole_batches(tmp_path: Path) -> None:
    losses = {}
    for name, limit in (("whole", 99), ("halved", 3)):
        train(Small(limit, cuda_error), plan(), tmp_path / name)
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines]
        losses[name] = [line["part/loss"] for line in logged if "part/loss" in line]
    assert len(losses["whole"]) > 3
    assert losses["halved"] == pytest.approx(losses["whole"], rel=1e-4)


def test_a_resumed_training_begins_with_the_halved_size(tmp_path: Path) -> None:
    train(Small(3, cuda_error), plan(), tmp_path)
    assert json.loads((tmp_path / SIZE_FILE).read_text())["texts"] == 2
    again = Small(3, cuda_error)
    train(again, plan(), tmp_path)
    assert again.calls == len(again.seen), "memory ran out again"


@pytest.mark.parametrize("content", ["", "[]", '{"texts": "x"}', '{"texts": 0}'])
def test_a_damaged_file_of_the_size_does_not_stop_the_training(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / SIZE_FILE).write_text(content)
    train(Small(99, cuda_error), plan(), tmp_path)


def test_a_single_text_that_does_not_fit_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="memory ran out on a single text") as caught:
        train(Small(0, cuda_error), plan(), tmp_path)
    assert caught.value.exit_code == 4 and "max_length" in caught.value.hint


def test_several_processes_are_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge.nn.batch_size.processes", lambda: 2)
    with pytest.raises(MachineError, match=r"batch_size = 4.*gradient_accumulation"):
        train(Small(3, cuda_error), plan(), tmp_path)


def test_other_errors_are_not_taken_for_exhausted_memory(tmp_path: Path) -> None:
    unsupported = RuntimeError("could not create a primitive descriptor for the LSTM")
    for error in (RuntimeError("shapes do not match"), ValueError("out of memory"), unsupported):
        assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="shapes"):
        train(Small(3, lambda: RuntimeError("shapes do not match")), plan(), tmp_path)


PROGRAM = Path(__file__).with_name("memory_program.py")


def run_program(folder: Path, megabytes: int, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(megabytes)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@needs_proc
def test_a_process_whose_memory_is_limited_learns_the_same(tmp_path: Path) -> None:
    """The CPU's allocator fails for real here."""
    # glibc gives large blocks back at once if the threshold for them is fixed, and it reserves
    # address space for one arena alone.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    printed = {
        megabytes: run_program(tmp_path / str(megabytes), megabytes, **environment)
        for megabytes in (0, LIMIT_MB)
    }
    assert "memory ran out" in printed[LIMIT_MB] and "memory ran out" not in printed[0]
    weights = [float(text.split("weights ")[1]) for text in printed.values()]
    assert weights[0] == pytest.approx(weights[1], rel=1e-5)


@pytest.mark.slow
@needs_proc
def test_a_training_gives_its_memory_back(tmp_path: Path) -> None:
    printed = run_program(tmp_path, 0)
    (peak, kept) = map(int, re.findall(r"peak (\d+) MB, kept (\d+) MB", printed)[0])
    assert peak > 500 and kept < peak / 8
