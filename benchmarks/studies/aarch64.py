"""Does the device install work on aarch64, and does it give the same answers?

    python benchmarks/studies/aarch64.py FOLDER BUNDLE ...

qemu runs each instruction of an aarch64 Python on this machine: the answers are real, the times are
not. FOLDER receives Debian's Python for arm64, a qemu, and the wheels of configs/locks/device.txt
for aarch64; what is there already is kept. It needs apt-get, dpkg, pip and a network, and no root.

Here and there, `kdedge verify` replays the golden texts of each bundle, and `kdedge predict`
classifies the same texts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdedge.benchmarks.remote.wheel import write_wheel
from kdedge.benchmarks.sources import bundle_name
from kdedge.benchmarks.studies._machine_line import machine_line

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "configs" / "locks" / "device.txt"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

PYTHON_RELEASE = "bookworm"
"""Its Python is 3.11, the oldest that kdedge supports."""

QEMU_RELEASE = "trixie"
"""Its qemu is 10. ONNX Runtime crashes on import under bookworm's qemu 7.2."""

PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
HEADER = (
    "bundle",
    "file",
    "golden texts with equal labels",
    "largest logit difference",
    "equal predictions here and there",
    "largest difference of a score",
)


def study(folder: Path, bundles: Sequence[Path]) -> None:
    """Compare all bundles here and on aarch64, and print the table."""
    there = prepare(folder)
    versions = run([*there, "-c", VERSIONS], folder).strip()
    print(f"# The device install on aarch64\n\nThere: {versions}\n\nHere: {machine_line()}")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for bundle in bundles:
        for row in rows_of_bundle(bundle.resolve(), there, folder):
            print(f"| {' | '.join(row)} |", flush=True)


VERSIONS = """
import platform, numpy, onnxruntime, tokenizers
print(platform.machine(), "Python", platform.python_version(), end="")
for package in (numpy, onnxruntime, tokenizers):
    print(",", package.__name__, package.__version__, end="")
"""


def rows_of_bundle(bundle: Path, there: Sequence[str], folder: Path) -> list[list[str]]:
    """Verify a bundle there, and predict its golden texts in both places."""
    golden = json.loads((bundle / "golden.json").read_text(encoding="utf-8"))["rows"]
    texts = [str(row["text"]) for row in golden]
    pairs = [str(row["pair"]) for row in golden if "pair" in row]
    if pairs:
        raise SystemExit("this study is for bundles of single texts")
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = ["predict", str(bundle), "--file", str(folder / "texts.jsonl"), "--json"]
    answers = {}
    for name, python in (("here", [sys.executable]), ("there", list(there))):
        lines = run([*python, "-m", "kdedge", *words], folder).splitlines()
        answers[name] = [json.loads(line) for line in lines]
    same = [a["label"] == b["label"] for a, b in zip(*answers.values(), strict=True)]
    scores = [abs(a["score"] - b["score"]) for a, b in zip(*answers.values(), strict=True)]
    verified = json.loads(run([*there, "-m", "kdedge", "verify", str(bundle), "--json"], folder))
    rows = []
    for replay in verified["replays"]:
        equal = replay["texts"] - replay["label_mismatches"]
        rows.append(
            [
                bundle_name(bundle),
                replay["precision"],
                f"{equal} of {replay['texts']}",
                f"{replay['max_abs_logit']:.2g} (limit {replay['tolerance']:g})",
                f"{sum(same)} of {len(same)}",
                f"{max(scores):.2g}",
            ]
        )
    return rows


def prepare(folder: Path) -> list[str]:
    """Download and unpack everything; return the command that starts Python there."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    root, qemu, site = folder / "root", folder / "qemu", folder / "site"
    if not root.is_dir():
        unpack_debian(
            folder / "apt-arm64", "arm64", PYTHON_RELEASE, ["python3", "libstdc++6"], root
        )
    if not qemu.is_dir():
        unpack_debian(folder / "apt-qemu", "amd64", QEMU_RELEASE, ["qemu-user"], qemu)
    wheels = folder / "wheels"
    if not wheels.is_dir():
        download_wheels(wheels)
    for wheel in [*wheels.glob("*.whl"), write_wheel(folder)]:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    command = [str(qemu / "usr/bin/qemu-aarch64"), "-L", str(root)]
    return [*command, "-E", f"PYTHONPATH={site}", str(root / "usr/bin/python3.11")]


def unpack_debian(
    folder: Path, architecture: str, release: str, packages: Sequence[str], target: Path
) -> None:
    """Download Debian packages with all that they need, and unpack them.

    apt gets lists, cache and settings of its own: this system's packages do not matter.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {release} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    lines = [f'{name} "{value}";' for name, value in settings.items()]
    (folder / "apt.conf").write_text(
        "\n".join([*lines, f'APT::Architectures {{ "{architecture}"; }};']) + "\n"
    )
    environment = {"APT_CONFIG": str(folder / "apt.conf")}
    run(["apt-get", "--quiet", "update"], folder, environment)
    command = ["apt-get", "--quiet", "--yes", "--download-only", "install", *packages]
    run(command, folder, environment)
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        run(["dpkg", "-x", str(package), str(target)], folder)


def download_wheels(folder: Path) -> None:
    """Download the locked packages of the device install for aarch64."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--implementation=cp", "--python-version=3.11", "--require-hashes"]
    for platform in PLATFORMS:
        command.append(f"--platform={platform}_aarch64")
    run([*command, "--dest", str(folder), "--requirement", str(LOCK)], folder.parent)


def run(command: Sequence[str], folder: Path, changes: Mapping[str, Any] | None = None) -> str:
    """Run a command and return its stdout; if it fails, the study ends with its messages."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(changes or {})}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    study(Path(sys.argv[1]), [Path(bundle) for bundle in sys.argv[2:]])
