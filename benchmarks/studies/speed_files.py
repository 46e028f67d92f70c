"""The files that benchmarks/studies/int8_speed.py and shapes.py time: students of given shapes, in every way that kdedge and an exporter write them.

    python export/studies/speed_files.py build/speed            # TinyBERT 4x312, BiLSTM-150, a model of BERT-base's shape
    python export/studies/speed_files.py build/speed --small    # tiny shapes: does it run?
    python export/studies/speed_files.py build/shapes --shapes  # heads, activation, depth against width

Weights are random: time and bytes do not depend on them. FOLDER/files.json names each file with its student, way, pieces and sizes.

`traced, dynamic` is what an exporter gives: the model traced by torch, quantize_dynamic as it stands.
`direct, dynamic` is the same quantizer on kdedge's own graph, whose last layer computes the first token alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from kdedge.export.calibrate import calibrate
from kdedge.export.dynamic_int8 import quantize
from kdedge.export.fake_model import fake_quantized
from kdedge.export.graph import to_onnx
from kdedge.export.int8_writer import to_int8
from kdedge.export.portable import to_portable
from kdedge.export.scheme import QuantScheme
from onnxruntime.quantization import quantize_dynamic
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from kdedge.cli.console import ConsoleProgress
from kdedge.io.atomic import json_text, write_atomic
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.vocabulary import trimmed_model

TRACED, DIRECT = "traced, dynamic", "direct, dynamic"


@dataclass(frozen=True)
class Bert:
    layers: int = 4
    hidden: int = 312
    heads: int = 12
    intermediate: int = 1200
    activation: str = "gelu"

    def model(self, pieces: int) -> PreTrainedModel:
        sizes = {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
        }
        return BertForSequenceClassification(
            BertConfig(vocab_size=pieces, hidden_act=self.activation, **sizes)
        ).eval()


@dataclass(frozen=True)
class BiLstm:
    embedding: int = 300
    hidden: int = 150
    head: int = 200

    def model(self, pieces: int) -> PreTrainedModel:
        sizes = {
            "embedding_dim": self.embedding,
            "hidden_size": self.hidden,
            "head_size": self.head,
        }
        return BiLstmForSequenceClassification(BiLstmModelConfig(vocab_size=pieces, **sizes)).eval()


@dataclass(frozen=True)
class Wanted:
    """A student and its files. pieces: sizes of the vocabulary, the whole one first; ways: None for all of `ways_of`."""

    student: str
    sizes: Bert | BiLstm
    pieces: tuple[int, ...]
    ways: tuple[str, ...] | None = None


FEW_HEADS, BASE = "TinyBERT of 4 heads and ReLU", "BERT-base shape"


def speed(small: bool) -> list[Wanted]:
    """The shapes of int8_speed.py."""
    whole, tiny, lstm = (9000, 8000, 5000) if small else (30522, 8000, 5000)
    width: dict[str, int] = {"layers": 2, "hidden": 32, "intermediate": 64} if small else {}
    base = Bert(2, 64, 4, 128) if small else Bert(12, 768, 12, 3072)
    return [
        Wanted(BASE, base, (whole,), (TRACED, DIRECT)),
        Wanted("TinyBERT", Bert(**(width | ({"heads": 4} if small else {}))), (whole, tiny)),
        Wanted(
            FEW_HEADS,
            Bert(**(width | {"heads": 2 if small else 4}), activation="relu"),
            (whole, tiny),
            OURS,
        ),
        Wanted("BiLSTM", BiLstm(24, 16, 16) if small else BiLstm(), (whole, lstm), OURS),
    ]


OURS = ("fp32", DIRECT, "int8", "portable", "int8, attention too")
SHAPES = {
    "TinyBERT 4x312, 12 heads": Bert(),
    "… 6 heads of 52": Bert(heads=6),
    "… 4 heads of 78": Bert(heads=4),
    "… ReLU": Bert(activation="relu"),
    "… 4 heads, ReLU": Bert(heads=4, activation="relu"),
    "4x320, 10 heads of 32": Bert(hidden=320, heads=10, intermediate=1280),
    "4x320, 5 heads of 64": Bert(hidden=320, heads=5, intermediate=1280),
    "3x384, 12 heads of 32": Bert(layers=3, hidden=384, intermediate=1536),
    "3x384, 6 heads of 64": Bert(layers=3, hidden=384, heads=6, intermediate=1536),
    "2x512, 8 heads of 64": Bert(layers=2, hidden=512, heads=8, intermediate=2048),
    "1x768, 12 heads of 64": Bert(layers=1, hidden=768, intermediate=3072),
    "2x128, 2 heads of 64": Bert(layers=2, hidden=128, heads=2, intermediate=512),
}


def study() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--shapes", action="store_true", help="the shapes of shapes.py")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wanted = (
        [
            Wanted(name, sizes, (8000,), ("fp32", "int8", "portable"))
            for name, sizes in SHAPES.items()
        ]
        if given.shapes
        else speed(given.small)
    )
    given.folder.mkdir(parents=True, exist_ok=True)
    written = [entry for one in wanted for entry in write(one, given.folder)]
    write_atomic(given.folder / "files.json", json_text({"files": written}))


def write(wanted: Wanted, folder: Path) -> Iterator[dict[str, Any]]:
    """Write a student's files; a line of files.json for each."""
    model = wanted.sizes.model(wanted.pieces[0])
    for pieces in wanted.pieces:
        made = (
            model
            if pieces == wanted.pieces[0]
            else trimmed_model(model, np.arange(pieces), 0).eval()
        )
        for way, graph in ways_of(made, wanted.ways):
            name = (
                f"{wanted.student}, {way}, {pieces}.onnx".replace("…", "TinyBERT")
                .replace(", ", "-")
                .replace(" ", "_")
            )
            onnx.save(graph, folder / name)
            kind = "bert" if isinstance(wanted.sizes, Bert) else "bilstm"
            ConsoleProgress().say(f"wrote {folder / name}")
            yield {
                "student": wanted.student,
                "way": way,
                "pieces": pieces,
                "file": name,
                "kind": kind,
                "sizes": asdict(wanted.sizes),
            }


