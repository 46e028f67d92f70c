"""The language model that writes texts: what it reads, what it is asked, and that a killed build goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tinygguf import write_gguf
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from kdedge.augment import generator
from kdedge.augment.generate import GenerateSource, prompt_kinds, prompt_text
from kdedge.augment.generator import (
    Generator,
    Reading,
    as_line,
    label_name,
    lines_of,
    load_generator,
    prepare_generator,
)
from kdedge.augment.sampling import draw, sample
from kdedge.errors import MachineError, UsageError
from kdedge.nn.batching import PaddingCollator
from kdedge.recipe import GenerateConfig, GeneratorFitConfig
from kdedge.runtime.spec import TaskSpec

RECIPE = GenerateConfig(
    layers=2,
    hidden=32,
    heads=2,
    vocabulary=300,
    max_length=96,
    batch_size=16,
    fit=GeneratorFitConfig(epochs=25, batch_size=16, learning_rate=1e-2),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return prepare_generator(
        RECIPE, tiny.pair_task(), tmp_path_factory.mktemp("generator") / "generator"
    )


def writing(writer: Generator, **settings: object) -> GenerateSource:
    return GenerateSource(writer, RECIPE.model_copy(update=settings), tiny.pair_task())


def test_loss_counts_real_tokens_alone() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    ).eval()
    rows = [[1, 5, 6, 7, 2], [1, 9, 2]]
    batch = PaddingCollator(2)(
        [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    )
    total, count = 0.0, 0
    for ids in rows:
        scores = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).detach().numpy()
        total -= sum(scores[i, ids[i + 1]] for i in range(len(ids) - 1))
        count += len(ids) - 1
    assert float(Reading(model)(**batch)["loss"].detach()) == pytest.approx(total / count, rel=1e-5)
    means = [
        -np.mean(
            [
                model(torch.tensor([ids])).logits[0].log_softmax(-1)[i, ids[i + 1]].item()
                for i in range(len(ids) - 1)
            ]
        )
        for ids in rows
    ]
    assert np.allclose(Generator(model, None, 1, 2).surprise(rows), means, rtol=1e-5)
    assert not model.training, "asking does not switch dropout on"


def test_it_has_learned_from_the_texts(pairs: Generator) -> None:
    task = tiny.pair_task()
    lines = lines_of(task.test, task.spec, 0)
    ids = [[pairs.start, *pairs.tokenizer(line)["input_ids"], pairs.end] for line in lines]
    mixed = [
        [row[0], *np.random.default_rng(i).permutation(row[1:-1]).tolist(), row[-1]]
        for i, row in enumerate(ids)
    ]
    assert pairs.surprise(ids).mean() < np.log(len(pairs.tokenizer)) - 1, (
        "better than knowing nothing"
    )
    assert pairs.surprise(ids).mean() < pairs.surprise(mixed).mean() - 0.3, (
        "words in order surprise it less"
    )


def test_lines_hold_label_text_and_pair() -> None:
    task = tiny.pair_task()
    lines = lines_of(task.train, task.spec, 0)
    labelled = [line for line in lines if "\t" in line]
    assert 30 < len(labelled) < 66 and all("\n" in line for line in lines)
    row = lines.index(labelled[0])
    assert (
        labelled[0]
        == f"{task.spec.labels[task.train.labels[row]]}\t{task.train.texts[row]}\n{task.train.pairs[row]}"
    )
    assert as_line("a\tb\n c", "d", None) == "a b c\nd"
    scores, many = (
        TaskSpec("s", "regression", ("score",), "pearson", pair=False),
        TaskSpec("m", "multilabel", ("x", "y", "z"), "micro_f1", pair=False),
    )
    assert (
        label_name(scores, 3.8) == "4"
        and label_name(many, [1, 0, 1]) == "x, z"
        and label_name(many, [0, 0, 0]) == "none"
    )


def test_the_second_text_is_written_after_the_first_of_its_own_row(pairs: Generator) -> None:
    task = tiny.pair_task()
    made = writing(pairs, prompts=["second"]).make(np.arange(40), np.random.default_rng(0))
    assert (
        made and sum(text.text == task.train.texts[text.row] for text in made) >= len(made) - 2
    ), "one too long for a second text is not used"
    assert any(text.pair != task.train.pairs[text.row] for text in made)


def test_prompts_go_in_turn_and_prefixes_stay_in_front(pairs: Generator) -> None:
    task = tiny.pair_task()
    assert prompt_kinds(RECIPE, task) == ("bare", "label", "prefix", "second") and prompt_kinds(
        RECIPE, tiny.single_task()
    ) == ("bare", "label", "prefix")
    with pytest.raises(UsageError, match="second"):
        prompt_kinds(RECIPE.model_copy(update={"prompts": ["second"]}), tiny.single_task())
    words = [prompt_text(task, row, "prefix", np.random.default_rng(row)) for row in range(20)]
    assert all(task.train.texts[row].startswith(text) and text for row, text in enumerate(words))
    made = writing(pairs, prompts=["prefix"]).make(np.arange(40), np.random.default_rng(1))
    assert made and all(
        text.text.split()[0] == task.train.texts[text.row].split()[0] for text in made
    )


def test_the_nucleus_is_the_smallest_likeliest_set() -> None:
    torch.manual_seed(0)
    chances = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    drawn = draw(chances.log().repeat(20000, 1), 0.8).tolist()
    assert set(drawn) == {0, 1, 2}, "0.5 + 0.2 + 0.15 is the first sum past 0.8"
    assert [drawn.count(i) / 20000 for i in range(3)] == pytest.approx(
        [0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85], abs=0.015
    )
    assert set(draw(chances.log().repeat(5000, 1), 1.0).tolist()) == {0, 1, 2, 3, 4}
    flat = torch.zeros(4000, 1000)
    assert len(set(draw(flat, 0.9).tolist())) > 800, (
        "a flat row's nucleus is wider than the first look"
    )


def test_a_text_does_not_depend_on_those_that_end_before_it(pairs: Generator) -> None:
    prompts = [[pairs.start]] * 24
    likeliest = 1e-6  # the nucleus is one token: no chance is left
    together = sample(pairs, [*prompts, [pairs.start]], 60, likeliest, 1.0, None)
    assert together == [together[0]] * 25
    firsts = [[pairs.start, i] for i in range(5, 60)]
    mixed = sample(pairs, firsts, 60, likeliest, 1.0, None)
    assert len({len(row) for row in mixed}) > 1, "they end at different places"
    assert mixed == [sample(pairs, [first], 60, likeliest, 1.0, None)[0] for first in firsts]


def test_the_same_chance_writes_the_same_texts_and_another_others(pairs: Generator) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        writing(pairs).make(np.arange(24), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again and first != other
    assert torch.equal(before, torch.random.get_rng_state()), "nobody else's chance is touched"


def test_the_stage_is_kept_and_loads_as_any_other_model(pairs: Generator, tmp_path: Path) -> None:
    folder = tmp_path / "generator"
    made = prepare_generator(RECIPE, tiny.pair_task(), folder)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    asked = RECIPE.model_copy(update={"top_p": 0.5, "prompts": ["bare"]})
    again = prepare_generator(asked, tiny.pair_task(), folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp, (
        "how it is asked does not change what it has read"
    )
    weights = {name: value.clone() for name, value in pairs.model.state_dict().items()}
    assert all(
        torch.equal(value, weights[name]) for name, value in made.model.state_dict().items()
    ), "the same seed, the same weights"
    fine_tuned = prepare_generator(
        RECIPE.model_copy(update={"model": str(folder)}),
        tiny.pair_task(),
        tmp_path / "tuned" / "generator",
    )
    lines = [
        [again.start, *again.tokenizer(line)["input_ids"], again.end]
        for line in lines_of(tiny.pair_task().validation, tiny.pair_task().spec, 0)
    ]
    assert fine_tuned.surprise(lines).mean() < again.surprise(lines).mean()


@pytest.mark.parametrize("name", ["no/such/model", "no/such/model.gguf"])
def test_a_model_that_is_not_there_is_told_of(name: str) -> None:
    with pytest.raises(MachineError, match="language model cannot be loaded"):
        load_generator(name)


@pytest.mark.parametrize(
    "kind, says",
    [
        (BertForSequenceClassification, "lacks cls"),
        (BertForMaskedLM, "reads ahead: it is an encoder"),
    ],
)
def test_an_encoder_is_refused_before_anything_is_trained(
    tmp_path: Path, kind: type, says: str
) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"eos_token": "[SEP]", "bos_token": "[CLS]"})
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        initializer_range=0.5,
    )
    kind(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    with pytest.raises(UsageError, match="no language model that writes") as caught:
        prepare_generator(
            RECIPE.model_copy(update={"model": str(tmp_path / "encoder")}),
            tiny.pair_task(),
            tmp_path / "run" / "generator",
        )
    assert says in caught.value.detail and not (tmp_path / "run" / "generator").exists()


def test_a_model_without_a_key_value_cache_is_told_of(
    pairs: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pairs.model.forward
    monkeypatch.setattr(
        pairs.model,
        "forward",
        lambda *given, **options: whole(*given, **options | {"use_cache": False}),
    )
    with pytest.raises(UsageError, match="no key-value cache"):
        generator._check_writes_on(pairs, "a model")


def test_a_gguf_file_is_read_weights_pieces_and_all(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", list(tiny.single_task().train.texts))
    generator = load_generator(str(tmp_path / "tiny.gguf"))
    ids = generator.tokenizer("a good film", add_special_tokens=False)["input_ids"]
    assert (generator.start, generator.end) == (0, 1) and generator.tokenizer.decode(
        ids
    ) == "a good film"
    assert torch.allclose(
        generator.model(torch.tensor([[0, *ids]])).logits,
        model(torch.tensor([[0, *ids]])).logits,
        atol=1e-6,
    )
    recipe = RECIPE.model_copy(
        update={
            "model": str(tmp_path / "tiny.gguf"),
            "max_length": 32,
            "fit": GeneratorFitConfig(epochs=10, batch_size=16, learning_rate=1e-2),
        }
    )
    taught = prepare_generator(recipe, tiny.single_task(), tmp_path / "run" / "generator")
    lines = [
        [0, *generator.tokenizer(text)["input_ids"], 1]
        for text in tiny.single_task().validation.texts
    ]
    assert taught.surprise(lines).mean() < 0.8 * generator.surprise(lines).mean()
