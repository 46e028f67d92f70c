"""Cached or live layers: the choice follows the measured costs, and the recipe's word counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import pytest
import torch

from kdedge.distillation import layer_source
from kdedge.distillation.layer_cache import TeacherLayers
from kdedge.distillation.layer_choice import LayerCosts, measure_layer_costs
from kdedge.distillation.layer_source import LayerSource
from kdedge.nn.signals import LayerSelection
from kdedge.nn.text_model import TextClassifier


@pytest.mark.parametrize(
    ("costs", "epochs", "live"),
    [
        (LayerCosts(live=1, write=1, read=2), 3, True),
        (LayerCosts(live=10, write=1, read=1), 3, False),
        (LayerCosts(live=10, write=1, read=1), 1, True),  # 10 against 10 + 1 + 1
        (LayerCosts(live=2, write=0, read=1), 2, False),  # 4 against 4: no faster
    ],
)
def test_the_faster_way_is_chosen(costs: LayerCosts, epochs: float, live: bool) -> None:
    assert costs.live_is_faster(epochs) is live


def test_all_costs_are_measured_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """Live layers in the precision of the training; those of a cache in fp32."""
    tokenizer = factories.tokenizer()
    teacher = TextClassifier(factories.bert(vocabulary=len(tokenizer)).eval(), tokenizer, 32)
    data = teacher.encode(factories.sentences(40, 5)[0], None)
    source = TeacherLayers(teacher, "t", data, LayerSelection(hidden=(0, 1), attention=(1,)))
    found: list[torch.dtype] = []
    query = teacher.model.bert.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda *values: found.append(values[2].dtype))
    costs = measure_layer_costs(source, tmp_path, 8, torch.bfloat16)
    assert found[:6] == [torch.bfloat16] * 6 and found[-1] == torch.float32
    assert costs.live > 0 and costs.read > 0 and costs.write >= 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("device", "costs", "live"),
    [
        ("cpu", None, False),
        ("cuda", LayerCosts(live=1, write=1, read=2), True),
        ("cuda", LayerCosts(live=9, write=1, read=1), False),
    ],
)
def test_a_cpu_always_caches_and_a_gpu_measures_first(
    device: str, costs: LayerCosts | None, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_source, "this_device", lambda: torch.device(device))
    monkeypatch.setattr(layer_source, "measure_layer_costs", lambda *_: costs)
    lines: list[str] = []
    progress: Any = SimpleNamespace(say=lines.append)
    nothing: Any = None
    training: Any = SimpleNamespace(
        fit=SimpleNamespace(epochs=3, batch_size=8, precision="auto"), title="student tinybert"
    )
    layers = LayerSource(nothing, "", nothing, nothing, progress)
    assert layers.live_is_faster(nothing, training) is live
    assert len(lines) == (costs is not None)
