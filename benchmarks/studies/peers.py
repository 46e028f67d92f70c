"""What do other libraries reach on the same texts, on the same core?

    make peers                                     (an environment for each library)
    python benchmarks/studies/peers.py sst2 clinc150

For each task it distills and exports the run of a recipe, fits the peers, measures all subjects,
and writes benchmarks/results/peers-TASK.html and .json. It prints the table of the results page,
and draws the picture of the README, docs/assets/peers.svg. What is finished is reused. `--stages`
does a part of it:

    fit       trains or converts the models of all peers, in runs/peers/TASK
    measure   opens a process for each peer and bundle, and sends the test texts in turns
    report    writes the page from the measured values

Peers see the texts and the teacher of the run. `--only` fits some of the programs in
benchmarks/studies/peers/. `--share 2/3` measures the second third of the texts; the report joins
the shares. `--steps` replaces the number of steps, which is the TinyBERT's otherwise. `--gpu` names
the results of benchmarks/studies/gpu.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import _peer_picture
import _peer_report
import _peer_task
from _peer_runs import BUNDLE, PEERS, TEACHER, MeasuredModel, Peer, fit, measure
from _peer_values import write_share
from kdedge.benchmarks.studies._machine_line import machine_line

from kdedge.data import load_task
from kdedge.data.task import Task
from kdedge.errors import CheckFailed
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.result import TeacherResult

STUDIES = Path(__file__).resolve().parent
RESULTS = STUDIES.parent / "results"
PICTURE = STUDIES.parents[1] / "docs" / "assets" / "peers.svg"
PICTURED = "clinc150"
"""The task in the picture of the README."""

RUNS = Path("runs")
RECIPES = {"sst2": "peers-sst2", "clinc150": "cascade-clinc150"}
"""Task -> recipe and run."""

STAGES = ("distill", "fit", "measure", "report")
MODELS = (TEACHER, *PEERS)


def distill(name: str) -> None:
    """Make the run of a recipe, with bundles."""
    recipe = STUDIES / "recipes" / f"{name}.toml"
    for words in (["distill", str(recipe)], ["export", str(RUNS / name)]):
        subprocess.run([sys.executable, "-m", "kdedge", *words], check=True)


def fit_all(peers: list[Peer], folder: Path) -> None:
    """Fit the peers in turn; a failure is noted for the table and does not stop the others."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    for peer in peers:
        problem = models / f"{peer.key}.problem"
        problem.unlink(missing_ok=True)
        try:
            fit(peer, folder / (peer.texts or _peer_task.LABELLED), models / peer.key)
            print(f"{peer.key}: fitted", flush=True)
        except CheckFailed as error:
            problem.write_text(f"{error.message}: {error.detail}", encoding="utf-8")
            print(f"{peer.key}: {problem.read_text()}", flush=True)


def subject_of(peer: Peer, models: Path) -> MeasuredModel:
    """Return a fitted peer, or one with the reason why it is not."""
    model = models / peer.key
    subject = MeasuredModel(peer.title, peer, model)
    problem = models / f"{peer.key}.problem"
    if model.with_suffix(".json").is_file():
        if peer != TEACHER:
            subject.fit_seconds = json.loads(model.with_suffix(".json").read_text())["seconds"]
    elif problem.is_file():
        subject.problem = problem.read_text(encoding="utf-8")
    else:
        subject.problem = "not fitted"
    return subject


def subjects_of(run: RunDir, models: Path) -> list[MeasuredModel]:
    """Return the teacher, the bundles of a run, and the peers."""
    subjects = [subject_of(TEACHER, models)]
    for key, student in run.students.items():
        seconds = _peer_task.training_log(run, key)["train_runtime"]
        subjects.append(MeasuredModel(key, BUNDLE, student.bundle, seconds))
    return subjects + [subject_of(peer, models) for peer in PEERS]


def measure_share(run: RunDir, task: Task, folder: Path, share: str) -> None:
    """Measure all subjects on one core with a share of the test texts; keep the raw values."""
    number, shares = map(int, share.split("/"))
    rows = list(range(number - 1, len(task.test.texts), shares))
    subjects = subjects_of(run, folder / "models")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})  # the first core serves interrupts
    try:
        measure(subjects, [task.test.texts[row] for row in rows], folder / "models")
    finally:
        os.sched_setaffinity(0, cores)
    write_share(folder / "measured" / f"{number}of{shares}.json", rows, subjects)
    print(machine_line())


def study(arguments: argparse.Namespace) -> None:
    for name in arguments.tasks:
        folder = RUNS / "peers" / name
        if "distill" in arguments.stages:
            distill(RECIPES[name])
        run = RunDir.open(RUNS / RECIPES[name])[0]
        recipe = run.recipe
        task = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed)
        if "fit" in arguments.stages:
            peers = [peer for peer in MODELS if peer.key in (arguments.only or [peer.key])]
            settings = _peer_task.settings_of(run, task, arguments.steps)
            _peer_task.write_tasks(folder, run, task, settings)
            fit_all(peers, folder)
        if "measure" in arguments.stages:
            measure_share(run, task, folder, arguments.share)
        if "report" in arguments.stages:
            teacher = read_result(run.teacher, TeacherResult)
            source = _peer_report.Source(name, task, teacher, arguments.gpu)
            print(_peer_report.write(source, folder / "measured", RESULTS))
            if name == PICTURED:
                PICTURE.write_text(_peer_picture.draw(RESULTS / f"peers-{name}.json"))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tasks", nargs="+", choices=list(RECIPES))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--only", nargs="+", choices=[peer.key for peer in MODELS])
    parser.add_argument("--share", default="1/1", help="which part of the texts to measure")
    parser.add_argument("--steps", type=int, help="optimisation steps of peers that train in steps")
    parser.add_argument("--gpu", type=Path, help="results of benchmarks/studies/gpu.py")
    return parser.parse_args()


if __name__ == "__main__":
    study(read_arguments())
