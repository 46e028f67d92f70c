"""The model classes whose graphs kdedge writes itself, and which int8 with fixed ranges supports.

A new student adds one line to `EXPORTS`.
"""

from __future__ import annotations

from kdedge.export.bert import BertExport
from kdedge.export.bilstm import BiLstmExport
from kdedge.export.student_export import StudentExport
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import UsageError
from kdedge.students.bilstm import BiLstmForSequenceClassification

EXPORTS: dict[type[PreTrainedModel], StudentExport] = {
    BertForSequenceClassification: BertExport(),
    BiLstmForSequenceClassification: BiLstmExport(),
}


def find_export(model: PreTrainedModel) -> StudentExport | None:
    """Return how models of this class are exported; None if only torch can trace them."""
    for model_class, export in EXPORTS.items():
        if isinstance(model, model_class):
            return export
    return None


def export_of(model: PreTrainedModel) -> StudentExport:
    """Return how a student is exported.

    Raises:
        UsageError: If the model is no student.
    """
    export = find_export(model)
    if export is None:
        raise UsageError(
            "only students can be quantized with fixed ranges",
            type(model).__name__,
            "export with --scheme dynamic",
        )
    return export
