"""The device of this process, and the precision that it computes in.

The environment variable `KDEDGE_DEVICE` (`--device` on the command line) chooses it: `auto`, `cpu`
or `cuda`. Child processes inherit the choice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kdedge.errors import MachineError, UsageError
from kdedge.run.processes import DEVICE_VARIABLE, local_rank, processes

FIXED_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

DEVICES = ("auto", "cpu", "cuda")


def native_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type for a recipe's precision; None is fp32.

    "auto" chooses bf16 only if the device computes in it: a CPU that emulates it is ten times
    slower.
    """
    if precision in FIXED_PRECISIONS:
        return FIXED_PRECISIONS[precision]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def this_device() -> torch.device:
    """Return the device of this process: a GPU if one can be used, else the CPU.

    Every process of a launch has a GPU of its own, by its local rank.

    Raises:
        MachineError: If `cuda` was chosen and cannot be used, or there are fewer GPUs than
            processes.
        UsageError: If the choice is not one of `DEVICES`.
    """
    choice = os.environ.get(DEVICE_VARIABLE) or "auto"
    if choice not in DEVICES:
        raise UsageError("this device cannot be chosen", choice, f"one of {', '.join(DEVICES)}")
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise MachineError("CUDA cannot be used", _why_no_cuda(), "use --device cpu or auto")
    index = local_rank() if processes() > 1 else 0
    if index >= torch.cuda.device_count():
        raise MachineError(
            "more processes were launched than this machine has GPUs",
            f"process {index} of this machine, {torch.cuda.device_count()} GPUs",
            "launch as many processes as there are GPUs",
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def describe_device() -> str:
    """Describe in one line what this process computes on, and which GPUs it leaves idle."""
    device = this_device()
    precision = native_precision("auto", device)
    name = "fp32" if precision is None else str(precision).removeprefix("torch.")
    if device.type == "cpu":
        line = f"CPU, {torch.get_num_threads()} threads, {name}"
        if torch.version.cuda is not None and not torch.cuda.is_available():
            line += f"; no GPU: {_why_no_cuda()}"
        return line
    line = f"{torch.cuda.get_device_name(device)}, {name}"
    visible = torch.cuda.device_count()
    if processes() == 1 and visible > 1:
        line += f"; 1 of {visible} GPUs: `accelerate launch -m kdedge ...` uses all"
    return line


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for earlier work of the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Let a GPU compute fp32 in fp32.

    By default cuDNN rounds the inputs of an LSTM to TF32, whose mantissa has 10 bits; after a
    training with `torch.compile` matrix products do so, too.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work; on a CPU, return at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built for CPUs"
    return f"torch is built for CUDA {torch.version.cuda}, but finds no driver or no GPU"
