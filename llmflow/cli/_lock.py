"""`llmflow.lock`: the prompts of a program as they were when somebody last agreed to them."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from llmflow.cli import _toml as toml
from llmflow.cli._failures import UsageError
from llmflow.cli._schema_lines import schema_lines
from llmflow.step import Step

__all__ = ["NAME", "Lock", "LockedPrompt", "lock_path", "prompt_of", "read_lock", "write_lock"]

NAME = "llmflow.lock"
_FORMAT = 1
_HEAD = """\
# What the prompts of this program are. Written by `llmflow prompts lock`: commit it, and review its changes like code.
# `llmflow check` fails when a prompt is no longer what stands here.
"""
_TABLES = ("params", "checks", "uses", "not_covered")


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPrompt:
    """One prompt, in words.

    Attributes:
        version: What stands in records: the computed one, or what the step's `version=` says.
        computed: The computed version; a prompt is unchanged when this is.
        output: The name of the answer's type, and a line for each of its fields.
        uses: Names and hashes of the functions, classes and constants that it depends on.
        sources: What these look like, by name; in the file they stand once for all prompts.
    """

    version: str
    computed: str
    template: str | None = None
    body: str | None = None
    body_hash: str | None = None
    system: str | None = None
    output: str = ""
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    examples: tuple[tuple[str, str], ...] = ()
    checks: Mapping[str, str] = field(default_factory=dict[str, str])
    uses: Mapping[str, str] = field(default_factory=dict[str, str])
    not_covered: Mapping[str, str] = field(default_factory=dict[str, str])
    sources: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file: where it is, what it was made from, and the prompts by name."""

    path: Path
    targets: tuple[str, ...] = ()
    prompts: Mapping[str, LockedPrompt] = field(default_factory=dict[str, LockedPrompt])


def prompt_of(step: Step[..., Any]) -> LockedPrompt:
    """Return a step's prompt as it is now."""
    parts = step.prompt_parts
    return LockedPrompt(
        version=step.prompt_version,
        computed=parts.version,
        template=parts.template,
        body=parts.body.source if parts.body else None,
        body_hash=parts.body.digest if parts.body else None,
        system=parts.system,
        output="\n".join([parts.shape.name, *schema_lines(parts.shape.schema)]) if not step.output.is_text else "text",
        params=dict(sorted(parts.params.items())),
        examples=parts.examples,
        checks=dict(parts.checks),
        uses={name: one.digest for name, one in parts.uses.items() if name not in parts.checks},
        not_covered=dict(parts.not_covered),
        sources={name: one.source for name, one in parts.uses.items() if one.source is not None},
    )


