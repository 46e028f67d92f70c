"""How fast are the kits for C, C++ and Node, and how many bytes does each way need on a device?

    npm ci --prefix DIR                                  (with the package.json of a Node kit)
    python benchmarks/studies/kits.py ORT DIR/node_modules BUNDLE [BUNDLE ...]

ORT is a folder with include/ and lib/ of ONNX Runtime. The kits are written into a temporary
folder and compiled there. All ways take turns on one core with single texts of 11 and of 40 tokens;
bare onnxruntime gets tokens, all others get text.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.export.kits.write import write_kits
from kdedge.export.neutral_texts import SENTENCES

import kdedge
from kdedge.errors import UsageError
from kdedge.runtime import Bundle, Classifier

TOKENS = (11, 40)
ROUNDS = 5
CALLS = 300
WARM_UP = 50
TIMERS = Path(__file__).with_name("kits_timers")
DEVICE_PACKAGES = ("numpy", "onnxruntime", "tokenizers", "click", "rich")
MB = 1e6

Timer = Callable[[str], list[float]]
"""Returns the seconds of each call for a text."""


@dataclass(frozen=True)
class Way:
    """One way to classify.

    Attributes:
        time: Classifies a text `CALLS` times.
        megabytes: Size on disk of everything except the interpreter and the system's libraries.
    """

    time: Timer
    megabytes: float


def study(onnxruntime: Path, modules: Path, bundles: Sequence[Path]) -> None:
    """Time all ways for all bundles and print the table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(machine_line())
    columns = "".join(f" p50 µs, {tokens} tokens |" for tokens in TOKENS)
    print(f"| bundle | way |{columns} MB on disk |\n| --- | --- |{' --: |' * (len(TOKENS) + 1)}")
    for bundle in bundles:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(bundle, Path(folder) / "bundle"))
            for row in rows_of_bundle(copy, onnxruntime, modules):
                print(f"| {' | '.join(row)} |", flush=True)


def rows_of_bundle(bundle: Path, onnxruntime: Path, modules: Path) -> Iterator[list[str]]:
    """Time all ways in turns."""
    classifier = Classifier.load(bundle, "int8", threads=1)
    texts = [text_of(classifier, tokens) for tokens in TOKENS]
    ways = ways_of(bundle, classifier, onnxruntime.resolve(), modules.resolve())
    medians: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for text in texts:
                seconds = way.time(text)[WARM_UP:]
                medians.setdefault((name, text), []).append(statistics.median(seconds))
    for name, way in ways.items():
        cells = [time_cell(medians[name, text]) for text in texts]
        yield [classifier.manifest.name, name, *cells, f"{way.megabytes:,.1f}"]


def text_of(classifier: Classifier, tokens: int) -> str:
    """Return words of neutral texts that are as many tokens."""
    words = " ".join(SENTENCES).split()
    for start in range(len(words)):
        for end in range(start + 1, len(words)):
            text = " ".join(words[start:end])
            length = classifier.encode([text])["input_ids"].shape[1]
            if length >= tokens:
                break
        if length == tokens:
            return text
    raise UsageError("no neutral text has this number of tokens", str(tokens))


def ways_of(
    bundle: Path, classifier: Classifier, onnxruntime: Path, modules: Path
) -> dict[str, Way]:
    """Write and compile the kits; return all ways by name."""
    opened = Bundle.open(bundle)
    session_files = package_bytes("numpy", "onnxruntime") + folder_bytes(bundle / "onnx")
    own_files = folder_bytes(Path(kdedge.__file__).parent)
    python_files = package_bytes(*DEVICE_PACKAGES) + own_files + folder_bytes(bundle)
    ways = {
        "Python runtime": Way(lambda text: time_python(classifier, text), python_files / MB),
        "bare onnxruntime": Way(lambda text: time_session(classifier, text), session_files / MB),
        "Node kit": node_way(write_kits(opened, ["node"])[0], modules),
        "C++ kit": cpp_way(write_kits(opened, ["cpp"])[0], onnxruntime),
    }
    with suppress(UsageError):  # if the student is no BiLSTM
        ways["C kit"] = c_way(write_kits(opened, ["c"])[0])
    return ways


def time_python(classifier: Classifier, text: str) -> list[float]:
    return time_calls(lambda: classifier.predict(text))


def time_session(classifier: Classifier, text: str) -> list[float]:
    encoded = classifier.encode([text])
    return time_calls(lambda: classifier.run(encoded))


def time_calls(call: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def node_way(kit: Path, modules: Path) -> Way:
    (kit / "node_modules").symlink_to(modules)
    shutil.copy(TIMERS / "timer.mjs", kit)
    names = ("classifier.mjs", "privacy.mjs", "wordpiece.mjs", "unicode.json", "settings.json")
    size = folder_bytes(modules) + (kit / "model.onnx").stat().st_size
    size += sum((kit / name).stat().st_size for name in names)
    return Way(lambda text: time_program(["node", "timer.mjs"], kit, text), size / MB)


def cpp_way(kit: Path, onnxruntime: Path) -> Way:
    library = (onnxruntime / "lib" / "libonnxruntime.so").resolve()
    shutil.copy(TIMERS / "timer.cpp", kit)
    command = ["g++", "-std=c++17", "-O2", "timer.cpp", "-o", "timer"]
    command += ["-I", str(onnxruntime / "include"), str(library), f"-Wl,-rpath,{onnxruntime}/lib"]
    subprocess.run(command, cwd=kit, check=True)
    files = (kit / "timer", kit / "model.onnx", library)
    size = sum(file.stat().st_size for file in files)
    return Way(lambda text: time_program(["./timer"], kit, text), size / MB)


def c_way(kit: Path) -> Way:
    shutil.copy(TIMERS / "timer.c", kit)
    command = ["gcc", "-std=c11", "-O3", "-march=native", "timer.c", "kdedge_model.c"]
    subprocess.run([*command, "-o", "timer", "-lm"], cwd=kit, check=True)
    size = (kit / "timer").stat().st_size
    return Way(lambda text: time_program(["./timer"], kit, text), size / MB)


def time_program(command: list[str], folder: Path, text: str) -> list[float]:
    """Run a timer of a kit, which prints the seconds of each call."""
    arguments = [*command, str(CALLS), text]
    done = subprocess.run(arguments, cwd=folder, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def time_cell(medians: Sequence[float]) -> str:
    """Format the median of the rounds in microseconds, with the lowest and highest."""
    micro = [1e6 * value for value in medians]
    return f"{statistics.median(micro):,.0f} [{min(micro):,.0f}-{max(micro):,.0f}]"


def package_bytes(*names: str) -> int:
    """Return the size of installed packages and of all that they need."""
    return sum(distribution_bytes(name) for name in required(names))


def required(names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            if ";" not in line:
                waiting.append(plain_name(line))
    return found


def plain_name(requirement: str) -> str:
    """Return `numpy` for `numpy>=1.26`."""
    end = 0
    while end < len(requirement) and (requirement[end].isalnum() or requirement[end] in "-_."):
        end += 1
    return requirement[:end].lower()


def distribution_bytes(name: str) -> int:
    total = 0
    for file in importlib.metadata.files(name) or []:
        path = Path(str(file.locate()))
        if path.is_file() and path.suffix != ".pyc":
            total += path.stat().st_size
    return total


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            total += path.stat().st_size
    return total


if __name__ == "__main__":
    study(Path(sys.argv[1]), Path(sys.argv[2]), [Path(bundle) for bundle in sys.argv[3:]])
