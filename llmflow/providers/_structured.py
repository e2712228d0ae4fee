"""The bridge to instructor: its handlers say how a schema is asked for and how an invalid answer is sent back.

Only the handlers of `instructor.v2.mode_registry` are used, once for each step and model. Its `create` would build a
class and a schema for every call, and would answer with an instance of a class that is not the author's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from llmflow.errors import DefinitionError
from llmflow.messages import Message
from llmflow.providers._json import mappings_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmflow.messages import OutputFormat

__all__ = ["Structured", "structured"]

_MODES = ("tools", "json_schema", "json", "md_json")


@dataclass(frozen=True, slots=True)
class Structured:
    """How one output format is asked of one provider in one mode.

    Attributes:
        part: What the request must contain besides its messages.
        system: Instructions to add to the system message, empty when the mode needs none.
        closing: Messages that follow the prompt.
    """

    part: dict[str, Any]
    system: str
    closing: tuple[dict[str, Any], ...]
    _handlers: Any
    _capture: type[Any]

    def prepare(self, output: OutputFormat, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the whole call for a provider whose requests are more than a constant part and messages."""
        _, prepared = self._handlers.request_handler(response_model=output.model, kwargs=kwargs)
        convert = self._handlers.message_converter
        if convert is not None and "messages" in prepared:
            prepared["messages"] = convert(prepared["messages"], autodetect_images=False)
        ready: dict[str, Any] = prepared
        return ready

    def text_of(self, response: Any) -> str | None:
        """Return the answer in an SDK's reply as text, None when instructor finds none."""
        try:
            captured = self._handlers.response_parser(
                response=response, response_model=self._capture, validation_context=None, strict=None, stream=False
            )
        except Exception:  # noqa: BLE001 - a reply of any form at all comes here, and "no answer" is one of its meanings
            return None
        text = getattr(captured, "captured", None)
        return text if isinstance(text, str) else None

    def reask_turns(self, response: Any, problem: str) -> Sequence[object]:
        """Return the turns that show the model its answer and what is wrong with it."""
        try:
            kwargs = self._handlers.reask_handler(
                kwargs={"messages": []}, response=response, exception=ValueError(problem)
            )
        except Exception:  # noqa: BLE001 - handlers expect a well-formed answer; an odd one is why this is called
            return [Message("user", f"Validation error found:\n{problem}\nAnswer again and fix the errors")]
        turns: list[object] = kwargs["messages"]
        return turns


def structured(output: OutputFormat, provider: str, mode: str) -> Structured:
    """Return how `output` is asked of an instructor provider (`openai`) in a mode (`tools`).

    Raises:
        DefinitionError: When instructor has no such mode for the provider.
    """
    from instructor.v2 import Mode, Provider, mode_registry

    try:
        handlers = mode_registry.get_handlers(Provider(provider), _mode(Mode, mode))
    except (KeyError, ValueError) as exc:
        msg = f"mode {mode!r} does not exist for {provider}; use {_modes_of(provider)}"
        raise DefinitionError(msg) from exc
    _, prepared = handlers.request_handler(response_model=output.model, kwargs={"messages": []})
    messages = prepared.pop("messages", [])
    system = prepared.pop("system", None)
    return Structured(
        part=prepared,
        system="\n\n".join([*_texts(system), *(m["content"] for m in messages if m["role"] == "system")]).strip(),
        closing=tuple(message for message in messages if message["role"] != "system"),
        _handlers=handlers,
        _capture=_capturing(output.model.__name__),
    )


def _mode(modes: Any, name: str) -> Any:
    """Return the mode by its name in the enum (`json_schema`) or by its value (`tool_call`)."""
    return modes[name.upper()] if name.upper() in modes.__members__ else modes(name)


def _modes_of(provider: str) -> str:
    from instructor.v2 import Mode, Provider, mode_registry

    known = {mode.name for mode in mode_registry.get_modes_for_provider(Provider(provider))}
    names = [repr(name) for name in _MODES if Mode[name.upper()].name in known]
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "another client"


def _texts(system: object) -> list[str]:
    """Return the texts of Anthropic's `system`, which is a string or a list of blocks."""
    if isinstance(system, str):
        return [system]
    return [block["text"] for block in mappings_in(system)]


class _Capture(BaseModel):
    """Stands in for the author's model and takes the text that would have been validated.

    So llmflow's own schema layer validates, and the value is an instance of exactly the author's class.
    """

    captured: str | None = None

    @classmethod
    def model_validate_json(cls, json_data: Any, **_options: Any) -> Any:
        text = json_data.decode("utf-8", "replace") if isinstance(json_data, (bytes, bytearray)) else json_data
        return cls.model_construct(captured=text)

    @classmethod
    def model_validate(cls, obj: Any, **_options: Any) -> Any:
        return cls.model_construct(captured=json.dumps(obj, ensure_ascii=False, default=str))


def _capturing(name: str) -> type[Any]:
    """Return a capturing class of this name: instructor looks for the tool that is called like the class."""
    return type(name, (_Capture,), {"__module__": __name__})
