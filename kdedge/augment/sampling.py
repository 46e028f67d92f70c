"""Sampling from a causal language model, many texts at once: a text that has ended makes room at once.

transformers' `generate` carries every text on until the last has ended and sorts the whole vocabulary at every step; texts of
a data set are short and of many lengths, so that most of its work is spent on texts that are done.
"""

from __future__ import annotations

import torch

from kdedge.augment.generator import Generator

LIKELY = 256
"""Tokens among which the nucleus is looked for first."""


def sample(
    generator: Generator,
    prompts: list[list[int]],
    longest: int,
    top_p: float,
    temperature: float,
    precision: torch.dtype | None,
) -> list[list[int]]:
    """Continuations of B prompts of equal length: token ids (B lists) with their prompt, up to the first `end` or to `longest` tokens.

    Draws from torch's own random numbers.
    """
    model, device = generator.model, generator.model.device
    rows = [list(prompt) for prompt in prompts]
    alive = list(range(len(rows)))
    ids, cache = torch.tensor(prompts, device=device), None  # (B, P)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, precision, enabled=precision is not None),
    ):
        for _ in range(longest - ids.shape[1]):
            answer = model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = answer.past_key_values
            drawn = draw(answer.logits[:, -1].float() / temperature, top_p)  # (B,)
            tokens = drawn.tolist()
            for row, token in zip(alive, tokens, strict=True):
                rows[row].append(token)
            going = [i for i, token in enumerate(tokens) if token != generator.end]
            if not going:
                break
            if len(going) < len(tokens):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                alive, drawn = [alive[i] for i in going], drawn[keep]
            ids = drawn[:, None]
    return rows


def draw(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """One token (B,) for each row of scores (B, V), from the smallest set of likeliest tokens that holds `top_p` of the probability.

    Nucleus sampling (Holtzman et al. 2020). The set is sought among the `LIKELY` first tokens, and among all where these hold less.
    """
    chances = scores.softmax(-1)
    if top_p >= 1:
        return torch.multinomial(chances, 1)[:, 0]
    most, tokens = chances.topk(min(LIKELY, chances.shape[1]), dim=-1)
    if bool((most.sum(-1) < top_p).any()) and most.shape[1] < chances.shape[1]:
        most, tokens = chances.sort(-1, descending=True)
    before = (
        most.cumsum(-1) - most
    )  # of the likelier tokens: the token that crosses the line belongs to the set
    most = most.masked_fill(before >= top_p, 0.0)
    return tokens.gather(-1, torch.multinomial(most, 1))[:, 0]
