"""What does kdedge do on a GPU? One command for the day that one is at hand.

    python benchmarks/studies/gpu.py --out results.json [--recipe recipe.toml]
    python benchmarks/studies/gpu.py --only steps --out results.json
    python benchmarks/studies/gpu.py --tiny --device cpu --out results.json

The steps run in a child process. If one fails, its error stands in the file, and another child
goes on with the next step: a fault of the GPU spoils the process that saw it. Then the tests for a
device run, and the commands `distill`, `export`, `verify` and `bench` take a recipe from the
encoder to bundles; the last two need onnxruntime-gpu instead of onnxruntime. The default recipe is
the quickstart, whose data and encoder are pip packages; --tiny has none. --only runs one half: the
steps and tests, or the recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdedge.io.atomic import json_text, write_atomic
from kdedge.run.processes import DEVICE_VARIABLE

STEP_NAMES = (
    "environment",
    "checks",
    "labelling",
    "teacher training",
    "TinyBERT training",
    "BiLSTM training",
    "layers",
    "generation",
)

REPOSITORY = Path(__file__).resolve().parents[2]

DEVICE_TESTS = REPOSITORY / "tests" / "nn" / "test_on_device.py"

QUICKSTART = REPOSITORY / "configs" / "quickstart.toml"

STEP_SECONDS = 120
"""Time of one step of `_gpu_steps`."""

RESULT = "result: "
"""Before the JSON values that a step prints."""


def study() -> None:
    """Run all steps and write the file after each."""
    arguments = read_arguments()
    if arguments.device:
        os.environ[DEVICE_VARIABLE] = arguments.device
    if arguments.steps:
        run_steps(arguments.steps.split(","), tiny=arguments.tiny)
        return
    end = time.monotonic() + arguments.limit
    results: dict[str, Any] = {"command": "python " + " ".join(sys.argv), "steps": {}}

    def store(name: str, outcome: dict[str, Any]) -> None:
        results["steps"][name] = outcome
        write_atomic(arguments.out, json_text(results))
        print(name, json.dumps(outcome), flush=True)

    if arguments.only != "recipe":
        missing = list(STEP_NAMES)
        while missing:
            missing = run_child(missing, arguments, end, store)
        tests = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", str(DEVICE_TESTS)]
        store("device tests", run_command(tests, end))
    recipe = arguments.recipe or (None if arguments.tiny else QUICKSTART)
    if recipe and arguments.only != "steps":
        run_recipe(recipe, arguments, end, store)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="very small models")
    parser.add_argument(
        "--recipe", type=Path, help="a recipe to take to bundles; default: the quickstart"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", choices=["steps", "recipe"], help="run one half")
    parser.add_argument(
        "--limit", type=float, default=540.0, help="seconds that all takes together"
    )
    parser.add_argument("--steps", help="run these steps in this process")
    arguments = parser.parse_args()
    if arguments.only == "recipe" and arguments.tiny and not arguments.recipe:
        parser.error("--tiny has no recipe of its own: give --recipe")
    return arguments


def run_child(
    names: list[str],
    arguments: argparse.Namespace,
    end: float,
    store: Callable[[str, dict[str, Any]], None],
) -> list[str]:
    """Run steps in a child process until one fails; return the names of those that are missing."""
    command = [sys.executable, __file__, "--steps", ",".join(names)]
    if arguments.tiny:
        command.append("--tiny")
    left = end - time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        timer = threading.Timer(max(0.0, left), child.kill)
        timer.start()
        assert child.stdout is not None
        missing = list(names)
        failed = False
        for line in child.stdout:
            if line.startswith(RESULT):
                outcome = json.loads(line.removeprefix(RESULT))
                failed = "error" in outcome
                store(missing.pop(0), outcome)
        timer.cancel()
    if missing and not failed:
        store(missing.pop(0), {"error": f"the process ended with status {child.returncode}"})
    return missing


def run_steps(names: list[str], *, tiny: bool) -> None:
    """Run steps in this process, print the result of each, and stop at the first that fails."""
    import torch
    from kdedge.benchmarks.studies._gpu_steps import STEPS, TINY, Sizes

    sizes = TINY if tiny else Sizes()
    for name in names:
        torch.manual_seed(0)
        start = time.monotonic()
        signal.alarm(STEP_SECONDS)
        try:
            outcome: dict[str, Any] = {"result": STEPS[name](sizes)}
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}"[:2000]}
        signal.alarm(0)
        outcome["seconds"] = round(time.monotonic() - start, 1)
        print(RESULT + json.dumps(outcome), flush=True)
        if "error" in outcome:
            return


def run_recipe(
    recipe: Path,
    arguments: argparse.Namespace,
    end: float,
    store: Callable[[str, dict[str, Any]], None],
) -> None:
    """Take a recipe to bundles, then verify and bench these on the device."""
    name = tomllib.loads(recipe.read_text(encoding="utf-8"))["name"]
    run = arguments.runs / name
    kdedge = [sys.executable, "-m", "kdedge"]
    provider = ["--provider", "cpu" if arguments.device == "cpu" else "cuda"]
    both = provider if arguments.device == "cpu" else [*provider, "--provider", "cpu"]
    distill = [*kdedge, "distill", str(recipe), "--runs", str(arguments.runs)]
    store("distill", run_command(distill, end))
    store("export", run_command([*kdedge, "export", str(run), "--precision", "all"], end))
    for manifest in sorted(run.glob("**/bundle/kdedge.json")):
        folder = manifest.parent
        verify = [*kdedge, "verify", str(folder), *provider]
        store(f"verify {folder.relative_to(arguments.runs)}", run_command(verify, end))
    seconds = "0.2" if arguments.tiny else "3"
    store("bench", run_command([*kdedge, "bench", str(run), *both, "--seconds", seconds], end))


def run_command(command: list[str], end: float) -> dict[str, Any]:
    """Run a command; return its seconds, and its error if it fails."""
    start = time.monotonic()
    if start >= end:
        return {"error": "no time was left"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=end - start)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished in {end - start:.0f} s"}
    outcome: dict[str, Any] = {
        "seconds": round(time.monotonic() - start, 1),
        "output": done.stdout[-2000:],
    }
    if done.returncode:
        outcome["error"] = (done.stderr or done.stdout)[-2000:]
    return outcome


if __name__ == "__main__":
    study()
