"""One experiment as a validated value, read from TOML."""

from kdedge.recipe.augment import (
    AugmentConfig,
    FilterConfig,
    GenerateConfig,
    GeneratorFitConfig,
    PoolConfig,
    ReplaceConfig,
    RulesConfig,
)
from kdedge.recipe.clean import CleanConfig
from kdedge.recipe.faults import faults_error
from kdedge.recipe.general import GeneralConfig
from kdedge.recipe.objective import ObjectiveConfig
from kdedge.recipe.overrides import set_keys
from kdedge.recipe.quantize import BiLstmQuantizeConfig, QuantizeConfig
from kdedge.recipe.reading import load_recipe, validated, with_values
from kdedge.recipe.recipe import RUN_FOLDERS, Recipe
from kdedge.recipe.section import FitConfig, Section
from kdedge.recipe.students import (
    STUDENT_KINDS,
    BiLstmConfig,
    StudentBase,
    StudentConfig,
    TinyBertConfig,
)
from kdedge.recipe.task import DataConfig, TaskConfig, TeacherConfig, TransferConfig
from kdedge.recipe.tune import RangeConfig, TuneConfig

__all__ = [
    "RUN_FOLDERS",
    "STUDENT_KINDS",
    "AugmentConfig",
    "BiLstmConfig",
    "BiLstmQuantizeConfig",
    "CleanConfig",
    "DataConfig",
    "FilterConfig",
    "FitConfig",
    "GeneralConfig",
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
    "StudentBase",
    "StudentConfig",
    "TaskConfig",
    "TeacherConfig",
    "TinyBertConfig",
    "TransferConfig",
    "TuneConfig",
    "faults_error",
    "load_recipe",
    "set_keys",
    "validated",
    "with_values",
]
