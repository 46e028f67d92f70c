"""A recipe is read whole or rejected whole: all faults at once, overrides, round trips."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kdedge.errors import KdedgeError, UsageError
from kdedge.recipe import BiLstmConfig, Recipe, Section, TinyBertConfig, load_recipe, with_values

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
ONE_STUDENT = """
name = "one"
[data]
source = "somewhere"
[teacher]
model = "a-model"
[student]
kind = "tinybert"
"""
TWO_STUDENTS = """
name = "two"
[data]
source = "somewhere"
[teacher]
model = "a-model"
[[student]]
kind = "tinybert"
name = "small"
[[student]]
kind = "bilstm"
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Writes a recipe and gives its path."""

    def write_recipe(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_survive_the_round_trip(path: Path, write) -> None:  # type: ignore[no-untyped-def]
    recipe = load_recipe(path)
    assert load_recipe(write(recipe.to_toml())) == recipe


def test_resolved_recipe_writes_defaults_out(write) -> None:  # type: ignore[no-untyped-def]
    assert "learning_rate = 6e-05" in load_recipe(write(ONE_STUDENT)).to_toml()


def test_all_faults_are_listed_at_once(write) -> None:  # type: ignore[no-untyped-def]
    text = (
        ONE_STUDENT.replace("source", "sauce").replace('name = "one"', 'name = "one"\nseed = -1')
        + "hidden = 100\nlayrs = 3\n"
    )
    with pytest.raises(UsageError) as caught:
        load_recipe(write(text))
    text = caught.value.format()
    assert "3 faults" in text
    assert "data.sauce: no such key; did you mean source?" in text
    assert "student.layrs: no such key; did you mean layers?" in text
    assert "seed: " in text


WRONG = [
    pytest.param("hidden = 100", "hidden = 100 is not a multiple of heads = 12", id="heads"),
    pytest.param(
        "teacher_layers = [1, 2]",
        "teacher_layers names 2 layers, but layers = 4",
        id="teacher_layers",
    ),
    pytest.param("layers = 0", "layers: .*greater than 0, not 0", id="positive"),
    pytest.param("[student.fit]\nlearning_rate = nan", "learning_rate: .*finite", id="nan"),
    pytest.param("[student.fit]\nprecision = 'int4'", "precision: .*'bf16'", id="choice"),
    pytest.param("[student.objective]\nlogits_weight = 0", "nothing to learn from", id="weights"),
    pytest.param(
        "[augment.filters]\nconfidence = [0.7]", "augment.filters.confidence: ", id="one of two"
    ),
    pytest.param("[student.objective]\nlayer_map = [[1]]", "objective.layer_map", id="half a pair"),
    pytest.param("name = '../up'", "name: ", id="name"),
    pytest.param(
        "[augment]\nsize = 'huge'",
        "1 fault(.|\n)*augment.size: .*number.*; or .*'auto'",
        id="either",
    ),
    pytest.param("[student.fit]\nlearning-rate = 1", "fit.learning-rate: no such key", id="hyphen"),
]


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_wrong_values(write, line: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says):
        load_recipe(write(ONE_STUDENT + line))


@pytest.mark.parametrize(
    "key", ["objective.ramp.hidden", "objective.balanced", "objective.per_example"]
)
def test_removed_keys_of_the_objective_are_unknown(write, key: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"student\.objective\.\w+: no such key"):
        load_recipe(write(ONE_STUDENT), (f"student.{key}=1",))


def test_a_recipe_has_one_teacher_and_no_learned_map(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="teacher: must be one table"):
        load_recipe(write(ONE_STUDENT.replace("[teacher]", "[[teacher]]")))
    with pytest.raises(UsageError, match=r"teacher\.name: no such key"):
        load_recipe(write(ONE_STUDENT), ("teacher.name=first",))
    with pytest.raises(UsageError, match=r"layer_map: .*'skip'"):
        load_recipe(write(ONE_STUDENT), ("student.objective.layer_map=learned",))


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, 1, float("nan")])
def test_shares_lie_between_0_and_1(write, share: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"data\.validation.*between 0 and 1"):
        load_recipe(write(ONE_STUDENT), (f"data.validation={share}",))


def test_students_need_different_names(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="different names, but these are bilstm, bilstm"):
        load_recipe(
            write(TWO_STUDENTS.replace('kind = "tinybert"\nname = "small"', 'kind = "bilstm"'))
        )


def test_an_unknown_kind_names_the_known_kinds(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="no student kind 'lstm'; known kinds: tinybert and bils"):
        load_recipe(write(ONE_STUDENT), ("student.kind=lstm",))
    with pytest.raises(UsageError, match="student: kind is missing; known kinds"):
        load_recipe(write(ONE_STUDENT), ("student.kind=",))


def test_a_fault_of_one_of_several_students_names_it(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"student\.small\.layrs: .*did you mean layers"):
        load_recipe(write(TWO_STUDENTS), ("student.small.layrs=2",))


def test_every_key_has_a_description_of_one_sentence() -> None:
    for section in sections_of(Recipe):
        for name, field in section.model_fields.items():
            description = field.description or ""
            assert description.endswith(".") and description[:1] != " ", f"{section}.{name}"


def sections_of(annotation: object) -> set[type[Section]]:
    """Return all sections that a type holds, at any depth."""
    if not isinstance(annotation, type) or not issubclass(annotation, Section):
        return set().union(*map(sections_of, get_args(annotation)))
    inner = (sections_of(field.annotation) for field in annotation.model_fields.values())
    return {annotation}.union(*inner)


def test_bilstm_has_no_layers_to_match(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="a BiLSTM has no layers to match"):
        load_recipe(write(TWO_STUDENTS + "[student.objective]\nhidden_weight = 1.0\n"))


def test_overrides(write) -> None:  # type: ignore[no-untyped-def]
    path = write(ONE_STUDENT)
    overrides = (
        "student.layers=6",
        "teacher.fit.epochs=0.5",
        'task.labels=["no", "yes"]',
        "data.test=validation",
        "student.baseline=false",
        "data.source=",
    )
    recipe = load_recipe(path, overrides)
    student = recipe.student[0]
    assert isinstance(student, TinyBertConfig)
    assert (student.layers, recipe.teacher.fit.epochs, recipe.task.labels) == (
        6,
        0.5,
        ["no", "yes"],
    )
    assert (recipe.data.test, student.baseline, recipe.data.source) == (
        "validation",
        False,
        None,
    )


def test_overrides_name_a_student(write) -> None:  # type: ignore[no-untyped-def]
    path = write(TWO_STUDENTS)
    small, bilstm = load_recipe(
        path, ("student.small.layers=2", "student.bilstm.fit.epochs=9")
    ).student
    assert isinstance(small, TinyBertConfig)
    assert isinstance(bilstm, BiLstmConfig)
    assert (small.layers, bilstm.fit.epochs) == (2, 9)
    with pytest.raises(
        UsageError, match=r"(?s)several students.*student\.small\.layers=2 or student\.bilstm"
    ):
        load_recipe(path, ("student.layers=2",))
    with pytest.raises(UsageError, match=r"did you mean student\.bilstm\.fit\.epochs=9\?"):
        load_recipe(path, ("student.bilsm.fit.epochs=9",))


def test_removing_a_key_of_a_missing_table_changes_nothing(write) -> None:  # type: ignore[no-untyped-def]
    path = write(ONE_STUDENT)
    assert load_recipe(path, ("augment.rules.mask=",)) == load_recipe(path)


@pytest.mark.parametrize(
    "override, message",
    [
        ("student.small.name=inputs", "inputs"),
        ("student.small.teacher_layers=[1,2,3,4]", "does not read teacher_layers"),
    ],
)
def test_a_student_is_refused(write, override: str, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(TWO_STUDENTS)
    with pytest.raises(UsageError, match=message):
        load_recipe(path, ("student.small.start=scratch", override))


@pytest.mark.parametrize("override", ["layers", "=3", "a..b=1", "name.first=1"])
def test_overrides_that_are_none(write, override: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        load_recipe(write(ONE_STUDENT), (override,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "not TOML"),
        pytest.param("name = " + 20_000 * "[", "not TOML", id="brackets"),
        ("", "faults in the recipe"),
    ],
)
def test_files_that_are_no_recipe(write, text: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says):
        load_recipe(write(text))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load_recipe(path)
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match="not TOML"):
        load_recipe(tmp_path / "bytes.toml")


FUZZ = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KEYS = [
    "name",
    "seed",
    "data",
    "teacher",
    "student",
    "task",
    "kind",
    "model",
    "source",
    "validation",
    "fit",
    "epochs",
    "objective",
    "layer_map",
    "labels",
    "x",
]
LEAVES = (
    st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats()
    | st.sampled_from(["tinybert", "bilstm", "", "a", "\u00e9", "a.b"])
)
TABLES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)
OVERRIDES = st.builds(
    "{}={}".format,
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", "1", "[1", "{}", "'a'", "nan"]),
)


def assert_reads_or_raises(path: Path, overrides: tuple[str, ...] = ()) -> None:
    try:
        assert isinstance(load_recipe(path, overrides), Recipe)
    except KdedgeError as error:
        assert error.message


@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    assert_reads_or_raises(tmp_path / "recipe.toml")


@FUZZ
@given(
    document=st.dictionaries(st.sampled_from(KEYS), TABLES, max_size=6),
    overrides=st.lists(OVERRIDES, max_size=3),
)
@example(document={"student": [{"name": []}]}, overrides=["student.x=1"])
def test_any_document_and_overrides(
    tmp_path: Path, document: dict[str, object], overrides: list[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
    assert_reads_or_raises(tmp_path / "recipe.toml", tuple(overrides))
    (tmp_path / "recipe.toml").write_text(TWO_STUDENTS, encoding="utf-8")
    assert_reads_or_raises(tmp_path / "recipe.toml", tuple(overrides))


def test_a_regression_rejects_losses_on_distributions(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="regression has no distribution"):
        load_recipe(write(ONE_STUDENT), ("task.kind=regression", "student.objective.logits=kl"))


def test_a_regression_compares_logits_by_mse_unless_set(write) -> None:  # type: ignore[no-untyped-def]
    recipe = load_recipe(write(ONE_STUDENT))
    assert recipe.student[0].objective.logits == "kl"
    number = load_recipe(
        write(TWO_STUDENTS), ("task.kind=regression", "student.bilstm.objective.labels_weight=0.5")
    )
    assert [student.objective.logits for student in number.student] == [
        "mse",
        "mse",
    ] and number.student[1].objective.labels_weight == 0.5
    assert load_recipe(write(number.to_toml())) == number
    assert (
        with_values(number, {"student.bilstm.objective.labels_weight": 0.1})
        .student[1]
        .objective.logits
        == "mse"
    )


def test_the_threads_of_a_run_are_settled_once(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    from kdedge.run.layout import RunDir
    from kdedge.run.threads import settle_threads

    before, recipe = torch.get_num_threads(), load_recipe(write(ONE_STUDENT))
    try:
        assert settle_threads(recipe, tmp_path, 3).threads == 3 and torch.get_num_threads() == 3
        RunDir.create(settle_threads(recipe, tmp_path, 5), tmp_path)
        assert settle_threads(recipe, tmp_path, None).threads == 5, "a run goes on as it began"
        assert settle_threads(recipe.model_copy(update={"threads": 2}), tmp_path, None).threads == 2
    finally:
        torch.set_num_threads(before)


def test_an_unknown_key_of_an_optional_table_names_the_nearest(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "r"\n[data]\nsource = "x"\n[teacher]\nmodel = "y"\n[student]\nkind = "bilstm"\n'
    )
    for override, near in (
        ("augment.rulez.mask=1", "rules"),
        ("augment.rules.masc=1", "mask"),
        ("augment.generate.fit.epoch=3", "epochs"),
    ):
        with pytest.raises(UsageError, match=f"did you mean {near}"):
            load_recipe(recipe, (override,))