def lock_path() -> Path:
    """Return where the lock of this program is or will be: beside the nearest pyproject.toml, else in this folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file():
            return folder / NAME
    return here / NAME


# -- reading -----------------------------------------------------------------------------------------------------------


def read_lock() -> Lock | None:
    """Return the lock of this program, None when there is none.

    Raises:
        UsageError: When it cannot be read, or is no lock of this version; it names the line.
    """
    path = lock_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{NAME} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise UsageError(f"{NAME} is no TOML: {exc}", _HINT) from exc
    return _Reader(path, text).lock(document)


_HINT = "Take it back from version control, or write it anew: llmflow prompts lock TARGET..."


class _Reader:
    """Turns a document into a lock, and says on which line it is none."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def lock(self, document: Mapping[str, Any]) -> Lock:
        if (made := document.get("format")) != _FORMAT:
            newer = isinstance(made, int) and made > _FORMAT
            why = "was written by a newer llmflow" if newer else "does not say `format = 1`"
            raise self._wrong(why, "format")
        targets = self._texts(document.get("from"), "from")
        sources = self._table(document.get("sources", {}), "sources", "[sources")
        prompts = self._table(document.get("prompts", {}), "prompts", "[prompts")
        return Lock(self._path, targets, {name: self._prompt(name, one, sources) for name, one in prompts.items()})

    def _prompt(self, name: str, said: Any, sources: Mapping[str, Any]) -> LockedPrompt:
        where = toml.header("prompts", name)
        table = dict(self._table(said, f"prompts.{name}", where))
        known = {one.name for one in fields(LockedPrompt)} - {"sources"}
        if unknown := sorted(table.keys() - known):
            raise self._wrong(f"has an unknown key {unknown[0]!r} in {where}", where)
        version = table.get("version")
        if not isinstance(version, str):
            raise self._wrong(f"has no version in {where}", where)
        table.setdefault("computed", version)
        for one in ("computed", "template", "body", "body_hash", "system", "output"):
            if not isinstance(table.get(one, ""), str):
                raise self._wrong(f"has no text as {one} in {where}", where)
        for one in _TABLES:
            self._table(table.get(one, {}), f"prompts.{name}.{one}", where)
        table["examples"] = tuple(self._example(one, where) for one in self._list(table.get("examples", []), where))
        names = (*table.get("uses", {}), *table.get("checks", {}))
        return LockedPrompt(**table, sources={one: str(sources[one]) for one in names if one in sources})

    def _example(self, said: Any, where: str) -> tuple[str, str]:
        pair = self._table(said, "of an example", where)
        given: object = pair.get("input")
        output: object = pair.get("output")
        if not isinstance(given, str) or not isinstance(output, str):
            raise self._wrong(f"has an example without input and output in {where}", where)
        return given, output

    def _table(self, said: Any, name: str, line: str) -> Mapping[str, Any]:
        if isinstance(said, Mapping):
            return cast("Mapping[str, Any]", said)
        raise self._wrong(f"has no table {name}", line)

    def _list(self, said: Any, line: str) -> Sequence[Any]:
        if isinstance(said, list):
            return cast("Sequence[Any]", said)
        raise self._wrong(f"has no list of examples in {line}", line)

    def _texts(self, said: Any, name: str) -> tuple[str, ...]:
        texts = tuple(cast("Sequence[object]", said)) if isinstance(said, list) else (None,)
        if not all(isinstance(one, str) for one in texts):
            raise self._wrong(f"does not say what it was made `{name}`", name)
        return cast("tuple[str, ...]", texts)

    def _wrong(self, why: str, line: str) -> UsageError:
        found = (number for number, text in enumerate(self._lines, 1) if re.match(re.escape(line), text))
        return UsageError(f"{NAME}, line {next(found, 1)}: the file {why}", _HINT)


# -- writing -----------------------------------------------------------------------------------------------------------


def write_lock(lock: Lock) -> None:
    """Write a lock, whole or not at all.

    Raises:
        UsageError: When the file cannot be written.
    """
    text = "\n".join(_lines(lock)) + "\n"
    fresh = lock.path.with_name(f"{lock.path.name}.{os.getpid()}.tmp")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        fresh.replace(lock.path)
    except OSError as exc:
        raise UsageError(f"{lock.path} cannot be written: {exc.strerror or exc}") from exc
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _lines(lock: Lock) -> Iterator[str]:
    yield _HEAD
    yield f"format = {_FORMAT}"
    yield f"from = {toml.value(lock.targets)}"
    sources: dict[str, str] = {}
    for name, prompt in sorted(lock.prompts.items()):
        sources |= prompt.sources
        yield ""
        yield toml.header("prompts", name)
        yield from _prompt_lines(prompt)
        for table in _TABLES:
            yield from _table_lines(("prompts", name, table), getattr(prompt, table))
        for given, output in prompt.examples:
            yield ""
            yield toml.header("prompts", name, "examples", many=True)
            yield f"input = {toml.text(given)}"
            yield f"output = {toml.text(output)}"
    yield from _table_lines(("sources",), dict(sorted(sources.items())))


def _prompt_lines(prompt: LockedPrompt) -> Iterator[str]:
    yield f"version = {toml.value(prompt.version)}"
    if prompt.computed != prompt.version:
        yield f"computed = {toml.value(prompt.computed)}"
    for name in ("template", "body", "body_hash", "system", "output"):
        if (text := getattr(prompt, name)) is not None:
            yield f"{name} = {toml.text(text)}"


def _table_lines(path: Iterable[str], table: Mapping[str, Any]) -> Iterator[str]:
    if table:
        yield ""
        yield toml.header(*path)
    for name, one in table.items():
        yield f"{toml.key(name)} = {toml.text(one) if isinstance(one, str) else toml.value(one)}"
