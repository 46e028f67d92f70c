"""Find the faults of a recipe that would stop its run hours later, before anything is trained.

The files of unlabelled texts are read, and the shape of every student is compared with its start,
its task and its loss. Configurations of models are enough for that; no weights are loaded.
"""

from __future__ import annotations

from transformers import BertConfig, BertTokenizer, PreTrainedTokenizerFast

from kdedge.augment.pool import build_pool
from kdedge.data.task import Task
from kdedge.distillation.general_texts import NO_TASK, read_general_texts
from kdedge.distillation.objective import Objective
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import Recipe, StudentConfig, TinyBertConfig
from kdedge.runtime.spec import TaskSpec
from kdedge.students.build import STUDENT_BY_KIND
from kdedge.teacher.finetune import load_config


def check_before_training(recipe: Recipe, task: Task) -> None:
    """Check the texts and the students of a recipe.

    Raises:
        DataError: If a file of unlabelled texts is empty or has an unusable text.
        UsageError: If such a file cannot be read, or a student does not fit its start, its task or
            its loss.
        MachineError: If the configuration or the tokenizer of a model cannot be loaded.
    """
    check_texts(recipe, task)
    check_students(recipe, task.spec)


def check_texts(recipe: Recipe, task: Task) -> None:
    """Read the files of unlabelled texts, and forget them."""
    if recipe.augment and recipe.augment.pool:
        build_pool(recipe.augment.pool, recipe.data, task)
    for student in recipe.student:
        if student.general_stage:
            read_general_texts(student.general_stage, recipe.data.encoding)


def check_students(recipe: Recipe, spec: TaskSpec) -> None:
    """Compare every student with the model that it starts from, the task and its loss."""
    teacher = load_config(recipe.teacher.model, recipe.teacher.revision)
    teacher_tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)
    lenders = {"": (teacher, teacher_tokenizer)}
    for student in recipe.student:
        lender, tokenizer = lenders[student.assistant or ""]
        tokenizer = _tokenizer(student) or tokenizer
        general = student.general_stage
        if general and general.teacher:
            lender = load_config(general.teacher, None)
        STUDENT_BY_KIND[student.kind].check(student, spec, lender, tokenizer)
        if not isinstance(student, TinyBertConfig):
            continue
        shape = BertConfig(
            num_hidden_layers=student.layers,
            hidden_size=student.hidden,
            num_attention_heads=student.heads,
            intermediate_size=student.intermediate,
        )
        lenders[student.key] = (shape, tokenizer)
        if general:
            Objective(general.objective.as_objective(), NO_TASK.kind, shape, lender)
        Objective(student.objective, spec.kind, shape, teacher)


def _tokenizer(student: StudentConfig) -> PreTrainedTokenizerFast | None:
    """Return a student's own tokenizer, or None. One that is trained later is empty."""
    if student.tokenizer == "wordpiece":
        return BertTokenizer()
    name = student.tokenizer or student.checkpoint
    return load_tokenizer(name) if name else None
