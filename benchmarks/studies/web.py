"""Do a bundle's files answer alike in a browser's runtime? Its fp32, int8 and portable file in onnxruntime-web, beside ONNX Runtime here.

    npm install --prefix DIR onnxruntime-web
    kdedge export RUN --portable
    python benchmarks/studies/web.py DIR/node_modules RUN [STUDENT's folder ...] > benchmarks/results/int8-web.md

Node runs the WebAssembly build, one thread, single texts of the test split; the files take turns. Logits are compared with those of
the same file in `Classifier`, answers with those of the fp32 file there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kdedge.benchmarks import machine

from kdedge.data import load_task
from kdedge.run.layout import RunDir
from kdedge.runtime import Classifier
from kdedge.runtime.metrics import decide

FILES = ("fp32", "int8", "portable")
TEXTS, ROUNDS = 300, 5


def study(modules: Path, targets: list[Path]) -> None:
    version = json.loads((modules / "onnxruntime-web" / "package.json").read_text())["version"]
    print(f"# The files of a bundle in onnxruntime-web {version}\n\n{machine.line()}")
    print(
        "| bundle | file | largest logit difference | same answers as fp32 here | p50 µs in WebAssembly | against fp32 there |\n|---|---|---|---|---|---|"
    )
    for target in targets:
        run, students = RunDir.open(target)
        test = load_task(
            run.recipe.data, run.recipe.task, name=run.recipe.name, seed=run.recipe.seed
        ).test
        texts, pairs = test.texts[:TEXTS], None if test.pairs is None else test.pairs[:TEXTS]
        for student in students:
            for row in of_bundle(modules, run.student_dirs[student] / "bundle", texts, pairs):
                print("| " + " | ".join(row) + " |")


def of_bundle(
    modules: Path, bundle: Path, texts: list[str], pairs: list[str] | None
) -> list[list[str]]:
    opened = {name: Classifier.load(bundle, name, threads=1) for name in FILES}
    fed = [
        opened["fp32"].encode([text], None if pairs is None else [pairs[i]])
        for i, text in enumerate(texts)
    ]
    here = {name: np.concatenate([one.run(feeds) for feeds in fed]) for name, one in opened.items()}
    manifest = opened["fp32"].manifest
    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "texts.json"
        items.write_text(
            json.dumps(
                [
                    {name: np.asarray(row)[0].tolist() for name, row in feeds.items()}
                    for feeds in fed
                ]
            )
        )
        paths = [str(bundle / manifest.precisions[name]) for name in FILES]
        script = Path(__file__).with_suffix(".mjs")
        said = subprocess.run(
            ["node", script, modules.resolve(), items, str(ROUNDS), *paths],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    there = dict(zip(FILES, map(json.loads, said.splitlines()), strict=True))
    kind = opened["fp32"].spec.kind
    rows = []
    for name, made in there.items():
        logits = np.array(made["logits"], np.float32).reshape(here[name].shape)
        apart, same = (
            float(np.abs(logits - here[name]).max()),
            float(np.mean(decide(kind, logits) == decide(kind, here["fp32"]))),
        )
        ratios = [
            statistics.median(a) / statistics.median(b)
            for a, b in zip(there["fp32"]["seconds"], made["seconds"], strict=True)
        ]
        p50 = statistics.median(second for round_ in made["seconds"] for second in round_)
        faster = f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}-{max(ratios):.2f}]"
        rows.append(
            [
                manifest.name,
                name,
                f"{apart:.1g}",
                f"{100 * same:.2f} %",
                f"{1e6 * p50:,.0f}",
                faster,
            ]
        )
    return rows


if __name__ == "__main__":
    study(Path(sys.argv[1]), [Path(target) for target in sys.argv[2:]])
