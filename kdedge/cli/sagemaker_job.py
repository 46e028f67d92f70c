"""The inputs and outputs of a SageMaker training job, from its environment and channels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.errors import UsageError

DATA_FILES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class TrainingJob:
    """The inputs and outputs of a training job.

    Attributes:
        hyperparameters: Key of the recipe, or `recipe`, `seeds`, `threads` -> value.
        channels: Name -> folder with input files.
        model: Folder that receives the bundles.
        reports: Folder that receives scores and logs.
        runs: Folder of all runs; SageMaker saves and restores it if it holds checkpoints.
    """

    hyperparameters: dict[str, Any]
    channels: dict[str, Path]
    model: Path
    reports: Path
    runs: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TrainingJob:
        """Read the variables that `job_environment` returns."""
        output = Path(environment["SM_OUTPUT_DIR"])
        channels = {}
        for name, value in environment.items():
            if name.startswith("SM_CHANNEL_"):
                channels[name.removeprefix("SM_CHANNEL_").lower()] = Path(value)
        return cls(
            hyperparameters=_parse_hyperparameters(environment.get("SM_HPS", "{}")),
            channels=channels,
            model=Path(environment["SM_MODEL_DIR"]),
            reports=Path(environment.get("SM_OUTPUT_DATA_DIR", output / "data")),
            runs=Path(environment.get("KDEDGE_CHECKPOINTS", "runs")),
        )

    def option(self, name: str) -> int | None:
        """Read a hyper-parameter that is a whole number, such as `seeds`."""
        value = self.hyperparameters.get(name)
        if value is None:
            return None
        text = str(value)
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            raise UsageError(f"the hyper-parameter `{name}` is a positive integer", text)
        return int(text)

    def recipe(self) -> Path:
        """Find the recipe: a file in the container, a file of a channel, or its only one."""
        name = _unquote(str(self.hyperparameters.get("recipe", "")))
        if not name:
            raise UsageError(
                "a training job needs a recipe",
                "the hyper-parameter `recipe` is missing",
                'for example "recipe": "configs/quickstart.toml"',
            )
        if Path(name).is_file():
            return Path(name)
        channel, _, file = name.partition("/")
        folder = self.channels.get(channel.lower())
        # glob refuses an absolute pattern.
        matches = sorted(folder.glob(file.lstrip("/") or "*.toml")) if folder else []
        if len(matches) != 1:
            raise UsageError(
                "the hyper-parameter `recipe` does not name one file",
                f"{name}: {len(matches)} files",
                f"a path in the container, or in one of the channels {', '.join(self.channels)}",
            )
        return matches[0]

    def overrides(self) -> tuple[str, ...]:
        """List the keys of the recipe that the job sets; hyper-parameters come after channels."""
        values = self._channel_values()
        for key, value in self.hyperparameters.items():
            if key not in ("recipe", "seeds", "threads"):
                values[key] = _override_text(value)
        return tuple(f"{key}={value}" for key, value in values.items())

    def _channel_values(self) -> dict[str, str]:
        values = {}
        for channel, folder in self.channels.items():
            if channel == "train":
                files = _data_files(channel, folder)
                values["data.source"] = str(folder)
                if len(files) == 1:
                    values["data.train"] = files[0].name
            elif channel in ("validation", "test"):
                values[f"data.{channel}"] = str(_only_data_file(channel, folder))
            elif channel in ("model", "teacher"):
                _check_teacher(channel, folder)
                values["teacher.model"] = str(folder)
        return values


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the variables that the training toolkit sets.

    Without the toolkit, they describe the folders that SageMaker creates below /opt/ml.
    """
    if "SM_MODEL_DIR" in environment:
        return {"SM_OUTPUT_DIR": "/opt/ml/output", **environment}
    root = Path(environment.get("KDEDGE_ML", "/opt/ml"))
    variables = {"SM_MODEL_DIR": str(root / "model"), "SM_OUTPUT_DIR": str(root / "output")}
    hyperparameters = root / "input" / "config" / "hyperparameters.json"
    if hyperparameters.is_file():
        variables["SM_HPS"] = hyperparameters.read_text(encoding="utf-8")
    for folder in sorted((root / "input" / "data").glob("*/")):
        variables[f"SM_CHANNEL_{folder.name.upper()}"] = str(folder)
    return {**environment, **variables}


def _parse_hyperparameters(text: str) -> dict[str, Any]:
    """Parse a JSON object, without the hyper-parameters that SageMaker adds for itself."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError("hyper-parameters must be a JSON object", str(error)) from error
    if not isinstance(values, dict):
        raise UsageError("hyper-parameters must be a JSON object", text[:60])
    return {key: value for key, value in values.items() if not key.startswith(("sagemaker_", "_"))}


def _override_text(value: Any) -> str:
    """Write a value as `--set` reads it; SageMaker writes booleans as Python does."""
    if isinstance(value, str):
        return {"True": "true", "False": "false"}.get(value, value)
    return json.dumps(value)


def _unquote(text: str) -> str:
    """Remove the quotes that SageMaker's SDK puts around strings."""
    return text.removeprefix('"').removesuffix('"')


def _data_files(channel: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(
            f"the channel {channel} does not exist", str(folder), "check the job's input channels"
        )
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in DATA_FILES)


def _only_data_file(channel: str, folder: Path) -> Path:
    files = _data_files(channel, folder)
    if len(files) != 1:
        raise UsageError(
            f"the channel {channel} must hold one data file",
            f"{len(files)} in {folder}",
            f"a file that ends in {', '.join(DATA_FILES)}",
        )
    return files[0].resolve()


def _check_teacher(channel: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"the channel {channel} must hold a model with its config.json",
            str(folder),
            "use an S3 prefix with the files of a Hugging Face model, not packed in an archive",
        )
