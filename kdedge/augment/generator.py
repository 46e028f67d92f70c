"""A causal language model that generates texts: load it and compute likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.paths import loadable_name
from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import this_device
from kdedge.nn.inference import predict_logits

DECODER_HINT = 'name a decoder such as GPT-2 or Llama, or set augment.generate.model = "scratch"'


@dataclass(frozen=True)
class Generator:
    """A causal language model and its tokenizer.

    Attributes:
        start: Id of the token before a text.
        end: Id of the token after a text.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    start: int
    end: int

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Generator:
        """Create a generator from a model, moved to this machine's device in evaluation mode.

        Raises:
            MachineError: If the tokenizer has no end-of-text token.
        """
        # A .gguf file's weights are ordinary floats after loading, but transformers still
        # regards the model as quantized and would not save it.
        model.hf_quantizer = None
        model.config.__dict__.pop("quantization_config", None)
        end = tokenizer.eos_token_id
        if end is None:
            raise MachineError(
                "the tokenizer of the language model has no end-of-text token",
                type(tokenizer).__name__,
                "choose another model",
            )
        start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return cls(model.to(this_device()).eval(), tokenizer, start, end)

    def limit(self, max_length: int) -> int:
        """Return the smaller of `max_length` and the model's number of positions."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return min(max_length, int(positions or max_length))

    def encode(self, lines: list[str], max_length: int) -> list[list[int]]:
        """Return the token ids of each line from `start` to `end`; long lines are cut."""
        longest = self.limit(max_length) - 2
        rows = self.tokenizer(lines, add_special_tokens=False)["input_ids"]
        return [[self.start, *row[:longest], self.end] for row in rows]

    def mean_nll(self, texts: list[list[int]]) -> np.ndarray:
        """Compute the mean negative log-likelihood per token, in nats.

        Args:
            texts: N lists of token ids from `start` to `end`.

        Returns:
            (N,) float32.
        """
        scorer = MeanNll(self.model)
        pad = PaddingCollator(self.end)
        return predict_logits(scorer, Encoded.of(texts), pad, batch_tokens=2048)[:, 0]


class MeanNll(nn.Module):
    """Wrap a language model so that its only logit is a text's mean negative log-likelihood."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)  # prediction restores the mode of this module

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits = self.model(**with_additive_mask(self.model, batch)).logits
        losses = next_token_losses(logits, input_ids, attention_mask)
        tokens = attention_mask[:, 1:].sum(1, keepdim=True)
        return {"logits": losses.sum(1, keepdim=True) / tokens}  # (B, 1)


def next_token_losses(
    logits: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of each token given the tokens before it, in nats.

    Args:
        logits: (B, T, V)
        input_ids: (B, T)
        attention_mask: (B, T), 0 for padding.

    Returns:
        (B, T - 1), 0 for padding.
    """
    predictions = logits[:, :-1].float().flatten(0, 1)
    losses = F.cross_entropy(predictions, input_ids[:, 1:].flatten(), reduction="none")
    return losses.view(input_ids.shape[0], -1) * attention_mask[:, 1:]


def load_generator(name: str, revision: str | None = None) -> Generator:
    """Load a causal language model.

    Args:
        name: Folder, `package:` path, .gguf file or hub id.

    Raises:
        MachineError: If the model cannot be loaded.
        UsageError: If it is not a causal language model with a key-value cache.
    """
    folder, gguf_file = split_model_name(name)
    path = loadable_name(folder)
    options = {"revision": revision, "gguf_file": gguf_file}
    try:
        _check_file(path, gguf_file)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model, loading = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(name, error) from error
    if loading["missing_keys"]:
        raise UsageError(
            "the model is not a causal language model",
            f"{name} lacks {sorted(loading['missing_keys'])[0]}",
            DECODER_HINT,
        )
    generator = Generator.of(model, tokenizer)
    check_is_causal(generator, name)
    return generator


def check_generator(name: str, revision: str | None = None) -> None:
    """Check that a language model is there and of a causal type; its weights are not loaded.

    An encoder of such a type, such as a BERT, is found only when its weights are loaded.

    Raises:
        MachineError: If its configuration cannot be loaded.
        UsageError: If no model of its type is a causal language model.
    """
    folder, gguf_file = split_model_name(name)
    path = loadable_name(folder)
    try:
        _check_file(path, gguf_file)
        config = AutoConfig.from_pretrained(path, revision=revision, gguf_file=gguf_file)
    except (OSError, ValueError, ImportError) as error:
        raise _cannot_load(name, error) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UsageError(
            "the model is not a causal language model",
            f"{name} has the type {config.model_type}",
            DECODER_HINT,
        )


def _check_file(folder: str, gguf_file: str | None) -> None:
    """Raise FileNotFoundError if an existing folder lacks the .gguf file."""
    if gguf_file and Path(folder).is_dir() and not (Path(folder) / gguf_file).is_file():
        raise FileNotFoundError("there is no such file")


def _cannot_load(name: str, error: Exception) -> MachineError:
    return MachineError(
        "the language model cannot be loaded",
        f"{name}: {first_line(error)}",
        "give a folder, a package: path, a .gguf file or a hub id that this machine can "
        'reach, or model = "scratch"',
    )


def split_model_name(name: str) -> tuple[str, str | None]:
    """Split the path of a .gguf file into folder and file; other names have no file."""
    if not name.endswith(".gguf"):
        return name, None
    return name.rpartition("/")[0] or ".", Path(name).name


@torch.inference_mode()
def check_is_causal(generator: Generator, name: str) -> None:
    """Check that no output depends on later tokens and that the model has a key-value cache.

    Raises:
        UsageError: If either is not the case.
    """
    # Two texts that differ only in the last token.
    ids = [[generator.start, 1, 2], [generator.start, 1, 3]]
    output = generator.model(
        input_ids=torch.tensor(ids, device=generator.model.device), use_cache=True
    )
    if not torch.allclose(output.logits[0, :2], output.logits[1, :2], atol=1e-3):
        raise UsageError(
            "the model is not a causal language model",
            f"{name} is an encoder: its output depends on later tokens",
            DECODER_HINT,
        )
    if not hasattr(output.get("past_key_values"), "batch_select_indices"):
        raise UsageError(
            "the language model has no key-value cache",
            f"{name}: {type(generator.model).__name__}",
            DECODER_HINT,
        )
