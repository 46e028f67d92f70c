"""`kdedge distill` as a SageMaker training job: data, hyper-parameters and results stand where such a container finds and leaves them.

    python -m kdedge.cli.sagemaker train

is the entry point: it takes what SageMaker laid out under /opt/ml and runs `kdedge distill`, which can also be called by itself
wherever SM_MODEL_DIR is set, as by the SageMaker training toolkit.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kdedge.errors import Interrupted, KdedgeError, UsageError

ROLES = {
    "train": "train",
    "validation": "validation",
    "test": "test",
}
"""Channel -> the key of [data] that it fills."""

TEACHERS = ("model", "teacher")
"""Channels that hold the teacher."""

DATA_FILES = (".csv", ".tsv", ".jsonl", ".parquet")
FAILURE_LENGTH = 1024
"""Characters of the failure file that SageMaker shows."""


@dataclass(frozen=True)
class TrainingJob:
    """A training job as its environment tells it.

    channels: name -> folder of data. hyperparameters: key of the recipe, or `recipe`, `seeds`, ... -> value.
    checkpoints: folder of the runs, which SageMaker copies to S3 while the job runs and brings back after an interruption.
    """

    model: Path
    reports: Path | None
    channels: dict[str, Path]
    hyperparameters: dict[str, Any]
    checkpoints: Path | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> TrainingJob | None:
        """None outside of a training job, where SM_MODEL_DIR is not set. Raises UsageError where SM_HPS is not a JSON object."""
        if not environment.get("SM_MODEL_DIR"):
            return None
        prefix = "SM_CHANNEL_"
        return cls(
            model=Path(environment["SM_MODEL_DIR"]),
            reports=Path(environment["SM_OUTPUT_DATA_DIR"])
            if environment.get("SM_OUTPUT_DATA_DIR")
            else None,
            channels={
                name.removeprefix(prefix).lower(): Path(folder)
                for name, folder in environment.items()
                if name.startswith(prefix)
            },
            hyperparameters=_hyperparameters(environment.get("SM_HPS", "{}"), "SM_HPS"),
            checkpoints=Path(environment["KDEDGE_CHECKPOINTS"])
            if environment.get("KDEDGE_CHECKPOINTS")
            else None,
        )

    def arguments(
        self, given: list[str], options: Collection[str], flags: Collection[str] = ()
    ) -> list[str]:
        """The arguments of `kdedge distill` that these arguments and this environment mean.

        options, flags: names of the command's own, such as `seeds`, with and without a value; any other `--key value` is a key of the recipe.
        Channels fill the recipe first, then hyper-parameters, then what was given as arguments.
        Raises UsageError where a channel does not hold what its name says, or no recipe is named.
        """
        plain, wanted = _taken_apart(
            given, {key: _as_text(value) for key, value in self.hyperparameters.items()}, flags
        )
        own = {key: _unquoted(wanted.pop(key)) for key in options if key in wanted}
        recipe = [str(self.recipe(_unquoted(wanted.pop("recipe"))))] if "recipe" in wanted else []
        if (
            not recipe
            and all(word.startswith("-") for word in plain)
            and not {"-h", "--help"} & set(plain)
        ):
            raise UsageError(
                "a training job needs a recipe",
                "no hyper-parameter `recipe`",
                'such as "recipe": "configs/quickstart.toml", or a channel',
            )
        if self.checkpoints:
            own.setdefault("runs", str(self.checkpoints))
        sets = [f"--set={key}={value}" for key, value in (self.overrides() | wanted).items()]
        return [*recipe, *sets, *(f"--{key}={value}" for key, value in own.items()), *plain]

    def overrides(self) -> dict[str, str]:
        """Keys of the recipe that the channels fill."""
        found: dict[str, str] = {}
        for channel, folder in self.channels.items():
            _reject_two_of_a_kind(channel, self.channels)
            if channel == "train":
                found |= _training_data(folder)
            elif channel in ROLES:
                found[f"data.{ROLES[channel]}"] = str(_only_data_file(channel, folder))
            elif channel in TEACHERS:
                found["teacher.model"] = str(_teacher(channel, folder))
        return found

    def recipe(self, name: str) -> Path:
        """The file that the hyper-parameter `recipe` means: a path, a channel that holds one .toml, or a file in a channel."""
        channel, _, inside = name.partition("/")
        folder = self.channels.get(channel.lower())
        if Path(name).is_file():
            return Path(name)
        if folder and (folder / inside).is_file():
            return folder / inside
        held = sorted(folder.glob("*.toml")) if folder and not inside else []
        if len(held) == 1:
            return held[0]
        looked = f"{name}: no such file" + (
            f"; the channel holds {len(held)} .toml files" if folder and not inside else ""
        )
        raise UsageError(
            "the hyper-parameter `recipe` names no file",
            looked,
            f"a path in the container, or one of the channels {_listed(self.channels)}",
        )


def _reject_two_of_a_kind(channel: str, channels: Mapping[str, Path]) -> None:
    """Raises UsageError where another channel would fill the same key of the recipe."""
    kinds = ROLES | dict.fromkeys(TEACHERS, "teacher")
    same = [other for other in channels if channel in kinds and kinds.get(other) == kinds[channel]]
    if len(same) > 1:
        raise UsageError(
            "two channels mean the same part of the recipe", _listed(same), "keep one of them"
        )


def failure_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("SM_OUTPUT_DIR", "/opt/ml/output")) / "failure"


def _training_data(folder: Path) -> dict[str, str]:
    """A folder becomes the source, and its only data file, if it has but one, the training split."""
    files = _data_files("train", folder)
    return {"data.source": str(folder)} | ({"data.train": files[0].name} if len(files) == 1 else {})


def _only_data_file(channel: str, folder: Path) -> Path:
    files = _data_files(channel, folder)
    if len(files) != 1:
        raise UsageError(
            f"the channel {channel} must hold one data file",
            f"{_listed(files) or 'none'} in {folder}",
            f"one of {', '.join(DATA_FILES)}",
        )
    return files[0].resolve()


def _data_files(channel: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(
            f"the channel {channel} is not there", str(folder), "check the job's input channels"
        )
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in DATA_FILES and not path.name.startswith(".")
    )


def _teacher(channel: str, folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        there = _listed(sorted(folder.iterdir())) if folder.is_dir() else "nothing"
        step = "give the channel an S3 prefix with the files of a Hugging Face model, not packed in an archive"
        raise UsageError(
            f"the channel {channel} must hold a model with its config.json",
            f"{there} in {folder}",
            step,
        )
    return folder


def _listed(names: Any) -> str:
    return ", ".join(name.name if isinstance(name, Path) else str(name) for name in names)


def _hyperparameters(text: str, where: str) -> dict[str, Any]:
    """The job's hyper-parameters without those that SageMaker adds for itself."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(
            "hyper-parameters are a JSON object", f"{where}: {error}", "as SageMaker writes it"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(
            "hyper-parameters are a JSON object", f"{where}: {text[:60]}", "as SageMaker writes it"
        )
    return {key: value for key, value in found.items() if not key.startswith(("sagemaker_", "_"))}


