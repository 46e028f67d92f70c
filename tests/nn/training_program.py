"""Train a tiny model in a process that a test can kill: FOLDER THREADS SAVE_SECONDS."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import factories

from kdedge.errors import Interrupted
from kdedge.nn import training_callbacks
from kdedge.nn.label_loss import LabelLossModule, validation_predictor
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig
from kdedge.run.progress import Silent
from kdedge.runtime import metrics


def write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class PrintedSteps(Silent):
    """Print each step, so that the test knows when to kill this process."""

    def advance(self, done: int, note: str = "") -> None:
        write_line(f"step {done}")


def main(folder: Path, threads: int, save_seconds: float) -> None:
    training_callbacks.SAVE_SECONDS = save_seconds
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    task, tokenizer = factories.single_task(200), factories.tokenizer()
    model = factories.bert(vocabulary=len(tokenizer))
    classifier = TextClassifier(model, tokenizer, 32)
    plan = Training(
        fit=FitConfig(epochs=3, batch_size=8, learning_rate=1e-3, checks=4),
        seed=3,
        data=classifier.encode(task.train.texts, None, labels=task.train.labels),
        pad=classifier.pad,
        predict=validation_predictor(
            classifier.encode(task.validation.texts, None), classifier.pad, "fp32"
        ),
        score=lambda logits: metrics.score(task.spec, logits, task.validation.labels),
        title="test",
    )
    try:
        train(LabelLossModule(model), plan, folder, progress=PrintedSteps())
    except Interrupted as error:
        write_line("interrupted")
        sys.exit(error.exit_code)
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.numpy().tobytes())
    write_line(f"weights {digest.hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
