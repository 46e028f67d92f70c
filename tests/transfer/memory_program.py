"""Measure the memory of labelling: FOLDER COUNT. COUNT 0 writes the texts for the other calls."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from kdedge.io.arrow import blocks_of, map_table, write_table
from kdedge.io.text_column import TextColumn
from kdedge.nn.batching import Encoded
from kdedge.recipe import TransferConfig
from kdedge.transfer.dataset import TransferBuilder
from kdedge.transfer.texts import TransferTexts, no_labels

TEXTS = 80_000


def held_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    match = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1024


class ConstantTeacher:
    """A teacher of 64 constant logits that notes the most memory held while it labels."""

    max_length = 64
    most = 0.0
    model = SimpleNamespace(device=torch.device("cpu"))

    def encode(self, texts, pairs):
        return Encoded.of([[1]] * len(texts))

    def predict_encoded(self, data, **settings):
        self.most = max(self.most, held_megabytes())
        return np.full((len(data), 64), 0.5, np.float32)


def write_texts(folder: Path) -> None:
    texts = (f"text {i:06d} " + "of some length " * 20 for i in range(TEXTS))
    table = pa.table({"text": TextColumn.of(texts).column})
    write_table(blocks_of(table), folder / "given.arrow")


def label_texts(folder: Path, count: int) -> None:
    column = TextColumn(map_table(folder / "given.arrow")["text"])[:count]
    labels = no_labels(count, "classification", 64)
    texts = TransferTexts.of(column, None, ("pool",) * count, labels)
    teacher = ConstantTeacher()
    before = held_megabytes()
    builder = TransferBuilder(TransferConfig(), teacher, "teacher")  # type: ignore[arg-type]
    made = builder.build(texts, folder / f"transfer-{count}")
    grown = max(teacher.most, held_megabytes()) - before
    last_text, last_logit = made.texts.texts[count - 1][:11], float(made.logits[-1, -1])
    sys.stdout.write(json.dumps([grown, len(made), last_text, last_logit]))


if __name__ == "__main__":
    if sys.argv[2] == "0":
        write_texts(Path(sys.argv[1]))
    else:
        label_texts(Path(sys.argv[1]), int(sys.argv[2]))
