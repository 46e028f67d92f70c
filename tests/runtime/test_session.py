"""Execution providers and precisions: what runs is what was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from kdedge.cli.main import cli
from kdedge.errors import IntegrityError, MachineError, UsageError
from kdedge.runtime import Bundle, Classifier, golden, session
from kdedge.runtime.golden import replay


@pytest.fixture
def bundle() -> Path:
    return factories.tiny_bundle("bilstm")


def test_auto_chooses_int8_on_the_cpu(bundle: Path) -> None:
    assert (
        Classifier.load(bundle).precision
        == Classifier.load(bundle, provider="CPU").precision
        == "int8"
    )
    assert Classifier.load(bundle, "fp32").provider == "CPUExecutionProvider"
    with pytest.raises(UsageError, match="no such precision"):
        Classifier.load(bundle, "int4")


@pytest.mark.parametrize("provider", ["cuda", "TensorrtExecutionProvider", "nonsense"])
def test_an_unavailable_provider_is_an_error(bundle: Path, provider: str) -> None:
    if provider == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    with pytest.raises(MachineError, match="is not in this onnxruntime"):
        Classifier.load(bundle, provider=provider)


@pytest.mark.parametrize("threads", [-1, "2", 1.5])
def test_a_number_of_threads_is_checked(bundle: Path, threads: Any) -> None:
    with pytest.raises(UsageError, match="threads"):
        Classifier.load(bundle, threads=threads)


def test_an_available_provider_that_is_not_used_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(session.onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(MachineError, match="requested but is not used"):
        Classifier.load(bundle, provider="cuda")


# Execution providers, without a mock: this provider is in every build and runs no node of ours.


def needs_azure() -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no AzureExecutionProvider")


def test_a_provider_that_runs_no_node_is_an_error() -> None:
    needs_azure()
    with pytest.raises(MachineError, match="cannot run every node") as error:
        Classifier.load(factories.tiny_bundle("bilstm"), provider="AzureExecutionProvider")
    assert "--allow-cpu-fallback" in error.value.hint


def test_the_cpu_may_be_allowed_to_run_nodes() -> None:
    needs_azure()
    bundle = factories.tiny_bundle("bilstm")
    allowed = Classifier.load(bundle, "fp32", "AzureExecutionProvider", fallback=True)
    on_cpu = Classifier.load(bundle, "fp32")
    assert set(allowed.nodes_per_provider) == {"CPUExecutionProvider"}
    assert allowed.nodes_per_provider == on_cpu.nodes_per_provider
    assert np.array_equal(allowed.logits(["the film"]), on_cpu.logits(["the film"]))


def test_a_missing_cuda_explains_the_second_environment(bundle: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    with pytest.raises(MachineError) as error:
        Classifier.load(bundle, provider="cuda")
    assert "onnxruntime-gpu conflicts with onnxruntime" in error.value.hint


class OpenedWithError(Exception):
    """Ends the opening of a session once its arguments are known."""


def test_cuda_finds_its_libraries_and_does_not_round_to_tf32(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[object] = []

    def preload() -> None:
        order.append("libraries")
        sys.stdout.write("Failed to load libcufft.so")

    def open_session(*_: object, providers: object, disabled_optimizers: object) -> None:
        order.append((providers, disabled_optimizers))
        raise OpenedWithError

    fake = {
        "get_available_providers": lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "preload_dlls": preload,
        "InferenceSession": open_session,
    }
    for name, value in fake.items():
        monkeypatch.setattr(session.onnxruntime, name, value)
    with pytest.raises(MachineError, match="try the CPU"):
        Classifier.load(bundle, provider="cuda")
    assert order == ["libraries", ([("CUDAExecutionProvider", {"use_tf32": "0"})], [])]
    printed = capsys.readouterr()
    assert printed.out == "" and "libcufft" in printed.err, "stdout is for results"
    order.clear()
    with pytest.raises(IntegrityError):
        Classifier.load(bundle)
    assert order == [([("CPUExecutionProvider", {})], session.SLOW_FUSIONS)]


def test_onnxruntime_sends_no_usage_data(tmp_path: Path) -> None:
    """Its official builds would keep a device id and a database in the user's cache."""
    bundle = factories.tiny_bundle()
    code = f"import kdedge; kdedge.Classifier.load({str(bundle)!r}).predict('a film')"
    removed = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in removed}
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
    assert list(tmp_path.iterdir()) == []


def test_verify_replays_the_files_that_a_provider_can_run(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA has no kernels for the int8 file; its fp32 file must be checked all the same."""
    load = Classifier.from_bundle

    def from_bundle(opened: Bundle, precision: str, provider: str, **options: bool) -> Classifier:
        if precision in missing:
            raise session._falls_back(provider, ["DynamicQuantizeLSTM"])
        return load(opened, precision, **options)

    monkeypatch.setattr(golden.Classifier, "from_bundle", from_bundle)
    missing = {"int8"}
    result = CliRunner().invoke(cli, ["verify", str(bundle), "--provider", "cuda"])
    assert result.exit_code == 0, result.output
    assert "int8: not replayed, because cuda cannot run it" in result.stdout
    assert [file.precision for file in replay(Bundle.open(bundle), "cuda")] == ["fp32"]
    missing.add("fp32")
    with pytest.raises(MachineError, match="cannot run every node"):
        replay(Bundle.open(bundle), "cuda")


@pytest.mark.parametrize("task", ["single", "pair"])
@pytest.mark.parametrize("kind", ["bert", "bilstm"])
def test_what_a_gpu_leaves_to_the_cpu_is_known_to_be_shapes(kind: str, task: str) -> None:
    """ONNX Runtime keeps on the CPU what it computes from shapes alone; that is no fallback."""
    opened = Bundle.open(factories.tiny_bundle(kind, task))
    for name in opened.manifest.precisions.values():
        graph = onnx.load_from_string(opened.contents[name]).graph
        on_cpu = {tensor.name for tensor in graph.initializer}
        operators = set()
        for node in graph.node:
            if node.op_type == "Shape" or on_cpu.issuperset(filter(None, node.input)):
                on_cpu.update(node.output)
                operators.add(node.op_type)
        # Weights that are not in fp32 are constants, which need no CPU.
        assert operators - {"DequantizeLinear"} <= session.SHAPE_OPERATORS, name
