"""Make the stage `generator/`: a causal language model fine-tuned on the training texts."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from kdedge.augment.generator import (
    Generator,
    load_generator,
    next_token_losses,
    split_model_name,
)
from kdedge.augment.lines import task_lines
from kdedge.data.task import Task
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.nn.training_stage import training_stage
from kdedge.recipe import GenerateConfig
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext

END_OF_TEXT = "<|endoftext|>"

MODEL_KEYS = {
    "model",
    "revision",
    "layers",
    "hidden",
    "heads",
    "vocabulary",
    "max_length",
    "fit",
}
"""Keys of [augment.generate] that decide the language model; the others decide its use."""


def prepare_generator(
    recipe: GenerateConfig,
    task: Task,
    folder: Path,
    *,
    seed: int = 0,
    stages: StageContext = DEFAULT_STAGES,
) -> Generator:
    """Run the stage `generator/` (fine-tune the model) and return its model.

    Training keeps the checkpoint with the lowest mean negative log-likelihood on validation.
    """
    inputs = {
        "generate": recipe.model_dump(mode="json", include=MODEL_KEYS),
        "weights": _weights_hash(recipe.pretrained),
        "data": task.content_hash(),
        "seed": seed,
    }

    def make(part: Path) -> dict[str, Any]:
        start = time.monotonic()
        torch.manual_seed(seed)
        generator = _initial_generator(recipe, task, seed)
        validation_nll = _fine_tune(generator, recipe, task, seed, part, stages.progress)
        if is_main():
            generator.model.save_pretrained(part)
            generator.tokenizer.save_pretrained(part)
        barrier()
        return {
            "validation_nll": validation_nll,
            "parameters": sum(p.numel() for p in generator.model.parameters()),
            "seconds": time.monotonic() - start,
        }

    training_stage(folder, inputs, make, stages)
    return load_generator(str(folder))


def _weights_hash(model: str | None) -> str | None:
    """Return the hash of a model's files; None without a model or if it is not on this machine."""
    if model is None:
        return None
    name, gguf_file = split_model_name(model)
    folder = resolve_model_path(name)
    if folder is None:
        return None
    if gguf_file is not None:
        return hash_files(folder, (gguf_file,))
    files = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".json")]
    return hash_files(folder, tuple(sorted(files)))


def _initial_generator(recipe: GenerateConfig, task: Task, seed: int) -> Generator:
    if recipe.pretrained is not None:
        return load_generator(recipe.pretrained, recipe.revision)
    lines = task_lines(task.train, task.spec, seed)
    tokenizer = _train_tokenizer(lines, recipe.vocabulary)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=recipe.max_length,
        n_embd=recipe.hidden,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Generator.of(GPT2LMHeadModel(config), tokenizer)


def _train_tokenizer(lines: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, which can encode every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
    )


def _fine_tune(
    generator: Generator,
    recipe: GenerateConfig,
    task: Task,
    seed: int,
    folder: Path,
    progress: Progress,
) -> float:
    """Train on the training texts; return the best mean negative log-likelihood on validation."""
    validation_lines = task_lines(task.validation, task.spec, seed)
    validation = generator.encode(validation_lines, recipe.max_length)
    train_lines = task_lines(task.train, task.spec, seed)
    training = Training(
        fit=recipe.fit,
        seed=seed,
        data=Encoded.of(generator.encode(train_lines, recipe.max_length)),
        pad=PaddingCollator(generator.end),
        predict=lambda module: replace(generator, model=module.model).mean_nll(validation),
        score=lambda mean_nlls: -float(mean_nlls.mean()),
        title="the generator learns from the training texts",
    )
    return -train(LanguageModelLoss(generator.model), training, folder, progress=progress)


class LanguageModelLoss(nn.Module):
    """Wrap a causal language model so that it returns the mean loss per real token.

    Tied weights, such as input and output embeddings, are one tensor with two names. The
    state dict holds it once, because safetensors does not write shared tensors.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_drop_tied)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_restore_tied)  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        micro_batch: MicroBatch = WHOLE_BATCH,
    ) -> dict[str, torch.Tensor]:
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits = self.model(**with_additive_mask(self.model, batch)).logits
        losses = next_token_losses(logits, input_ids, attention_mask)
        mean = losses.sum() / attention_mask[:, 1:].sum()
        return {"loss": micro_batch.targets * mean, "logits": logits}


def _tied_names(module: nn.Module) -> dict[str, str]:
    """Map each further name of a parameter to its first name."""
    first_names: dict[int, str] = {}
    tied = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        first_name = first_names.setdefault(id(parameter), name)
        if first_name != name:
            tied[name] = first_name
    return tied


def _drop_tied(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in _tied_names(module):
        state.pop(prefix + name, None)


def _restore_tied(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, first_name in _tied_names(module).items():
        if prefix + first_name in state:
            state.setdefault(prefix + name, state[prefix + first_name])
