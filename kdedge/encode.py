"""From texts to padded batches of token ids, and a model's logits over many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kdedge.errors import MachineError, UsageError
from kdedge.places import resolve_folder
from kdedge.progress import SILENT, Progress

Answer = TypeVar("Answer")

BLOCK = 8192
"""Texts that are tokenized at once."""
CHARACTERS_PER_TOKEN = 32
"""The tokenizer reads a whole text before it truncates: texts are cut to this many characters a token first."""


def load_tokenizer(name: str | Path, revision: str | None = None) -> PreTrainedTokenizerFast:
    """A fast tokenizer from a folder, `package:` place or hub id, with any baked-in padding and truncation undone."""
    place = resolve_folder(str(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(place or name), revision=revision, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise MachineError("the tokenizer cannot be loaded", f"{name}: {first_line(error)}", "give a local folder, or allow the hub") from error
    if not tokenizer.is_fast:
        raise UsageError(
            "only tokenizers with a tokenizer.json can go to a device", f"{name} is {type(tokenizer).__name__}", "convert it to a fast tokenizer first"
        )
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UsageError("the tokenizer knows no words", f"{name}: a vocabulary of {len(tokenizer)} special tokens", "put tokenizer.json beside the weights")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


class Runs(Sequence[list[int]]):
    """N lists of whole numbers, each of its own length, in one array."""

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """values: all numbers, list after list. lengths: (N,)."""
        self.values, self.lengths = values, lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    @classmethod
    def of(cls, runs: Sequence[list[int]]) -> Runs:
        """From N lists."""
        lengths = np.array([len(run) for run in runs], np.int64)
        values = np.fromiter(chain.from_iterable(runs), np.int32, int(lengths.sum()))
        # A mask fits into 8 bits, the pieces of most vocabularies into 16.
        return cls(values.astype(np.min_scalar_type(int(values.max(initial=0)))), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        run: list[int] = self.values[self._starts[place] : self._starts[place + 1]].tolist()
        return run


@dataclass
class Encoded(Dataset[dict[str, Any]]):
    """N tokenized texts, unpadded, with any number of columns beside them.

    tokens: input name -> N lists of token ids (or masks, or types), each of its own length T_i.
    columns: name -> N rows, such as labels (N,) or teacher_logits (N, C).
    """

    tokens: dict[str, Runs]
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: list[list[int]]) -> Encoded:
        """From token ids, with a mask that leaves none out."""
        whole = Runs.of(ids)
        return cls({"input_ids": whole, "attention_mask": Runs(np.ones_like(whole.values), whole.lengths)})

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {name: values[index] for name, values in self.tokens.items()}
        return row | {name: values[index] for name, values in self.columns.items()}

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each text."""
        return self.tokens["input_ids"].lengths


def encode(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    **columns: np.ndarray,
) -> Encoded:
    """Tokenize N texts (and their second texts), truncating to `max_length` tokens, longest text first."""
    budget = max_length * CHARACTERS_PER_TOKEN

    def tokenized(start: int) -> Mapping[str, list[list[int]]]:
        return tokenizer(  # type: ignore[no-any-return]
            [text[:budget] for text in texts[start : start + BLOCK]],
            None if pairs is None else [text[:budget] for text in pairs[start : start + BLOCK]],
            truncation=True,
            max_length=max_length,
            padding=False,
        )

    blocks = [{name: Runs.of(rows) for name, rows in tokenized(start).items()} for start in range(0, max(1, len(texts)), BLOCK)]
    tokenizer.backend_tokenizer.no_truncation()
    return Encoded({name: joined_runs([block[name] for block in blocks]) for name in blocks[0] if name != "overflow_to_sample_mapping"}, columns)


def joined_runs(parts: Sequence[Runs]) -> Runs:
    """The lists of all parts, in order."""
    return Runs(np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts]))


@dataclass(frozen=True)
class Pad:
    """Collator: right padding to the longest text of the batch."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, torch.Tensor] = {}
        for name in rows[0]:
            if isinstance(rows[0][name], list):
                fill = self.pad_token_id if name == "input_ids" else 0
                batch[name] = torch.tensor([[*row[name], *[fill] * (longest - len(row[name]))] for row in rows])  # (B, T)
            else:
                batch[name] = torch.from_numpy(np.stack([row[name] for row in rows]))
        return batch


def token_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Indices of texts of like length, longest first, at most `batch_tokens` tokens a batch with padding counted.

    What is left at the end comes in powers of two: every new shape of a batch costs a kernel of its own, and the memory to keep it.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size, rest = max(1, batch_tokens // max(1, int(lengths[order[start]]))), len(order) - start
        size = size if size <= rest else 1 << (rest.bit_length() - 1)
        yield order[start : start + size]
        start += size


def batch_answers(
    ask: Callable[[dict[str, torch.Tensor]], Answer], data: Encoded, pad: Pad, device: torch.device, batch_tokens: int
) -> Iterator[tuple[np.ndarray, Answer]]:
    """Rows of `data` and what `ask` says of their padded batch on `device`, longest texts first, until every row was asked about.

    A batch is halved when memory runs out; MachineError when one text alone does not fit.
    """
    pending = list(token_batches(data.lengths, batch_tokens))[::-1]
    while pending:
        rows = pending.pop()
        batch = pad([{name: values[i] for name, values in data.tokens.items()} for i in rows])
        try:
            answer = ask({name: values.to(device) for name, values in batch.items()})
        except RuntimeError as error:
            if not _no_memory(error):
                raise
            if len(rows) == 1:
                raise MachineError("memory ran out on a single text", f"{data.lengths[rows[0]]} tokens on {device}", "lower max_length") from error
            torch.cuda.empty_cache()
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
        else:
            yield rows, answer


def _no_memory(error: RuntimeError) -> bool:
    """A device has a kind of error of its own for it; a CPU tells it in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def predict_logits(
    model: nn.Module,
    data: Encoded,
    pad: Pad,
    *,
    batch_tokens: int = 4096,
    precision: torch.dtype | None = None,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Logits (N, C) float32 of `model` in evaluation mode, in the order of `data`; halves a batch as `batch_answers` does."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    answers: np.ndarray | None = None
    done = 0

    def ask(batch: dict[str, torch.Tensor]) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision is not None):
            return model(**batch)["logits"].float().cpu().numpy()  # type: ignore[no-any-return]

    for rows, logits in batch_answers(ask, data, pad, device, batch_tokens):
        if answers is None:
            answers = np.empty((len(data), logits.shape[1]), np.float32)
        answers[rows] = logits
        done += len(rows)
        progress.advance(done)
    model.train(was_training)
    return np.zeros((0, 0), np.float32) if answers is None else answers


def first_line(error: BaseException) -> str:
    """What an exception says, without its essay."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
