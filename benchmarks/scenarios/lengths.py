"""Length sweep: the time of one text for several numbers of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from kdedge.benchmarks.work import Batch, single_work

from kdedge.evaluation.timing import TimingPlan, Work, interleave

TEXTS = 8
"""Texts of each length."""

SHORTEST, LONGEST = 16, 1 << 16
"""Characters of a text; each length is twice the one before."""


def lengths(workload: Workload) -> ScenarioResults:
    """Time texts of growing length until the tokenizer cuts them; all subjects take turns.

    The texts are cut out of the bench's texts, which are joined to one.
    """
    works: dict[str, Work] = {}
    conditions: dict[str, tuple[str, int]] = {}
    notes = []
    for key, runner in workload.runners.items():
        cases = _cases(workload.examples, runner.encode)
        if not cases:
            notes.append(f"{key}: no length sweep, because its input is not a list of tokens")
        for tokens, items in cases.items():
            name = f"{key} with {tokens} tokens"
            works[name] = single_work(runner, items)
            conditions[name] = key, tokens
    if not works:
        return ScenarioResults(notes=tuple(notes))
    plan = TimingPlan(seconds=workload.seconds, seed=workload.options.seed)
    timed = interleave(works, TEXTS, plan, title="lengths", progress=workload.progress)
    series = []
    for name, parts in timed.items():
        key, tokens = conditions[name]
        series.append(Series("lengths", key, parts[0].values, at=tokens))
    return ScenarioResults(tuple(series), tuple(notes))


def _cases(examples: Examples, encode: Any) -> dict[int, list[Batch]]:
    """Return number of tokens -> texts; the longest just reach what the model can read."""
    cases: dict[int, list[Batch]] = {}
    characters = SHORTEST
    longest = 0
    while characters <= LONGEST:
        items = pieces(examples, characters)
        tokens = _tokens(encode, items)
        if tokens is None:
            return cases
        if tokens <= longest:
            # The tokenizer cut the last texts, too: shorter ones have as many tokens.
            cases[longest] = _shortest(examples, encode, longest, characters // 4, characters // 2)
            return cases
        cases[tokens] = items
        longest = tokens
        characters *= 2
    return cases


def _shortest(
    examples: Examples, encode: Any, tokens: int, too_short: int, enough: int
) -> list[Batch]:
    """Return the shortest texts with a number of tokens, between two numbers of characters."""
    while enough - too_short > 1:
        middle = (too_short + enough) // 2
        found = _tokens(encode, pieces(examples, middle))
        if found is not None and found >= tokens:
            enough = middle
        else:
            too_short = middle
    return pieces(examples, enough)


def pieces(examples: Examples, characters: int) -> list[Batch]:
    """Cut texts of one length out of all texts; the two texts of a pair share the length."""
    whole = " ".join(examples.texts)
    first = characters if examples.pairs is None else characters // 2
    items: list[Batch] = []
    for number in range(TEXTS):
        text = _piece(whole, number, first)
        if examples.pairs is None:
            items.append(([text], None))
        else:
            items.append(([text], [_piece(" ".join(examples.pairs), number, first)]))
    return items


def _piece(whole: str, number: int, characters: int) -> str:
    start = number * len(whole) // TEXTS
    repeats = -(-(start + characters) // len(whole))
    return (whole * repeats)[start : start + characters]


def _tokens(encode: Any, items: list[Batch]) -> int | None:
    """Return the median number of tokens of some texts; None if they have none."""
    try:
        counts = [len(encode(*item)["input_ids"][0]) for item in items]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return int(np.median(counts))
