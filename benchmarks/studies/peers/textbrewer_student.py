"""TextBrewer: a student of the TinyBERT's shape learns the teacher's soft targets.

It starts like the TinyBERT: from the same model, or from the embeddings and every k-th layer of the
teacher. It takes as many steps; the best of four checkpoints on the validation texts is kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bert_files import FILES, copy_model
from peer_protocol import Answer, PeerTask, accuracy, run
from torch_model import load_model, scorer
from transformers import AutoConfig, AutoModelForSequenceClassification

CHECKS = 4
LEARNING_RATE = 2e-4


def fit(task: PeerTask, folder: Path) -> None:
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    torch.manual_seed(task.settings["seed"])
    steps = task.settings["steps"]
    copy_model(task, folder)
    teacher = load_model(Path(task.settings["teacher"]))
    student = first_weights(teacher, task, folder)
    batches = list(make_batches(task, folder))
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    best = [-1.0]

    def keep_best(model: Any, step: int) -> None:
        model.eval()
        score = accuracy(scorer(model, folder), *task.split("validation"))
        if score >= best[0]:
            best[0] = score
            model.save_pretrained(folder)
        model.train()

    distiller = GeneralDistiller(
        train_config=TrainingConfig(
            device="cpu", ckpt_steps=max(1, steps // CHECKS), output_dir=str(folder / "log")
        ),
        distill_config=DistillationConfig(temperature=1, hard_label_weight=0),
        model_T=teacher,
        model_S=student,
        adaptor_T=logits_of,
        adaptor_S=logits_of,
    )
    with distiller:
        distiller.train(
            optimizer,
            batches,
            num_epochs=None,
            num_steps=steps,
            scheduler_class=torch.optim.lr_scheduler.LinearLR,
            scheduler_args={"start_factor": 1.0, "end_factor": 0.01, "total_iters": steps},
            callback=keep_best,
        )
    remove_others(folder)


def logits_of(batch: Any, outputs: Any) -> dict[str, Any]:
    return {"logits": outputs.logits}


def first_weights(teacher: Any, task: PeerTask, folder: Path) -> Any:
    """Build the student with the weights that kdedge's student starts from."""
    start = task.settings["student_start"]
    if start:
        count = len(task.settings["labels"])
        return AutoModelForSequenceClassification.from_pretrained(
            start, num_labels=count, dtype=torch.float32
        )
    return smaller(teacher, folder, task.settings["student_layers"])


def smaller(teacher: Any, folder: Path, layers: int) -> Any:
    """Build a classifier of fewer layers with the weights of the teacher's."""
    every = teacher.config.num_hidden_layers // layers
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=layers)
    student = AutoModelForSequenceClassification.from_config(config)
    weights = {}
    for name, value in teacher.state_dict().items():
        before, marker, rest = name.partition("encoder.layer.")
        if not marker:
            weights[name] = value
            continue
        number, _, rest = rest.partition(".")
        if (int(number) + 1) % every == 0:
            weights[f"{before}{marker}{int(number) // every}.{rest}"] = value
    student.load_state_dict(weights)
    return student


def make_batches(task: PeerTask, folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Yield padded batches of the training texts in a random order."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    texts, _ = task.split("train")
    random.Random(task.settings["seed"]).shuffle(texts)
    size = task.settings["batch_size"]
    for start in range(0, len(texts), size):
        rows = tokenizer.encode_batch(texts[start : start + size])
        yield {
            "input_ids": torch.tensor([row.ids for row in rows]),
            "attention_mask": torch.tensor([row.attention_mask for row in rows]),
        }


def remove_others(folder: Path) -> None:
    """Remove the logs and checkpoints that a prediction does not need."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path.parent != folder or path.name not in FILES:
            path.unlink()


def load(folder: Path) -> Answer:
    return scorer(load_model(folder), folder)


if __name__ == "__main__":
    run(fit, load)
