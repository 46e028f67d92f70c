"""fastText's supervised classifier; learning rate and word pairs are chosen on validation."""

from __future__ import annotations

from pathlib import Path

import fasttext
from peer_protocol import Answer, PeerTask, accuracy, run

CHOICES = [
    {"lr": rate, "wordNgrams": words, "minn": letters, "maxn": 2 * letters}
    for rate in (0.5, 1.0)
    for words in (1, 2)
    for letters in (0, 3)
]
PREFIX = "__label__"


def fit(task: PeerTask, folder: Path) -> None:
    texts, labels = task.split("train")
    file = folder / "train.txt"
    rows = zip(texts, labels, strict=True)
    lines = [f"{PREFIX}{label} {one_line(text)}\n" for text, label in rows]
    file.write_text("".join(lines), encoding="utf-8")
    validation = task.split("validation")
    best = -1.0
    for choice in CHOICES:
        model = fasttext.train_supervised(
            str(file), dim=100, epoch=25, bucket=100_000, thread=1, verbose=0, **choice
        )
        score = accuracy(scorer(model), *validation)
        if score > best:
            best = score
            model.save_model(str(folder / "model.bin"))
    file.unlink()


def load(folder: Path) -> Answer:
    return scorer(fasttext.load_model(str(folder / "model.bin")))


def scorer(model: fasttext.FastText._FastText) -> Answer:
    """Return the probabilities in the order of the label numbers."""
    count = len(model.get_labels())

    def answer(text: str) -> list[float]:
        scores = [0.0] * count
        names, probabilities = model.predict(one_line(text), k=count)
        for name, probability in zip(names, probabilities, strict=True):
            scores[int(name.removeprefix(PREFIX))] = probability
        return scores

    return answer


def one_line(text: str) -> str:
    return " ".join(text.lower().split())


if __name__ == "__main__":
    run(fit, load)
