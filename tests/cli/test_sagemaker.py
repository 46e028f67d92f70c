"""A SageMaker training job: its inputs become a recipe, its outputs are where SageMaker expects."""

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

import factories
import pyarrow.parquet as pq
import pytest

from kdedge.cli.sagemaker import failure_file
from kdedge.cli.sagemaker_job import TrainingJob, job_environment
from kdedge.errors import DataError, Interrupted, UsageError
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.runtime import Bundle

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "configs" / "sagemaker" / "Dockerfile").read_text()


def make_job(
    folder: Path, hyperparameters: Any = None, channels: tuple[str, ...] = ()
) -> TrainingJob:
    environment = {
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_OUTPUT_DIR": str(folder / "output"),
        "SM_HPS": json.dumps(hyperparameters or {}),
    }
    for name in channels:
        environment[f"SM_CHANNEL_{name.upper()}"] = str(folder / name)
    return TrainingJob.from_environment(environment)


def write_files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("")
    return folder


def test_hyperparameters_are_options_or_keys_of_the_recipe(tmp_path: Path) -> None:
    write_files(tmp_path / "cfg", "r.toml")
    hyperparameters = {
        "recipe": '"cfg/r.toml"',
        "seeds": "3",
        "threads": 2,
        "student.fit.epochs": 1e-05,
        "student.baseline": "False",
        "student.name": '"a"',
        "_tuning": "x",
        "sagemaker_program": "x",
    }
    job = make_job(tmp_path, hyperparameters, ("cfg",))
    assert job.recipe() == tmp_path / "cfg" / "r.toml"
    assert (job.option("seeds"), job.option("threads"), job.option("runs")) == (3, 2, None)
    assert job.overrides() == (
        "student.fit.epochs=1e-05",
        "student.baseline=false",
        'student.name="a"',
    )
    with pytest.raises(UsageError, match="positive integer"):
        make_job(tmp_path, {"seeds": "many"}).option("seeds")
    with pytest.raises(UsageError, match="positive integer"):
        make_job(tmp_path, {"seeds": "²"}).option("seeds")
    with pytest.raises(UsageError, match="JSON object"):
        make_job(tmp_path, [1])


def test_channels_fill_the_recipe_and_hyperparameters_come_after(tmp_path: Path) -> None:
    write_files(tmp_path / "train", "texts.csv", "labels.json")
    write_files(tmp_path / "validation", "v.jsonl")
    write_files(tmp_path / "test", "t.parquet", ".hidden.csv")
    write_files(tmp_path / "teacher", "config.json")
    channels = ("train", "validation", "test", "teacher")
    assert make_job(tmp_path, channels=channels).overrides() == (
        f"data.source={tmp_path / 'train'}",
        "data.train=texts.csv",
        f"data.validation={tmp_path / 'validation' / 'v.jsonl'}",
        f"data.test={tmp_path / 'test' / 't.parquet'}",
        f"teacher.model={tmp_path / 'teacher'}",
    )
    job = make_job(tmp_path, {"data.train": "other.csv"}, channels)
    assert "data.train=other.csv" in job.overrides()
    assert "data.train=texts.csv" not in job.overrides()


def test_a_train_channel_with_several_files_is_only_the_source(tmp_path: Path) -> None:
    write_files(tmp_path / "train", "train.csv", "validation.csv")
    job = make_job(tmp_path, channels=("train",))
    assert job.overrides() == (f"data.source={tmp_path / 'train'}",)


@pytest.mark.parametrize(
    ("channel", "names", "message"),
    [
        ("validation", ("a.csv", "b.csv"), "must hold one data file"),
        ("test", (), "must hold one data file"),
        ("model", ("model.tar.gz",), "not packed in an archive"),
        ("train", None, "does not exist"),
    ],
)
def test_a_channel_with_the_wrong_files_is_an_error(
    tmp_path: Path, channel: str, names: tuple[str, ...] | None, message: str
) -> None:
    if names is not None:
        write_files(tmp_path / channel, *names)
    with pytest.raises(UsageError, match=message):
        make_job(tmp_path, channels=(channel,)).overrides()


def test_the_recipe_is_a_file_or_in_a_channel(tmp_path: Path) -> None:
    write_files(tmp_path / "config", "a.toml")
    expected = tmp_path / "config" / "a.toml"
    for name in ("config", "config/a.toml", str(expected)):
        assert make_job(tmp_path, {"recipe": name}, ("config",)).recipe() == expected
    (tmp_path / "config" / "b.toml").write_text("")
    for name in ("config", "nowhere", "config/c.toml"):
        with pytest.raises(UsageError, match="does not name one file"):
            make_job(tmp_path, {"recipe": name}, ("config",)).recipe()
    with pytest.raises(UsageError, match="needs a recipe"):
        make_job(tmp_path).recipe()


