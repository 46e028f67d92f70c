"""Which revision of a hub's teacher is loaded."""

from __future__ import annotations

from typing import Any

import factories
import pytest
from transformers import AutoModelForSequenceClassification

from kdedge.errors import MachineError
from kdedge.teacher.finetune import load_teacher


@pytest.mark.parametrize("revision, asked", [(None, "main"), ("v2", "v2")])
def test_the_default_revision_is_main(
    monkeypatch: pytest.MonkeyPatch, revision: str | None, asked: str
) -> None:
    """transformers finds the converted copy of old weights only if the revision is `main`."""
    seen = []

    def from_pretrained(name: str, **settings: Any) -> None:
        seen.append(settings["revision"])
        raise OSError(name)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    with pytest.raises(MachineError, match="cannot be loaded"):
        load_teacher("user/model", factories.single_task().spec, 32, revision)
    assert seen == [asked]
