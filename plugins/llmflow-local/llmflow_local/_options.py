"""What `Model("local/...", ...)` may say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from llmflow.models import Model

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a local model.

    Args:
        threads: Threads that compute. Raise it only where cores are idle; on a busy machine two are slower than one.
        context: Tokens that prompt and answer may have together.
        constrained: Whether answers are held to the schema while they are generated. Without it nothing but the
            examples tells the model what is wanted, and really malformed answers come back.
    """

    threads: int = 1
    context: int = 4096
    constrained: bool = True

    def __post_init__(self) -> None:
        for name in ("threads", "context"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                msg = f"{name}={value!r}, expected a whole number from 1"
                raise DefinitionError(msg)
        if type(self.constrained) is not bool:
            msg = f"constrained={self.constrained!r}, expected True or False"
            raise DefinitionError(msg)

    @classmethod
    def of(cls, model: Model) -> Options:
        """Return the options of a model, checked."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(model.options.keys() - set(known))
        if unknown:
            msg = f"model {model.name!r} has no option {unknown[0]!r}; there are {', '.join(known)}"
            raise DefinitionError(msg)
        if model.base_url is not None:
            msg = f"model {model.name!r} runs in this process and takes no base_url"
            raise DefinitionError(msg)
        options: dict[str, Any] = dict(model.options)
        try:
            return cls(**options)
        except DefinitionError as exc:
            msg = f"model {model.name!r}: {exc}"
            raise DefinitionError(msg) from None
