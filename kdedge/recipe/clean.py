"""The table data.clean: what is removed from texts before any other step."""

from __future__ import annotations

from pydantic import Field, model_validator

from kdedge.recipe.section import Section
from kdedge.runtime.cleaning import STEPS


class CleanConfig(Section):
    """Which steps clean the texts of a pool and those that a model generates."""

    unicode: bool = Field(
        True, description="Repair wrongly decoded characters and odd forms with ftfy."
    )
    html: bool = Field(True, description="Remove tags and comments, and decode entities.")
    urls: bool = Field(True, description="Remove web addresses.")
    emails: bool = Field(True, description="Remove e-mail addresses.")
    emoji: bool = Field(True, description="Remove emoji and other pictures.")
    punctuation: bool = Field(True, description="Write a repeated punctuation mark once.")
    spaces: bool = Field(True, description="Write a run of white space as one space.")
    labelled: bool = Field(
        False,
        description="Whether labelled texts are cleaned too; bundles of the run then clean every "
        "text they read.",
    )

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that are on, in their order."""
        return tuple(name for name in STEPS if getattr(self, name))

    @model_validator(mode="after")
    def _check_steps(self) -> CleanConfig:
        if not self.steps:
            raise ValueError("every step is off: switch one on, or remove the table")
        return self
