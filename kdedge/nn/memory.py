"""Recognise that memory ran out, on a GPU and on a CPU, and return memory."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

TEXTS = (
    "out of memory",
    "not enough memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # oneDNN, which computes linear layers on a CPU, does not give the reason.
    "could not create a primitive",
    "could not create a memory",
)
"""Parts of torch's RuntimeErrors for full memory: a CPU has no error class of its own for it."""

NOT_SUPPORTED = "could not create a primitive descriptor"
"""oneDNN's message if the CPU lacks an operation, such as an LSTM in bf16."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError) or NOT_SUPPORTED in str(error):
        return False
    return any(text in str(error) for text in TEXTS)


def release_memory() -> None:
    """Return unused memory to the device and to the operating system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        # Only glibc has this function, and only glibc keeps so much: gigabytes after a training.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
