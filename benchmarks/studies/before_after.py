"""Does a change make training, labelling or generation slower on a CPU?

    python benchmarks/studies/before_after.py OLD/.venv/bin/python NEW/.venv/bin/python

Each interpreter belongs to a checkout of kdedge. Both do the same work in processes that take
turns, on one thread: the median of the ratios of neighbouring processes, and the quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("BiLSTM training", "TinyBERT training", "labelling", "generation", "int8 BiLSTM training")


def study() -> None:
    """Time both checkouts and print the table, or do the work of one process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("old", nargs="?")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=TASKS, help="one task instead of all")
    parser.add_argument("--work", action="store_true", help="do the work and print seconds")
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.only)))
        return
    seconds: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
    for number in range(arguments.rounds):
        order = ("old", "new") if number % 2 == 0 else ("new", "old")
        for name in order:
            seconds[name].append(run(getattr(arguments, name), arguments.only))
    print("| work | before, s | after, s | after / before [quartiles] |")
    print("|---|--:|--:|--:|")
    for task in seconds["old"][0]:
        old = np.array([row[task] for row in seconds["old"]])
        new = np.array([row[task] for row in seconds["new"]])
        low, middle, high = np.percentile(new / old, (25, 50, 75))
        cells = f"{np.median(old):.2f} | {np.median(new):.2f}"
        print(f"| {task} | {cells} | {middle:.3f} [{low:.3f}–{high:.3f}] |")


def run(python: str, only: str | None) -> dict[str, float]:
    """Do the work with one checkout's interpreter; return the seconds of each task."""
    command = [python, __file__, "--work", *(["--only", only] if only else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # A file's own folder comes first on the path of imports; the checkout's kdedge must count.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(python).parent,
    )
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def work(only: str | None) -> dict[str, float]:
    """Train, label and generate with models of random weights; return seconds."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts, tokenizer = make_texts(1000)
    jobs: dict[str, Callable[[], None]] = {
        "BiLSTM training": lambda: train_student(bilstm(), texts, tokenizer),
        "TinyBERT training": lambda: train_student(tinybert(2, 128), texts, tokenizer),
        "labelling": lambda: label(texts, tokenizer),
        "generation": generate,
        "int8 BiLSTM training": lambda: train_student(int8_bilstm(), texts, tokenizer),
    }
    return {name: timed(job) for name, job in jobs.items() if only in (None, name)}


def timed(job: Any) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def make_texts(count: int) -> tuple[list[str], Any]:
    """Return texts of 4 to 30 words, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i + 2 for i in range(5000)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )
    chance = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        words = chance.integers(0, 5000, chance.integers(4, 31))
        texts.append(" ".join(f"w{word}" for word in words))
    return texts, tokenizer


def bilstm() -> Any:
    from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

    config = BiLstmModelConfig(vocab_size=5002, embedding_dim=100, hidden_size=100)
    return BiLstmForSequenceClassification(config)


def int8_bilstm() -> Any:
    """Return a BiLSTM in the arithmetic of its int8 file, as quantization-aware training has it."""
    from kdedge.export.fake_model import fake_quantized, range_owners
    from kdedge.export.scheme import QuantScheme

    model = fake_quantized(bilstm(), QuantScheme(activations="static"))
    for owner in range_owners(model).values():
        owner.range.low.data.fill_(-1.0)
        owner.range.high.data.fill_(1.0)
    return model


def tinybert(layers: int, hidden: int) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=5002,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=2,
        intermediate_size=4 * hidden,
    )
    return BertForSequenceClassification(config)


def train_student(model: Any, texts: list[str], tokenizer: Any) -> None:
    """Distil on random logits, for two epochs."""
    from kdedge.distillation.module import DistillationModule
    from kdedge.distillation.objective import Objective
    from kdedge.nn.batching import PaddingCollator
    from kdedge.nn.tokenization import encode
    from kdedge.nn.training import train
    from kdedge.nn.training_plan import Training
    from kdedge.recipe import FitConfig, ObjectiveConfig

    labels = np.arange(len(texts)) % 2
    logits = np.random.default_rng(1).normal(size=(len(texts), 2)).astype(np.float16)
    config = ObjectiveConfig(logits="mse", labels_weight=0.5)
    objective = Objective(config, "classification", model.config, None)
    plan = Training(
        fit=FitConfig(epochs=2, batch_size=32, checks=1, precision="fp32"),
        seed=0,
        data=encode(tokenizer, texts, None, 64, labels=labels, teacher_logits=logits),
        pad=PaddingCollator(0),
        predict=lambda module: np.zeros((1, 2), np.float32),
        score=lambda scores: 0.0,
        title="timed",
    )
    with tempfile.TemporaryDirectory() as folder:
        train(DistillationModule(model, objective, None), plan, Path(folder))


def label(texts: list[str], tokenizer: Any) -> None:
    """Label texts in shards with a BERT of 4 layers."""
    import torch

    from kdedge.nn.text_model import TextClassifier
    from kdedge.recipe import TransferConfig
    from kdedge.transfer.dataset import TransferBuilder
    from kdedge.transfer.texts import TransferTexts, no_labels

    torch.manual_seed(0)
    teacher = TextClassifier(tinybert(4, 256).eval(), tokenizer, 64)
    labels = no_labels(len(texts), "classification", 2)
    transfer = TransferTexts.of(texts, None, ("pool",) * len(texts), labels)
    with tempfile.TemporaryDirectory() as folder:
        config = TransferConfig(shard_size=512, precision="fp32")
        TransferBuilder(config, teacher, "timed").build(transfer, Path(folder) / "transfer")


def generate() -> None:
    """Sample from a GPT-2 of 2 layers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from kdedge.augment.generator import Generator
    from kdedge.augment.sampling import sample

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8000, n_positions=64, n_embd=128, n_layer=2, n_head=2)
    generator = Generator(GPT2LMHeadModel(config).eval(), None, 1, 2)  # type: ignore[arg-type]
    for _ in range(2):
        sample(generator, [[1]] * 64, max_length=48, top_p=0.95, temperature=1.0, precision=None)


if __name__ == "__main__":
    study()
