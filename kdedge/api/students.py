"""The students of a recipe as Python objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from kdedge.recipe import BiLstmConfig, Section, TinyBertConfig, faults_error


class TinyBert(TinyBertConfig):
    """A small BERT; its settings are the keys of `[student]` in a recipe.

    Example:
        ```python
        kdedge.TinyBert(layers=3, hidden=384, heads=12, intermediate=1536, fit={"epochs": 6})
        ```

    Raises:
        UsageError: Lists every unknown or wrong setting.
    """

    def __init__(self, **settings: Any) -> None:
        with _usage_errors("kdedge.TinyBert", settings, TinyBertConfig):
            super().__init__(**settings)


class BiLstm(BiLstmConfig):
    """One bidirectional LSTM layer; its settings are the keys of `[student]` in a recipe.

    Example:
        ```python
        kdedge.BiLstm(hidden=150, fit={"epochs": 10})
        ```

    Raises:
        UsageError: Lists every unknown or wrong setting.
    """

    def __init__(self, **settings: Any) -> None:
        with _usage_errors("kdedge.BiLstm", settings, BiLstmConfig):
            super().__init__(**settings)


@contextmanager
def _usage_errors(name: str, settings: dict[str, Any], section: type[Section]) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise faults_error(name, error, settings, section) from None
