"""Binding a step to what it asks with: its own text, that of a file, or several that share out its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llmflow.context import caller
from llmflow.step._bound import BoundStep

if TYPE_CHECKING:
    from llmflow.context import Frame, Scope
    from llmflow.messages import Result
    from llmflow.prompts import Variants
    from llmflow.step._feed import Feed
    from llmflow.step._step import Step

__all__ = ["Arm", "BoundVariants", "bind_step", "steps_of"]


class Arm(NamedTuple):
    """One variant of a bound step.

    Attributes:
        label: What it is called.
        share: What part of the keys it gets, from 0 to 1.
        bound: The step with this variant's wording.
    """

    label: str
    share: float
    bound: BoundStep


class BoundVariants:
    """A step with several wordings in one runtime at one place; each call goes to the one its key falls to.

    The key is the value of the tag that the variants stick to, else the tenant, else the id of the run, so that all
    calls of one run agree.
    """

    __slots__ = ("_bounds", "_variants", "arms", "limit")

    def __init__(self, variants: Variants, arms: tuple[Arm, ...]) -> None:
        self.arms = arms
        self._variants = variants
        self._bounds = tuple(one.bound for one in arms)
        self.limit = max(one.limit for one in self._bounds)

    @property
    def versions(self) -> tuple[str, ...]:
        """The prompt versions its calls may have."""
        return tuple(one.version for one in self._bounds)

    @property
    def prompts(self) -> tuple[tuple[Step[..., Any], str | None], ...]:
        """The steps whose prompts its calls may use, with their labels."""
        return tuple((one.step, one.label) for one in self._bounds)

    async def invoke(self, inputs: dict[str, object], around: Frame, feed: Feed | None = None) -> Result[Any]:
        """Run one call with the wording that its key has."""
        return await self._bounds[self._variants.index(self._key(around))].invoke(inputs, around, feed)

    def _key(self, around: Frame) -> str:
        who, sticky = caller.get(), self._variants.sticky
        value = who.tags.get(sticky) if sticky is not None else None
        if value is None:
            value = who.tenant
        return around.run.id if value is None else str(value)


def steps_of(step: Step[..., Any], runtime: Any) -> dict[str | None, Step[..., Any]]:
    """Return the step as it asks in a runtime, by label: under None when it has no variants.

    Raises:
        DefinitionError: For a label that nobody supplies a prompt for, and a prompt that does not fit the step.
    """
    variants: Variants | None = runtime.wordings.variants(step.name)
    if variants is None:
        return {None: _worded(step, runtime, None)}
    return {label: _variant(step, runtime, label, is_main=label == variants.main) for label in variants.weights}


def _variant(step: Step[..., Any], runtime: Any, label: str, *, is_main: bool) -> Step[..., Any]:
    """Return the step with the prompt of a label; the main one may be written without it, or be the docstring."""
    if runtime.wordings.find(step.name, label) is not None:
        return _worded(step, runtime, label)
    made = _worded(step, runtime, None) if is_main else None
    if made is None or made.lacks_template:
        raise runtime.wordings.missing(step.name, label)
    return made


def _worded(step: Step[..., Any], runtime: Any, label: str | None) -> Step[..., Any]:
    wording = runtime.wordings.find(step.name, label)
    return step if wording is None else step.reworded(wording)


def bind_step(step: Step[..., Any], runtime: Any, scope: Scope | None) -> BoundStep | BoundVariants:
    """Make a step ready for a runtime and a place, with everything that it may ask with there."""
    bounds = {label: BoundStep(one, runtime, scope, label) for label, one in steps_of(step, runtime).items()}
    if len(bounds) == 1:
        return next(iter(bounds.values()))
    variants: Variants = runtime.wordings.variants(step.name)
    arms = tuple(Arm(label, share, bounds[label]) for label, share in variants.shares.items())
    return BoundVariants(variants, arms)
