"""Which device a process uses, also with GPUs that this machine only pretends to have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest
import torch
from torch import nn

from kdedge.errors import MachineError, UsageError
from kdedge.nn import device as devices
from kdedge.nn import label_loss, training_plan
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import describe_device, this_device
from kdedge.nn.inference import predict_logits
from kdedge.nn.label_loss import LabelLossModule, validation_predictor
from kdedge.nn.training import train
from kdedge.nn.training_plan import OneDeviceArguments, Training
from kdedge.recipe import FitConfig
from kdedge.run.processes import DEVICE_VARIABLE
from kdedge.teacher.finetune import weights_type

FakeGpus = Callable[[int], list[int]]


@pytest.fixture
def fake_gpus(monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Pretend that there are some GPUs; return the list of those that are chosen."""

    def pretend(count: int) -> list[int]:
        chosen: list[int] = []
        cuda = SimpleNamespace(
            is_available=lambda: count > 0,
            device_count=lambda: count,
            set_device=chosen.append,
            get_device_name=lambda device: f"fake GPU {device.index}",
            is_bf16_supported=lambda including_emulation: True,
        )
        monkeypatch.setattr(devices.torch, "cuda", cuda)
        return chosen

    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    return pretend


def test_a_process_alone_takes_the_first_of_two_gpus_and_says_so(fake_gpus: FakeGpus) -> None:
    chosen = fake_gpus(2)
    assert this_device() == torch.device("cuda", 0) and chosen == [0]
    assert describe_device() == (
        "fake GPU 0, bfloat16; 1 of 2 GPUs: `accelerate launch -m kdedge ...` uses all"
    )


def test_each_process_of_a_launch_has_a_gpu_of_its_own(
    fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before torch.distributed knows of the launch: a resumed run loads its teacher first."""
    chosen = fake_gpus(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert this_device() == torch.device("cuda", 1) and chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MachineError, match="than this machine has GPUs"):
        this_device()


def test_cuda_that_is_not_there_is_an_error_and_auto_is_not(
    fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(0)
    assert this_device().type == "cpu"
    monkeypatch.setenv(DEVICE_VARIABLE, "cuda")
    with pytest.raises(MachineError, match="CUDA cannot be used"):
        this_device()
    monkeypatch.setenv(DEVICE_VARIABLE, "gpu")
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        this_device()


def test_a_cpu_can_be_chosen_where_a_gpu_is(
    fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = fake_gpus(1)
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    assert this_device().type == "cpu" and not chosen


def test_a_torch_that_finds_no_gpu_says_so(
    fake_gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpus(0)
    monkeypatch.setattr(devices.torch.version, "cuda", "13.0")
    assert "no GPU: torch is built for CUDA 13.0, but finds no driver" in describe_device()
    monkeypatch.setattr(devices.torch.version, "cuda", None)
    assert "no GPU" not in describe_device()


def test_a_model_is_never_spread_over_the_visible_gpus(tmp_path: object) -> None:
    """transformers does so if it counts several; then the loss of a batch is a vector."""
    arguments = OneDeviceArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert arguments.n_gpu == 0
    arguments._n_gpu = 2
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == arguments.per_device_train_batch_size


def test_a_teacher_keeps_its_own_number_format_on_a_gpu_alone() -> None:
    assert weights_type(torch.device("cuda", 0)) == "auto"
    assert weights_type(torch.device("cpu")) is torch.float32


def test_a_tensor_is_pinned_only_on_its_way_to_a_gpu() -> None:
    tensor = nn.Parameter(torch.zeros(2))
    assert devices.to_device(tensor, torch.device("cpu")) is tensor


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_a_model_on_the_cpu_of_a_machine_with_a_gpu_is_measured_in_fp32(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kdedge export` computes some logits there while its training uses the GPU."""
    model = factories.bert(vocabulary=50).eval()
    data = Encoded.of([[1, 2, 3], [4, 5]])
    expected = predict_logits(model, data, PaddingCollator(0))
    monkeypatch.setattr(training_plan, "this_device", lambda: torch.device("cuda", 0))
    predict = validation_predictor(data, PaddingCollator(0), precision)
    assert np.array_equal(predict(LabelLossModule(model)), expected)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", None), ("fp16", torch.float16)])
def test_a_model_on_a_gpu_is_measured_in_the_precision_of_its_training(
    precision: str, expected: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.dtype | None] = []
    monkeypatch.setattr(label_loss, "predict_logits", lambda *_, precision: found.append(precision))
    module: Any = SimpleNamespace(model=SimpleNamespace(device=torch.device("cuda", 0)))
    validation_predictor(Encoded.of([[1]]), PaddingCollator(0), precision)(module)
    assert found == [expected]


def test_fp32_is_not_rounded_to_tf32_and_the_setting_returns() -> None:
    before = torch.backends.cudnn.rnn.fp32_precision
    inside: list[str] = []

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
            inside.append(torch.backends.cudnn.rnn.fp32_precision)
            inside.append(torch.backends.cuda.matmul.fp32_precision)
            return {"logits": torch.zeros(len(input_ids), 1)}

    predict_logits(Noting(), Encoded.of([[1, 2]]), PaddingCollator(0))
    assert inside == ["ieee", "ieee"]
    assert torch.backends.cudnn.rnn.fp32_precision == before


def test_a_training_in_fp16_on_a_cpu_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    data = Encoded.of([[5, 6, 7]] * 4)
    data.columns["labels"] = np.arange(4) % 2
    plan = Training(
        fit=FitConfig(precision="fp16"),
        seed=0,
        data=data,
        pad=PaddingCollator(0),
        predict=lambda model: np.zeros((1, 2), np.float32),
        score=lambda logits: 0.0,
        title="teacher",
    )
    with pytest.raises(UsageError, match="a CPU cannot train in fp16"):
        train(LabelLossModule(factories.bert(vocabulary=50)), plan, tmp_path)
