"""Small real things that tests share: a tokenizer, tasks, and tiny models."""

from __future__ import annotations

import random

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from kdedge.data.task import Split, Task
from kdedge.runtime.spec import TaskSpec

GOOD = "good great lovely warm bright clever moving".split()
BAD = "bad awful dull cold grim clumsy boring".split()
THINGS = "film plot cast score ending scene story camera actor script".split()


def tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with BERT's special tokens and a written vocabulary: training one breaks ties differently in every process."""
    words = [*GOOD, *BAD, *THINGS, "the", "a", "is", "was", "and"]
    letters = sorted(set("".join(words)) | set("0123456789"))
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *(word for word in words if len(word) > 1),
    ]
    inner = Tokenizer(
        models.WordPiece(vocab={piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )


def bert(
    layers: int = 2,
    hidden: int = 24,
    heads: int = 2,
    outputs: int = 2,
    vocabulary: int = 200,
    **settings,
) -> BertForSequenceClassification:
    """A tiny BERT with random weights."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            num_hidden_layers=layers,
            hidden_size=hidden,
            num_attention_heads=heads,
            intermediate_size=2 * hidden,
            num_labels=outputs,
            **{"max_position_embeddings": 64, "initializer_range": 0.5}
            | settings,  # answers that differ from text to text
        )
    )


def sentences(count: int, seed: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Sentences of many lengths whose label is whether their one opinion is good."""
    chance = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        label = chance.randrange(2)
        subject = " and ".join(chance.sample(THINGS, chance.randint(1, 5)))
        texts.append(
            f"the {subject} was {chance.choice((BAD, GOOD)[label])} {chance.randrange(10**6)}"
        )
        labels.append(label)
    return tuple(texts), np.array(labels, dtype=np.int64)


def single_task(train: int = 96) -> Task:
    """A task of two classes that a tiny model can learn."""
    splits = [
        Split(texts, None, labels)
        for texts, labels in (sentences(train, 1), sentences(32, 2), sentences(48, 3))
    ]
    return Task(
        TaskSpec("tiny", "classification", ("bad", "good"), "accuracy", pair=False), *splits
    )


def pair_task(train: int = 96) -> Task:
    """Pairs whose label is whether both texts hold the same opinion."""

    def split(count: int, seed: int) -> Split:
        texts, left = sentences(count, seed)
        pairs, right = sentences(count, seed + 100)
        return Split(texts, pairs, (left == right).astype(np.int64))

    return Task(
        TaskSpec("tinypair", "classification", ("differ", "agree"), "accuracy", pair=True),
        split(train, 1),
        split(32, 2),
        split(48, 3),
    )
