"""Fit a teacher that was rewritten as a BERT to what the teacher itself computes."""

from __future__ import annotations

import torch

from kdedge.data.task import Task
from kdedge.nn.text_model import TextClassifier
from kdedge.students.as_bert import as_bert
from kdedge.students.position_bias import absorb_position_bias
from kdedge.students.refit import refit_head, refit_layers
from kdedge.students.training_batches import TrainingBatches


def fitted_bert(teacher: TextClassifier, task: Task, seed: int) -> TextClassifier:
    """Rewrite the teacher as a BERT, and fit it in closed form to the teacher.

    Queries and keys absorb a relative position bias, layers are fitted if embeddings are
    projected, and the head is fitted to the teacher's logits. An exact rewrite is not fitted.

    Args:
        teacher: A classifier of a type that `as_bert` knows.
        task: Its training split is used.
        seed: Seed for the choice of texts if there are many.
    """
    copy = as_bert(teacher.model)
    if not copy.differences:
        return TextClassifier(copy.model, teacher.tokenizer, teacher.max_length)
    teacher.model.eval()
    texts = TrainingBatches(teacher, task, seed)
    inputs = texts.inputs()
    if teacher.model.config.model_type == "mpnet":
        # Fitting the norms too brought an MPNet's first layers closer, but not its last ones.
        absorb_position_bias(copy.model, teacher.model, inputs)
    elif not copy.is_encoder_exact:
        width, depth = copy.model.config.hidden_size, copy.model.config.num_hidden_layers
        directions = torch.eye(width, dtype=torch.float64, device=teacher.model.device)
        layers = list(range(1, depth + 1))
        refit_layers(copy.model, teacher.model, texts.for_layers(), directions, layers)
    refit_head(copy.model, teacher.model, inputs)
    return TextClassifier(copy.model, teacher.tokenizer, teacher.max_length)
