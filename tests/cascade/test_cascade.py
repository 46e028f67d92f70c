"""A cascade of a student and its teacher: who answers, what is asked, what is audited."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import factories
import numpy as np
import pytest

from kdedge.cascade import Cascade, DriftMonitor, HttpTeacher
from kdedge.errors import CheckFailed, MachineError, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.agreement import AgreementTable
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest, write_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.bundle_with_agreement(tmp_path_factory.mktemp("cascade"))


def texts(count: int) -> list[str]:
    return list(factories.sentences(count, seed=5)[0])


def label_of(text: str) -> str:
    """Return a label of the task that only depends on the length of a text."""
    return ("bad", "good")[len(text) % 2]


class Teacher:
    """Answers with `label_of` and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, given: Sequence[str], pairs: object = None) -> list[str]:
        self.asked += given
        return [label_of(text) for text in given]


class Opposite:
    """Answers with the label that a student does not predict."""

    def __init__(self, bundle: Path) -> None:
        self._student = Classifier.load(bundle)

    def __call__(self, given: Sequence[str], pairs: object = None) -> list[str]:
        other = {"bad": "good", "good": "bad"}
        return [other[str(answer.label)] for answer in self._student.predict_batch(given)]


def test_teacher_answers_what_the_student_is_not_sure_of(bundle: Path) -> None:
    teacher = Teacher()
    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=0)
    answers = cascade.predict(texts(200))
    assert isinstance(answers, list)
    expected = Classifier.load(bundle).predict(texts(200))
    for text, answer, prediction in zip(texts(200), answers, expected, strict=True):
        assert answer.student == prediction
        sure = prediction.score >= cascade.threshold.confidence
        if answer.reason != "unusual":
            assert (answer.reason == "confident") == sure
        assert (answer.source == "student") == (answer.reason == "confident")
        assert answer.label == (prediction.label if answer.source == "student" else label_of(text))
        assert (text in teacher.asked) == (answer.source == "teacher")
    alone = np.mean([answer.source == "student" for answer in answers])
    assert alone == pytest.approx(cascade.threshold.share, abs=0.02)
    assert 0.3 < alone < 0.6


def test_one_text_gives_one_answer(bundle: Path) -> None:
    answer = Cascade(bundle, Teacher(), agreement=0.9).predict("the film was good")
    assert not isinstance(answer, list)
    assert answer.to_json()["source"] in ("student", "teacher")


@pytest.mark.parametrize("given", ["good film", {"good": "film"}, {"good film"}, None])
def test_a_batch_is_a_list_of_texts(bundle: Path, given: Any) -> None:
    cascade = Cascade(bundle, Teacher(), agreement=0.9)
    with pytest.raises(UsageError, match="list of texts"):
        cascade.predict_batch(given)
    with pytest.raises(UsageError, match="list of texts"):
        cascade.predict_batch(["good film"], "good film")
    assert len(cascade.predict_batch(text for text in texts(3))) == 3


