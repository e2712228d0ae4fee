"""`llmflow plan`, `graph` and `plugins`: what is there, without running it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from llmflow.cli._failures import EXIT_REFUSED, UsageError
from llmflow.cli._session import session
from llmflow.cli._target import load_target
from llmflow.cli._terminal import jsonable, out_console, say, table, write_json, write_line
from llmflow.graph import Flow
from llmflow.graph._render import dot, mermaid, svg
from llmflow.plugins import PluginInfo
from llmflow.runtime import Plan, plan

__all__ = ["show_graph", "show_plan", "show_plugins", "write_plan"]

_WRITERS = {"mermaid": mermaid, "svg": svg, "dot": dot}


# -- plan --------------------------------------------------------------------------------------------------------------


def show_plan(target: str, *, model: str | None, as_json: bool) -> None:
    """Write what a target will do."""
    unit = load_target(target)
    with session(model) as runtime:
        write_plan(plan(unit, runtime=runtime), as_json=as_json)


def write_plan(made: Plan, *, as_json: bool) -> int:
    """Write a plan, and return the exit code: 3 when a budget refuses all that a step would send."""
    code = EXIT_REFUSED if made.refused else 0
    if as_json:
        write_json(jsonable(made.to_dict()))
        return code
    console = out_console()
    for line in _plan_lines(made):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    return code


def _plan_lines(made: Plan) -> list[Text]:
    """Return the plan's own text, with its headlines set off."""
    lines: list[Text] = []
    for line in str(made).splitlines():
        head, marker, rest = line.partition("  [")
        styled = Text(head, style="bold")
        styled.append(marker + rest, style="not bold")
        lines.append(styled if marker or not lines else Text(line))
    return lines


# -- graph -------------------------------------------------------------------------------------------------------------


def show_graph(target: str, *, form: str, out: str | None) -> None:
    """Write the graph of a flow as text that something draws."""
    unit = load_target(target)
    if not isinstance(unit, Flow):
        raise UsageError(f"{unit.kind} {unit.name!r} has no graph; only a flow has one")
    text = _WRITERS[form](unit.graph())
    if out is None:
        write_line(text.rstrip("\n"))
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"--out {out}: cannot write the file: {exc.strerror or exc}") from exc
    say(f"wrote {out}", "dim")


# -- plugins -----------------------------------------------------------------------------------------------------------


def show_plugins(*, as_json: bool) -> None:
    """Write which plugins there are and what became of them."""
    with session() as runtime:
        plugins = runtime.plugins
    if as_json:
        write_json([_plain(one) for one in plugins])
        return
    made = table("plugin", "from", "status", "hooks")
    for one in plugins:
        made.add_row(one.name, _origin(one), Text(one.status, style=_STYLES.get(one.status, "")), _hooks(one))
    out_console().print(made)


_STYLES = {"active": "green", "broken": "bold red", "disabled": "yellow"}


def _plain(info: PluginInfo) -> dict[str, object]:
    return {**asdict(info), "hooks": list(info.hooks)}


def _origin(info: PluginInfo) -> str:
    if info.builtin:
        return "built in"
    return f"{info.distribution} {info.version}".strip() or "this program"


def _hooks(info: PluginInfo) -> str:
    return info.error or ", ".join(hook.removeprefix("llmflow_") for hook in info.hooks) or "-"
