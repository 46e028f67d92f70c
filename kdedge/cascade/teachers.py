"""The teacher behind a cascade: a function, a bundle, or a server."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdedge.errors import MachineError, UsageError, first_line
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.spec import TaskSpec
from kdedge.wording import listed

Label = str | tuple[str, ...]
Pairs = Sequence[str] | None
AskTeacher = Callable[[Sequence[str], Pairs], Sequence[Label]]
"""A function from N texts, and N second texts or None, to N labels."""

MAX_ANSWER = 64 << 20
"""Most bytes of a server's answer."""

SHOWN_LABELS = 6
"""Most labels that an error lists."""

BLOCK = 1 << 16
"""Most bytes that are read before the time is looked at."""

ANSWER_HINT = "check that it runs; `kdedge serve` on the teacher's bundle answers in the right form"

TOO_LARGE_HINT = (
    "raise --max-body or --max-texts of that server, or give HttpTeacher a smaller most_texts"
)

MALFORMED = (OSError, HTTPException, ValueError, KeyError, TypeError, RecursionError)
"""What a server raises that cannot be reached, or answers something else than predictions."""


class HttpTeacher:
    """A teacher that answers over HTTP, as `kdedge serve` does.

    It posts `{"texts": [...]}`, with `"pairs"` for classifiers of pairs, and reads
    `{"predictions": [{"label": ...}, ...]}`.

    Args:
        url: Address of the server's `/predict`.
        timeout: Seconds to wait for an answer, and to receive all of it.
        headers: Additional headers, such as `Authorization`.
        most_texts: Most texts of a request; more are sent in several requests.

    Raises:
        UsageError: If an argument is no such address or number.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        headers: dict[str, str] | None = None,
        most_texts: int = 256,
    ) -> None:
        if not _is_address(url):
            raise UsageError(
                "the address of a teacher starts with http:// or https://", repr(url)[:200]
            )
        _check_numbers(timeout, most_texts)
        self.url = url
        self.timeout = timeout
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.most_texts = most_texts

    def __call__(self, texts: Sequence[str], pairs: Pairs = None) -> list[Label]:
        """Return the teacher's labels of N texts.

        Raises:
            MachineError: If the server does not answer, or does not answer with N labels.
        """
        labels: list[Label] = []
        for start in range(0, len(texts), self.most_texts):
            part = slice(start, start + self.most_texts)
            labels += self._post(texts[part], None if pairs is None else pairs[part])
        return labels

    def _post(self, texts: Sequence[str], pairs: Pairs) -> list[Label]:
        """Return the labels of the texts of one request."""
        document: dict[str, Any] = {"texts": list(texts)}
        if pairs is not None:
            document["pairs"] = list(pairs)
        # The student reads the beginning of a text; half a character may follow.
        body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        request = urllib.request.Request(self.url, data=body, headers=self.headers)
        deadline = time.monotonic() + self.timeout
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.loads(_read(response, deadline))
            predictions = answer["predictions"]
            labels = [_label(prediction["label"]) for prediction in predictions]
        except urllib.error.HTTPError as error:
            detail = f"status {error.code} {error.reason}"
            hint = (
                TOO_LARGE_HINT if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else ANSWER_HINT
            )
            raise _no_answer(self.url, detail, hint) from error
        except MALFORMED as error:
            raise _no_answer(self.url, first_line(error)) from error
        if len(labels) != len(texts):
            raise _no_answer(self.url, f"{len(labels)} predictions for {len(texts)} texts")
        return labels


def open_teacher(
    teacher: AskTeacher | Classifier | Bundle | str | Path, student: TaskSpec
) -> AskTeacher:
    """Return a teacher as a function.

    Args:
        teacher: A function, a classifier, the address of a server, or a bundle.
        student: The student's task, which a classifier or a bundle must have, too.

    Raises:
        UsageError: If the teacher is none of these, or has another task.
    """
    if isinstance(teacher, str) and "://" in teacher:
        return HttpTeacher(teacher)
    if isinstance(teacher, str | Path | Bundle):
        teacher = Classifier.load(teacher)
    if isinstance(teacher, Classifier):
        _check_task(teacher.spec, student)
        return _ask_classifier(teacher)
    if callable(teacher):
        return teacher
    raise UsageError(
        "a teacher is a function, a classifier, a bundle or an address",
        type(teacher).__name__,
        "give a function from texts and pairs to labels",
    )


def _check_task(teacher: TaskSpec, student: TaskSpec) -> None:
    """Raise UsageError if the tasks differ in more than the order of their labels."""
    differences = []
    if teacher.kind != student.kind:
        differences.append(f"the teacher is for {teacher.kind}, the student for {student.kind}")
    if teacher.pair != student.pair:
        differences.append(f"only the {'teacher' if teacher.pair else 'student'} reads pairs")
    if set(teacher.labels) != set(student.labels):
        names = [listed(spec.labels, SHOWN_LABELS) for spec in (teacher, student)]
        differences.append(f"the teacher's labels are {names[0]}; the student's are {names[1]}")
    if differences:
        raise UsageError(
            "the teacher of a cascade must have the student's task",
            "\n".join(differences),
            "give a classifier or a bundle that predicts the same labels of the same texts",
        )


def _ask_classifier(classifier: Classifier) -> AskTeacher:
    def ask(texts: Sequence[str], pairs: Pairs = None) -> list[Label]:
        return [prediction.label for prediction in classifier.predict_batch(texts, pairs)]

    return ask


def _is_address(url: Any) -> bool:
    """Return whether a value is a complete address for HTTP, without blanks in it."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises ValueError if it is no port)
    except ValueError:
        return False
    is_plain = url.isprintable() and " " not in url
    return url.startswith(("http://", "https://")) and bool(parts.hostname) and is_plain


def _check_numbers(timeout: Any, most_texts: Any) -> None:
    if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise UsageError("timeout must be a positive number", repr(timeout), "give 30")
    if not isinstance(most_texts, int) or most_texts < 1:
        raise UsageError("most_texts must be at least 1", repr(most_texts), "give 256")


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """Read an answer. Raises TimeoutError if it does not end in time."""
    body = bytearray()
    while block := response.read1(BLOCK):
        body += block
        if len(body) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    return bytes(body)


def _label(value: Any) -> Label:
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    if not isinstance(value, str):
        raise ValueError(f"a label is {value!r}")
    return value


def _no_answer(url: str, detail: str, hint: str = ANSWER_HINT) -> MachineError:
    return MachineError("the teacher's server gave no answer", f"{url}: {detail}"[:300], hint)
