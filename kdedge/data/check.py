"""Check the texts of a table row by row."""

from __future__ import annotations

from kdedge.io.faults import Faults, shown, text_fault
from kdedge.io.tabular import Table


def checked_texts(table: Table, column: str, option: str, faults: Faults) -> list[str]:
    """Return the N texts of a column unchanged; their faults go to `faults`.

    Raises UsageError that names `option` if the column does not exist.
    """
    texts = list(table.column(column, option))
    for row, text in enumerate(texts):
        fault = text_fault(text)
        if fault:
            faults.add(table.where(row), f"column {shown(column)} {fault[0]}", fault[1])
    return texts
