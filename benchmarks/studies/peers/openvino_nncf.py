"""The teacher in OpenVINO, with static int8 ranges from NNCF."""

from __future__ import annotations

from pathlib import Path

import openvino
from bert_files import copy_tokenizer, load_tokens
from peer_protocol import Answer, PeerTask, run

OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}


def fit(task: PeerTask, folder: Path) -> None:
    import nncf
    import torch
    from transformers import AutoModelForSequenceClassification

    copy_tokenizer(task, folder)
    tokens = load_tokens(folder)
    texts = task.calibration()
    model = AutoModelForSequenceClassification.from_pretrained(task.settings["teacher"]).eval()
    example = {name: torch.from_numpy(value) for name, value in tokens(texts[0]).items()}
    converted = openvino.convert_model(model, example_input=example)
    quantized = nncf.quantize(
        converted,
        nncf.Dataset(texts, tokens),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
    )
    openvino.save_model(quantized, folder / "model.xml")


def load(folder: Path) -> Answer:
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", OPTIONS)
    tokens = load_tokens(folder)
    return lambda text: model(tokens(text))[0][0]


if __name__ == "__main__":
    run(fit, load)
