"""The interface of a kind of student: how it is built and initialised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Task
from kdedge.nn.text_model import TextClassifier
from kdedge.runtime.spec import TaskSpec


class StudentKind(ABC):
    """One kind of student; `config` is always the section of the recipe for this kind."""

    model_class: ClassVar[type[PreTrainedModel]]

    @abstractmethod
    def check(
        self,
        config: Any,
        spec: TaskSpec,
        source: PretrainedConfig,
        tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        """Check whether start and shape fit together, and fit the source and the task.

        It reads no weights, so that a run can check all of its students before it trains.

        Args:
            config: The student's section of the recipe.
            spec: The task.
            source: Configuration of the model whose weights the student may take.
            tokenizer: The student's tokenizer.

        Raises:
            UsageError: If they do not fit.
            MachineError: If the checkpoint that the student starts from cannot be loaded.
        """

    @abstractmethod
    def build(
        self,
        config: Any,
        spec: TaskSpec,
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
    ) -> PreTrainedModel:
        """Build a student with initial weights.

        Args:
            config: Its shape, and where its weights start.
            spec: The task that decides its head.
            teacher: The student may copy its weights or shape.
            tokenizer: The student's tokenizer.

        Raises:
            UsageError: If start and shape do not fit together, or do not fit this teacher.
        """

    def reads_training_texts(self, config: Any, teacher: TextClassifier) -> bool:
        """Return whether first weights are fitted to training texts, which takes a while.

        Args:
            config: As in `build`.
            teacher: The classifier whose weights the student may take.
        """
        return False

    def source(self, config: Any, teacher: TextClassifier, task: Task, seed: int) -> TextClassifier:
        """Return the model that the student copies weights from; by default the teacher itself.

        Args:
            config: As in `build`.
            teacher: The fine-tuned teacher.
            task: Its training split may decide weights.
            seed: Seed for the choice of texts if there are many.
        """
        return teacher

    def start_from_texts(
        self,
        config: Any,
        student: TextClassifier,
        teacher: TextClassifier,
        task: Task,
        seed: int,
    ) -> None:
        """Set initial weights that depend on the training texts, in place; by default nothing."""
        return
