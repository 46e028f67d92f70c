"""A cascade behind the server: its description, and the limit on what waits for the teacher."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import factories
import pytest
from starlette.testclient import TestClient

from kdedge.cascade import Cascade
from kdedge.errors import MachineError
from kdedge.serve.app import make_app
from kdedge.serve.engine import TEACHER_THREADS, CascadeEngine
from kdedge.serve.limits import Limits, RequestError
from kdedge.serve.metrics import ServerMetrics

TEXTS = list(factories.sentences(8, seed=5)[0])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factories.bundle_with_agreement(tmp_path_factory.mktemp("cascade"))


class SlowTeacher:
    """Answers "good" once `gate` is open; `asked` says that it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()

    def __call__(self, given: Sequence[str], pairs: object = None) -> list[str]:
        self.asked.set()
        assert self.gate.wait(10)
        return ["good"] * len(given)


def test_description_fits_the_answers_of_a_cascade(bundle: Path) -> None:
    teacher = SlowTeacher()
    teacher.gate.set()
    cascade = Cascade(bundle, teacher, agreement=0.9)
    metrics = ServerMetrics()
    engine = CascadeEngine(cascade, Limits(), metrics)
    with TestClient(make_app(engine, cascade.student.manifest, Limits(), metrics)) as client:
        document = client.get("/openapi.json").json()
        answers = client.post("/predict", json={"texts": TEXTS}).json()["predictions"]
    operation = document["paths"]["/predict"]["post"]
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]
    described = answered["properties"]["predictions"]["items"]["properties"]
    for answer in answers:
        assert answer.keys() == described.keys()
        assert answer["source"] in described["source"]["enum"]
        assert answer["reason"] in described["reason"]["enum"]
        assert answer["student"].keys() <= described["student"]["properties"].keys()


def test_requests_do_not_wait_for_the_answers_to_others(bundle: Path) -> None:
    """A teacher far away answers many requests at once, on a machine with few cores, too."""
    requests = 12
    together = threading.Barrier(requests)

    def teacher(given: Sequence[str], pairs: object = None) -> list[str]:
        together.wait(20)
        return ["good"] * len(given)

    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=1)

    async def scenario() -> None:
        engine = CascadeEngine(cascade, Limits(), ServerMetrics())
        rows = [(text, None) for text in TEXTS]
        answers = await asyncio.gather(*[engine.predict(rows) for _ in range(requests)])
        assert len(answers) == requests
        await engine.close()

    asyncio.run(scenario())


def test_texts_that_wait_for_the_teacher_are_limited(bundle: Path) -> None:
    teacher = SlowTeacher()
    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=1)

    async def scenario() -> None:
        engine = CascadeEngine(cascade, Limits(queue=10), ServerMetrics())
        rows = [(text, None) for text in TEXTS]
        first = asyncio.create_task(engine.predict(rows))
        await asyncio.to_thread(teacher.asked.wait, 10)
        with pytest.raises(RequestError) as raised:
            await engine.predict(rows)
        assert raised.value.status == 429
        teacher.gate.set()
        assert [answer["label"] for answer in await first] == ["good"] * 8
        assert len(await engine.predict(rows)) == 8
        await engine.close()

    asyncio.run(scenario())


def audited_rows(cascade: Cascade) -> list[tuple[str, None]]:
    """Return texts that the student is sure of, in batches of any size."""
    given = list(factories.sentences(200, seed=5)[0])
    own = cascade.ask_student(given, None)
    order = sorted(range(len(given)), key=lambda i: own[i].student.score)
    return [(given[i], None) for i in order if own[i].audited][-5:]


def test_audits_end_with_the_students_answers_if_the_teacher_hangs(bundle: Path) -> None:
    """Also for requests that get no thread; and what the teacher says later is not counted."""
    teacher = SlowTeacher()
    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=1)
    rows = audited_rows(cascade)
    limits = Limits(seconds=3)
    requests = TEACHER_THREADS + 2

    async def scenario() -> None:
        engine = CascadeEngine(cascade, limits, ServerMetrics())
        async with asyncio.timeout(limits.seconds):
            many = await asyncio.gather(*[engine.predict(rows) for _ in range(requests)])
        for answers in many:
            assert {(answer["source"], answer["audited"]) for answer in answers} == {
                ("student", False)
            }
            assert all(answer["label"] == answer["student"]["label"] for answer in answers)
        teacher.gate.set()
        await asyncio.to_thread(engine._threads.shutdown)
        assert (cascade.drift.audited, cascade.drift.skipped) == (0, requests * len(rows))

    asyncio.run(scenario())


def test_audits_end_with_the_students_answers_if_the_queue_is_full(bundle: Path) -> None:
    teacher = SlowTeacher()
    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=1)
    rows = audited_rows(cascade)

    async def scenario() -> None:
        engine = CascadeEngine(cascade, Limits(queue=10), ServerMetrics())
        first = asyncio.create_task(engine.predict([(text, None) for text in TEXTS]))
        await asyncio.to_thread(teacher.asked.wait, 10)
        answers = await engine.predict(rows)
        assert [answer["source"] for answer in answers] == ["student"] * len(rows)
        teacher.gate.set()
        await first
        assert [answer["audited"] for answer in await engine.predict(rows)] == [True] * len(rows)
        assert cascade.drift.skipped == len(rows)
        await engine.close()

    asyncio.run(scenario())


def test_audits_end_with_the_students_answers_if_the_teacher_fails(bundle: Path) -> None:
    def teacher(given: Sequence[str], pairs: object = None) -> list[str]:
        raise MachineError("the teacher's server gave no answer")

    cascade = Cascade(bundle, teacher, agreement=0.9, audit_share=1)
    rows = audited_rows(cascade)

    async def scenario() -> None:
        engine = CascadeEngine(cascade, Limits(), ServerMetrics())
        answers = await engine.predict(rows)
        assert [answer["source"] for answer in answers] == ["student"] * len(rows)
        with pytest.raises(MachineError):
            await engine.predict([(text, None) for text in TEXTS])
        await engine.close()

    asyncio.run(scenario())
