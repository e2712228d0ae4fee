"""What `[tool.llmflow]` in pyproject.toml and `LLMFLOW_*` variables say about the runtime nobody made."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from llmflow.errors import DefinitionError
from llmflow.prices import Price, Tier
from llmflow.prompts import read_variants

__all__ = ["Config", "Setting", "read_config"]

_KNOWN: Mapping[str, type[Any]] = {
    "cache": str,
    "default_model": str,
    "journal": str,
    "models": dict,
    "on_change": str,
    "prices": dict,
    "prompts": str,
    "seed": int,
    "store": str,
    "store_content": bool,
    "variants": dict,
}
_WORDS: Mapping[type[Any], str] = {str: "text", dict: "a table", int: "a whole number", bool: "true or false"}
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
T = TypeVar("T")

_FROM_ENVIRONMENT = ("cache", "default_model", "journal", "on_change", "prompts", "seed", "store", "store_content")
_PROMPTS = "prompts"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it was said."""

    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting that was said, with its source; the environment goes before the file."""

    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])

    def get(self, name: str) -> Any:
        """Return a setting's value, None when nobody said it."""
        found = self.settings.get(name)
        return found.value if found is not None else None

    def prices(self) -> dict[str, Price]:
        """Return the prices that were said, by model name.

        Raises:
            DefinitionError: For one that cannot be, naming the file and the model.
        """
        said = self.settings.get("prices", Setting({}, ""))
        return {
            name: _price(one, f"[tool.llmflow.prices] in {said.source}: {name!r}") for name, one in said.value.items()
        }


def read_config(start: Path | None = None) -> Config:
    """Read the nearest pyproject.toml at or above `start`, then the environment.

    Raises:
        DefinitionError: For a name that does not exist or a value of the wrong type, naming the file or variable.
    """
    path = _find(start or Path.cwd())
    settings = {} if path is None else _from_file(path)
    for name in _FROM_ENVIRONMENT:
        variable = f"LLMFLOW_{name.upper()}"
        if text := os.environ.get(variable):
            settings[name] = Setting(_from_text(name, text, variable), variable)
    config = Config(settings)
    config.prices()  # finds a mistake in them
    return config


def _from_file(path: Path) -> dict[str, Setting]:
    table = _table(path)
    if table is None:
        return {}
    where = f"[tool.llmflow] in {path}"
    settings = {name: Setting(_checked(name, value, where), str(path)) for name, value in table.items()}
    if (said := table.get(_PROMPTS)) is not None:
        settings[_PROMPTS] = Setting(_folder(said, path.parent, where), str(path))
    elif (beside := path.parent / _PROMPTS).is_dir():
        settings[_PROMPTS] = Setting(str(beside), f"beside {path}")
    read_variants(table.get("variants", {}), f"[tool.llmflow.variants] in {path}")  # finds a mistake in them
    return settings


def _folder(said: str, around: Path, where: str) -> str:
    """Return the folder of prompts, whatever the current folder will be when it is read."""
    folder = around / Path(said).expanduser()
    if not said or not folder.is_dir():
        msg = f"{where}: {_PROMPTS} is {said!r}, and there is no folder {folder}"
        raise DefinitionError(msg)
    return str(folder.absolute())


def _find(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if (path := folder / "pyproject.toml").is_file():
            return path
    return None


def _table(path: Path) -> Mapping[str, Any] | None:
    """Return what a file says of llmflow, None when it says nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return None  # somebody else's file; its own tool will complain
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        if "tool.llmflow" not in text:
            return None
        msg = f"[tool.llmflow] in {path} cannot be read, as the file is no TOML: {exc}"
        raise DefinitionError(msg) from None  # without its models and prices, other models would be asked
    table: object = document.get("tool", {}).get("llmflow")
    return cast("Mapping[str, Any]", table) if isinstance(table, Mapping) else None


def _checked(name: str, value: Any, where: str) -> Any:
    kind = _KNOWN.get(name)
    if kind is None:
        msg = f"{where}: unknown setting {name!r}; known are {', '.join(sorted(_KNOWN))}"
        raise DefinitionError(msg)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        msg = f"{where}: {name} is {value!r}, expected {_WORDS[kind]}"
        raise DefinitionError(msg)
    return value


def _price(entry: object, where: str) -> Price:
    """Return the price in a table of rates, saying where it stands when it cannot be."""
    if not isinstance(entry, Mapping):
        msg = f"{where} is {entry!r}, expected rates in dollars per million tokens: {{ input = 0.25, output = 2.0 }}"
        raise DefinitionError(msg)
    said = dict(cast("Mapping[str, Any]", entry))
    tiers: object = said.pop("tiers", [])
    if not isinstance(tiers, list) or not all(isinstance(one, Mapping) for one in cast("list[object]", tiers)):
        msg = f"{where}: tiers is {tiers!r}, expected a list such as [{{ above = 200000, input = 2.5 }}]"
        raise DefinitionError(msg)
    made = tuple(_made(Tier, one, ("above",), f"{where}, tiers") for one in cast("list[Mapping[str, Any]]", tiers))
    return _made(Price, {**said, "tiers": made}, ("input", "output"), where)


def _made(kind: type[T], said: Mapping[str, Any], needed: Sequence[str], where: str) -> T:
    known = [one.name for one in fields(cast("Any", kind)) if one.init]
    for name in said:
        if name not in known:
            msg = f"{where}: unknown key {name!r}; known are {', '.join(known)}"
            raise DefinitionError(msg)
    for name in needed:
        if name not in said:
            msg = f"{where}: {name} is missing"
            raise DefinitionError(msg)
    try:
        return kind(**said)
    except DefinitionError as exc:
        msg = f"{where}: {exc}"
        raise DefinitionError(msg) from None


def _from_text(name: str, text: str, variable: str) -> object:
    if name == _PROMPTS:
        return _folder(text, Path.cwd(), variable)
    if _KNOWN[name] is bool:
        return _switch(text, variable)
    if _KNOWN[name] is not int:
        return text
    try:
        return int(text)
    except ValueError:
        msg = f"{variable} is {text!r}, expected a whole number"
        raise DefinitionError(msg) from None


def _switch(text: str, variable: str) -> bool:
    found = _SWITCHES.get(text.strip().lower())
    if found is None:
        msg = f"{variable} is {text!r}, expected true or false"
        raise DefinitionError(msg)
    return found
