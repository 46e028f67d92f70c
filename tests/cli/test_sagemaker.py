"""A SageMaker training job: what it gives is taken, what it is owed is there, and outside of one nothing changes."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import tinyrun

from kdedge.cli.sagemaker import TrainingJob, job, layout
from kdedge.errors import DataError, Interrupted, UsageError
from kdedge.recipe import load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "configs" / "sagemaker" / "Dockerfile").read_text()
OPTIONS = ("seeds", "threads", "runs")


def container(
    folder: Path,
    hyperparameters: dict[str, Any] | str = "{}",
    channels: tuple[str, ...] = (),
    **more: str,
) -> TrainingJob:
    found = TrainingJob.of(
        {
            "SM_MODEL_DIR": str(folder / "model"),
            "SM_HPS": hyperparameters
            if isinstance(hyperparameters, str)
            else json.dumps(hyperparameters),
        }
        | {f"SM_CHANNEL_{name.upper()}": str(folder / name) for name in channels}
        | more
    )
    assert found is not None
    return found


def holding(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("")
    return folder


def test_outside_of_a_job_there_is_none() -> None:
    assert TrainingJob.of({"SM_HPS": "{}", "SM_CHANNEL_TRAIN": "x"}) is None


def test_hyperparameters_are_options_or_keys_of_the_recipe(tmp_path: Path) -> None:
    given = {
        "recipe": '"r.toml"',
        "seeds": "3",
        "student.fit.epochs": 1e-05,
        "student.baseline": False,
        "student.name": '"a"',
        "_tuning": "x",
    }
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "r.toml").write_text("")
    found = container(
        tmp_path,
        given | {"recipe": '"cfg/r.toml"', "sagemaker_program": "x"},
        ("cfg",),
        KDEDGE_CHECKPOINTS="/ck",
    )
    words = found.arguments(
        [
            "--student.fit.epochs",
            "2",
            "--seed=4",
            "--set",
            "seed=5",
            "--json",
            "--student.baseline",
            "True",
        ],
        OPTIONS,
        ("json",),
    )
    assert words[0] == str(tmp_path / "cfg" / "r.toml")
    assert set(words[1:5]) == {
        "--set=student.fit.epochs=2",
        "--set=student.baseline=true",
        '--set=student.name="a"',
        "--set=seed=4",
    }
    assert set(words[5:7]) == {"--seeds=3", "--runs=/ck"}
    assert words[7:] == ["--set=seed=5", "--json"], "what was given by --set comes last and wins"


def test_channels_fill_the_recipe_and_hyperparameters_come_after(tmp_path: Path) -> None:
    holding(tmp_path / "train", "texts.csv", "labels.json")
    holding(tmp_path / "validation", "v.jsonl")
    holding(tmp_path / "test", "t.parquet", ".hidden.csv")
    holding(tmp_path / "teacher", "config.json")
    found = container(
        tmp_path, {"data.train": "other.csv"}, ("train", "validation", "test", "teacher")
    )
    assert found.overrides() == {
        "data.source": str(tmp_path / "train"),
        "data.train": "texts.csv",
        "data.validation": str(tmp_path / "validation" / "v.jsonl"),
        "data.test": str(tmp_path / "test" / "t.parquet"),
        "teacher.model": str(tmp_path / "teacher"),
    }
    assert "--set=data.train=other.csv" in found.arguments(
        ["r.toml"], OPTIONS
    ) and "--set=data.train=texts.csv" not in found.arguments(["r.toml"], OPTIONS)
    holding(tmp_path / "more" / "train", "train.csv", "validation.csv")
    assert container(tmp_path / "more", channels=("train",)).overrides() == {
        "data.source": str(tmp_path / "more" / "train")
    }


@pytest.mark.parametrize(
    ("channel", "names", "says"),
    [
        ("validation", ("a.csv", "b.csv"), "must hold one data file"),
        ("test", (), "must hold one data file"),
        ("model", ("model.tar.gz",), "not packed in an archive"),
        ("train", None, "not there"),
    ],
)
def test_a_channel_that_does_not_hold_what_it_should(
    tmp_path: Path, channel: str, names: tuple[str, ...] | None, says: str
) -> None:
    if names is not None:
        holding(tmp_path / channel, *names)
    with pytest.raises(UsageError, match=says):
        container(tmp_path, channels=(channel,)).overrides()


def test_two_channels_of_one_kind_are_refused(tmp_path: Path) -> None:
    for channel in ("validation", "validation"):
        holding(tmp_path / channel, "a.csv")
    with pytest.raises(UsageError, match="validation, validation"):
        container(tmp_path, channels=("validation", "validation")).overrides()


def test_a_recipe_is_a_file_or_stands_in_a_channel(tmp_path: Path) -> None:
    holding(tmp_path / "config", "a.toml")
    found = container(tmp_path, channels=("config",))
    assert found.recipe("config") == found.recipe("config/a.toml") == tmp_path / "config" / "a.toml"
    assert found.recipe(str(tmp_path / "config" / "a.toml")).is_file()
    (tmp_path / "config" / "b.toml").write_text("")
    for name in ("config", "nowhere", "config/c.toml"):
        with pytest.raises(UsageError, match="names no file"):
            found.recipe(name)
    with pytest.raises(UsageError, match="needs a recipe"):
        found.arguments(["--set", "seed=1"], OPTIONS)
    with pytest.raises(UsageError, match="JSON object"):
        container(tmp_path, "[1]")


def definitions() -> dict[str, str]:
    """The metric definitions of the README: name -> regular expression."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"^metric_definitions = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    assert block, "the README lists metric_definitions"
    return {one["Name"]: one["Regex"] for one in ast.literal_eval(block[1])}


