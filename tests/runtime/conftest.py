"""Fixtures for hostile bundles."""

from __future__ import annotations

from typing import Any

import pytest

from kdedge.runtime import session, text_encoder


@pytest.fixture
def nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a session or a tokenizer is created."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a part of a forged bundle was used")

    monkeypatch.setattr(session.onnxruntime, "InferenceSession", fail)
    monkeypatch.setattr(text_encoder, "Tokenizer", fail)
