"""Choose an ONNX file, open a session on one execution provider, and check its nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import onnxruntime

from kdedge.errors import IntegrityError, MachineError, UsageError
from kdedge.runtime.manifest import Manifest
from kdedge.runtime.onnx_check import check_graph

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Short name -> ONNX Runtime's name of an execution provider."""

CPU_ORDER = ("int8", "portable", "fp32", "fp16")
NVIDIA_ORDER = ("fp16", "fp32", "portable", "int8")
OTHER_ORDER = ("fp32", "fp16", "portable", "int8")
"""Order in which `auto` prefers files: int8 has fast kernels on CPUs only, fp16 has none there."""

NVIDIA = (PROVIDERS["cuda"], PROVIDERS["tensorrt"])

SHAPE_OPERATORS = frozenset(
    "Cast Concat ConstantOfShape Equal Expand Gather Range Reshape Shape Slice Squeeze Sub "
    "Unsqueeze Where".split()
)
"""Operators that compute shapes and masks; a GPU provider may leave them to the CPU."""

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Graph optimizations of ONNX Runtime that make small encoders slower on CPUs."""

TRY_CPU = "free memory of the device, or try the CPU: if that fails too, export again"


def choose_precision(manifest: Manifest, precision: str, provider: str) -> str:
    """Return the precision to use; `auto` is the one that is fastest on the provider."""
    if precision == "auto":
        return next(name for name in _order(provider) if name in manifest.precisions)
    if precision not in manifest.precisions:
        raise UsageError(
            "the bundle has no such precision",
            precision,
            f"one of auto, {', '.join(sorted(manifest.precisions))}",
        )
    return precision


def _order(provider: str) -> tuple[str, ...]:
    if provider == PROVIDERS["cpu"]:
        return CPU_ORDER
    return NVIDIA_ORDER if provider in NVIDIA else OTHER_ORDER


def open_session(
    graph: bytes, manifest: Manifest, provider: str, threads: int | None, fallback: bool
) -> onnxruntime.InferenceSession:
    """Open a bundle's graph on one execution provider.

    Args:
        graph: The content of an ONNX file of the bundle.
        provider: ONNX Runtime's name of an execution provider.
        threads: Threads for one prediction. None or 0: all cores.
        fallback: Whether nodes that the provider cannot run may run on the CPU.

    Raises:
        UsageError: If `threads` is no such number.
        IntegrityError: If the graph is not one that kdedge writes for this manifest.
        MachineError: If the provider is not available or cannot run every node.
    """
    _check_threads(threads)
    check_graph(graph)
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise MachineError(
            f"the execution provider {provider} is not in this onnxruntime",
            f"available: {', '.join(available)}",
            _install_hint(provider),
        )
    prepare_libraries(provider)
    try:
        session = onnxruntime.InferenceSession(
            graph,
            session_options(threads),
            providers=[(provider, provider_options(provider))],
            disabled_optimizers=SLOW_FUSIONS if provider == PROVIDERS["cpu"] else [],
        )
    except Exception as error:  # onnxruntime's exceptions have no public base class
        if provider != PROVIDERS["cpu"]:
            raise MachineError(
                f"{provider} cannot load the graph", str(error)[:300], TRY_CPU
            ) from error
        raise IntegrityError(
            "ONNX Runtime cannot load the graph",
            str(error)[:300],
            "use a newer onnxruntime, or export again",
        ) from error
    used = session.get_providers()
    if not used or used[0] != provider:
        raise MachineError(
            f"{provider} was requested but is not used",
            f"the session runs on {', '.join(used)}",
            "check the driver and libraries that the provider needs",
        )
    if provider != PROVIDERS["cpu"] and not fallback:
        _check_no_fallback(session, provider)
    _check_inputs_and_outputs(session, manifest)
    return session


def prepare_libraries(provider: str) -> None:
    """Load CUDA and cuDNN from their pip packages, where the system's linker does not look."""
    load = getattr(onnxruntime, "preload_dlls", None)
    if provider in NVIDIA and load is not None:
        # It prints what it does not find, and stdout is for results.
        with redirect_stdout(sys.stderr):
            load()


def provider_options(provider: str) -> dict[str, str]:
    """Return the options of a provider.

    CUDA would round the inputs of matrix products to TF32, whose 10 bits are too few for the
    tolerance of `kdedge verify`.
    """
    return {"use_tf32": "0"} if provider == PROVIDERS["cuda"] else {}


def _install_hint(provider: str) -> str:
    if provider not in NVIDIA:
        return "install the onnxruntime build that has it, or use cpu"
    return (
        "use cpu; or make a second environment, since onnxruntime-gpu conflicts with "
        "onnxruntime: install kdedge-toolkit there, replace onnxruntime by onnxruntime-gpu, and "
        "run the command on the bundle"
    )


def _check_no_fallback(session: onnxruntime.InferenceSession, provider: str) -> None:
    """Raise MachineError if nodes that compute run on the CPU instead of the provider.

    The option session.disable_cpu_ep_fallback is stricter: it also refuses the nodes that compute
    shapes, which GPU providers leave to the CPU on purpose.
    """
    on_cpu: set[str] = set()
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name == PROVIDERS["cpu"]:
            on_cpu |= {node.op_type for node in part.get_nodes()}
    computing = on_cpu - SHAPE_OPERATORS
    if computing:
        raise _falls_back(provider, sorted(computing))


class NotAllNodesError(MachineError):
    """A provider cannot run every node of a graph."""


def _falls_back(provider: str, operators: Sequence[str]) -> NotAllNodesError:
    return NotAllNodesError(
        f"{provider} cannot run every node of this graph; the others would run on the CPU",
        f"on the CPU: {', '.join(operators)}",
        "use --provider cpu; or check the provider's driver; or allow it with "
        "--allow-cpu-fallback or Classifier.load(fallback=True)",
    )


def _check_threads(threads: Any) -> None:
    if threads is not None and not (isinstance(threads, int) and threads >= 0):
        raise UsageError("threads must be a whole number from 1", repr(threads), "leave it out")


def session_options(threads: int | None) -> onnxruntime.SessionOptions:
    """Return the options of a session; `threads` None: one thread for each core."""
    options = onnxruntime.SessionOptions()
    # Exceptions repeat the log, which would write names from the graph to the terminal.
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # A graph cannot load weights from other files: no file lies below the null device.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def _check_inputs_and_outputs(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Raise IntegrityError if inputs or outputs of the graph differ from the manifest."""
    inputs = [(item.name, item.type) for item in session.get_inputs()]
    expected_inputs = [(name, "tensor(int64)") for name in manifest.inputs]
    outputs = [_output(item) for item in session.get_outputs()]
    expected_outputs = [("logits", "tensor(float)", 2, manifest.spec.outputs)]
    if sorted(inputs) != sorted(expected_inputs) or outputs != expected_outputs:
        raise IntegrityError(
            "the graph does not match the manifest",
            f"inputs {inputs}, outputs {outputs}"[:300],
            "export again",
        )


def _output(item: Any) -> tuple[str, str, int, Any]:
    """Return name, type, number of axes and last axis of an output; a scalar has no axis."""
    shape = item.shape
    if not isinstance(shape, list):  # A sequence has no shape.
        return item.name, item.type, -1, None
    return item.name, item.type, len(shape), shape[-1] if shape else None