def test_student_and_teacher_may_be_open_bundles(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    cascade = Cascade(opened, opened, agreement=0.9, audit_share=0)
    answers = cascade.predict(texts(20))
    assert isinstance(answers, list)
    labels = [prediction.label for prediction in Classifier.load(bundle).predict_batch(texts(20))]
    assert [answer.label for answer in answers] == labels


def test_audits_watch_the_agreement(bundle: Path) -> None:
    cascade = Cascade(bundle, Opposite(bundle), agreement=0.9, audit_share=1)
    answers = cascade.predict(texts(200))
    assert isinstance(answers, list)
    confident = [answer for answer in answers if answer.reason == "confident"]
    assert all(answer.audited and answer.label != answer.student.label for answer in confident)
    assert cascade.drift.audited == len(confident)
    assert cascade.drift.agreed == 0
    assert cascade.drift.drifted


def test_audit_share_is_kept(bundle: Path) -> None:
    cascade = Cascade(bundle, Teacher(), agreement=0.9, audit_share=0.2, seed=0)
    for _ in range(20):
        cascade.predict(texts(200))
    confident = round(20 * 200 * cascade.threshold.share)
    assert cascade.drift.audited == pytest.approx(0.2 * confident, rel=0.2)


def test_threads_get_the_answers_of_one_thread(bundle: Path) -> None:
    cascade = Cascade(bundle, Teacher(), agreement=0.9, audit_share=0)
    alone = [cascade.predict(text) for text in texts(50)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(cascade.predict, texts(50))) == alone


@pytest.mark.parametrize(
    "name, values",
    [
        ("agreement", [0, 1, -0.5, float("nan"), "0.9", None, 0.9j]),
        ("audit_share", [-0.1, 1.1, float("nan"), "0.01", None, [0.01]]),
        ("seed", ["0", 1.5, [0]]),
    ],
)
def test_arguments_are_checked(bundle: Path, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(UsageError, match=name):
            Cascade(bundle, Teacher(), **{"agreement": 0.9, name: value})
    assert Cascade(bundle, Teacher(), np.float32(0.9), audit_share=np.float64(0), seed=3)


def test_bundle_without_a_table_is_refused() -> None:
    with pytest.raises(UsageError, match="no agreement table"):
        Cascade(factories.tiny_bundle(), Teacher())


def test_other_precision_is_refused(bundle: Path) -> None:
    measured = Classifier.load(bundle).precision
    (other,) = {"fp32", "int8"} - {measured}
    with pytest.raises(UsageError, match="another file"):
        Cascade(Classifier.load(bundle, precision=other), Teacher())


def test_promise_that_cannot_be_kept_is_refused(bundle: Path) -> None:
    with pytest.raises(CheckFailed, match="too few"):
        Cascade(bundle, Teacher(), agreement=0.999)


def test_teacher_must_label_every_text(bundle: Path) -> None:
    cascade = Cascade(bundle, lambda given, pairs: ["one"], agreement=0.9, audit_share=1)
    with pytest.raises(CheckFailed, match="one label for each text"):
        cascade.predict(texts(20))


@pytest.mark.parametrize(
    "answer", [None, "good", {"good"}, {"good": 1}, [1], [None], ["GOOD"], [""], [["good"]]]
)
def test_teacher_must_give_names_of_labels(bundle: Path, answer: Any) -> None:
    cascade = Cascade(bundle, lambda given, pairs: answer, agreement=0.9, audit_share=1)
    with pytest.raises(CheckFailed, match="one label for each text"):
        cascade.predict("the film was good")


def multilabel_cascade(answer: Any) -> Cascade:
    """Return a cascade on label sets whose teacher answers one text."""
    student = Classifier.load(factories.tiny_bundle(task="multilabel"))
    rows = 200
    table = AgreementTable(
        student.precision, np.ones(rows), np.full(rows, -1e9), np.full(rows, True)
    )
    with mock.patch.object(Classifier, "agreement_table", return_value=table):
        return Cascade(student, lambda given, pairs: [answer], 0.9)


def test_label_sets_are_compared_as_sets() -> None:
    """A teacher may give lists, in any order."""
    names = Classifier.load(factories.tiny_bundle(task="multilabel")).spec.labels
    for answer in (list(reversed(names)), set(names), [*names, names[0]]):
        assert multilabel_cascade(answer).ask_teacher(["a text"], None) == [names]
    assert multilabel_cascade([]).ask_teacher(["a text"], None) == [()]


@pytest.mark.parametrize("answer", [[0, 2], [1.5], [["a"]], ["unknown"], b"x", 3, None, "name"])
def test_label_sets_hold_names_of_labels(answer: Any) -> None:
    with pytest.raises(CheckFailed, match="one label for each text"):
        multilabel_cascade(answer).ask_teacher(["a text"], None)


def test_label_sets_are_no_tables() -> None:
    names = Classifier.load(factories.tiny_bundle(task="multilabel")).spec.labels
    with pytest.raises(CheckFailed, match="no list of labels"):
        multilabel_cascade({names[0]: 1}).ask_teacher(["a text"], None)


@pytest.mark.parametrize(
    "task, says", [("pair", "reads pairs"), ("multilabel", "multilabel"), ("regression", "score")]
)
def test_a_teacher_of_another_task_is_refused(bundle: Path, task: str, says: str) -> None:
    other = factories.tiny_bundle(task=task)
    for teacher in (other, Bundle.open(other), Classifier.load(other)):
        with pytest.raises(UsageError, match="must have the student's task") as raised:
            Cascade(bundle, teacher, agreement=0.9)
        assert says in raised.value.detail


def test_a_teacher_with_other_labels_is_refused(bundle: Path, tmp_path: Path) -> None:
    """The order of the labels may differ: answers are names."""
    for name, labels in (("same", ["good", "bad"]), ("other", ["negative", "positive"])):
        folder = factories.copy_bundle(factories.tiny_bundle(), tmp_path / name)
        (folder / "config.json").write_text("{}")
        document = json.loads((folder / MANIFEST).read_text())
        document["spec"]["labels"] = labels
        write_manifest(folder, Manifest.from_json(document))
    assert Cascade(bundle, tmp_path / "same" / "bundle", agreement=0.9)
    with pytest.raises(UsageError, match="must have the student's task") as raised:
        Cascade(bundle, tmp_path / "other" / "bundle", agreement=0.9)
    assert "negative, positive" in raised.value.detail


def refuse(given: Sequence[str], pairs: object = None) -> list[str]:
    raise MachineError("the teacher's server gave no answer")


def test_audit_without_a_teacher_leaves_the_answer_to_the_student(bundle: Path) -> None:
    """A text that the student answers alone needs no teacher, also if it was to be audited."""
    cascade = Cascade(bundle, refuse, agreement=0.9, audit_share=1)
    given = texts(200)
    own = cascade.ask_student(given, None)
    order = sorted(range(len(given)), key=lambda i: own[i].student.score)
    sure = [given[i] for i in order if own[i].audited][-5:]
    unsure = next(given[i] for i in order if not own[i].audited)
    answers = cascade.predict(sure)
    assert isinstance(answers, list)
    for answer in answers:
        assert (answer.source, answer.audited) == ("student", False)
        assert answer.label == answer.student.label
    assert (cascade.drift.audited, cascade.drift.skipped) == (0, len(sure))
    with pytest.raises(MachineError):
        cascade.predict([sure[0], unsure])


# The teacher over HTTP


@contextmanager
def raw_server(answer: bytes, *, endless: bool = False) -> Iterator[str]:
    """Answer one connection with these bytes, and then with blanks; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)
                while endless:
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/predict"
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers with `label_of`, or as its server says."""

    answer: Any = None

    def do_POST(self) -> None:
        self.server.received = int(self.headers["Content-Length"])  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(self.server.received))  # type: ignore[attr-defined]
        answer = self.server.answer  # type: ignore[attr-defined]
        if answer is None:
            predictions = [{"label": label_of(text)} for text in body["texts"]]
            answer = {"predictions": predictions}
        self.send_response(answer if isinstance(answer, int) else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as opened:
        opened.answer = None  # type: ignore[attr-defined]
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/predict"


def test_teacher_over_http(server: HTTPServer, bundle: Path) -> None:
    assert HttpTeacher(url(server))(["abc", "de"]) == ["good", "bad"]
    cascade = Cascade(bundle, url(server), agreement=0.9, audit_share=1)
    answers = cascade.predict(texts(20))
    assert isinstance(answers, list)
    assert [answer.label for answer in answers] == [label_of(text) for text in texts(20)]


def test_many_texts_are_sent_in_several_requests(server: HTTPServer) -> None:
    asked = [str(number) * (1 + number % 3) for number in range(7)]
    teacher = HttpTeacher(url(server), most_texts=3)
    assert teacher(asked) == [label_of(text) for text in asked]
    server.answer = 413  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match="smaller most_texts"):
        teacher(asked)
    assert teacher([]) == []


def test_half_a_character_does_not_stop_a_request(server: HTTPServer) -> None:
    """The student reads the beginning of a text; the rest may hold anything."""
    assert len(HttpTeacher(url(server))(["a " * 500 + "\ud800"])) == 1


def test_letters_of_every_script_are_sent_as_they_are(server: HTTPServer) -> None:
    """Escaped as ASCII, a text that one server accepts would be too large for the next."""
    asked = ["фильм" * 20]
    HttpTeacher(url(server))(asked)
    assert server.received < 2 * 5 * 20 + 50  # type: ignore[attr-defined]


@pytest.mark.parametrize("answer", [500, {}, {"predictions": []}, {"predictions": [{"label": 1}]}])
def test_server_without_an_answer_is_named(server: HTTPServer, answer: object) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match="no answer"):
        HttpTeacher(url(server))(["abc"])


