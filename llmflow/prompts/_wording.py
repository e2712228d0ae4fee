"""What a step asks with, when it is not written in the code."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from llmflow.models import Params

__all__ = ["Wording"]


@dataclass(frozen=True, slots=True)
class Wording:
    """The prompt of a step as it is written outside of the code: in a file, or wherever a plugin keeps it.

    Attributes:
        template: A Jinja2 template over the step's parameters, as in a docstring; it takes the docstring's place.
        system: System text, a template too, instead of the step's own; None leaves that, an empty one takes it out.
        params: Sampling parameters, which go before those of the decorator.
        description: For people; no model sees it.
        origin: Where it is written, for messages and plans; a plugin's own name stands there unless it says better.
        line: The line of `origin` on which the template begins.

    Raises:
        DefinitionError: For a template that is no text or has none.
    """

    template: str
    _: KW_ONLY
    system: str | None = None
    params: Params | None = field(default=None, hash=False)
    description: str = ""
    origin: str = ""
    line: int = 1

    def __post_init__(self) -> None:
        for name, text in (("template", self.template), ("system", self.system or "")):
            if not isinstance(text, str):
                raise DefinitionError(f"{self._who}: its {name} is {type(text).__name__}, expected a text")
        if not self.template.strip():
            raise DefinitionError(f"{self._who} has no text, so nothing would be asked")

    @property
    def _who(self) -> str:
        return self.origin or "Wording(...)"
