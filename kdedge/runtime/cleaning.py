"""Clean texts step by step, with the same code in training and on a device.

A step is a name from `STEPS`; a manifest can name steps and can hold no patterns. Each step reads
a text in time that grows with its length alone: no pattern can match the same run of characters in
two ways, and none begins again inside a run that it has rejected.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from kdedge.io.optional import named_extra

Step = Callable[[str], str]

MOST_PASSES = 4
"""Removing something may uncover something else, so the steps are repeated until none changes the
text; only a text that was made to defeat them takes more passes than this."""

HIDDEN = (
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<script\b", re.IGNORECASE), re.compile(r"</script>", re.IGNORECASE)),
    (re.compile(r"<style\b", re.IGNORECASE), re.compile(r"</style>", re.IGNORECASE)),
)
"""Start and end of what a browser does not show."""

TAG = re.compile(r"<[a-zA-Z/!][^<>]*>")
ENTITY = re.compile(r"&(?:amp;)*(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
URL = re.compile(r"(?:https?://|\bwww\.)[^\s<>\"]*[^\s<>\".,;:!?)\]}']", re.IGNORECASE)
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")

EMOJI = (
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001faff\u2600-\u266e\u2670-\u2767\u2794-\u27bf"
    "\u231a\u231b\u23e9-\u23f3\u23f8-\u23fa\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
)
"""Pictures, symbols and flags, as the inside of a character class."""

JOINERS = "\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f"
"""Characters that join or vary emoji; some languages need U+200D elsewhere."""

EMOJI_RUN = re.compile(f"[{EMOJI}][{EMOJI}{JOINERS}]*|[\ufe0e\ufe0f\u20e3]+")

REPAIRED_PIECE = 10_000
"""Most characters that ftfy reads at once, so that its time grows with the text's length alone."""

MARKS = "!?.,;:-_*~=…！？。，、～"
REPEATED_MARK = re.compile("|".join(f"{re.escape(mark)}{{2,}}" for mark in MARKS))


def _remove_html(text: str) -> str:
    for start, end in HIDDEN:
        text = _remove_spans(text, start, end)
    text = TAG.sub(" ", text)
    return ENTITY.sub(lambda match: html.unescape(f"&{match[1]};"), text)


def _remove_spans(text: str, start: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Replace each span from `start` to the next `end` by a space."""
    kept = []
    position = 0
    while opening := start.search(text, position):
        closing = end.search(text, opening.end())
        if closing is None:
            break
        kept.append(text[position : opening.start()])
        position = closing.end()
    kept.append(text[position:])
    return " ".join(kept)


def _remove_urls(text: str) -> str:
    return URL.sub(" ", text)


def _remove_emails(text: str) -> str:
    return EMAIL.sub(" ", text)


def _remove_emoji(text: str) -> str:
    return EMOJI_RUN.sub(" ", text)


def _single_marks(text: str) -> str:
    return REPEATED_MARK.sub(lambda match: match[0][0], text)


def _single_spaces(text: str) -> str:
    return " ".join(text.split())


def _unicode_repair() -> Step:
    """Return ftfy's repair, which leaves entities to the step `html`.

    Raises:
        MachineError: If ftfy is not installed; names the pip line.
    """
    with named_extra("cleaning with the step unicode"):
        import ftfy

    config = ftfy.TextFixerConfig(unescape_html=False)

    def repair(text: str) -> str:
        pieces = []
        for start in range(0, len(text), REPAIRED_PIECE):
            pieces.append(ftfy.fix_text(text[start : start + REPAIRED_PIECE], config))
        return "".join(pieces)

    return repair


PATTERN_STEPS: dict[str, Step] = {
    "html": _remove_html,
    "urls": _remove_urls,
    "emails": _remove_emails,
    "emoji": _remove_emoji,
    "punctuation": _single_marks,
    "spaces": _single_spaces,
}
"""Steps that need nothing but Python."""

STEPS = ("unicode", *PATTERN_STEPS)
"""All steps, in the order in which they are taken."""


class Cleaner:
    """Takes the same steps on every text; may be used by several threads at once.

    A step that would leave nothing of a text leaves the text as it is.

    Args:
        steps: Names from `STEPS`; they are taken in the order of `STEPS`.

    Raises:
        MachineError: If the step `unicode` is among them, and ftfy is not installed.

    Example:
        >>> Cleaner(["html", "urls", "spaces"]).clean("<b>Good</b>, see www.example.org")
        'Good , see'
    """

    def __init__(self, steps: Iterable[str]) -> None:
        wanted = set(steps)
        self.steps: dict[str, Step] = {}
        for name in STEPS:
            if name in wanted:
                self.steps[name] = PATTERN_STEPS.get(name) or _unicode_repair()

    def clean(self, text: str) -> str:
        """Return the text after all steps; a clean text is returned as it is."""
        return self.explain(text)[0]

    def explain(self, text: str) -> tuple[str, frozenset[str]]:
        """Return the text after all steps, and the names of the steps that changed it."""
        changed: set[str] = set()
        for _ in range(MOST_PASSES):
            before = text
            for name, step in self.steps.items():
                after = step(text)
                if after != text and after.strip():
                    changed.add(name)
                    text = after
            if text == before:
                break
        return text, frozenset(changed)


class CountingCleaner:
    """Cleans texts and counts how many texts each step changed.

    Attributes:
        changed: Step -> number of texts, for every step.
    """

    def __init__(self, steps: Sequence[str]) -> None:
        self._cleaner = Cleaner(steps)
        self.texts = 0
        self.changed = Counter(dict.fromkeys(self._cleaner.steps, 0))

    def clean(self, text: str) -> str:
        """Return the text after all steps, and count it."""
        cleaned, steps = self._cleaner.explain(text)
        self.texts += 1
        self.changed.update(steps)
        return cleaned

    def counts(self) -> dict[str, int]:
        return dict(self.changed)


def changes(counts: dict[str, int]) -> str:
    """Write how many texts each step changed, for people; steps without any are left out."""
    parts = [f"{step} {counts[step]:,}" for step in STEPS if counts.get(step)]
    return ", ".join(parts) or "none"
