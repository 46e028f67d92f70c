"""The examples run as they stand, with a tiny teacher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import bert, tokenizer
from kdedge_process import one_core

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"

LONGEST_SCRIPT = 12
"""Lines of code of examples/in_memory.py, at most."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny encoder with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    pieces = tokenizer()
    model = bert(vocabulary=len(pieces), max_position_embeddings=128)
    model.bert.save_pretrained(folder)
    pieces.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_script_runs(encoder: Path, tmp_path: Path) -> None:
    with one_core():
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "in_memory.py"), str(encoder)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("good", "bad")
    assert (tmp_path / "runs" / "my-run" / "bundle" / "kdedge.json").is_file()


def test_the_script_is_short() -> None:
    lines = (EXAMPLES / "in_memory.py").read_text(encoding="utf-8").split('"""')[2].splitlines()
    assert len([line for line in lines if line and "import" not in line]) <= LONGEST_SCRIPT


def test_the_notebook_is_committed_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert cell["metadata"] == {}


@pytest.mark.slow
def test_the_notebook_runs(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Imported here because the imports take seconds in every worker.
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("KDEDGE_TEACHER", str(encoder))
    monkeypatch.setenv("KDEDGE_ARTICLES", "500")
    monkeypatch.setenv("KDEDGE_SECONDS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    with one_core():
        NotebookClient(notebook, timeout=400, kernel_name="python3", resources=folder).execute()

    texts, distilled, exported, measured, predictions = _outputs(notebook)
    assert "500 texts" in texts
    assert "student bilstm" in distilled and "retention" in distilled
    assert "bundle" in exported
    assert "retention" in measured
    labels = {line.split()[0] for line in predictions.splitlines()}
    assert labels <= {"business", "entertainment", "politics", "sports", "tech"}
    recipe = tmp_path / "runs" / "bbc" / "inputs" / "recipe.toml"
    assert recipe.is_file()
    assert "\x1b" not in json.dumps(distilled)


def _outputs(notebook: Any) -> list[str]:
    """Return what the cells show, as one text each, without the cells that show nothing."""
    shown = []
    for cell in notebook.cells:
        parts = []
        for output in cell.get("outputs", []):
            parts.append(output.get("text", ""))
            parts += output.get("data", {}).values()
        if parts:
            shown.append("\n".join(parts))
    return shown