def _taken_apart(
    given: list[str], known: dict[str, str], flags: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """(arguments that stay as they are, the others and the known ones as key -> value); a recipe, `--set` and flags stay."""
    plain, wanted, words = [], dict(known), list(given)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if (
            not word.startswith("--")
            or key in flags
            or (not equals and (not words or words[0].startswith("--")))
        ):
            plain.append(word)
        else:
            value = value if equals else words.pop(0)
            if key == "set":
                plain.append(f"--set={value}")
            else:
                wanted[key] = _as_text(value)
    return plain, wanted


def _as_text(value: Any) -> str:
    """As `--set` reads it: SageMaker writes booleans as Python does."""
    if isinstance(value, str):
        return {"True": "true", "False": "false"}.get(value, value)
    return json.dumps(value)


def _unquoted(text: str) -> str:
    """Without the quotes that SageMaker puts around some strings; in the recipe's keys TOML reads them."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


@contextmanager
def job(environment: Mapping[str, str]) -> Iterator[TrainingJob | None]:
    """The training job of this environment, or None, and what is owed to SageMaker: why it failed."""
    if not environment.get("SM_MODEL_DIR"):
        yield None
        return
    try:
        yield TrainingJob.of(environment)
    except (Interrupted, click.exceptions.Exit):  # a job that was stopped has not failed
        raise
    except Exception as error:
        _write_failure(failure_file(environment), _reason(error))
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, KdedgeError):
        return error.format()
    return (
        error.format_message()
        if isinstance(error, click.ClickException)
        else f"{type(error).__name__}: {error}"
    )


def _write_failure(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text[:FAILURE_LENGTH], encoding="utf-8")
    except OSError as error:
        click.echo(f"the failure file cannot be written: {file}: {error.strerror}", err=True)


def metric_line(name: str, value: float) -> str:
    """A line that a metric definition's regular expression can take: `kdedge_metric tinybert.validation=0.912300`."""
    return f"kdedge_metric {name.replace(' ', '_')}={value:.6f}"


class SageMakerCommand(click.Command):
    """A command that, where it runs as a SageMaker training job, takes the job's data and hyper-parameters too, and tells why it failed."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with job(os.environ) as container:
            if container:
                options = {
                    name.removeprefix("--"): o.is_flag
                    for o in self.params
                    if isinstance(o, click.Option)
                    for name in o.opts
                    if name != "--set"
                }
                args = container.arguments(
                    args,
                    [name for name, flag in options.items() if not flag],
                    [name for name, flag in options.items() if flag],
                )
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with job(os.environ):
            return super().invoke(ctx)


def layout(root: Path) -> dict[str, str]:
    """The environment that the training toolkit would set, read from the folders that SageMaker lays out under /opt/ml."""
    settings = root / "input" / "config" / "hyperparameters.json"
    channels = root / "input" / "data"
    folders = (
        sorted(path for path in channels.iterdir() if path.is_dir()) if channels.is_dir() else []
    )
    return {
        "SM_MODEL_DIR": str(root / "model"),
        "SM_OUTPUT_DIR": str(root / "output"),
        "SM_OUTPUT_DATA_DIR": str(root / "output" / "data"),
        "SM_HPS": settings.read_text(encoding="utf-8") if settings.is_file() else "{}",
        **{f"SM_CHANNEL_{folder.name.upper()}": str(folder) for folder in folders},
    }


def main() -> None:
    """The container's entry point; SageMaker calls it with the word `train`."""
    if not os.environ.get("SM_MODEL_DIR"):
        os.environ.update(layout(Path(os.environ.get("KDEDGE_ML", "/opt/ml"))))
    from kdedge.cli.main import main as kdedge

    sys.argv = ["kdedge", "distill", *(word for word in sys.argv[1:] if word != "train")]
    kdedge()


if __name__ == "__main__":
    main()
