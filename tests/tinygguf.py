"""A small language model in a .gguf file, as llama.cpp's converters write it."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
}
LAYER |= {f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"} | {
    f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")
}


def write_gguf(path: Path, texts: list[str]) -> LlamaForCausalLM:
    """Write a random llama with byte-level pieces learned from `texts`; <s> is 0, </s> is 1."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    pieces = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(pieces["vocab"], key=pieces["vocab"].get)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(shape).eval()
    _write(path, model, vocabulary, [" ".join(merge) for merge in pieces["merges"]])
    return model


def _write(path: Path, model: LlamaForCausalLM, vocabulary: list[str], merges: list[str]) -> None:
    shape = model.config
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_block_count(shape.num_hidden_layers)
    file.add_context_length(shape.max_position_embeddings)
    file.add_embedding_length(shape.hidden_size)
    file.add_feed_forward_length(shape.intermediate_size)
    file.add_head_count(shape.num_attention_heads)
    file.add_head_count_kv(shape.num_key_value_heads)
    file.add_layer_norm_rms_eps(shape.rms_norm_eps)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(len(vocabulary))
    file.add_tokenizer_model("gpt2")
    file.add_token_list(vocabulary)
    file.add_token_types([3, 3] + [1] * (len(vocabulary) - 2))
    file.add_token_merges(merges)
    file.add_bos_token_id(0)
    file.add_eos_token_id(1)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for layer in range(shape.num_hidden_layers):
        names |= {
            f"model.layers.{layer}.{source}": f"blk.{layer}.{name}"
            for source, name in LAYER.items()
        }
    for source, name in names.items():
        weight = model.state_dict()[f"{source}.weight"]
        if name.endswith(
            ("attn_q", "attn_k")
        ):  # the file holds rotary pairs side by side, transformers half a head apart
            halves = weight.reshape(shape.num_attention_heads, 2, -1, weight.shape[1])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        file.add_tensor(f"{name}.weight", np.ascontiguousarray(weight.numpy()))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
