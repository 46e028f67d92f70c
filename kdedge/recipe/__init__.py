"""One experiment as a value, read from TOML: everything that decides a run, and nothing else."""

from kdedge.recipe.augment import Augment, Gates, Generate, GeneratorFit, Pool, Replace, Rules
from kdedge.recipe.reading import STAGES, Recipe, load_recipe, with_values
from kdedge.recipe.section import Fit, Section
from kdedge.recipe.students import (
    RESIDUAL,
    TERMS,
    BiLstm,
    BiLstmQuantize,
    Objective,
    Quantize,
    Student,
    TinyBert,
)
from kdedge.recipe.task import Data, TaskSection, Teacher, Transfer
from kdedge.recipe.tune import Range, Tune

__all__ = [
    "RESIDUAL",
    "STAGES",
    "TERMS",
    "Augment",
    "BiLstm",
    "BiLstmQuantize",
    "Data",
    "Fit",
    "Gates",
    "Generate",
    "GeneratorFit",
    "Objective",
    "Pool",
    "Quantize",
    "Range",
    "Recipe",
    "Replace",
    "Rules",
    "Section",
    "Student",
    "TaskSection",
    "Teacher",
    "TinyBert",
    "Transfer",
    "Tune",
    "load_recipe",
    "with_values",
]
