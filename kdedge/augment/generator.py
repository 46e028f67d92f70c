"""A causal language model that has read the task's training texts: brought and fine-tuned, or made from scratch.

A line of text for it is `label TAB text NEWLINE second text`; label and second text may be absent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.data.task import Split, Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import this_device
from kdedge.nn.inference import predict_logits
from kdedge.nn.training import Training, train
from kdedge.recipe import GenerateConfig
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, stage
from kdedge.runtime.spec import TaskSpec

END = "<|endoftext|>"
NO_WRITER = 'name a decoder such as GPT-2 or Llama, or set augment.generate.model = "scratch"'
READ = ("model", "revision", "layers", "hidden", "heads", "vocabulary", "max_length", "fit")
"""Keys of the recipe that decide the language model; the others only say how it is asked."""


@dataclass(frozen=True)
class Generator:
    """A language model and its tokenizer. start, end: the token ids that open and close a text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    start: int
    end: int

    def cap(self, max_length: int) -> int:
        """`max_length`, or the tokens that the model's positions allow."""
        return min(
            max_length,
            int(getattr(self.model.config, "max_position_embeddings", None) or max_length),
        )

    def surprise(self, texts: list[list[int]], *, batch_tokens: int = 2048) -> np.ndarray:
        """Mean negative log-likelihood per token (N,) float32, in nats, of N texts given as token ids from `start` to `end`."""
        return predict_logits(
            _Surprise(self.model),
            Encoded.of(texts),
            PaddingCollator(self.end),
            batch_tokens=batch_tokens,
        )[:, 0]


def as_line(text: str, pair: str | None = None, label: str | None = None) -> str:
    """One example as the language model reads it; white space inside a part becomes single spaces."""
    line = " ".join(text.split())
    if pair is not None:
        line += "\n" + " ".join(pair.split())
    return line if label is None else f"{' '.join(label.split())}\t{line}"


def label_name(spec: TaskSpec, label: Any) -> str:
    """The word by which a language model is asked for texts of this label: a class's name, several, or a rounded score."""
    if spec.kind == "classification":
        return spec.labels[int(label)]
    if spec.kind == "multilabel":
        return (
            ", ".join(name for name, given in zip(spec.labels, label, strict=True) if given)
            or "none"
        )
    return f"{float(label):.0f}"


def lines_of(split: Split, spec: TaskSpec, seed: int) -> list[str]:
    """Each example as one line, a random half of them with their label in front."""
    labelled = np.random.default_rng(seed).random(len(split)) < 0.5
    return [
        as_line(
            split.texts[i],
            split.pairs[i] if split.pairs else None,
            label_name(spec, split.labels[i]) if labelled[i] else None,
        )
        for i in range(len(split))
    ]


