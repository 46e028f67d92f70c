"""The teacher through optimum-onnx: exported, dynamic int8, and run by optimum's own class."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bert_files import copy_tokenizer, load_tokens
from onnxruntime import SessionOptions
from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from peer_protocol import Answer, PeerTask, run


def fit(task: PeerTask, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as exported:
        teacher = task.settings["teacher"]
        model = ORTModelForSequenceClassification.from_pretrained(teacher, export=True)
        model.save_pretrained(exported)
        quantizer = ORTQuantizer.from_pretrained(exported, file_name="model.onnx")
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        quantizer.quantize(save_dir=folder, quantization_config=config)
    copy_tokenizer(task, folder)


def load(folder: Path) -> Answer:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    model = ORTModelForSequenceClassification.from_pretrained(
        folder, file_name="model_quantized.onnx", session_options=options
    )
    tokens = load_tokens(folder)
    return lambda text: model(**tokens(text)).logits[0]


if __name__ == "__main__":
    run(fit, load)
