"""What do cached logits save? Train on the teacher's cached logits, and with the teacher live.

    python benchmarks/studies/training_speed.py --seconds 120

The teacher has the shape of BERT-base or of MiniLM-L6. Weights and texts are random: time does
not depend on them. A step is forward, backward and the optimizer's update of one batch. All ways
to train one student run interleaved on one thread. `layers` also matches hidden states. Filling
the cache takes the teacher as long as one epoch and is not in the times.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.benchmarks.studies._speed_files import (
    BertShape,
    BiLstmShape,
    speedup_cell,
    time_together,
    work_of,
)
from transformers import PreTrainedModel

from kdedge.distillation.layer_cache import TeacherLayers, open_layer_cache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.nn.batching import Encoded
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig

VOCABULARY = 30522
BATCH = 32
LENGTH = 24
BATCHES = 4
"""Different batches."""

TEACHERS = {
    "BERT-base, 12x768": BertShape(12, 768, 12, 3072),
    "MiniLM, 6x384": BertShape(6, 384, 12, 1536),
}
STUDENTS = {
    "TinyBERT 4x312": BertShape(),
    "TinyBERT 3x384": BertShape(3, 384, 12, 1536),
    "BiLSTM-150": BiLstmShape(embedding=384),
}
CACHED = "cached logits"
LIVE = "teacher at every step"
LAYERS = "layers matched, teacher at every step"
CACHED_LAYERS = "layers matched, cached"

Trainer = tuple[Any, torch.optim.Optimizer]


def study() -> None:
    """Time all students with all teachers and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0, help="time for all students")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds = arguments.seconds / len(STUDENTS) / len(TEACHERS)
    print("# Training with the teacher's cached logits\n")
    print(
        f"Command: `python {' '.join(sys.argv)}`;"
        f" batches of {BATCH} texts of {LENGTH} tokens, fp32.\n"
    )
    print(machine_line())
    print("| student | teacher | training | texts/s | speedup of the cache |")
    print("|---|---|---|--:|--:|")
    for student in STUDENTS:
        for teacher in TEACHERS:
            print_pair(student, teacher, seconds)


def print_pair(student: str, teacher: str, seconds: float) -> None:
    """Time one student with one teacher."""
    matches_layers = isinstance(STUDENTS[student], BertShape)
    with tempfile.TemporaryDirectory() as folder:
        steps = training_steps(
            STUDENTS[student].model(VOCABULARY),
            TEACHERS[teacher].model(VOCABULARY),
            Path(folder) if matches_layers else None,
        )
        works = {name: work_of(step, range(BATCHES)) for name, step in steps.items()}
        timed = time_together(works, BATCHES, seconds)
    for name, timings in timed.items():
        cached = timed[CACHED_LAYERS if "layers" in name else CACHED]
        speedup = speedup_cell(timings, cached, digits=1)
        print(f"| {student} | {teacher} | {name} | {BATCH / timings.p50:,.0f} | {speedup} |")


def training_steps(
    student: PreTrainedModel, teacher: PreTrainedModel, folder: Path | None
) -> dict[str, Callable[[int], None]]:
    """Return training steps that take the number of a batch; all train the same student.

    Args:
        student: The student.
        teacher: Its teacher.
        folder: Folder of the layer cache; None if the student has no layers to match.
    """
    texts = [torch.randint(5, VOCABULARY, (BATCH, LENGTH)) for _ in range(BATCHES)]
    batches = [_inputs(ids) for ids in texts]
    with torch.no_grad():
        cached = [teacher(**batch).logits for batch in batches]
    trainers = {name: trainer(student, teacher, ObjectiveConfig()) for name in (CACHED, LIVE)}
    if folder:
        objective = ObjectiveConfig(hidden_weight=1.0, layer_map="last")
        for name in (LAYERS, CACHED_LAYERS):
            trainers[name] = trainer(student, teacher, objective)
        module = trainers[CACHED_LAYERS][0]
        tokenizer: Any = SimpleNamespace(pad_token_id=0)
        source = TeacherLayers(
            TextClassifier(teacher, tokenizer, LENGTH),
            "",
            Encoded.of(torch.cat(texts).tolist()),
            module.objective.reads,
        )
        module.layer_cache = open_layer_cache(source, folder, max_bytes=math.inf)

    def step(name: str, number: int) -> None:
        module, optimizer = trainers[name]
        logits = cached[number]
        row = torch.arange(number * BATCH, (number + 1) * BATCH)
        if name == LIVE:
            with torch.no_grad():
                logits = teacher(**batches[number]).logits
        module(teacher_logits=logits, row=row, **batches[number])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return {name: partial(step, name) for name in trainers}


def _inputs(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }


def trainer(student: PreTrainedModel, teacher: PreTrainedModel, config: ObjectiveConfig) -> Trainer:
    """Build the module and the optimizer that `kdedge distill` trains with."""
    objective = Objective(config, "classification", student.config, teacher.config)
    no_tokenizer: Any = None
    live = TextClassifier(teacher, no_tokenizer, LENGTH) if config.reads_layers else None
    module = DistillationModule(student, objective, live).train()
    return module, torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)


if __name__ == "__main__":
    study()
