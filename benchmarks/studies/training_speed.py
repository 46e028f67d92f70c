"""What stored answers save: students trained on the teacher's stored logits, and with the teacher run at every step.

    python benchmarks/studies/training_speed.py --seconds 120 > benchmarks/results/training-speed.md

The teacher has the shape of BERT-base or of MiniLM-L6; weights and texts are random, since time does not depend on them. Forward,
backward and the optimizer's step of one batch; all ways of one student in one interleaved run on one thread. `layers` matches hidden
states of the last layers too. What is stored was read once before, which takes the teacher as long as one epoch, and is not in the times.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from int8_speed import bert
from kdedge.benchmarks import machine
from transformers import PreTrainedModel

from kdedge.distillation.layer_cache import TeacherLayers, open_layer_cache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.evaluation.timing import TimingPlan, Timings, interleave, speedup_quartiles
from kdedge.nn.batching import Encoded
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

PIECES, BATCH, LENGTH, ITEMS = 30522, 32, 24, 4
TEACHERS = {"BERT-base, 12x768": (12, 768, 12, 3072), "MiniLM, 6x384": (6, 384, 12, 1536)}
STUDENTS = {
    "TinyBERT 4x312": (4, 312, 12, 1200),
    "TinyBERT 3x384": (3, 384, 12, 1536),
    "BiLSTM-150": None,
}
STORED, LIVE, LAYERS, STORED_LAYERS = (
    "stored logits",
    "teacher at every step",
    "layers matched, teacher at every step",
    "layers matched, stored",
)


def study() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="of timing, all students together"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        f"# Training with the teacher's stored answers\n\nCommand: `python {' '.join(sys.argv)}`; batches of {BATCH} texts of {LENGTH} tokens, fp32.\n"
    )
    print(machine.line())
    print("| student | teacher | way | texts/s | stored against it |\n|---|---|---|--:|--:|")
    for name, shape in STUDENTS.items():
        for teacher, size in TEACHERS.items():
            with tempfile.TemporaryDirectory() as folder:
                steps = ways(
                    bert(shape, PIECES) if shape else bilstm(),
                    bert(size, PIECES),
                    Path(folder) if shape else None,
                )
                works = {way: timed(step) for way, step in steps.items()}
                seconds = given.seconds / len(STUDENTS) / len(TEACHERS)
                done = {
                    way: parts[0]
                    for way, parts in interleave(works, ITEMS, TimingPlan(seconds)).items()
                }
            for way, timings in done.items():
                mine = STORED_LAYERS if "layers" in way else STORED
                print(
                    f"| {name} | {teacher} | {way} | {BATCH / timings.p50:,.0f} | {ratio(timings, done[mine])} |"
                )


def bilstm() -> BiLstmForSequenceClassification:
    return BiLstmForSequenceClassification(
        BiLstmModelConfig(vocab_size=PIECES, embedding_dim=384, hidden_size=150)
    )


def ways(
    student: PreTrainedModel, teacher: PreTrainedModel, folder: Path | None
) -> dict[str, Callable[[int], None]]:
    """Training steps on the batch of a number; all ways train the same student. folder: for stored layers, where they can be matched."""
    texts = [torch.randint(5, PIECES, (BATCH, LENGTH)) for _ in range(ITEMS)]
    batches = [
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.zeros_like(ids),
        }
        for ids in texts
    ]
    with torch.no_grad():
        stored = [teacher(**batch).logits for batch in batches]
    taught = {way: teaching(student, teacher, ObjectiveConfig()) for way in (STORED, LIVE)}
    if folder:
        recipe = ObjectiveConfig(hidden_weight=1.0, layer_map="last")
        taught |= {way: teaching(student, teacher, recipe) for way in (LAYERS, STORED_LAYERS)}
        model = TextClassifier(teacher, SimpleNamespace(pad_token_id=0), LENGTH)  # type: ignore[arg-type]
        data = Encoded.of(torch.cat(texts).tolist())
        source = TeacherLayers(model, "", data, taught[STORED_LAYERS][0].objective.reads)
        taught[STORED_LAYERS][0].layer_cache = open_layer_cache(source, folder, max_bytes=math.inf)

    def step(way: str, number: int) -> None:
        model, optimizer = taught[way]
        logits, row = stored[number], torch.arange(number * BATCH, (number + 1) * BATCH)
        if way == LIVE:
            with torch.no_grad():
                logits = teacher(**batches[number]).logits
        model(teacher_logits=logits, row=row, **batches[number])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return {way: partial(step, way) for way in taught}


def teaching(
    student: PreTrainedModel, teacher: PreTrainedModel, recipe: ObjectiveConfig
) -> tuple[Any, Any]:
    """A student being taught, as `kdedge distill` does it, and its optimizer."""
    objective = Objective(recipe, "classification", student.config, teacher.config, batches=1000)
    model = DistillationModule(
        student, objective, TextClassifier(teacher, None, LENGTH) if recipe.reads_layers else None
    ).train()  # type: ignore[arg-type]
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def timed(step: Callable[[int], None]) -> Callable[[int], tuple[float, ...]]:
    def work(number: int) -> tuple[float, ...]:
        start = time.perf_counter()
        step(number)
        return (time.perf_counter() - start,)

    return work


def ratio(base: Timings, row: Timings) -> str:
    middle, low, high = speedup_quartiles(base, row)
    return f"{middle:.1f}x [{low:.1f}-{high:.1f}]"


if __name__ == "__main__":
    study()