@pytest.mark.parametrize(
    "answer",
    [
        b"\0\1 no status line\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    ],
)
def test_server_that_speaks_something_else_is_named(answer: bytes) -> None:
    with raw_server(answer) as address, pytest.raises(MachineError, match="no answer"):
        HttpTeacher(address, timeout=5)(["abc"])


def test_answer_that_does_not_end_in_time_is_named() -> None:
    """Each block arrives in time, the whole does not."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    no_answer = pytest.raises(MachineError, match="no answer")
    with raw_server(start, endless=True) as address, no_answer as raised:
        HttpTeacher(address, timeout=0.2)(["abc"])
    assert "did not end in time" in raised.value.detail


def test_server_that_is_not_there() -> None:
    with pytest.raises(MachineError, match="no answer"):
        HttpTeacher("http://127.0.0.1:9/predict", timeout=1)(["abc"])


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "http://",
        "http://a b/",
        "http://x\n/",
        "http://[::1",
        "http://x:port/",
        None,
        b"http://x/",
    ],
)
def test_address_is_checked(address: Any) -> None:
    with pytest.raises(UsageError, match="http"):
        HttpTeacher(address)


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "30"},
        {"timeout": None},
        {"most_texts": 0},
        {"most_texts": -1},
        {"most_texts": 2.5},
    ],
)
def test_numbers_of_a_server_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        HttpTeacher("http://127.0.0.1:9/predict", **settings)


# Drift


def test_monitor_is_quiet_while_the_promise_holds() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(50):
        monitor = DriftMonitor(0.98)
        for agrees in rng.uniform(size=1000) < 0.98:
            monitor.add(bool(agrees))
        alarms += monitor.status.drifted
    assert alarms <= 1  # 50,000 audits; a false alarm is expected every 10,000 at most


def test_monitor_finds_a_growing_disagreement() -> None:
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(0.98)
    for agrees in rng.uniform(size=1000) < 0.9:
        monitor.add(bool(agrees))
    assert monitor.status.drifted
    assert monitor.status.audited == 1000


def test_monitor_follows_page() -> None:
    """The statistic is the largest log likelihood ratio of any tail of the audits."""
    outcomes = [True, False, True, True, False, False, True]
    ratio = {True: np.log((1 - 0.06) / 0.98), False: np.log(0.06 / 0.02)}
    tails = [sum(ratio[item] for item in outcomes[start:]) for start in range(len(outcomes))]
    monitor = DriftMonitor(0.98)
    for item in outcomes:
        monitor.add(item)
    assert monitor.status.evidence == pytest.approx(max(0, *tails) / np.log(1e4))
