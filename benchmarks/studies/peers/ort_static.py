"""The teacher in ONNX Runtime with its own `quantize_static`.

optimum-onnx exports the teacher. Bare onnxruntime runs the file. The validation texts choose which
operators become int8.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from bert_files import copy_tokenizer, load_tokens
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from peer_protocol import Answer, PeerTask, accuracy, run

CHOICES = (None, ["MatMul", "Gemm"])
"""Which operators become int8: all that can, or the products of matrices alone."""


class TeacherCalibration(quantization.CalibrationDataReader):
    """The inputs that set the ranges of activations."""

    def __init__(self, rows: Iterator[dict[str, np.ndarray]]):
        self._rows = rows

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def fit(task: PeerTask, folder: Path) -> None:
    from optimum.exporters.onnx import main_export

    copy_tokenizer(task, folder)
    tokens = load_tokens(folder)
    best = -1.0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        main_export(task.settings["teacher"], work, task="text-classification")
        # The symbolic shape inference does not know all operators of the exported file.
        quant_pre_process(work / "model.onnx", work / "ready.onnx", skip_symbolic_shape=True)
        for kinds in CHOICES:
            texts = task.calibration()
            quantization.quantize_static(
                work / "ready.onnx",
                work / "int8.onnx",
                TeacherCalibration(tokens(text) for text in texts),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                op_types_to_quantize=kinds,
            )
            score = accuracy(scorer(work / "int8.onnx", folder), *task.split("validation"))
            if score > best:
                best = score
                shutil.copy(work / "int8.onnx", folder / "model.onnx")


def load(folder: Path) -> Answer:
    return scorer(folder / "model.onnx", folder)


def scorer(model: Path, folder: Path) -> Answer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tokens = load_tokens(folder)
    return lambda text: session.run(None, tokens(text))[0][0]


if __name__ == "__main__":
    run(fit, load)
