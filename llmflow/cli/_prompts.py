"""`llmflow prompts`: what the prompts are, and agreeing to what they became."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from llmflow.cli._failures import UsageError
from llmflow.cli._found_steps import Found, find, place_of, told
from llmflow.cli._lock import NAME, Lock, LockedPrompt, lock_path, prompt_of, read_lock, write_lock
from llmflow.cli._prompt_diff import Difference, differences
from llmflow.cli._report import count
from llmflow.cli._terminal import jsonable, out_console, say, table, write_json
from llmflow.cli._version_report import version_table, versions_of
from llmflow.cli._worded import reword
from llmflow.errors import DefinitionError
from llmflow.step import Step

__all__ = ["Review", "diff_prompts", "list_prompts", "lock_prompts", "review", "show_prompt", "write_differences"]

_STYLES = {"+": "green", "-": "red"}


@dataclass(frozen=True, slots=True)
class Review:
    """The lock and the code beside each other."""

    lock: Lock | None
    targets: tuple[str, ...]
    found: Found
    prompts: Mapping[str, LockedPrompt]
    differences: tuple[Difference, ...]


def review(targets: Sequence[str]) -> Review:
    """Read the lock and the code; without targets, those that the lock was made from.

    Raises:
        UsageError: When there are no targets and no lock to say them, or the lock is none.
    """
    lock = read_lock()
    if not targets and lock is None:
        raise UsageError(f"there is no {NAME} that says where the prompts are", _FIRST)
    chosen = tuple(targets) or (lock.targets if lock else ())
    found = find(chosen)
    reword(found)
    prompts = {name: prompt_of(one) for name, one in found.steps.items()}
    whole = lock is not None and set(lock.targets) <= set(chosen)
    return Review(lock, chosen, found, prompts, tuple(differences(lock, prompts, all_of_it=whole)))


_FIRST = "Name the modules: llmflow prompts lock app.py"


def _review(targets: Sequence[str]) -> Review:
    """Like `review`, for commands that need all of the code: the first thing that is wrong with it ends them."""
    made = review(targets)
    for where, error in made.found.wrong:
        if isinstance(error, DefinitionError):
            raise UsageError(": ".join(told(where, error)), *getattr(error, "__notes__", ())) from error
        raise error
    return made


# -- list --------------------------------------------------------------------------------------------------------------


def list_prompts(targets: Sequence[str], *, as_json: bool) -> None:
    """Write every prompt: its version, whether it is as locked, where it is, what it is made of."""
    made = _review(targets)
    if as_json:
        write_json({"lock": _lock_name(made), "prompts": [_listed(one, made) for one in made.differences]})
        return
    listed = table("prompt", "version", "state", "where", "made of")
    for one in made.differences:
        prompt = one.now or one.locked
        assert prompt is not None  # a difference has one side at least
        state = "not locked" if made.lock is None else one.state
        listed.add_row(one.name, prompt.version, state, _where(one, made), ", ".join(_made_of(prompt)))
    out_console().print(listed)
    if made.lock is None:
        say(f"there is no {NAME} yet; write it: llmflow prompts lock {' '.join(made.targets)}", "dim")


def _listed(one: Difference, made: Review) -> dict[str, Any]:
    prompt = one.now or one.locked
    assert prompt is not None  # as above
    return {
        "name": one.name,
        "version": prompt.version,
        "state": None if made.lock is None else one.state,
        "where": _where(one, made) or None,
        "made_of": _made_of(prompt),
        "not_covered": dict(prompt.not_covered),
    }


def _where(one: Difference, made: Review) -> str:
    return _origin(made.found.steps[one.name]) if one.name in made.found.steps else ""


def _origin(step: Step[..., Any]) -> str:
    """Return where a prompt is written: the line of its step, or the file that its wording comes from."""
    return place_of(step) if step.wording is None else step.wording.origin


def _made_of(prompt: LockedPrompt) -> list[str]:
    """Return the parts of a prompt in a few words."""
    parts = [name for name in ("template", "body", "system") if getattr(prompt, name) is not None]
    numbers = (
        (len(prompt.params), "parameter"),
        (len(prompt.examples), "example"),
        (len(prompt.checks), "check"),
        (len(prompt.uses), "piece of code"),
    )
    parts += [count(number, what).replace("piece of codes", "pieces of code") for number, what in numbers if number]
    return parts + ([f"{len(prompt.not_covered)} not covered"] if prompt.not_covered else [])


def _lock_name(made: Review) -> str | None:
    return None if made.lock is None else _short(made.lock.path)


def _short(path: Path) -> str:
    """Return a path as it reads from here, when it is here or below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# -- lock --------------------------------------------------------------------------------------------------------------


def lock_prompts(targets: Sequence[str]) -> None:
    """Write the lock, and say what changed."""
    made = _review(targets)
    # Given targets are all that the lock is about from now on, so here what they lack is gone.
    all_of_it = differences(made.lock, made.prompts)
    kept = {one.name: one.locked or one.now for one in all_of_it if one.state == "locked"}
    prompts = {name: kept.get(name) or prompt for name, prompt in made.prompts.items()}
    fresh = Lock(lock_path(), made.targets, prompts)
    same = made.lock is not None and (made.lock.targets, made.lock.prompts) == (fresh.targets, fresh.prompts)
    if not same:
        write_lock(fresh)
    for one in all_of_it:
        if one.state != "locked":
            say(f"{one.state}: {one.name} {_versions(one)}".rstrip())
    done = "is as it was" if same else "written"
    say(f"{_short(fresh.path)} {done}: {count(len(prompts), 'prompt')} of {', '.join(made.targets)}", "dim")


