"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdedge.io.hub import use_cache_if_unreachable
from kdedge.run.processes import DEVICE_VARIABLE

if TYPE_CHECKING:
    from kdedge.data.task import Task
    from kdedge.recipe import Recipe
    from kdedge.run.progress import Progress

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document as the last line of stdout."
)
provider_option = click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="Execution provider of ONNX Runtime, such as cpu, cuda or openvino.",
)
fallback_option = click.option(
    "--allow-cpu-fallback",
    "fallback",
    is_flag=True,
    help="Run nodes that the provider cannot run on the CPU. Default: that is an error.",
)


@dataclass(frozen=True)
class ProviderOptions:
    """The execution provider, and whether nodes that it cannot run may run on the CPU."""

    provider: str = "cpu"
    fallback: bool = False


digest_option = click.option(
    "--digest",
    metavar="sha256:...",
    help="Digest that the bundle must have, as `kdedge info` prints it.",
)
wide_option = click.option("--wide", is_flag=True, help="Show all columns of the table.")
strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1 if a warning means that the result cannot be trusted.",
)
force_option = click.option(
    "--force", is_flag=True, help="Replace stages whose inputs or files have changed."
)


class FiniteRange(click.FloatRange):
    """A range of numbers; `nan`, which no comparison rejects, and `inf` are not in it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def default_option(flag: str, kind: click.ParamType[Any], default: Any, text: str) -> Decorator:
    """Make an option whose help ends with its default."""
    return click.option(flag, type=kind, default=default, show_default=True, help=text)


def option_group(parameter: str, factory: Callable[..., Any], *options: Decorator) -> Decorator:
    """Pass several click options to a command as one object.

    Args:
        parameter: The command's parameter that receives the object.
        factory: Makes the object; its parameters are named as the options.
        options: Decorators made by `click.option` or `click.argument`.

    Example:
        ```python
        @click.command()
        @option_group("output", OutputOptions, wide_option, strict_option, json_option)
        def bench(output: OutputOptions) -> None:
            print(output.wide)
        ```
    """
    names = list(inspect.signature(factory).parameters)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            own = {name: values.pop(name) for name in names if name in values}
            return function(**{parameter: factory(**own)}, **values)

        for option in reversed(options):
            option(command)
        return command

    return decorate


provider_options = option_group("execution", ProviderOptions, provider_option, fallback_option)


@dataclass(frozen=True)
class OutputOptions:
    """What a command prints, and whether its warnings fail."""

    wide: bool = False
    strict: bool = False
    as_json: bool = False


DEFAULT_OUTPUT = OutputOptions()


@dataclass(frozen=True)
class RecipeArguments:
    """A recipe as named on the command line, and where and how to run it."""

    recipe: Path
    overrides: tuple[str, ...]
    runs: Path
    threads: int | None

    def load(self) -> Recipe:
        """Read the recipe and choose its number of threads; imports nothing heavy."""
        from kdedge.recipe import load_recipe
        from kdedge.run.threads import choose_threads

        recipe = load_recipe(self.recipe, self.overrides)
        return choose_threads(recipe, self.runs, self.threads)


def load_data(recipe: Recipe, progress: Progress) -> Task:
    """Read and check a recipe's data, before torch is imported.

    Faults in the data are thus reported within a second, and not after all imports.
    """
    task = read_data(recipe, progress)
    progress.say("loading torch and transformers")
    return task


def read_data(recipe: Recipe, progress: Progress) -> Task:
    """Read and check a recipe's data."""
    from kdedge.data import load_task

    progress.say(f"{recipe.name}: reading the data")
    if _needs_hub(recipe) and use_cache_if_unreachable():
        progress.say("the Hugging Face hub cannot be reached: only this machine's cache is used")
    return load_task(
        recipe.data, recipe.task, name=recipe.name, seed=recipe.seed, progress=progress
    )


def _needs_hub(recipe: Recipe) -> bool:
    """Return whether a model or data set of the recipe is not on this machine's disk."""
    from kdedge.io.paths import resolve_model_path

    names = [recipe.teacher.model]
    if recipe.data.source:
        names.append(recipe.data.source)
    for student in recipe.student:
        names += student.pretrained
    return any(resolve_model_path(name) is None for name in names)


def _choose_device(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Hand the choice on to this process and its children."""
    if value:
        os.environ[DEVICE_VARIABLE] = value


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    expose_value=False,
    callback=_choose_device,
    help="Where to train: auto takes a GPU if there is one. CUDA_VISIBLE_DEVICES chooses which. "
    f"Default: {DEVICE_VARIABLE}, else auto.",
)

recipe_options = option_group(
    "arguments",
    RecipeArguments,
    click.argument("recipe", type=click.Path(path_type=Path)),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one key of the recipe; repeatable.",
    ),
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="Folder that holds all runs.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="CPU threads for training. Default: the recipe's, else as when the run began, else "
        "all cores.",
    ),
    device_option,
)
"""The argument and options of every command that takes a recipe."""
