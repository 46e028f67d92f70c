"""One experiment as a value, read from TOML: everything that decides a run, and nothing else."""

from kdedge.recipe.augment import (
    AugmentConfig,
    FilterConfig,
    GenerateConfig,
    GeneratorFitConfig,
    PoolConfig,
    ReplaceConfig,
    RulesConfig,
)
from kdedge.recipe.reading import STAGES, Recipe, load_recipe, with_values
from kdedge.recipe.section import FitConfig, Section
from kdedge.recipe.students import (
    RESIDUAL,
    TERMS,
    BiLstmConfig,
    BiLstmQuantizeConfig,
    ObjectiveConfig,
    QuantizeConfig,
    Student,
    TinyBertConfig,
)
from kdedge.recipe.task import DataConfig, TaskConfig, TeacherConfig, TransferConfig
from kdedge.recipe.tune import RangeConfig, TuneConfig

__all__ = [
    "RESIDUAL",
    "STAGES",
    "TERMS",
    "AugmentConfig",
    "BiLstmConfig",
    "BiLstmQuantizeConfig",
    "DataConfig",
    "FitConfig",
    "FilterConfig",
    "GenerateConfig",
    "GeneratorFitConfig",
    "ObjectiveConfig",
    "PoolConfig",
    "QuantizeConfig",
    "RangeConfig",
    "Recipe",
    "ReplaceConfig",
    "RulesConfig",
    "Section",
    "Student",
    "TaskConfig",
    "TeacherConfig",
    "TinyBertConfig",
    "TransferConfig",
    "TuneConfig",
    "load_recipe",
    "with_values",
]
