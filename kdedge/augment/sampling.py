"""Sample many texts from a causal language model; a finished text leaves the batch at once.

The `generate` method of transformers keeps every text in the batch until the last one ends,
and sorts the whole vocabulary at every step. Texts of a data set are short and differ in
length, so most of that work is spent on finished texts.
"""

from __future__ import annotations

import torch

from kdedge.augment.generator import Generator

FIRST_CANDIDATES = 256
"""The nucleus is first searched among this many of the most likely tokens."""


def sample(
    generator: Generator,
    prompts: list[list[int]],
    *,
    max_length: int,
    top_p: float,
    temperature: float,
    precision: torch.dtype | None,
) -> list[list[int]]:
    """Sample continuations with torch's global random number generator.

    Args:
        prompts: B lists of token ids, all of the same length.
        max_length: Largest number of tokens, prompt included.
        precision: Type for autocast; None computes in float32.

    Returns:
        B lists of token ids: the prompt, then tokens up to `end` or to `max_length`.
    """
    model, device = generator.model, generator.model.device
    texts = [list(prompt) for prompt in prompts]
    unfinished = list(range(len(texts)))  # the text in each row of the batch
    input_ids = torch.tensor(prompts, device=device)  # (B, T)
    cache = None
    with (
        torch.inference_mode(),
        torch.autocast(device.type, precision, enabled=precision is not None),
    ):
        for _ in range(max_length - input_ids.shape[1]):
            output = model(input_ids=input_ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            tokens = sample_nucleus(output.logits[:, -1].float() / temperature, top_p)  # (B,)
            rows = []  # of the batch whose text goes on
            for row, token in enumerate(tokens.tolist()):
                texts[unfinished[row]].append(token)
                if token != generator.end:
                    rows.append(row)
            if not rows:
                break
            if len(rows) < len(tokens):
                remaining = torch.tensor(rows, device=device)
                cache.batch_select_indices(remaining)
                tokens = tokens[remaining]
                unfinished = [unfinished[row] for row in rows]
            input_ids = tokens[:, None]  # (B, 1)
    return texts


def sample_nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sample one token per row from the nucleus (Holtzman et al. 2020).

    The nucleus is the smallest set of most likely tokens whose probabilities sum to `top_p`.

    Args:
        logits: (B, V)

    Returns:
        (B,) token ids.
    """
    probabilities = logits.softmax(-1)
    if top_p >= 1:
        return torch.multinomial(probabilities, 1)[:, 0]
    vocabulary = probabilities.shape[1]
    # Sorting the whole vocabulary is slow, and the first tokens almost always suffice.
    top, tokens = probabilities.topk(min(FIRST_CANDIDATES, vocabulary), dim=-1)
    if top.shape[1] < vocabulary and bool((top.sum(-1) < top_p).any()):
        top, tokens = probabilities.sort(-1, descending=True)
    # A token is in the nucleus if the more likely tokens do not reach `top_p` without it.
    before = top.cumsum(-1) - top
    nucleus = top.masked_fill(before >= top_p, 0.0)
    return tokens.gather(-1, torch.multinomial(nucleus, 1))[:, 0]