def ways_of(
    model: PreTrainedModel, asked: tuple[str, ...] | None
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The files of a model that are asked for, or all it can have; ranges from random texts."""
    bert = isinstance(model, BertForSequenceClassification)
    fp32, static = to_onnx(model), QuantScheme(activations="static")
    made = {
        TRACED: lambda: traced(model),
        "fp32": lambda: fp32,
        DIRECT: lambda: quantize(fp32, QuantScheme()),
        "int8": lambda: to_int8(calibrated(model, static)),
        "portable": lambda: to_portable(calibrated(model, static)),
        "int8, attention too": lambda: to_int8(
            calibrated(model, QuantScheme(activations="static", attention="integers"))
        ),
    }
    for way, make in made.items():
        if (asked is None or way in asked) and (bert or way not in (TRACED, "int8, attention too")):
            yield way, make()


def calibrated(model: PreTrainedModel, scheme: QuantScheme) -> PreTrainedModel:
    made = fake_quantized(model, scheme).eval()
    batches = [
        {
            name: torch.from_numpy(values)
            for name, values in texts(4, length, model.config.vocab_size).items()
        }
        for length in (16, 32)
    ]
    calibrate(made, model, batches, "minmax")
    return made


def texts(rows: int, length: int, pieces: int) -> dict[str, np.ndarray]:
    """Random tokens (rows, length)."""
    ids = np.random.default_rng([0, rows, length]).integers(5, min(pieces, 5000), (rows, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


def traced(model: PreTrainedModel) -> onnx.ModelProto:
    """A BERT as torch traces it, in dynamic int8 with the quantizer's own settings."""
    given = {
        name: torch.from_numpy(values)
        for name, values in texts(2, 16, model.config.vocab_size).items()
    }
    axes = {name: {0: "batch", 1: "length"} for name in given}
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        torch.onnx.export(
            Logits(model).eval(),
            tuple(given.values()),
            plain,
            input_names=list(given),
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
        quantize_dynamic(plain, small, per_channel=True)
        return onnx.load(small)


class Logits(nn.Module):
    """A classifier called with its inputs in order."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids).logits
        return logits


if __name__ == "__main__":
    study()
