"""SetFit: contrastive training of the encoder on a few texts of each label, then a linear head.

All labelled texts train the head. The encoder sees `TEXTS` of them, because SetFit makes all pairs
of the texts that it is given. It takes a sixth of the student's steps, to train about as long: its
encoder has twice as many layers.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from peer_protocol import Answer, PeerTask, run
from setfit import SetFitModel, Trainer, TrainingArguments

TEXTS = 1200
"""Texts that train the encoder, equally many of each label."""

STEP_SHARE = 6
"""The student's steps divided by those of the encoder."""


def fit(task: PeerTask, folder: Path) -> None:
    texts, labels = task.split("train")
    few = few_of_each(labels, TEXTS // len(task.settings["labels"]))
    rows = Dataset.from_dict({"text": [texts[i] for i in few], "label": [labels[i] for i in few]})
    model = SetFitModel.from_pretrained(task.settings["encoder"], device="cpu")
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        batch_size=task.settings["batch_size"] // 2,  # pairs
        max_steps=task.settings["steps"] // STEP_SHARE,
        seed=task.settings["seed"],
        save_strategy="no",
        report_to="none",
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    model.fit(texts, labels, num_epochs=1)
    model.save_pretrained(str(folder))


def few_of_each(labels: list[int], count: int) -> list[int]:
    """Return the rows of the first `count` texts of each label."""
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            rows.append(row)
    return rows


def load(folder: Path) -> Answer:
    import torch

    torch.set_num_threads(1)
    model = SetFitModel.from_pretrained(str(folder), device="cpu")
    return lambda text: model.predict_proba([text], as_numpy=True, show_progress_bar=False)[0]


if __name__ == "__main__":
    run(fit, load)