def metric_definitions() -> dict[str, str]:
    """Read the metric definitions of the SageMaker page: name -> regular expression."""
    text = (ROOT / "docs" / "how-to" / "sagemaker.md").read_text()
    block = re.search(r"^metric_definitions = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    assert block, "the page lists metric_definitions"
    return {definition["Name"]: definition["Regex"] for definition in ast.literal_eval(block[1])}


def entry_point() -> list[str]:
    """Return the command of the Dockerfile, started with this Python."""
    words = []
    for name in ("ENTRYPOINT", "CMD"):
        line = re.search(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
        assert line
        words += json.loads(line[1])
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


def run_job(ml: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SM_")}
    environment |= {"KDEDGE_ML": str(ml), "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        entry_point(),
        capture_output=True,
        text=True,
        cwd=ml,
        env=environment | more,
        timeout=500,
    )


@pytest.fixture
def ml(tmp_path: Path) -> Path:
    """/opt/ml as SageMaker lays it out: data, a teacher and a recipe in channels."""
    source = tmp_path / "source"
    source.mkdir()
    document = factories.write_data_and_teacher(source, train=48)
    ml = tmp_path / "ml"
    channels = ml / "input" / "data"
    for split in ("train", "validation", "test"):
        (channels / split).mkdir(parents=True)
        (source / "data" / f"{split}.parquet").rename(channels / split / f"{split}.parquet")
    (source / "model").rename(channels / "model")
    document |= {
        "teacher": {"model": "nowhere", "max_length": 32},
        "data": {"overlap": "allow"},
    }
    recipe = factories.make_recipe(document, student=factories.tinybert_config())
    (channels / "config").mkdir()
    (channels / "config" / "r.toml").write_text(recipe.to_toml())
    hyperparameters = {
        "recipe": "config",
        "student.fit.learning_rate": "0.002",
        "student.baseline": "true",
    }
    write_hyperparameters(ml, hyperparameters)
    return ml


def write_hyperparameters(ml: Path, values: dict[str, str]) -> None:
    (ml / "input" / "config").mkdir(exist_ok=True)
    (ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps(values))


def test_the_variables_describe_the_folders_of_a_container(ml: Path) -> None:
    environment = job_environment({"KDEDGE_ML": str(ml)})
    assert environment["SM_MODEL_DIR"] == str(ml / "model")
    job = TrainingJob.from_environment(environment)
    assert job.hyperparameters["recipe"] == "config"
    assert job.channels["train"] == ml / "input" / "data" / "train"
    assert set(job.channels) == {"train", "validation", "test", "model", "config"}


@pytest.mark.slow
def test_a_job_from_channels_to_outputs(ml: Path) -> None:
    done = run_job(ml, KDEDGE_CHECKPOINTS=str(ml / "checkpoints"))
    assert done.returncode == 0, done.stderr
    run = RunDir.open(ml / "checkpoints" / "r")[0]
    assert run.recipe.student[0].fit.learning_rate == 0.002
    assert run.recipe.data.test == str(ml / "input" / "data" / "test" / "test.parquet")
    # The model folder holds a bundle and nothing else: no transfer set, and no text of the job.
    assert [path.name for path in (ml / "model").iterdir()] == ["r-tinybert"]
    bundle = Bundle.open(ml / "model" / "r-tinybert")
    bundle.verify_files()
    stored = b"".join(path.read_bytes() for path in (ml / "model").rglob("*") if path.is_file())
    for split in ("train", "validation", "test"):
        table = pq.read_table(ml / "input" / "data" / split / f"{split}.parquet")
        for text in table["text"].to_pylist():
            assert text.encode() not in stored
    assert not (ml / "output" / "failure").exists()

    values = {}
    for name, regex in metric_definitions().items():
        values[name] = [float(value) for value in re.findall(regex, done.stdout)]
    result = read_stage(run.folder / "student").result
    assert values["test"] == [pytest.approx(result["test"], abs=1e-6)]
    assert values["validation"] == [pytest.approx(result["validation"], abs=1e-6)]
    assert len(values["training loss"]) >= 1 and len(values["retention"]) == 1

    reports = ml / "output" / "data"
    names = {path.name for path in reports.iterdir()}
    assert names == {"scores.json", "recipe.toml", "tinybert.jsonl"}
    rows = json.loads((reports / "scores.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"teacher", "tinybert", "tinybert baseline"}


@pytest.mark.slow
def test_a_job_that_fails_writes_the_reason(ml: Path) -> None:
    write_hyperparameters(ml, {"recipe": "config", "student.fit.learnng_rate": "0.002"})
    done = run_job(ml)
    assert done.returncode == 2 and "did you mean learning_rate?" in done.stderr, done.stderr
    assert "did you mean learning_rate?" in (ml / "output" / "failure").read_text()
    assert not (ml / "model").exists()


def test_a_stopped_job_has_not_failed(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), failure_file(tmp_path):
        raise Interrupted(signal.SIGTERM, "saved")
    assert not (tmp_path / "failure").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("reason"), "ZeroDivisionError: reason"),
        (DataError("message", "detail" * 1000, "hint"), "message\n"),
    ],
)
def test_every_error_is_written_to_the_failure_file(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    with pytest.raises(type(error)), failure_file(tmp_path / "output"):
        raise error
    text = (tmp_path / "output" / "failure").read_text()
    assert text.startswith(reason) and len(text) <= 1024


def test_the_dockerfile_copies_files_that_exist() -> None:
    copied = []
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        copied += line.split()[:-1]
    required = {"pyproject.toml", "README.md", "kdedge", "export", "benchmarks", "configs"}
    assert required <= set(copied)
    assert all((ROOT / source).exists() for source in copied)
    assert "--require-hashes -r locks/train.txt" in DOCKERFILE
