"""A decoder without a padding token can be a teacher, too."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, GPT2Config, PreTrainedTokenizerFast

from kdedge.errors import UsageError
from kdedge.nn.tokenization import load_tokenizer
from kdedge.teacher.finetune import load_teacher


def write_decoder(folder: Path, **special: str) -> Path:
    backend = factories.tokenizer().backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=backend.get_vocab_size(),
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        num_labels=2,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=None,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_a_decoder_without_padding_labels_a_batch_as_each_text_alone(tmp_path: Path) -> None:
    task = factories.single_task(40)
    folder = write_decoder(tmp_path / "decoder", eos_token="[SEP]", unk_token="[UNK]")
    teacher = load_teacher(folder, task.spec, 32)
    texts = task.train.texts[:12]
    together = teacher.predict_logits(texts, None)
    alone = [teacher.predict_logits([text], None)[0] for text in texts]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_a_tokenizer_without_any_token_for_padding_is_an_error(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "decoder")
    with pytest.raises(UsageError, match="no token for padding"):
        load_tokenizer(folder)
