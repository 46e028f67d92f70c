"""The language model that generates texts: training, prompts, sampling, loading."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from tinygguf import write_gguf
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from kdedge.augment.generate import GenerateSource, prompt_kinds, prompt_text
from kdedge.augment.generator import Generator, check_generator, check_is_causal, load_generator
from kdedge.augment.generator_stage import LanguageModelLoss, prepare_generator
from kdedge.augment.lines import join_line, label_name, split_line, task_lines
from kdedge.augment.sampling import draw_from_sorted, draw_until_inside, sample, sample_nucleus
from kdedge.errors import CheckFailed, MachineError, UsageError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.recipe import GenerateConfig, GeneratorFitConfig
from kdedge.runtime.spec import TaskSpec

Draw = Callable[[torch.Tensor, float], torch.Tensor]

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
        RECIPE, factories.pair_task(), tmp_path_factory.mktemp("generator") / "generator"
    )


def make_source(generator: Generator, **settings: object) -> GenerateSource:
    return GenerateSource(generator, RECIPE.model_copy(update=settings), factories.pair_task())


def test_the_loss_ignores_padding() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    ).eval()
    rows = [[1, 5, 6, 7, 2], [1, 9, 2]]
    batch = PaddingCollator(2)(Encoded.of(rows))
    total, count = 0.0, 0
    for ids in rows:
        scores = model(torch.tensor([ids])).logits[0].double().log_softmax(-1).detach().numpy()
        total -= sum(scores[i, ids[i + 1]] for i in range(len(ids) - 1))
        count += len(ids) - 1
    assert float(LanguageModelLoss(model)(**batch)["loss"].detach()) == pytest.approx(
        total / count, rel=1e-5
    )
    means = [
        -np.mean(
            [
                model(torch.tensor([ids])).logits[0].log_softmax(-1)[i, ids[i + 1]].item()
                for i in range(len(ids) - 1)
            ]
        )
        for ids in rows
    ]
    assert np.allclose(Generator(model, None, 1, 2).mean_nll(rows), means, rtol=1e-5)
    assert not model.training, "scoring does not switch dropout on"


def test_training_makes_real_texts_more_likely(pairs: Generator) -> None:
    task = factories.pair_task()
    lines = task_lines(task.test, task.spec, 0)
    ids = [[pairs.start, *pairs.tokenizer(line)["input_ids"], pairs.end] for line in lines]
    mixed = [
        [row[0], *np.random.default_rng(i).permutation(row[1:-1]).tolist(), row[-1]]
        for i, row in enumerate(ids)
    ]
    assert pairs.mean_nll(ids).mean() < np.log(len(pairs.tokenizer)) - 1, (
        "better than a uniform guess"
    )
    assert pairs.mean_nll(ids).mean() < pairs.mean_nll(mixed).mean() - 0.3, (
        "words in order are more likely"
    )


def test_lines_hold_label_text_and_pair() -> None:
    task = factories.pair_task()
    lines = task_lines(task.train, task.spec, 0)
    labelled = [line for line in lines if "\t" in line]
    assert 30 < len(labelled) < 66 and all("\n" in line for line in lines)
    row = lines.index(labelled[0])
    label = task.spec.labels[task.train.labels[row]]
    assert labelled[0] == f"{label}\t{task.train.texts[row]}\n{task.train.pairs[row]}"
    assert join_line("a\tb\n c", "d", None) == "a b c\nd"
    assert split_line("agree\ta  b\nc d") == ("a b", "c d") and split_line("a") == ("a", None)
    scores, many = (
        TaskSpec("s", "regression", ("score",), "pearson", pair=False),
        TaskSpec("m", "multilabel", ("x", "y", "z"), "micro_f1", pair=False),
    )
    assert (
        label_name(scores, 3.8) == "4"
        and label_name(many, [1, 0, 1]) == "x, z"
        and label_name(many, [0, 0, 0]) == "none"
    )


def test_the_second_text_follows_the_first_text_of_its_row(pairs: Generator) -> None:
    task = factories.pair_task()
    made = make_source(pairs, prompts=["second"]).produce(np.arange(40), np.random.default_rng(0))
    assert (
        made and sum(text.text == task.train.texts[text.row] for text in made) >= len(made) - 2
    ), "a prompt that leaves no room for a second text is not used"
    assert any(text.pair != task.train.pairs[text.row] for text in made)


def test_kinds_of_prompt_follow_the_task_and_texts_begin_with_their_prefix(
    pairs: Generator,
) -> None:
    task = factories.pair_task()
    assert prompt_kinds(RECIPE, task) == ("bare", "label", "prefix", "second") and prompt_kinds(
        RECIPE, factories.single_task()
    ) == ("bare", "label", "prefix")
    with pytest.raises(UsageError, match="second"):
        prompt_kinds(RECIPE.model_copy(update={"prompts": ["second"]}), factories.single_task())
    words = [prompt_text(task, row, "prefix", np.random.default_rng(row)) for row in range(20)]
    assert all(task.train.texts[row].startswith(text) and text for row, text in enumerate(words))
    made = make_source(pairs, prompts=["prefix"]).produce(np.arange(40), np.random.default_rng(1))
    assert made and all(
        text.text.split()[0] == task.train.texts[text.row].split()[0] for text in made
    )


@pytest.mark.parametrize("draw", [draw_until_inside, draw_from_sorted])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(draw: Draw) -> None:
    torch.manual_seed(0)
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.2, 0.05])
    drawn = draw(probabilities.repeat(20000, 1), 0.8).tolist()
    assert set(drawn) == {1, 2, 3}, "0.5 + 0.2 + 0.15 is the first sum past 0.8"
    assert [drawn.count(i) / 20000 for i in (1, 2, 3)] == pytest.approx(
        [0.5 / 0.85, 0.15 / 0.85, 0.2 / 0.85], abs=0.015
    )
    assert set(draw(probabilities.repeat(5000, 1), 1.0).tolist()) == {0, 1, 2, 3, 4}
    assert len(set(draw(torch.full((4000, 1000), 0.001), 0.9).tolist())) > 800


def test_a_small_nucleus_of_many_likely_tokens_is_found_by_sorting() -> None:
    torch.manual_seed(0)
    likely = torch.full((300, 1000), 0.999 / 999)
    likely[:, 7] = 0.001 + 1e-6
    assert set(draw_until_inside(likely, 1e-6).tolist()) == {7}


def sample_greedily(generator: Generator, prompts: list[list[int]]) -> list[list[int]]:
    """Sample from a nucleus of one token."""
    settings = {"max_length": 60, "top_p": 1e-6, "temperature": 1.0, "precision": None}
    texts = sample(generator, prompts, **settings)
    assert sample(generator, prompts, **settings, interval=7) == texts, "a GPU looks less often"
    return texts


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_an_error(value: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 3] = value
    with pytest.raises(CheckFailed, match="not numbers"):
        sample_nucleus(logits, 0.9)


@pytest.mark.slow
def test_a_text_does_not_depend_on_texts_that_end_before_it(pairs: Generator) -> None:
    prompts = [[pairs.start]] * 24
    together = sample_greedily(pairs, [*prompts, [pairs.start]])
    assert together == [together[0]] * 25
    firsts = [[pairs.start, i] for i in range(5, 60)]
    mixed = sample_greedily(pairs, firsts)
    assert len({len(row) for row in mixed}) > 1, "they end at different lengths"
    assert mixed == [sample_greedily(pairs, [first])[0] for first in firsts]


@pytest.mark.slow
def test_the_seed_decides_the_texts(pairs: Generator) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (
        make_source(pairs).produce(np.arange(24), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again and first != other
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator is not changed"


@pytest.mark.slow
def test_the_stage_is_cached_and_its_model_can_be_fine_tuned_again(
    pairs: Generator, tmp_path: Path
) -> None:
    folder = tmp_path / "generator"
    made = prepare_generator(RECIPE, factories.pair_task(), folder)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    other_use = RECIPE.model_copy(update={"top_p": 0.5, "prompts": ["bare"]})
    again = prepare_generator(other_use, factories.pair_task(), folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp, (
        "sampling options do not change the model"
    )
    weights = {name: value.clone() for name, value in pairs.model.state_dict().items()}
    assert all(
        torch.equal(value, weights[name]) for name, value in made.model.state_dict().items()
    ), "the same seed, the same weights"
    fine_tuned = prepare_generator(
        RECIPE.model_copy(update={"model": str(folder)}),
        factories.pair_task(),
        tmp_path / "tuned" / "generator",
    )
    lines = [
        [again.start, *again.tokenizer(line)["input_ids"], again.end]
        for line in task_lines(factories.pair_task().validation, factories.pair_task().spec, 0)
    ]
    assert fine_tuned.mean_nll(lines).mean() < again.mean_nll(lines).mean()


@pytest.mark.parametrize("look_up", [check_generator, load_generator])
def test_a_missing_gguf_file_is_named(tmp_path: Path, look_up: Callable[[str], object]) -> None:
    name = str(tmp_path / "tiny.gguf")
    with pytest.raises(MachineError, match=r"tiny\.gguf: there is no such file"):
        look_up(name)


def test_a_missing_model_is_an_error() -> None:
    with pytest.raises(MachineError, match="language model cannot be loaded"):
        load_generator("no/model")
    for name in ("no/such/model", "no/such/folder/model.gguf"):
        with pytest.raises(UsageError, match=r"no such folder\n.*no/such"):
            load_generator(name)


@pytest.mark.parametrize(
    "kind, detail",
    [
        (BertForSequenceClassification, "lacks cls"),
        (BertForMaskedLM, "is an encoder"),
    ],
)
def test_an_encoder_is_an_error_before_training(tmp_path: Path, kind: type, detail: str) -> None:
    tokenizer = factories.tokenizer()
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
    with pytest.raises(UsageError, match="not a causal language model") as caught:
        prepare_generator(
            RECIPE.model_copy(update={"model": str(tmp_path / "encoder")}),
            factories.pair_task(),
            tmp_path / "run" / "generator",
        )
    assert detail in str(caught.value) and not (tmp_path / "run" / "generator").exists()


def test_a_model_without_a_key_value_cache_is_an_error(
    pairs: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = pairs.model.forward
    monkeypatch.setattr(
        pairs.model,
        "forward",
        lambda *args, **options: forward(*args, **options | {"use_cache": False}),
    )
    with pytest.raises(UsageError, match="no key-value cache"):
        check_is_causal(pairs, "a model")


@pytest.mark.slow
def test_a_gguf_file_gives_weights_and_tokenizer(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", list(factories.single_task().train.texts))
    check_generator(str(tmp_path / "tiny.gguf"))
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
    fine_tuned = prepare_generator(recipe, factories.single_task(), tmp_path / "run" / "generator")
    lines = [
        [0, *generator.tokenizer(text)["input_ids"], 1]
        for text in factories.single_task().validation.texts
    ]
    assert fine_tuned.mean_nll(lines).mean() < 0.8 * generator.mean_nll(lines).mean()


@pytest.mark.parametrize("top_p", [0.8, 1.0])
def test_a_draw_is_that_of_torch_without_its_checks(top_p: float) -> None:
    logits = torch.randn(500, 400, generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(-1)
    torch.manual_seed(1)
    drawn = draw_from_sorted(probabilities, top_p)
    torch.manual_seed(1)
    ordered, tokens = probabilities.sort(-1, descending=True)
    if top_p == 1.0:
        expected = torch.multinomial(probabilities, 1)[:, 0]
    else:
        kept = torch.where(ordered.cumsum(-1) - ordered < top_p, ordered, 0.0)
        expected = tokens.gather(1, torch.multinomial(kept, 1))[:, 0]
    assert float((drawn == expected).float().mean()) > 0.99  # but for the rounding of sums
