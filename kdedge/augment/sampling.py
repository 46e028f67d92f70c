"""Sample many texts from a causal language model; finished texts leave the batch.

The `generate` method of transformers keeps every text in the batch until the last one ends,
and sorts the whole vocabulary at every step. Texts of a data set are short and differ in
length, so most of that work is spent on finished texts.

Prompts may differ in length: the shorter ones are padded on the left.
"""

from __future__ import annotations

import torch

from kdedge.augment.generator import Generator
from kdedge.augment.key_value_cache import reserve
from kdedge.augment.left_padding import PaddedPrompts
from kdedge.errors import CheckFailed

DRAWS = 8
"""Draws of a token on a CPU before the vocabulary is sorted."""

GPU_INTERVAL = 16
"""Tokens between two looks at which texts have ended, on a GPU."""


def sample(
    generator: Generator,
    prompts: list[list[int]],
    *,
    max_length: int,
    top_p: float,
    temperature: float,
    precision: torch.dtype | None,
    interval: int | None = None,
) -> list[list[int]]:
    """Sample continuations with torch's global random number generator.

    Args:
        prompts: B lists of token ids. Of different lengths only if `accepts_padding(model)`.
        max_length: Largest number of tokens of a text, prompt included.
        precision: Type for autocast; None computes in float32.
        interval: Finished texts leave the batch every `interval` tokens. Default: 1 on a CPU,
            `GPU_INTERVAL` on a GPU, because each check waits for the GPU. With more than 1 the
            cache gets its memory once; with 1, rows leave so often that it is copied anyway.

    Returns:
        B lists of token ids: the prompt, then tokens up to `end` or to `max_length`.
    """
    model, device = generator.model, generator.model.device
    interval = interval or (1 if device.type == "cpu" else GPU_INTERVAL)
    texts = [list(prompt) for prompt in prompts]
    unfinished = list(range(len(texts)))  # the text in each row of the batch
    batch = PaddedPrompts(prompts, generator.end, max_length, precision or model.dtype, device)
    input_ids = batch.input_ids  # (B, T)
    cache = None
    new: list[torch.Tensor] = []  # tokens (B,) that the CPU has not seen
    with (
        torch.inference_mode(),
        torch.autocast(device.type, precision, enabled=precision is not None),
    ):
        for step in range(1, batch.room + 1):
            output = model(**batch.inputs(input_ids), past_key_values=cache, use_cache=True)
            if cache is None:
                cache = output.past_key_values
                if interval > 1:
                    reserve(cache, batch.capacity)
            tokens = sample_nucleus(output.logits[:, -1].float() / temperature, top_p)  # (B,)
            new.append(tokens)
            if step % interval == 0 or step == batch.room:
                read = torch.stack(new, 1).tolist()
                rows = _append(texts, unfinished, read, generator.end, max_length)
                new = []
                if not rows:
                    break
                if len(rows) < len(tokens):
                    remaining = torch.tensor(rows, device=device)
                    cache.batch_select_indices(remaining)
                    batch.select(remaining)
                    tokens = tokens[remaining]
                    unfinished = [unfinished[row] for row in rows]
            input_ids = tokens[:, None]  # (B, 1)
    return texts


def _append(
    texts: list[list[int]], unfinished: list[int], new: list[list[int]], end: int, max_length: int
) -> list[int]:
    """Append new tokens (B, n) to the texts, up to `end` or to `max_length`.

    Returns:
        The rows whose text goes on.
    """
    rows = []
    for row, tokens in enumerate(new):
        text = texts[unfinished[row]]
        room = max(0, max_length - len(text))
        count = min(len(tokens), room)
        if end in tokens[:count]:
            count = tokens.index(end) + 1
        elif count < room:
            rows.append(row)
        text += tokens[:count]
    return rows


def sample_nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sample one token per row from the nucleus (Holtzman et al. 2020).

    The nucleus is the smallest set of most likely tokens whose probabilities sum to `top_p`. On a
    CPU, tokens as likely as its last one belong to it too.

    Args:
        logits: (B, V)

    Returns:
        (B,) token ids.
    """
    probabilities = logits.softmax(-1)
    if probabilities.device.type == "cpu":
        return draw_until_inside(probabilities, top_p)
    return draw_from_sorted(probabilities, top_p)


def draw_until_inside(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Draw from all tokens, and draw again for the rows whose token is not in the nucleus.

    A CPU takes long to sort a vocabulary. A token is in the nucleus if the more likely tokens do
    not reach `top_p` without it, and finding out takes one sum. A draw misses the nucleus with a
    probability of at most 1 - `top_p`. The rows that miss it `DRAWS` times are sorted.

    Args:
        probabilities: (B, V)
    """
    tokens = torch.empty(len(probabilities), dtype=torch.long)
    rows = torch.arange(len(probabilities))  # without a token so far
    for _ in range(DRAWS):
        candidates = probabilities[rows]  # (R, V)
        drawn = _draw_by_sums(candidates)
        more_likely = candidates > candidates.gather(-1, drawn[:, None])
        inside = (candidates * more_likely).sum(-1) < top_p
        tokens[rows[inside]] = drawn[inside]
        rows = rows[~inside]
        if not len(rows):
            return tokens
    tokens[rows] = draw_from_sorted(probabilities[rows], top_p)
    return tokens


def draw_from_sorted(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sort the vocabulary and draw from the nucleus, without waiting for a GPU."""
    if top_p >= 1:
        return _draw(probabilities)
    ordered, tokens = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    nucleus = ordered.masked_fill(before >= top_p, 0.0)
    return tokens.gather(-1, _draw(nucleus)[:, None])[:, 0]


def _draw_by_sums(weights: torch.Tensor) -> torch.Tensor:
    """Sample one column index per row in proportion to weights (B, V); returns (B,).

    A CPU adds up weights faster than it makes a random number for each of them.

    Raises:
        CheckFailed: If a weight is not a number.
    """
    sums = weights.double().cumsum(-1)
    if not bool(sums[:, -1].isfinite().all()):
        raise CheckFailed(
            "the language model gives probabilities that are not numbers",
            f"{len(weights)} texts, {weights.shape[1]} tokens in the vocabulary",
            "set another augment.generate.model, or lower augment.generate.fit.learning_rate",
        )
    points = torch.rand(len(weights), 1, dtype=torch.float64) * sums[:, -1:]
    return torch.searchsorted(sums, points, right=True)[:, 0]


def _draw(weights: torch.Tensor) -> torch.Tensor:
    """Sample one column index per row in proportion to weights (B, V); returns (B,).

    The smallest of exponential random numbers with these rates wins. `torch.multinomial` does the
    same, but first checks the weights: a dozen more kernel launches on a GPU, and on some versions
    of torch two waits for the GPU.
    """
    return (weights / torch.empty_like(weights).exponential_()).argmax(-1)
