"""Finding what a replay is about: steps of recorded answers, prompts, judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import UsageError
from llmflow.cli._found_steps import find
from llmflow.cli._target import load_module, load_target
from llmflow.graph import Flow
from llmflow.replay import Judge, check_judge, inheriting, step_in
from llmflow.step import Step
from llmflow.wordings import read_wording

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmflow.journal import RecordedAnswer
    from llmflow.prompts import Wording
    from llmflow.step import Unit

__all__ = ["StepFinder", "find_judge", "read_prompt"]


class StepFinder:
    """Finds the steps that gave recorded answers, each once.

    Args:
        target: Where to look; where the run of an answer says it was, unless given.
    """

    def __init__(self, target: str | None) -> None:
        self._target = target
        self._known: dict[tuple[str, str, str], Step[..., Any] | str] = {}
        self._units: dict[str, Unit[..., Any] | str] = {}

    def load(self, answers: Iterable[RecordedAnswer]) -> None:
        """Import what the answers came from, as a module may make a runtime of its own, which is then current."""
        for past in answers:
            if (place := self._target or past.ref) is not None:
                self._unit(place)

    def __call__(self, past: RecordedAnswer) -> Step[..., Any] | str:
        """Return the step of an answer, or why it is not there.

        Raises:
            UsageError: When the target that was named cannot be loaded.
        """
        place = self._target or past.ref
        if place is None:
            return (
                "their run does not say where its code is, as that stands inside of a function; name it with --target"
            )
        known = (place, past.name, past.key.partition("[")[0].partition("@")[0])
        if known not in self._known:
            self._known[known] = self._find(place, past)
        return self._known[known]

    def _find(self, place: str, past: RecordedAnswer) -> Step[..., Any] | str:
        unit = self._unit(place)
        if isinstance(unit, str):
            return unit
        if (step := step_in(unit, past)) is not None:
            return step
        found = find([place]).steps.get(past.name)  # named in the body of a task or of an eager flow
        if found is None:
            return f"{place} has no step {past.name!r}"
        return inheriting(found, unit.policies) if isinstance(unit, Flow) else found

    def _unit(self, place: str) -> Unit[..., Any] | str:
        if place not in self._units:
            try:
                self._units[place] = load_target(place)
            except UsageError as exc:
                if self._target is not None:
                    raise
                self._units[place] = f"{exc}; name it with --target"
        return self._units[place]


def read_prompt(text: str) -> Wording | str:
    """Return the wording of a file, or the label that `--prompt` names."""
    path = Path(text)
    if not path.is_file() and not path.suffix and "/" not in text and "\\" not in text:
        return text
    try:
        return read_wording(path.read_bytes(), path.as_posix())
    except OSError as exc:
        raise UsageError(
            f"--prompt {text}: cannot read the file: {exc.strerror or exc}",
            "A label, such as canary, stands alone, without a folder and an ending.",
        ) from exc


def find_judge(target: str) -> Judge:
    """Return the function or step that `--judge` names.

    Raises:
        UsageError: When there is none.
        DefinitionError: When it does not take what a judge is given.
    """
    place, _, name = target.rpartition(":")
    if not place:
        raise UsageError(f"--judge {target!r} does not say what to take from the module", "Write it as path.py:name.")
    found: Any = getattr(load_module(place), name, None)
    if not callable(found):
        raise UsageError(
            f"--judge {target}: {place} has no function {name!r}",
            "It is called with the inputs by name, the recorded answer and the new one.",
        )
    check_judge(found)
    return found  # type: ignore[no-any-return]
