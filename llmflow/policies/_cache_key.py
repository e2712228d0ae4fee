"""What an answer depends on, as one hash: the request key."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from llmflow.canonical import canonical, quoted
from llmflow.context import caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmflow.messages import Ask, File, OutputFormat
    from llmflow.policy import Site

__all__ = ["Keys", "Unkeyable"]

_FORMAT = 1
"""Goes up with every change of what is hashed, or how."""


class Unkeyable(Exception):
    """Something that an answer depends on has no text that is the same in every process."""


class Keys:
    """Makes the keys of one step and model; what is constant is hashed once.

    The hash is SHA-256 of one JSON list: key format, step, model, options, parameters, connection, output schema,
    prompt version, tenant, messages, what follows them, validation context.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._constant: tuple[OutputFormat, Any] | None = None

    def of(self, ask: Ask) -> str:
        """Return the key of one ask.

        Raises:
            Unkeyable: Saying what has no stable text.
        """
        constant = self._constant
        if constant is None or constant[0] is not ask.output:
            constant = self._constant = (ask.output, self._constant_of(ask.output))
        digest = constant[1].copy()
        digest.update(_variable(ask).encode())
        return digest.hexdigest()  # type: ignore[no-any-return]

    def _constant_of(self, output: OutputFormat) -> Any:
        site = self._site
        schema = "text" if output.is_text else json.dumps(output.json_schema, sort_keys=True, default=repr)
        parts = (
            str(_FORMAT),
            quoted(site.step),
            quoted(site.model.name),
            _stable(dict(site.model.options), f"the options of {site.model.name!r}"),
            _stable(dict(site.params), "params"),
            quoted(site.identity()),
            quoted(hashlib.sha256(f"{output.name}:{schema}".encode()).hexdigest()),
        )
        return hashlib.sha256(f"[{','.join(parts)},".encode())


def _variable(ask: Ask) -> str:
    tenant = caller.get().tenant
    version = ask.call.prompt_version
    messages = ",".join(
        [
            f'["{one.role}",{quoted(one.content)}]'
            if not one.files
            else f'["{one.role}",{quoted(one.content)},{_files(one.files)}]'
            for one in ask.messages
        ]
    )
    turns = _stable(ask.turns, "what a policy adds to the messages") if ask.turns else "[]"
    context = "null" if ask.context is None else _stable(ask.context, "prompt(context=...)")
    said = "null" if tenant is None else canonical(tenant)
    return f"{'null' if version is None else quoted(version)},{said},[{messages}],{turns},{context}]"


def _files(files: Sequence[File]) -> str:
    return canonical([[one.media_type, one.data, one.url, one.name] for one in files])


def _stable(value: object, what: str) -> str:
    try:
        return canonical(value)
    except (TypeError, RecursionError) as exc:
        msg = f"{what} has no text that is the same in every process: {exc}"
        raise Unkeyable(msg) from exc