def _versions(one: Difference) -> str:
    if one.locked is None or one.now is None:
        return (one.now.version if one.now else "") or ""
    return f"{one.locked.version} -> {one.now.version}"


# -- diff --------------------------------------------------------------------------------------------------------------


def diff_prompts(targets: Sequence[str], *, step: str | None, as_json: bool) -> None:
    """Write what differs between the lock and the code."""
    made = _review(targets)
    if made.lock is None:
        raise UsageError(f"there is no {NAME} to compare with", f"Write it: llmflow prompts lock {made.targets[0]}")
    chosen = [one for one in made.differences if step in (None, one.name, one.step)]
    if step is not None and not chosen:
        raise UsageError(f"there is no prompt {step!r}", _known(one.name for one in made.differences))
    changed = [one for one in chosen if one.state != "locked"]
    if as_json:
        write_json({"lock": _lock_name(made), "prompts": {one.name: one.to_dict() for one in changed}})
        return
    write_differences(changed)
    if not changed:
        say(f"{count(len(chosen), 'prompt')} as locked", "dim")


def write_differences(
    changed: Sequence[Difference], after: Callable[[Difference], str | None] = lambda _: None
) -> None:
    """Write the changes of prompts, each with a last line that `after` may have for it."""
    console = out_console()
    for number, one in enumerate(changed):
        if number:
            console.print()
        console.print(Text(f"{one.state}: {one.name} {_versions(one)}".rstrip(), style="bold"))
        for change in one.changes:
            console.print(Text(f"  {change.part}"))
            for line in change.lines():
                console.print(Text(f"    {line}".rstrip(), style=_STYLES.get(line[0], "dim")))
        if said := after(one):
            console.print(Text(f"  {said}"))


def _known(names: Iterator[str]) -> str:
    return f"There are: {', '.join(names) or 'none'}"


# -- show --------------------------------------------------------------------------------------------------------------


def show_prompt(name: str, *, as_json: bool) -> None:
    """Write the parts of one prompt, what its version covers and what it does not."""
    made = _review((name,) if ":" in name else ())
    chosen = [one for one in made.found.steps if ":" in name or name in (one, *_shorter(one))]
    if not chosen:
        raise UsageError(f"there is no prompt {name!r}", _known(iter(made.found.steps)))
    if as_json:
        write_json({"prompts": [_shown(one, made) for one in chosen]})
        return
    for number, one in enumerate(chosen):
        if number:
            out_console().print()
        _write_prompt(one, made.found.steps[one], made)
    for step in dict.fromkeys(made.found.steps[one].name for one in chosen):
        if (reported := version_table(step)) is not None:
            out_console().print("", reported, sep="\n")


def _shorter(name: str) -> tuple[str, str]:
    """Return what else a prompt goes by: the step of `step#variable` and of `step@label`."""
    return name.partition("#")[0], name.partition("@")[0]


def _state(name: str, made: Review) -> str:
    found = next((one.state for one in made.differences if one.name == name), "new")
    return "not locked" if made.lock is None else found


def _shown(name: str, made: Review) -> dict[str, Any]:
    step, prompt = made.found.steps[name], made.prompts[name]
    shown = asdict(replace(prompt, sources={}))
    shown |= {"name": name, "where": place_of(step), "state": _state(name, made)}
    shown["output"] = jsonable(step.output.json_schema)
    shown["uses"] = {one.name: {"kind": one.kind, "hash": one.digest, "source": one.source} for one in _pieces(step)}
    shown["versions"] = versions_of(step.name)
    del shown["sources"]
    return jsonable(shown)  # type: ignore[no-any-return]


def _pieces(step: Step[..., Any]) -> list[Any]:
    return [*step.prompt_parts.uses.values()]


def _write_prompt(name: str, step: Step[..., Any], made: Review) -> None:
    """Write the parts, one section each."""
    prompt = made.prompts[name]
    console = out_console()
    console.print(Text(f"{name}  {prompt.version}  {_state(name, made)}", style="bold"))
    console.print(Text(f"  {_origin(step)}", style="dim"))
    for title, lines in _sections(prompt, step):
        console.print(Text(f"  {title}"))
        for line in lines:
            console.print(Text(f"    {line}".rstrip(), style="dim"))


def _sections(prompt: LockedPrompt, step: Step[..., Any]) -> Iterator[tuple[str, list[str]]]:
    texts = (("template", prompt.template), ("body", prompt.body), ("system", prompt.system), ("output", prompt.output))
    for title, text in texts:
        if text is not None:
            yield title, text.split("\n")
    if prompt.params:
        yield "params", [f"{key} = {value!r}" for key, value in prompt.params.items()]
    if prompt.examples:
        yield "examples", [f"{given} -> {output}" for given, output in prompt.examples]
    if prompt.checks:
        yield "checks", [*prompt.checks]
    if prompt.uses:
        yield "uses", [f"{one.name}  {one.kind}  {one.digest}" for one in _pieces(step) if one.name in prompt.uses]
    if prompt.not_covered:
        yield "not covered", [f"{key}: {reason}" for key, reason in prompt.not_covered.items()]
    if prompt.computed != prompt.version:
        yield "computed version", [prompt.computed]
