"""Collect what a student was made from: teacher, pretrained models and data, with licences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from kdedge.io.atomic import hash_file
from kdedge.io.licences import distribution_of, place_licence
from kdedge.io.paths import resolve_model_path, short_name
from kdedge.recipe import Recipe, StudentConfig
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_result
from kdedge.teacher.result import TeacherResult

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Origin:
    """A model or data set that a student was made from.

    Attributes:
        name: As in the recipe, without folders of this machine.
        version: Of the package that holds it, or None.
        licence: An identifier of SPDX, another name, or None if it is unknown.
        sha256: Of the weights or of the file, or None.
    """

    name: str
    version: str | None = None
    licence: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Provenance:
    """What a student was made from.

    Attributes:
        teacher: The teacher that it learned from.
        bases: The pretrained models that teacher and student started from.
        data: The data sets and files of texts.
    """

    teacher: Origin
    bases: tuple[Origin, ...]
    data: tuple[Origin, ...]


def provenance_of(run: RunDir, student: StudentConfig) -> Provenance:
    """Return what a student of a run was made from."""
    result = read_result(run.teacher, TeacherResult)
    bases = [result.model, *run.recipe.pretrained(student)]
    weights = run.teacher / WEIGHTS_FILE
    teacher = Origin(f"{run.recipe.name} {run.teacher.name}", sha256=_sha256(weights))
    return Provenance(
        teacher,
        tuple(_model_origin(base) for base in dict.fromkeys(bases)),
        tuple(_data_origin(place) for place in dict.fromkeys(_data_places(run.recipe, student))),
    )


def _data_places(recipe: Recipe, student: StudentConfig) -> Iterable[str]:
    """Yield the data set or the files that a recipe reads for a student."""
    data = recipe.data
    if data.source:
        yield data.source
    else:
        for split in (data.train, data.validation, data.test):
            if isinstance(split, str):
                yield split
    augment = recipe.augment_in_use
    if augment and augment.pool and augment.pool.file:
        yield augment.pool.file
    if student.general_stage:
        for texts in student.general_stage.texts:
            yield texts.file


def _model_origin(name: str) -> Origin:
    folder = resolve_model_path(name)
    weights = None if folder is None else folder / WEIGHTS_FILE
    return _origin(name, folder, weights)


def _data_origin(name: str) -> Origin:
    path = Path(name)
    if path.is_file():
        return _origin(name, None, path)
    return _origin(name, resolve_model_path(name), None)


def _origin(name: str, folder: Path | None, file: Path | None) -> Origin:
    distribution = distribution_of(name)
    return Origin(
        short_name(name),
        version(distribution) if distribution else None,
        place_licence(name, folder),
        _sha256(file),
    )


def _sha256(file: Path | None) -> str | None:
    return hash_file(file) if file is not None and file.is_file() else None
