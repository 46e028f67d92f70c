"""The teacher in CTranslate2 with int8 weights; numpy computes its last layer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ctranslate2
import numpy as np
from bert_files import copy_tokenizer
from peer_protocol import Answer, PeerTask, run
from tokenizers import Tokenizer


def fit(task: PeerTask, folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    teacher = task.settings["teacher"]
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    with tempfile.TemporaryDirectory() as encoder:
        model.base_model.save_pretrained(encoder)
        AutoTokenizer.from_pretrained(teacher).save_pretrained(encoder)
        converter = ctranslate2.converters.TransformersConverter(encoder)
        converter.convert(str(folder), quantization="int8", force=True)
    weight = model.classifier.weight.detach().numpy()
    np.savez(folder / "head.npz", weight=weight, bias=model.classifier.bias.detach().numpy())
    copy_tokenizer(task, folder)


def load(folder: Path) -> Answer:
    encoder = ctranslate2.Encoder(
        str(folder), compute_type="int8", inter_threads=1, intra_threads=1
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    head = np.load(folder / "head.npz")
    weight, bias = head["weight"], head["bias"]

    def answer(text: str) -> np.ndarray:
        pooled = np.array(encoder.forward_batch([tokenizer.encode(text).ids]).pooler_output)
        return np.asarray(weight @ pooled[0] + bias)

    return answer


if __name__ == "__main__":
    run(fit, load)
