"""Find the faults of a recipe that would stop its run hours later, before anything is trained.

The files of unlabelled texts are read, the sources of new texts are compared with the task, their
models are looked up, and the shape of every student is compared with its start, its task and its
loss. Configurations and tokenizers of models are enough for that; no weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from transformers import BertConfig, BertTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from kdedge.augment.filters import LengthRange
from kdedge.augment.generate import prompt_kinds
from kdedge.augment.generator import check_generator
from kdedge.augment.pool import build_pool
from kdedge.augment.replace import check_masked_model
from kdedge.augment.teacher_filters import check_teacher_filters
from kdedge.data.task import Task
from kdedge.distillation.general_texts import NO_TASK, read_general_texts
from kdedge.distillation.objective import Objective
from kdedge.distillation.teacher_tokens import check_attention_loss
from kdedge.distillation.transfer_stage import check_curve_student
from kdedge.errors import UsageError
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import Recipe, StudentConfig, TinyBertConfig
from kdedge.recipe.general import GeneralConfig
from kdedge.recipe.sizes import usable_positions
from kdedge.runtime.spec import TaskSpec
from kdedge.students.build import STUDENT_BY_KIND
from kdedge.students.piece_mapping import check_vocabulary
from kdedge.students.vocabulary import check_is_wordpiece
from kdedge.teacher.finetune import check_head, load_config

STEPS_OF_A_DEVIATION = 4
"""Steps of bfloat16 that a standard deviation of the scores must have at least."""


def check_before_training(recipe: Recipe, task: Task) -> None:
    """Check the texts, the teacher and the students of a recipe.

    Raises:
        DataError: If a file of unlabelled texts is empty or has an unusable text.
        UsageError: If such a file cannot be read, a source or filter of new texts does not fit the
            task, a model for new texts is of the wrong type, the scores of a regression lie too far
            from 0, or a student does not fit its start, its task or its loss.
        MachineError: If the configuration or the tokenizer of a model cannot be loaded.
    """
    check_texts(recipe, task)
    if task.spec.kind == "regression":
        _check_scores(task.train.labels)
    check_students(recipe, task.spec)


def _check_scores(scores: np.ndarray) -> None:
    """Raise UsageError if bfloat16 is too coarse for the scores of a regression.

    The teacher may label texts in bfloat16, which has 8 significant bits: near 2,000 it resolves
    steps of 8.
    """
    mean, deviation = float(scores.mean()), float(scores.std())
    resolution = 2.0 ** (np.frexp(np.abs(scores).max())[1] - 8)
    if deviation and resolution > deviation / STEPS_OF_A_DEVIATION:
        raise UsageError(
            "the scores lie too far from 0 for their spread",
            f"mean {mean:.6g}, standard deviation {deviation:.3g}; bfloat16 resolves steps of "
            f"{resolution:g} there",
            f"subtract {mean:.6g} from every score",
        )


def check_texts(recipe: Recipe, task: Task) -> None:
    """Check the sources and filters of new texts.

    The files of unlabelled texts are read for that, and the configurations of models.
    """
    augment = recipe.augment_in_use
    if augment:
        check_teacher_filters(augment.filters, task.spec)
        LengthRange.of(augment.filters, task.train)
        if augment.generate:
            prompt_kinds(augment.generate, task)
            if augment.generate.pretrained is not None:
                check_generator(augment.generate.pretrained, augment.generate.revision)
        if augment.replace and augment.replace.pretrained is not None:
            check_masked_model(augment.replace.pretrained)
        if augment.pool:
            build_pool(augment.pool, recipe.data, task)
        if augment.size == "auto":
            check_curve_student(recipe.student[0])
    for student in recipe.student:
        if student.general_stage:
            read_general_texts(student.general_stage, recipe.data.encoding)


def check_students(recipe: Recipe, spec: TaskSpec) -> None:
    """Compare every student with the model that it starts from, the task and its loss."""
    teacher = load_config(recipe.teacher.model, recipe.teacher.revision)
    check_head(recipe.teacher, teacher)
    teacher_tokenizer = load_tokenizer(recipe.teacher.model, recipe.teacher.revision)
    sources = {"": _Source(teacher, teacher_tokenizer)}
    for student in recipe.student:
        start = sources[student.assistant or ""]
        source, tokenizer, is_trimmed = start.config, start.tokenizer, start.is_trimmed
        own_tokenizer = _tokenizer(student)
        tokenizer = own_tokenizer or tokenizer
        if student.vocabulary and student.tokenizer != "wordpiece":
            check_is_wordpiece(tokenizer)
        general = student.general_stage
        if general and general.teacher:
            source = load_config(general.teacher, None)
        STUDENT_BY_KIND[student.kind].check(student, spec, source, tokenizer)
        takes_embeddings = student.start in ("teacher", "shrink")
        if takes_embeddings and not own_tokenizer and not (general and general.teacher):
            check_vocabulary(source, tokenizer)
        if student.checkpoint and not student.tokenizer:
            check_vocabulary(load_config(student.checkpoint, None), tokenizer)
        if not isinstance(student, TinyBertConfig):
            continue
        shape = BertConfig(
            num_hidden_layers=student.layers,
            hidden_size=student.hidden,
            num_attention_heads=student.heads,
            intermediate_size=student.intermediate,
            vocab_size=len(tokenizer),
            max_position_embeddings=_positions(student, source),
        )
        is_changed = bool(student.vocabulary) or student.tokenizer == "wordpiece"
        has_own_tokens = is_changed or (is_trimmed and not own_tokenizer)
        sources[student.key] = _Source(shape, tokenizer, has_own_tokens)
        reads_teacher_tokens = (
            not has_own_tokens and tokenizer.get_vocab() == teacher_tokenizer.get_vocab()
        )
        if general:
            theirs = load_tokenizer(general.teacher) if general.teacher else teacher_tokenizer
            same_tokens = not has_own_tokens and tokenizer.get_vocab() == theirs.get_vocab()
            _check_general_lengths(student, general, source, same_tokens=same_tokens)
            with named_objective(student, "general.objective"):
                Objective(general.objective.as_objective(), NO_TASK.kind, shape, source)
        with named_objective(student, "objective"):
            Objective(student.objective, spec.kind, shape, teacher)
        if not reads_teacher_tokens:
            check_attention_loss(student.objective)
        elif student.objective.reads_layers:
            _check_teacher_positions(student, teacher)


@dataclass(frozen=True)
class _Source:
    """What a student may start from: the teacher or an assistant.

    Attributes:
        is_trimmed: Whether its vocabulary is smaller than that of the tokenizer as it is loaded.
    """

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    is_trimmed: bool = False


def _check_general_lengths(
    student: TinyBertConfig,
    general: GeneralConfig,
    source: PretrainedConfig,
    *,
    same_tokens: bool,
) -> None:
    """Raise UsageError if the general student, or the teacher of its layers, reads too few tokens.

    Args:
        source: The configuration of the teacher of its layers.
        same_tokens: Whether that teacher reads the student's tokens.
    """
    own = _positions(student.model_copy(update={"max_length": general.max_length}), source)
    if student.checkpoint:
        own = usable_positions(load_config(student.checkpoint, None).to_dict())
    both = own
    if same_tokens and getattr(source, "max_position_embeddings", None):
        both = min(own, usable_positions(source.to_dict()))
    for key, length, positions in (
        ("student.general.max_length", general.max_length, both),
        ("student.max_length", student.max_length, own),
    ):
        if length > positions:
            raise UsageError(
                f"the general student cannot read {key} tokens",
                f"student {student.key}: {length}, but at most {positions} are possible",
                f"lower {key}",
            )


def _check_teacher_positions(student: TinyBertConfig, teacher: PretrainedConfig) -> None:
    """Raise UsageError if the teacher cannot read all tokens of the student's texts.

    To match layers, a teacher with the same vocabulary reads the student's tokens.
    """
    if not getattr(teacher, "max_position_embeddings", None):
        return
    positions = usable_positions(teacher.to_dict())
    if student.max_length > positions:
        raise UsageError(
            "to match layers, the teacher must read as many tokens as the student",
            f"student {student.key} reads {student.max_length}, the teacher at most {positions}",
            f"set student.max_length to at most {positions}",
        )


@contextmanager
def named_objective(student: StudentConfig, key: str) -> Iterator[None]:
    """Add the student and the table of its loss to an error about it."""
    try:
        yield
    except UsageError as error:
        detail = f"student {student.key}, {key}: {error.detail}"
        raise UsageError(error.message, detail, error.hint) from error


def _positions(student: TinyBertConfig, source: PretrainedConfig) -> int:
    """Return how many tokens a student can read."""
    return student.shape(pieces=0, source=source.to_dict())["max_position_embeddings"]


def _tokenizer(student: StudentConfig) -> PreTrainedTokenizerFast | None:
    """Return a student's own tokenizer, or None. One that is trained later is empty."""
    if student.tokenizer == "wordpiece":
        return BertTokenizer()
    name = student.tokenizer or student.checkpoint
    return load_tokenizer(name) if name else None
