"""What a step or flow will do, before it does it: its graph, and each step's chain with who supplied each layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from llmflow.graph import Graph
from llmflow.policy import Bounds
from llmflow.runtime._words import bounds_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Layer", "Plan", "PlannedNode", "PlannedVariant"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a chain.

    Attributes:
        band: Where it stands: `RETRY`, `before RETRY`, or `parse` and `provider` for what is not a policy.
        policy: The policy with the options that differ from its defaults.
        source: Who supplied it: `step:triage`, `flow:support`, `runtime`, `plugin:llmflow-redact 0.1.0`, `default`.
    """

    band: str
    policy: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVariant:
    """One of several prompts that share out the calls of a step.

    Attributes:
        share: What part of the keys it gets, from 0 to 1.
        wording: Where its prompt is written, empty for the step's own text.
        params: What a request to the step's first model carries.
    """

    label: str
    share: float
    prompt_version: str
    wording: str = ""
    params: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One step, task or operation of a plan.

    Attributes:
        prompt_version: Version of the prompt; with variants, that of the first.
        wording: Where the prompt is written, empty for the step's own text.
        variants: The prompts that share out the calls of a step; the node's bounds are those of the dearest.
        bounds: What it takes at worst, for one item where it is a map.
        items: How many items a map has, None when that is not known.
    """

    key: str
    kind: str
    name: str
    after: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    output: str = ""
    prompt_version: str | None = None
    location: str = ""
    layers: tuple[Layer, ...] = ()
    branches: tuple[PlannedNode, ...] = ()
    bounds: Bounds = Bounds()  # noqa: RUF009  # frozen
    items: int | None = None
    wording: str = ""
    variants: tuple[PlannedVariant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a target will do. Print it, or walk `nodes`.

    Attributes:
        target: Name of the step, task or flow.
        kind: `step`, `task` or `flow`.
        nodes: In an order in which each comes after what it needs.
        constants: What the flow's body computed while it was traced; it is the same in every run.
        layers: What is kept for the run as a whole, such as a flow's deadline.
        graph: The graph behind the nodes, None for anything but a traced flow.
        bounds: What one call of the target takes at worst, or all calls of a map together.
        items: How many items the target is mapped over, None when it is called once.
        refused: For each step whose requests no budget of its own can ever pay for, which budget that is.
    """

    target: str
    kind: str
    nodes: tuple[PlannedNode, ...]
    constants: tuple[tuple[str, object], ...] = ()
    layers: tuple[Layer, ...] = ()
    graph: Graph | None = field(default=None, repr=False)
    bounds: Bounds = Bounds()  # noqa: RUF009  # frozen
    items: int | None = None
    refused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.kind} {self.target}: {len(self.nodes)} node{'s' if len(self.nodes) != 1 else ''}"
        over = "" if self.items is None else f" for all {self.items:,} items"
        yield f"  at worst: {bounds_in_words(self.bounds)}{over}"
        for why in self.refused:
            yield f"  refused: {why}"
        for note in self.bounds.notes:
            yield f"  note: {note}"
        for layer in self.layers:
            yield f"  {layer.band}  {layer.policy}  {layer.source}, for the whole run"
        for name, value in self.constants:
            yield f"  constant {name} = {value!r}, read once"
        for node in self.nodes:
            yield ""
            yield from _node_lines(
                node, "", said=self.bounds if len(self.nodes) == 1 else Bounds(notes=self.bounds.notes)
            )

    def _repr_html_(self) -> str:
        from llmflow.runtime._plan_html import plan_html  # nobody but a notebook needs it

        return plan_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain dicts, fit for JSON."""
        return {
            "target": self.target,
            "kind": self.kind,
            "bounds": _plain_bounds(self.bounds),
            "items": self.items,
            "refused": list(self.refused),
            "layers": [{one.name: getattr(layer, one.name) for one in fields(layer)} for layer in self.layers],
            "constants": [[name, repr(value)] for name, value in self.constants],
            "nodes": [_plain(node) for node in self.nodes],
        }


def _plain(node: PlannedNode) -> dict[str, Any]:
    plain = {one.name: getattr(node, one.name) for one in fields(node)}
    plain["layers"] = [{one.name: getattr(layer, one.name) for one in fields(layer)} for layer in node.layers]
    plain["bounds"] = _plain_bounds(node.bounds)
    plain["variants"] = [asdict(variant) for variant in node.variants]
    plain["branches"] = [_plain(branch) for branch in node.branches]
    return plain


def _plain_bounds(bounds: Bounds) -> dict[str, Any]:
    return {**asdict(bounds), "usd": None if bounds.usd is None else str(bounds.usd), "notes": list(bounds.notes)}


def _node_lines(node: PlannedNode, indent: str, said: Bounds) -> Iterator[str]:
    head = f"{indent}{node.key}  [{node.kind}]"
    if node.output:
        head += f" -> {node.output}"
    if node.after:
        head += f"  after {', '.join(node.after)}"
    yield head
    if node.models:
        yield f"{indent}  model   {' then '.join(node.models)}"
    if node.wording:
        yield f"{indent}  prompt  {node.wording}"
    yield from (f"{indent}  {line}" for line in _variant_lines(node.variants))
    yield from (f"{indent}  {line}" for line in _bounds_lines(node, said))
    width = max((len(layer.band) for layer in node.layers), default=0)
    longest = max((len(layer.policy) for layer in node.layers), default=0)
    for layer in node.layers:
        yield f"{indent}  {layer.band:<{width}}  {layer.policy:<{longest}}  {layer.source}".rstrip()
    for branch in node.branches:
        yield from _node_lines(branch, indent + "  | ", said)


def _variant_lines(variants: tuple[PlannedVariant, ...]) -> Iterator[str]:
    width = max((len(one.label) for one in variants), default=0)
    for one in variants:
        params = ", ".join(f"{name}={value!r}" for name, value in one.params.items())
        where = one.wording or "the step's own text"
        yield f"variant {one.label:<{width}}  {one.share:>6.1%}  {one.prompt_version}  {where}  ({params})"


def _bounds_lines(node: PlannedNode, said: Bounds) -> Iterator[str]:
    """Yield what a node takes at worst, unless it is said of the whole already, or that it is nothing."""
    bounds = node.bounds
    if bounds == said or (bounds.calls == 0 and not bounds.seconds):
        return
    words = bounds_in_words(bounds)
    if node.kind == "map":
        words += " for each item" if node.items is None else f" for each of {node.items:,} items"
    yield f"at worst: {words}"
    yield from (f"note: {note}" for note in bounds.notes if note not in said.notes)