def prepare_generator(
    recipe: GenerateConfig,
    task: Task,
    folder: Path,
    *,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
) -> Generator:
    """The stage `generator/`: the language model after reading the training split, best by its surprise at the validation split."""
    place = _place(recipe)
    inputs = {
        "generate": recipe.model_dump(mode="json", include=set(READ)),
        "weights": hash_files(place, _weight_files(recipe, place)) if place else None,
        "data": task.content_hash(),
        "seed": seed,
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        torch.manual_seed(seed)
        generator = _begin(recipe, task, seed)
        surprise = _read_texts(generator, recipe, task, part, seed, stages.progress)
        if is_main():
            generator.model.save_pretrained(part)
            generator.tokenizer.save_pretrained(part)
        barrier()
        parameters = sum(p.numel() for p in generator.model.parameters())
        return {
            "validation_surprise": surprise,
            "parameters": parameters,
            "seconds": time.monotonic() - start,
        }

    stage(folder, inputs, make, stages=stages)
    return load_generator(str(folder))


def load_generator(name: str, revision: str | None = None) -> Generator:
    """A causal language model from a folder, `package:` place, .gguf file or hub id, on this machine's device, in evaluation mode."""
    file = {"gguf_file": Path(name).name} if name.endswith(".gguf") else {}
    outer = name.rpartition("/")[0] or "." if file else name
    place = resolve_model_path(outer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(place or outer), revision=revision, **file)
        model, told = AutoModelForCausalLM.from_pretrained(
            str(place or outer),
            revision=revision,
            dtype=torch.float32,
            output_loading_info=True,
            **file,
        )
    except (OSError, ValueError, ImportError) as error:
        raise MachineError(
            "the language model cannot be loaded",
            f"{name}: {first_line(error)}",
            'give a folder, a package: place, a .gguf file or a hub id that this machine can reach, or model = "scratch"',
        ) from error
    if told["missing_keys"]:
        raise UsageError(
            "this is no language model that writes",
            f"{name} lacks {sorted(told['missing_keys'])[0]}",
            NO_WRITER,
        )
    generator = _opened(model, tokenizer)
    _check_writes_on(generator, name)
    return generator


@torch.inference_mode()
def _check_writes_on(generator: Generator, name: str) -> None:
    """Raises UsageError for a model whose answer to a token depends on later ones, or that cannot go on from what it has read."""
    ids = torch.tensor(
        [[generator.start, 1, 2], [generator.start, 1, 3]], device=generator.model.device
    )
    answer = generator.model(input_ids=ids, use_cache=True)
    if not torch.allclose(answer.logits[0, :2], answer.logits[1, :2], atol=1e-3):
        raise UsageError(
            "this is no language model that writes",
            f"{name} reads ahead: it is an encoder",
            NO_WRITER,
        )
    if not hasattr(answer.get("past_key_values"), "batch_select_indices"):
        raise UsageError(
            "this language model keeps no key-value cache",
            f"{name}: {type(generator.model).__name__}",
            NO_WRITER,
        )


def _opened(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Generator:
    # Weights of a .gguf file are ordinary floats once they are read; transformers goes on calling them quantized, and would not save them.
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    end = tokenizer.eos_token_id
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    if end is None:
        raise MachineError(
            "the language model cannot tell where a text ends",
            f"{type(tokenizer).__name__} has no end-of-text token",
            "choose another model",
        )
    return Generator(model.to(this_device()).eval(), tokenizer, start, end)


def _place(recipe: GenerateConfig) -> Path | None:
    if recipe.model == "scratch":
        return None
    return resolve_model_path(
        recipe.model.rpartition("/")[0] or "." if recipe.model.endswith(".gguf") else recipe.model
    )


def _weight_files(recipe: GenerateConfig, place: Path) -> tuple[str, ...]:
    if recipe.model.endswith(".gguf"):
        return (Path(recipe.model).name,)
    return tuple(
        sorted(path.name for path in place.iterdir() if path.suffix in (".safetensors", ".json"))
    )


def _begin(recipe: GenerateConfig, task: Task, seed: int) -> Generator:
    if recipe.model != "scratch":
        return load_generator(recipe.model, recipe.revision)
    tokenizer = _train_tokenizer(lines_of(task.train, task.spec, seed), recipe.vocabulary)
    end = tokenizer.eos_token_id
    sizes = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=recipe.max_length,
        n_embd=recipe.hidden,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        bos_token_id=end,
        eos_token_id=end,
    )
    return _opened(GPT2LMHeadModel(sizes), tokenizer)


def _train_tokenizer(lines: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from the task's own texts: nothing is unknown to it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, bos_token=END, pad_token=END
    )


def _read_texts(
    generator: Generator,
    recipe: GenerateConfig,
    task: Task,
    folder: Path,
    seed: int,
    progress: Progress,
) -> float:
    validation = token_lines(
        generator, lines_of(task.validation, task.spec, seed), recipe.max_length
    )
    training = Training(
        fit=recipe.fit,
        seed=seed,
        data=Encoded.of(
            token_lines(generator, lines_of(task.train, task.spec, seed), recipe.max_length)
        ),
        pad=PaddingCollator(generator.end),
        predict=lambda wrapper: Generator(
            wrapper.model, generator.tokenizer, generator.start, generator.end
        ).surprise(validation),
        score=lambda surprise: -float(surprise.mean()),
        title="the generator reads the training texts",
    )
    return -train(Reading(generator.model), training, folder, progress=progress)


def token_lines(generator: Generator, lines: list[str], max_length: int) -> list[list[int]]:
    """Token ids of each line, opened and closed; a line that is too long loses its end."""
    ids = generator.tokenizer(lines, add_special_tokens=False)["input_ids"]
    return [[generator.start, *row[: generator.cap(max_length) - 2], generator.end] for row in ids]


def next_token_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy (B, T - 1) in nats of each token given those before it; 0 where the token is padding."""
    losses = F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none"
    )
    return losses.view(input_ids.shape[0], -1) * attention_mask[:, 1:]


class Reading(nn.Module):
    """A language model that returns its mean loss per real token; padding has no part in it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_without_ties)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_ties)  # type: ignore[no-untyped-call]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        losses = next_token_loss(logits, input_ids, attention_mask)
        return {"loss": losses.sum() / attention_mask[:, 1:].sum(), "logits": logits}


class _Surprise(nn.Module):
    """A language model whose answer to a text is its mean loss per token."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.train(model.training)  # a new module would be training, and leave the model so

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        losses = next_token_loss(logits, input_ids, attention_mask)
        return {"logits": losses.sum(1, keepdim=True) / attention_mask[:, 1:].sum(1, keepdim=True)}


def _ties(module: nn.Module) -> dict[str, str]:
    """Second name -> first name of a weight that stands in two places, as input and output embeddings do."""
    first: dict[int, str] = {}
    ties = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        if id(value) in first:
            ties[name] = first[id(value)]
        else:
            first[id(value)] = name
    return ties


def _without_ties(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """safetensors writes no weight twice."""
    for name in _ties(module):
        state.pop(prefix + name, None)


def _with_ties(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, origin in _ties(module).items():
        if prefix + origin in state:
            state.setdefault(prefix + name, state[prefix + origin])
