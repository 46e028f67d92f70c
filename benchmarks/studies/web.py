"""Do a bundle's files give the same predictions in a browser's runtime?

    npm install --prefix DIR onnxruntime-web
    kdedge export RUN --precision all --portable
    python benchmarks/studies/web.py DIR/node_modules RUN [STUDENT's folder ...]

Node runs the WebAssembly build of onnxruntime-web on one thread with single texts of the test
split; the fp32, int8 and portable files take turns. Logits are compared with those of the same
file in `Classifier`, predictions with those of the fp32 file there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kdedge.benchmarks.studies._machine_line import machine_line

from kdedge.data import load_task
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier
from kdedge.runtime.metrics import decide

FILES = ("fp32", "int8", "portable")
TEXTS = 300
ROUNDS = 5
HEADER = (
    "bundle",
    "file",
    "largest logit difference",
    "same predictions as fp32 here",
    "p50 µs in WebAssembly",
    "speedup against fp32 there",
)

Feeds = Mapping[str, np.ndarray]
"""Inputs of one text."""


def study(modules: Path, targets: list[Path]) -> None:
    """Run all bundles in both runtimes and print the table."""
    package = (modules / "onnxruntime-web" / "package.json").read_text()
    version = json.loads(package)["version"]
    print(f"# The files of a bundle in onnxruntime-web {version}\n\n{machine_line()}")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for target in targets:
        run, students = RunDir.open(target)
        recipe = run.recipe
        test = load_task(recipe.data, recipe.task, name=recipe.name, seed=recipe.seed).test
        texts = test.texts[:TEXTS]
        pairs = None if test.pairs is None else test.pairs[:TEXTS]
        for student in students:
            bundle = run.students[student].bundle
            for row in rows_of_bundle(modules, bundle, texts, pairs):
                print(f"| {' | '.join(row)} |")


def rows_of_bundle(
    modules: Path, bundle: Path, texts: Sequence[str], pairs: Sequence[str] | None
) -> list[list[str]]:
    """Compare the files of a bundle in both runtimes."""
    classifiers = {name: Classifier.load(bundle, name, threads=1) for name in FILES}
    fp32 = classifiers["fp32"]
    inputs = []
    for index, text in enumerate(texts):
        inputs.append(fp32.encode([text], None if pairs is None else [pairs[index]]))
    here = {}
    for name, classifier in classifiers.items():
        here[name] = np.concatenate([classifier.run(feeds) for feeds in inputs])
    paths = [bundle / fp32.manifest.precisions[name] for name in FILES]
    there = dict(zip(FILES, run_in_node(modules, paths, inputs), strict=True))
    expected = decide(fp32.spec, here["fp32"])
    rows = []
    for name, result in there.items():
        logits = np.array(result["logits"], np.float32).reshape(here[name].shape)
        difference = float(np.abs(logits - here[name]).max())
        same = float(np.mean(decide(fp32.spec, logits) == expected))
        p50 = statistics.median(np.concatenate(result["seconds"]).tolist())
        rows.append(
            [
                fp32.manifest.name,
                name,
                f"{difference:.1g}",
                f"{100 * same:.2f} %",
                f"{1e6 * p50:,.0f}",
                speedup_cell(there["fp32"]["seconds"], result["seconds"]),
            ]
        )
    return rows


def run_in_node(
    modules: Path, paths: Sequence[Path], inputs: Sequence[Feeds]
) -> list[dict[str, Any]]:
    """Run web.mjs; return logits, and seconds by round, of each file."""
    documents = []
    for feeds in inputs:
        documents.append({name: np.asarray(row)[0].tolist() for name, row in feeds.items()})
    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "texts.json"
        items.write_text(json.dumps(documents))
        script = Path(__file__).with_suffix(".mjs")
        output = subprocess.run(
            ["node", script, modules.resolve(), items, str(ROUNDS), *paths],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return [json.loads(line) for line in output.splitlines()]


def speedup_cell(base: Sequence[Sequence[float]], seconds: Sequence[Sequence[float]]) -> str:
    """Format the median speedup over rounds, with the lowest and highest."""
    ratios = []
    for base_round, own_round in zip(base, seconds, strict=True):
        ratios.append(statistics.median(base_round) / statistics.median(own_round))
    return f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}-{max(ratios):.2f}]"


if __name__ == "__main__":
    study(Path(sys.argv[1]), [Path(target) for target in sys.argv[2:]])
