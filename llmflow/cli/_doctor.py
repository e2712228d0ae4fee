"""`llmflow doctor`: what is installed, what is set and by whom, and what is wrong."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.text import Text

import llmflow
from llmflow.cli._failures import EXIT_RUN_FAILED
from llmflow.cli._local_model import INSTALL, LocalModel, find_local_model
from llmflow.cli._terminal import out_console, table, write_json
from llmflow.errors import DefinitionError
from llmflow.plugins import PluginInfo, shown
from llmflow.runtime import Config, Runtime, read_config

__all__ = ["examine", "show_doctor"]

_PACKAGES = (
    "pydantic",
    "instructor",
    "openai",
    "anthropic",
    "google-genai",
    "anyio",
    "pluggy",
    "typer",
    "rich",
    "llmflow-local",
    "xllamacpp",
)
_OPTIONAL = frozenset({"anthropic", "google-genai", "llmflow-local", "xllamacpp"})
_KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
}
_SETTINGS: Mapping[str, object] = {"default_model": None, "models": {}, "seed": None}
_STORES = frozenset({"cache", "store"})
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is broken, and what to do about it."""

    what: str
    remedy: str


@dataclass(slots=True)
class Report:
    """Everything the doctor found. Keys are told as present or not, never by their value."""

    versions: dict[str, str | None] = field(default_factory=dict[str, str | None])
    settings: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    keys: dict[str, bool] = field(default_factory=dict[str, bool])
    local_model: str = ""
    plugins: tuple[PluginInfo, ...] = ()
    problems: list[Problem] = field(default_factory=list[Problem])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "ok": not self.problems,
            "versions": self.versions,
            "settings": self.settings,
            "keys": self.keys,
            "local_model": self.local_model,
            "plugins": [
                {"name": one.name, "from": one.label, "status": one.status, "error": one.error} for one in self.plugins
            ],
            "problems": [{"problem": one.what, "remedy": one.remedy} for one in self.problems],
        }


def show_doctor(*, as_json: bool) -> int:
    """Write the report and return the exit code."""
    report = examine(os.environ)
    if as_json:
        write_json(report.to_dict())
    else:
        _print(report)
    return EXIT_RUN_FAILED if report.problems else 0


# -- examining ---------------------------------------------------------------------------------------------------------


def examine(environ: Mapping[str, str]) -> Report:
    """Look at everything that makes a first call fail."""
    report = Report()
    report.versions = {
        "python": platform.python_version(),
        "llmflow": llmflow.__version__,
        **{name: _version(name) for name in _PACKAGES},
    }
    report.keys = {provider: any(environ.get(name) for name in names) for provider, names in _KEYS.items()}
    report.problems += _version_problems(report.versions)
    _examine_settings(report)
    _examine_plugins(report)
    local = find_local_model(environ)
    report.local_model = local.state
    report.problems += _local_problems(local)
    return report


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version_problems(versions: Mapping[str, str | None]) -> Iterator[Problem]:
    if sys.version_info < _OLDEST_PYTHON:
        yield Problem(f"Python {versions['python']} is too old", "use Python 3.11 or newer")
    for name in _PACKAGES:
        if versions[name] is None and name not in _OPTIONAL:
            yield Problem(f"{name} is not installed", f"pip install {name}")


def _examine_settings(report: Report) -> None:
    try:
        config = read_config()
    except DefinitionError as exc:
        report.problems.append(Problem(str(exc), "correct the setting, or take it out"))
        config = Config()
    for name, default in _SETTINGS.items():
        said = config.settings.get(name)
        report.settings[name] = {"value": said.value if said else default, "source": said.source if said else "default"}
    for name, said in config.settings.items():
        value = shown(said.value) if name in _STORES else said.value
        report.settings.setdefault(name, {"value": value, "source": said.source})
        if name in _STORES:
            report.problems += _store_problems(name, said.value, said.source)


def _store_problems(option: str, url: str, source: str) -> Iterator[Problem]:
    """Make a runtime with this store, which opens nothing."""
    try:
        _ = Runtime(store=url) if option == "store" else Runtime(cache=url)
    except DefinitionError as exc:
        yield Problem(
            f"{option}, set in {source}: {exc}", "correct the address, or install the plugin that supplies it"
        )


def _examine_plugins(report: Report) -> None:
    try:
        report.plugins = tuple(one for one in Runtime().plugins if not one.builtin)
    except DefinitionError as exc:
        report.problems.append(Problem(str(exc), "uninstall one, or name it in LLMFLOW_DISABLE_PLUGINS"))
    report.problems += [
        Problem(
            f"plugin {one.label} is broken: {one.error}", f"reinstall it, or set LLMFLOW_DISABLE_PLUGINS={one.name}"
        )
        for one in report.plugins
        if one.status == "broken"
    ]


def _local_problems(local: LocalModel) -> Iterator[Problem]:
    if local.installed and local.problem:
        yield Problem(
            f"local/smollm2 cannot answer: {local.problem}",
            f"set LLMFLOW_LOCAL_MODEL to a .gguf file, or unset it; {INSTALL}",
        )


# -- telling -----------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    console = out_console()
    made = table("", "")
    made.show_header = False
    for title, rows in _sections(report):
        made.add_row(Text(title, style="bold"), "")
        for name, said, style in rows:
            made.add_row(f"  {name}", Text(said, style=style))
    console.print(made)
    if not report.problems:
        console.print(Text("\nNothing is broken.", style="green"))
    for one in report.problems:
        console.print(Text(f"\nproblem: {one.what}", style="bold red"))
        console.print(Text(f"   to do: {one.remedy}"))


def _sections(report: Report) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    yield "versions", [(name, said or "not installed", "" if said else "dim") for name, said in report.versions.items()]
    yield "settings", [(name, f"{one['value'] or '-'}  ({one['source']})", "") for name, one in report.settings.items()]
    yield "keys", [(name, *_key_row(name, there=there)) for name, there in report.keys.items()]
    yield "local model", [("local/smollm2", report.local_model, "")]
    yield (
        "plugins",
        [
            (one.name, f"{one.label}: {one.status}", "bold red" if one.status == "broken" else "")
            for one in report.plugins
        ]
        or [("-", "none installed", "dim")],
    )


def _key_row(provider: str, *, there: bool) -> tuple[str, str]:
    return ("yes", "green") if there else (f"no ({' or '.join(_KEYS[provider])})", "dim")
