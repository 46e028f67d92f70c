"""What do other libraries reach on the same texts, on the same core?

    make peers                                              (an environment for each library)
    kdedge distill RECIPE; kdedge export runs/NAME
    python benchmarks/studies/peers.py runs/NAME runs/peers-NAME fit
    python benchmarks/studies/peers.py runs/NAME runs/peers-NAME measure

`fit` trains or converts the models of all peers into the second folder; a finished one is reused.
Peers see the training and validation texts of the run, and its teacher. `measure` opens a process
for each peer and each bundle of the run. It sends the test texts in turns, and prints the table.
`--only` names some of the programs in benchmarks/studies/peers/. `--steps` replaces the number of
steps, which is the TinyBERT's otherwise. `--quick` fits with 2,000 texts and 100 steps.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from _peer_runs import BUNDLE, PEERS, MeasuredModel, Peer, fit, measure
from _peer_table import render
from kdedge.benchmarks.studies._machine_line import machine_line

from kdedge.data import load_task
from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, UsageError
from kdedge.io.paths import resolve_model_path
from kdedge.run.layout import RunDir

QUICK_TEXTS = 2000
QUICK_STEPS = 100


@dataclass(frozen=True)
class Settings:
    """What a peer needs to know besides the texts.

    Attributes:
        labels: Names of the labels, in order of their numbers.
        teacher: Folder of the fine-tuned classifier.
        encoder: Folder of the encoder from which the teacher was fine-tuned.
        max_length: Longest text in tokens.
        seed: The run's.
        steps: Optimisation steps of the run's TinyBERT, for peers that train in steps.
        batch_size: Texts in a step.
        student_layers: Layers of the run's TinyBERT; its width is the teacher's.
        calibration_texts: Training texts that set ranges of activations.
    """

    labels: tuple[str, ...]
    teacher: str
    encoder: str
    max_length: int
    seed: int
    steps: int
    batch_size: int
    student_layers: int
    calibration_texts: int


def settings_of(run: RunDir, task: Task, steps: int | None) -> Settings:
    """Read the settings from a run with one TinyBERT of the teacher's width."""
    tinyberts = [student for student in run.recipe.student if student.kind == "tinybert"]
    if len(tinyberts) != 1:
        raise UsageError("peers learn like the TinyBERT of a run", "there is not just one")
    student = tinyberts[0]
    model = run.recipe.teacher.model
    return Settings(
        labels=task.spec.labels,
        teacher=str(run.teacher.resolve()),
        encoder=str(resolve_model_path(model) or model),
        max_length=student.max_length,
        seed=run.recipe.seed,
        steps=steps or int(training_log(run, student.key)["step"]),
        batch_size=student.fit.batch_size,
        student_layers=student.layers,
        calibration_texts=student.quantize.calibration_texts,
    )


def training_log(run: RunDir, student: str) -> dict[str, float]:
    """Return the last line of a student's training log: its steps and seconds."""
    lines = (run.students[student].student / "log.jsonl").read_text().splitlines()
    last: dict[str, float] = json.loads(lines[-1])
    return last


def write_task(folder: Path, task: Task, settings: Settings, texts: int | None) -> None:
    """Write what peers may read; the test texts stay out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_split(folder / "train.jsonl", task.train, texts)
    write_split(folder / "validation.jsonl", task.validation, texts)
    (folder / "settings.json").write_text(json.dumps(asdict(settings)), encoding="utf-8")


def write_split(path: Path, split: Split, limit: int | None) -> None:
    """Write a text and its label a line; with a limit, texts spread over the split."""
    rows = list(zip(split.texts, split.labels.tolist(), strict=True))
    if limit is not None and limit < len(rows):
        rows = rows[:: len(rows) // limit][:limit]
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    path.write_text("".join(lines), encoding="utf-8")


def subject_of(peer: Peer, models: Path) -> MeasuredModel:
    """Return a fitted peer, or one with the reason why it is not."""
    model = models / peer.program
    subject = MeasuredModel(peer.title, peer, model)
    problem = models / f"{peer.program}.problem"
    if model.with_suffix(".json").is_file():
        subject.fit_seconds = json.loads(model.with_suffix(".json").read_text())["seconds"]
    elif problem.is_file():
        subject.problem = problem.read_text(encoding="utf-8")
    else:
        subject.problem = "not fitted"
    return subject


def bundles_of(run: RunDir) -> list[MeasuredModel]:
    """Return the bundles of a run as subjects."""
    subjects = []
    for key, student in run.students.items():
        seconds = training_log(run, key)["train_runtime"]
        subjects.append(MeasuredModel(f"kdedge, {key} int8", BUNDLE, student.bundle, seconds))
    return subjects


def fit_all(peers: list[Peer], folder: Path) -> None:
    """Fit the peers in turn; a failure is noted for the table and does not stop the others."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    for peer in peers:
        problem = models / f"{peer.program}.problem"
        problem.unlink(missing_ok=True)
        try:
            fit(peer, folder / "task", models / peer.program)
            print(f"{peer.program}: fitted", flush=True)
        except CheckFailed as error:
            problem.write_text(f"{error.message}: {error.detail}", encoding="utf-8")
            print(f"{peer.program}: {problem.read_text()}", flush=True)


def measure_all(run: RunDir, task: Task, peers: list[Peer], folder: Path) -> None:
    """Measure bundles and peers on one core; write the raw values and print the table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    logs = folder / "models"
    subjects = [*bundles_of(run), *(subject_of(peer, logs) for peer in peers)]
    measure(subjects, task.test.texts, logs)
    raw = {subject.name: raw_values(subject) for subject in subjects}
    (folder / "measured.json").write_text(json.dumps(raw), encoding="utf-8")
    print(machine_line())
    print(render(subjects, task.spec, task.test.labels))


def raw_values(subject: MeasuredModel) -> dict[str, object]:
    values = asdict(subject)
    values["model"] = str(subject.model)
    values["scores"] = [[round(score, 4) for score in row] for row in subject.scores]
    return values


def study(arguments: argparse.Namespace) -> None:
    run = RunDir.open(arguments.run)[0]
    recipe = run.recipe
    task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
    peers = [peer for peer in PEERS if not arguments.only or peer.program in arguments.only]
    if arguments.stage == "fit":
        steps, limit = arguments.steps, None
        if arguments.quick:
            steps, limit = steps or QUICK_STEPS, QUICK_TEXTS
        write_task(arguments.folder / "task", task, settings_of(run, task, steps), limit)
        fit_all(peers, arguments.folder)
    else:
        measure_all(run, task, peers, arguments.folder)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run with bundles")
    parser.add_argument("folder", type=Path, help="models and values of the peers")
    parser.add_argument("stage", choices=["fit", "measure"])
    parser.add_argument("--only", nargs="+", choices=[peer.program for peer in PEERS])
    parser.add_argument("--steps", type=int, help="optimisation steps of peers that train in steps")
    parser.add_argument("--quick", action="store_true", help="fewer texts and steps")
    return parser.parse_args()


if __name__ == "__main__":
    study(read_arguments())
