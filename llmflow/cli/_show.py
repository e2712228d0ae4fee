"""`llmflow show`: one run, with its nodes and their attempts on one axis of time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from llmflow.cli._journal_file import reports
from llmflow.cli._moments import day_and_time, moment
from llmflow.cli._printable import printable
from llmflow.cli._report import count, seconds, tokens
from llmflow.cli._runs import parsed, plain_run, status_of
from llmflow.cli._show_lines import WIDE, laid_out
from llmflow.cli._show_tree import branches_in, tree_lines
from llmflow.cli._spend import plain_usd, range_of, spend_notes
from llmflow.cli._terminal import out_console, say, write_json
from llmflow.cli._timing import Axis
from llmflow.prices import dollars, money
from llmflow.stores._report_places import Branch, Series
from llmflow.stores._report_records import NodeRecord, PromptUse, RunSummary
from llmflow.stores._report_tree import tree_of
from llmflow.stores._run_report import RunReport

__all__ = ["show_run"]

_CELLS, _FEW_CELLS = 28, 14
_FAILURES = 10
_NOT_STORED = {
    "hashed": "not stored, only its hash",
    "inputs": "not stored: the task says journal=False, or JSON cannot hold it",
}


def show_run(name: str, *, content: bool, as_json: bool) -> None:
    """Write what is recorded of one run."""
    with reports() as found:
        run = found.run(name)
        if as_json:
            write_json(_plain(run, content=content))
            return
        console = out_console()
        tree = tree_of(run, content=content)
        for line in _head(run, found.now):
            console.print(line)
        if tree:
            console.print()
            axis = _axis(run.summary, tree, found.now, console)
            for line in laid_out(list(tree_lines(tree, axis)), console.width):
                console.print(line, no_wrap=True, overflow="ellipsis")
        for line in (*_failures(tree), *(_contents(run, tree) if content else ())):
            console.print(line)
    for note in spend_notes(run.summary.spend):
        say(note, "dim")


# -- the head ----------------------------------------------------------------------------------------------------------


def _head(found: RunReport, now: float) -> Iterator[Text]:
    """Yield what there is to say of the run as a whole."""
    run = found.summary
    yield Text.assemble(
        (printable(run.target), "bold"), "  ", status_of(run, "bold"), "  ", (printable(run.run_id), "dim")
    )
    worked_s = found.worked_s() if run.resumed else None
    for name, said, style in _facts(run, found.prompts(), now, worked_s):
        yield Text.assemble((f"  {name:<9}", "dim"), (said, style))


def _facts(
    run: RunSummary, prompts: Sequence[PromptUse], now: float, worked_s: float | None
) -> Iterator[tuple[str, str, str]]:
    ago = moment(run.started, now)
    began = day_and_time(run.started) + (f", {ago}" if ago.endswith("ago") else "")
    yield "started", began + (f", taken up again {count(run.resumed, 'time')}" if run.resumed else ""), ""
    if run.replay_of is not None:
        yield "replay", f"of {printable(run.replay_of)}", ""
    yield "took", seconds(run.latency_s) + _of_all_times(run, worked_s), ""
    yield "calls", f"{_calls(run)}, {count(run.requests, 'request')}{_tokens(run)}", ""
    yield "cost", range_of(run.spend), ""
    if run.saved_nano:
        yield "saved", money(dollars(run.saved_nano)), ""
    for place, one in enumerate(prompts):
        label = f" ({printable(one.label)})" if one.label else ""
        said = f"{printable(one.step)} {printable(one.prompt_version)}{label}, {_calls(one)}"
        yield ("" if place else "prompts"), said, ""
    if run.tenant is not None:
        yield "tenant", printable(run.tenant), ""
    if run.tags is not None:
        yield "tags", _tags(run.tags), ""
    if run.error is not None:
        yield "error", printable(run.error) + (f": {printable(run.message)}" if run.message else ""), "red"


def _of_all_times(run: RunSummary, worked_s: float | None) -> str:
    """Say of a run that was taken up again what its nodes took, whenever that was, without the night in between."""
    last = ", the last time" if run.resumed and run.latency_s is not None else ""
    if worked_s is None or worked_s <= (run.latency_s or 0.0) or seconds(worked_s) == seconds(run.latency_s):
        return last
    return f"{last}; its nodes {seconds(worked_s)}"


def _calls(one: RunSummary | PromptUse) -> str:
    return count(one.calls, "call") + (f" and {one.unended:,} without an end" if one.unended else "")


def _tokens(run: RunSummary) -> str:
    if run.input_tokens is None and run.output_tokens is None:
        return ""
    return f", {tokens(run.input_tokens)} tokens in, {tokens(run.output_tokens)} out"


def _tags(tags: str) -> str:
    said = parsed(tags)
    if not isinstance(said, dict):
        return printable(tags)
    return ", ".join(f"{printable(str(name))}={printable(str(value))}" for name, value in said.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


# -- the tree ----------------------------------------------------------------------------------------------------------


def _axis(run: RunSummary, tree: Sequence[Branch | Series], now: float, console: Console) -> Axis:
    """Return the axis of a run: to its end, or to now while it runs; else to the last that is known of it.

    One that was taken up again may have ended long after the last of its nodes, with nothing more to do.
    """
    started = min(run.started, *(one.started for one in tree))
    ends = [one.ended for one in tree if one.ended is not None]
    ends += [one.ended or one.started for one in branches_in(tree)]
    if run.status == "running":
        ends.append(now)
    elif run.finished is not None and not run.resumed:
        ends.append(run.finished)
    plain = not console.is_terminal or os.environ.get("TERM") == "dumb"
    return Axis(started, max(ends), _CELLS if console.width >= WIDE else _FEW_CELLS, plain=plain)


def _failures(tree: Sequence[Branch | Series]) -> Iterator[Text]:
    """Yield what the nodes that failed raised; one that only passed on what failed inside it is left out."""
    raised = [one for one in branches_in(tree) if one.node is not None and one.node.error is not None]
    inner = [one for one in raised if not any(other.key.startswith(f"{one.key}/") for other in raised)]
    if inner:
        yield Text("")
    for one in inner[:_FAILURES]:
        assert one.node is not None
        said = printable(one.node.error or "") + (f": {printable(one.node.message)}" if one.node.message else "")
        yield Text.assemble((f"{printable(one.key)}  ", "bold"), (said, "red"))
    if len(inner) > _FAILURES:
        yield Text(f"and {len(inner) - _FAILURES} more", "dim")


# -- content -----------------------------------------------------------------------------------------------------------


def _contents(run: RunReport, tree: Sequence[Branch | Series]) -> Iterator[Text]:
    """Yield the inputs and outputs of the run and of every node that is shown."""
    inputs, output = run.content()
    if inputs is not None or output is not None:
        yield from _content(run.summary.target, inputs, output, "")
    for one in branches_in(tree):
        if one.node is not None:
            missing = _NOT_STORED.get(one.node.content, "")
            yield from _content(one.key, one.node.inputs, one.node.output, missing)


def _content(key: str, inputs: str | None, output: str | None, missing: str) -> Iterator[Text]:
    yield Text("")
    yield Text(printable(key), "bold")
    for name, said in (("in", inputs), ("out", output)):
        if said is not None:
            yield Text.assemble((f"  {name:<4}", "dim"), printable(said))
        elif missing:
            yield Text(f"  {name:<4}{missing}", "dim")


# -- JSON --------------------------------------------------------------------------------------------------------------


def _plain(run: RunReport, *, content: bool) -> dict[str, Any]:
    plain = plain_run(run.summary)
    if content:
        inputs, output = run.content()
        plain |= {"inputs": parsed(inputs), "output": parsed(output)}
    return {
        "run": plain,
        "prompts": [asdict(one) for one in run.prompts()],
        "nodes": [_plain_node(one, content=content) for one in run.nodes(content=content)],
        "calls": [_plain_money(asdict(one)) for one in run.calls()],
        "attempts": [_plain_money(asdict(one)) for one in run.attempts()],
    }


def _plain_node(node: NodeRecord, *, content: bool) -> dict[str, Any]:
    plain = asdict(node)
    inputs, output = plain.pop("inputs"), plain.pop("output")
    return {**plain, "inputs": parsed(inputs), "output": parsed(output)} if content else plain


def _plain_money(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its nano-dollars as dollars."""
    return {
        name.replace("_nano", "_usd"): plain_usd(value) if name.endswith("_nano") else value
        for name, value in plain.items()
    }
