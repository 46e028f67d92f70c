"""`import kdedge` is light, and every public name exists."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import kdedge

ROOT = Path(__file__).resolve().parents[2]

HEAVY = "{'torch', 'transformers', 'pydantic', 'rich'} & set(sys.modules)"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", kdedge.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(kdedge, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(kdedge)


def test_the_import_and_the_classifier_need_no_training_packages() -> None:
    code = f"import sys, kdedge; kdedge.Classifier, kdedge.bench, kdedge.Report; print({HEAVY})"
    assert run_python(code) == "set()"


@pytest.mark.slow
def test_a_missing_package_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import kdedge\n"
        "try: kdedge.distill\n"
        "except kdedge.KdedgeError as error: print(error.format(), error.exit_code)"
    )
    answer = run_python(code)
    assert "kdedge.distill needs more packages" in answer
    assert 'pip install "kdedge-toolkit[train]"' in answer and answer.endswith("4")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="destill"):
        kdedge.destill  # noqa: B018


def test_types_are_shipped() -> None:
    spec = find_spec("kdedge")
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).with_name("py.typed").is_file()
    assert '"kdedge" = ["py.typed"]' in (ROOT / "pyproject.toml").read_text()