def entry_point() -> list[str]:
    """The command of the Dockerfile, started with this Python."""
    words = [
        word
        for name in ("ENTRYPOINT", "CMD")
        for word in json.loads(re.search(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
    ]
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


def run_job(ml: Path, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    environment = clean | {"KDEDGE_ML": str(ml), "COLUMNS": "200", "PYTHONPATH": str(ROOT)} | more
    return subprocess.run(
        entry_point(), capture_output=True, text=True, cwd=ml, env=environment, timeout=500
    )


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """/opt/ml as SageMaker lays it out: data and a teacher in channels, a recipe in another, hyper-parameters as strings."""
    made = tmp_path / "made"
    made.mkdir()
    document = tinyrun.prepare(made, train=48)
    ml = tmp_path / "ml"
    for channel, split in (("train", "train"), ("validation", "validation"), ("test", "test")):
        (ml / "input" / "data" / channel).mkdir(parents=True)
        (made / "data" / f"{split}.parquet").rename(
            ml / "input" / "data" / channel / f"{split}.parquet"
        )
    (made / "model").rename(ml / "input" / "data" / "model")
    recipe = tinyrun.recipe(
        document
        | {"teacher": {"model": "nowhere", "max_length": 32}, "data": {"overlap": "allow"}},
        student=tinyrun.tinybert(),
    )
    (ml / "input" / "data" / "config").mkdir()
    (ml / "input" / "data" / "config" / "r.toml").write_text(recipe.to_toml())
    hyperparameters(
        ml,
        {"recipe": "config", "student.fit.learning_rate": "0.002", "student.baseline": "true"},
    )
    return ml


def hyperparameters(ml: Path, values: dict[str, str]) -> None:
    (ml / "input" / "config").mkdir(exist_ok=True)
    (ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps(values))


def test_a_job_from_channels_to_artefacts(ml: Path) -> None:
    done = run_job(ml, KDEDGE_CHECKPOINTS=str(ml / "checkpoints"))
    run = RunDir(ml / "model" / "r", load_recipe(ml / "model" / "r" / "recipe.toml"))
    assert run.recipe.student[0].fit.learning_rate == 0.002, done.stderr
    assert run.recipe.data.test == str(ml / "input" / "data" / "test" / "test.parquet")
    assert RunDir.open(run.folder)[1] == ["tinybert"] and {"teacher", "transfer", "student"} <= {
        path.name for path in run.folder.iterdir()
    }
    assert not [
        path
        for path in (ml / "model").rglob("*")
        if path.name.startswith(".") or path.suffix == ".part"
    ]
    assert (ml / "checkpoints" / "r" / "student" / "model.safetensors").read_bytes() == (
        run.folder / "student" / "model.safetensors"
    ).read_bytes()
    result = read_stage(run.folder / "student")["result"]
    found = {
        name: [float(value) for value in re.findall(regex, done.stdout)]
        for name, regex in definitions().items()
    }
    assert found["test"] == [pytest.approx(result["test"], abs=1e-6)] and found["validation"] == [
        pytest.approx(result["validation"], abs=1e-6)
    ]
    assert len(found["training loss"]) >= 1 and len(found["kept"]) == 1
    said = json.loads((ml / "output" / "data" / "scores.json").read_text())
    assert {row["model"] for row in said["rows"]} == {"teacher", "tinybert", "tinybert baseline"}
    assert {path.name for path in (ml / "output" / "data").iterdir()} == {
        "scores.json",
        "recipe.toml",
        "tinybert.jsonl",
    }
    assert not (ml / "output" / "failure").exists()


def test_a_job_that_fails_says_why(ml: Path) -> None:
    hyperparameters(ml, {"recipe": "config", "student.fit.learnng_rate": "0.002"})
    done = run_job(ml)
    assert done.returncode == 2, done.stderr
    told = (ml / "output" / "failure").read_text()
    assert (
        "did you mean learning_rate?" in told
        and "did you mean learning_rate?" in done.stderr
        and len(told) <= 1024
    )
    assert not (ml / "model").exists()


def test_a_job_that_is_stopped_ends_at_once_and_has_not_failed(tmp_path: Path) -> None:
    """Outside of training, which saves first."""
    environment = {
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DIR": str(tmp_path / "output"),
    }
    code = f"""
import os, signal, time
import kdedge.cli.main as command
from kdedge.cli.sagemaker import job

def stopped(**_):
    with job({environment!r}):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

command.cli.main = stopped
command.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 143, done.stderr
    with pytest.raises(Interrupted), job(environment):
        raise Interrupted(signal.SIGTERM, "saved")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ZeroDivisionError("one"), "ZeroDivisionError: one"),
        (click.UsageError("two"), "two"),
        (DataError("rule", "three" * 1000, "next"), "rule\n  detail: three"),
    ],
)
def test_whatever_ends_a_job_is_told(tmp_path: Path, error: Exception, says: str) -> None:
    with pytest.raises(type(error)), job({"SM_MODEL_DIR": "x", "SM_OUTPUT_DIR": str(tmp_path)}):
        raise error
    told = (tmp_path / "failure").read_text()
    assert told.startswith(says) and len(told) <= 1024


def test_the_layout_of_a_bare_container_is_what_the_toolkit_would_say(ml: Path) -> None:
    environment = layout(ml)
    assert environment["SM_CHANNEL_TRAIN"] == str(ml / "input" / "data" / "train") and environment[
        "SM_MODEL_DIR"
    ] == str(ml / "model")
    found = TrainingJob.of(environment)
    assert (
        found is not None
        and found.hyperparameters["recipe"] == "config"
        and set(found.channels) == {"train", "validation", "test", "model", "config"}
    )


def test_the_dockerfile_copies_what_is_there() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert {"pyproject.toml", "README.md", "kdedge", "export", "benchmarks", "configs"} <= set(
        copied
    )
    assert all((ROOT / source).exists() for source in copied)
    assert (
        "--constraint locks/dev.txt" in DOCKERFILE
        and (ROOT / "configs" / "locks" / "dev.txt").is_file()
    )
