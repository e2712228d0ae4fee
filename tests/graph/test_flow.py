"""What a flow is: defined once, built once, run many times, and what it says when it is written wrongly."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any, ClassVar

import anyio
import pytest

from llmflow.context import frame
from llmflow.errors import DeadlineExceeded, DefinitionError
from llmflow.graph import Constant, Flow, flow, gather, or_else, switch, task, when
from llmflow.messages import Reply, Usage
from llmflow.models import Model
from llmflow.policies import Cache
from llmflow.policy import Band, Options
from llmflow.prices import Price
from llmflow.prompts import prompt
from llmflow.runtime import Runtime
from llmflow.step import step

Load = Callable[[str], ModuleType]


@dataclass(frozen=True, slots=True)
class Within(Options):
    """A deadline as any plugin could write one."""

    band: ClassVar[Band] = Band.DEADLINE
    stacking = "all"
    seconds: float = 1.0

    def wrap(self, proceed: Any, site: Any, /) -> Any:  # noqa: ARG002
        return proceed


@dataclass(frozen=True, slots=True)
class Marked(Options):
    """A setting that does nothing."""

    band: ClassVar[Band] = Band.OBSERVE

    def wrap(self, proceed: Any, site: Any, /) -> Any:  # noqa: ARG002
        return proceed


@task
def double(number: int) -> int:
    return 2 * number


@flow
async def doubled_twice(number: int) -> int:
    return await double(await double(number))


# -- definition --------------------------------------------------------------------------------------------------------


def test_bare_and_called_decorators_make_flows() -> None:
    """`@flow`, `@flow()` and `@flow(policy, name=...)` all work."""

    async def body(number: int) -> int:
        return await double(number)

    assert [Flow, Flow, Flow] == [type(one) for one in (flow(body), flow()(body), flow(Marked(), name="x")(body))]
    assert flow(Marked(), name="x")(body).name == "x"


def test_a_plain_function_is_refused() -> None:
    """A flow awaits, so it is an `async def`."""

    def body(number: int) -> int:
        return number

    with pytest.raises(DefinitionError, match="must be an `async def`"):
        flow(body)  # type: ignore[arg-type]


def test_a_missing_return_annotation_is_refused() -> None:
    """What a flow returns is part of its contract."""

    async def body(number: int):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return number

    with pytest.raises(DefinitionError, match="no return annotation"):
        flow(body)


def test_a_policy_class_is_refused_with_what_to_write() -> None:
    """Policies are checked where they are written."""
    with pytest.raises(DefinitionError, match=r"write Marked\(\)"):
        flow(Marked)(doubled_twice.function)  # type: ignore[call-overload]  # what a checker refuses too


# -- building ----------------------------------------------------------------------------------------------------------


def test_the_body_runs_once_to_be_built(load: Load, runtime: Runtime) -> None:  # noqa: ARG001
    """However often and from wherever the flow is called."""
    module = load(
        "runs = []\n@flow\nasync def subject(text: str) -> str:\n    runs.append(1)\n    return await label(text)\n"
    )
    threads = [threading.Thread(target=module.subject.graph) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    module.subject.sync("a")

    assert [1] == module.runs


def test_a_failed_trace_is_not_kept(load: Load) -> None:
    """A body that can be built later is."""
    module = load(
        "ready = []\n@flow\nasync def subject(text: str) -> str:\n"
        "    if not ready:\n        raise ValueError('not yet')\n    return await label(text)\n"
    )
    with pytest.raises(ValueError, match="not yet") as caught:
        module.subject.graph()
    module.ready.append(1)

    assert "while flow 'subject' was being built" in caught.value.__notes__[0]
    assert len(module.subject.graph().nodes) == 1


def test_without_source_it_says_so() -> None:
    """In a REPL or exec() the body cannot be checked, so the flow says eager=True."""
    names: dict[str, Any] = {"flow": flow, "double": double}
    exec("@flow\nasync def subject(number: int) -> int:\n    return await double(number)\n", names)  # noqa: S102

    with pytest.raises(DefinitionError, match=r"source cannot be read.*eager=True"):
        names["subject"].graph()


def test_jupyter_cells_have_source(runtime: Runtime) -> None:  # noqa: ARG001
    """IPython puts the text of its cells where Python looks for source."""
    import linecache  # noqa: PLC0415

    text = "@flow\nasync def subject(number: int) -> int:\n    return await double(number)\n"
    linecache.cache["<ipython-input-1>"] = (len(text), None, text.splitlines(keepends=True), "<ipython-input-1>")
    names: dict[str, Any] = {"flow": flow, "double": double, "__name__": "__main__"}
    exec(compile(text, "<ipython-input-1>", "exec"), names)  # noqa: S102

    assert names["subject"].sync(3) == 6


def test_an_eager_flow_has_no_graph() -> None:
    """There is nothing to draw before it runs."""

    @flow(eager=True)
    async def subject(number: int) -> int:
        return await double(number)

    with pytest.raises(DefinitionError, match="is eager"):
        subject.graph()


def test_a_flow_that_reaches_itself_lists_the_path(load: Load) -> None:
    """Row 78: the call path is in the message, also when the body swallows the error."""
    module = load(
        "@flow\nasync def first(text: str) -> str:\n    return await second(text)\n"
        "@flow\nasync def second(text: str) -> str:\n    return await third(text)\n"
        "@flow\nasync def third(text: str) -> str:\n    return await first(text)\n"
    )

    with pytest.raises(DefinitionError, match="first -> second -> third -> first"):
        module.first.graph()
    with pytest.raises(DefinitionError, match="second -> third -> first -> second"):
        module.second.graph()


def test_an_eager_flow_may_reach_itself(load: Load, runtime: Runtime) -> None:  # noqa: ARG001
    """Recursion ends where real values decide."""
    module = load(
        "@flow(eager=True)\nasync def down(number: int) -> int:\n    return number if number <= 0 else await down(number - 1)\n"
    )

    assert module.down.sync(3) == 0


def test_an_unused_parameter_warns(load: Load) -> None:
    """Row 80: a parameter that reaches no step is probably a mistake."""
    module = load("@flow\nasync def subject(text: str, other: int) -> str:\n    return await label(text)\n")

    with pytest.warns(UserWarning, match="parameter 'other' reaches no step"):
        module.subject.graph()


def test_two_functions_of_one_name_are_refused_with_both_origins(load: Load) -> None:
    """Row 83: records and plans could not tell them apart."""
    module = load(
        "first = label\n@task(name='label')\ndef other(text: str) -> str:\n    return text\n"
        "@flow\nasync def subject(text: str) -> str:\n    return await other(await first(text))\n"
    )

    with pytest.raises(DefinitionError, match=rf"{module.__name__}:\d+ and task at {module.__name__}:\d+"):
        module.subject.graph()


def test_one_function_with_other_policies_keeps_its_name(load: Load) -> None:
    """`with_` and `partial` make copies of the same function."""
    module = load("@flow\nasync def subject(text: str) -> str:\n    return await label.with_()(await label(text))\n")

    assert ["subject/label", "subject/label#2"] == [node.key for node in module.subject.graph().nodes]


def test_a_stored_placeholder_is_refused_later(load: Load) -> None:
    """Outside of its body a placeholder means nothing."""
    module = load(
        "kept = []\n@flow\nasync def subject(text: str) -> str:\n    kept.append(text)\n    return await label(text)\n"
    )
    module.subject.graph()

    with pytest.raises(DefinitionError, match="means nothing outside of its body"):
        str(module.kept[0])


@pytest.mark.parametrize("use", ["await label(kept[0])", "await echo([kept[0]])", "kept[0]", "kept[0][0]"])
def test_a_placeholder_of_another_flow_is_refused(load: Load, use: str) -> None:
    """Row 80: both flows are named."""
    module = load(
        "kept = []\n@flow\nasync def other(text: str) -> str:\n    kept.append(text)\n    return await label(text)\n"
        f"@flow\nasync def subject(text: str) -> Any:\n    await other(text)\n    return {use}\n"
    )

    with pytest.raises(DefinitionError, match=r"flow 'subject'.*belongs to flow 'other'"):
        module.subject.graph()


def test_what_the_body_computes_is_listed(load: Load) -> None:
    """Constants passed to calls are the same in every run, and the graph says which there are."""
    module = load(
        "@flow\nasync def subject(text: str) -> Any:\n    a = await join(text, str(LIMIT))\n"
        "    await label.map(['x'])\n    return await inner(a)\n"
        "@flow\nasync def inner(text: str) -> str:\n    return await join(text, 'z')\n"
    )

    assert (("subject/join.right", "3"), ("subject/label.items", ["x"]), ("subject/inner/join.right", "z")) == (
        module.subject.graph().constants
    )


def test_keys_and_locations_are_deterministic(load: Load) -> None:
    """A node is known by the path of flows, the unit's name and its occurrence."""
    source = (
        "@flow\nasync def inner(text: str) -> str:\n    return await label(await label(text))\n"
        "@flow\nasync def subject(text: str) -> Any:\n    a = await inner(text)\n    b = await inner(a)\n"
        "    return await when(await kind_is_bug(text), label(b), inner(b))\n"
        "@task\ndef kind_is_bug(text: str) -> bool:\n    return text == 'bug'\n"
    )
    module, again = load(source), load(source)
    keys = [node.key for node in module.subject.graph().walk()]

    assert [
        "subject/inner/label",
        "subject/inner/label#2",
        "subject/inner#2/label",
        "subject/inner#2/label#2",
        "subject/kind_is_bug",
        "subject/when",
        "subject/label",
        "subject/inner#3",
    ] == keys
    assert keys == [node.key for node in again.subject.graph().walk()]
    assert all(node.location.startswith(f"{module.__file__}:") for node in module.subject.graph().walk())


# -- flows inside ------------------------------------------------------------------------------------------------------


def test_an_inlined_flow_keeps_its_policies() -> None:
    """Its nodes stand in its scope, inside the scope of the flow around."""

    @flow(Marked())
    async def inside(number: int) -> int:
        return await double(number)

    @flow
    async def around(number: int) -> int:
        return await double(await inside(number))

    first, second = around.graph().nodes

    assert [("inside", (Marked(),)), ("around", ())] == [(one.flow, one.policies) for one in first.scope.path()]
    assert [("around", ())] == [(one.flow, one.policies) for one in second.scope.path()]


@pytest.mark.parametrize("adjust", [lambda one: one.with_(Within()), lambda one: one.with_(run_id="x")])
def test_a_flow_with_a_start_of_its_own_stays_one_node(adjust: Callable[[Any], Any]) -> None:
    """A deadline or a run id needs the flow to begin and end."""
    unit = adjust(doubled_twice)

    @flow
    async def around(number: int) -> int:
        return await unit(number)

    (node,) = around.graph().nodes

    assert unit is node.unit


def test_other_policies_share_the_trace() -> None:
    """`with_` builds no second graph, only other scopes."""
    built = doubled_twice.graph()
    adjusted = doubled_twice.with_(Marked())

    assert doubled_twice.with_(run_id="x").graph() is built
    assert [(Marked(),)] * 2 == [node.scope.policies for node in adjusted.graph().nodes]
    assert adjusted.graph() is adjusted.graph()


def test_partial_fixes_a_parameter(runtime: Runtime) -> None:  # noqa: ARG001
    """The graph is the same; the value is given at every call."""

    @flow
    async def subject(number: int, times: int) -> list[int]:
        return [await double(number), await double(times)]

    assert [2, 20] == subject.partial(times=10).sync(1)
    assert [10, 2] == subject.partial(number=5).sync(times=1)


def test_an_eager_flow_may_be_a_method(runtime: Runtime) -> None:  # noqa: ARG001
    """`self` is an ordinary value in it."""

    class Service:
        factor = 3

        @flow(eager=True)
        async def scaled(self, number: int) -> int:
            return self.factor * await double(number)

    assert Service().scaled.sync(2) == 12
    assert isinstance(Service.scaled, Flow)


# -- running -----------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.anyio

VIRTUAL_TIME = pytest.mark.parametrize(
    "anyio_backend", ["asyncio on virtual time", "trio on virtual time"], indirect=True
)
"""For limits that must not be over before what they limit has begun, however long the machine stands still."""


@VIRTUAL_TIME
@pytest.mark.parametrize("eager", [False, True])
async def test_a_deadline_acts_on_the_whole_run(eager: bool) -> None:  # noqa: FBT001
    """However many steps there are, the flow ends when its time is up, and what ran is cancelled."""
    ended: list[str] = []

    @task
    async def slow(number: int) -> int:
        try:
            await anyio.sleep(30)
        finally:
            ended.append("cancelled")
        return number

    @flow(Within(seconds=0.05), eager=eager)
    async def subject(number: int) -> int:
        return await slow(number)

    async with Runtime():
        with pytest.raises(DeadlineExceeded, match="not finished within 0.05 s") as caught:
            await subject.run(1)

    assert ("subject", True) == (caught.value.step, bool(caught.value.run_id))
    assert ["cancelled"] == ended


async def test_a_nested_deadline_is_the_earlier_one() -> None:
    """A flow inside may be given less time, never more."""
    seen: list[float] = []

    @task
    async def look(number: int) -> int:
        around = frame.get()
        assert around is not None
        seen.append(around.deadline)
        return number

    @flow(Within(seconds=1000))
    async def inside(number: int) -> int:
        return await look(number)

    @flow(Within(seconds=10))
    async def around_it(number: int) -> int:
        return await inside(number)

    async with Runtime() as runtime:
        await around_it(1)
        now = runtime.clock.monotonic()

    assert now < seen[0] <= now + 10


async def test_a_result_sums_up_its_steps() -> None:
    """Usage and cost of a flow are those of its steps, and each step's record is in `calls`."""

    async def answer(_: object) -> Reply:
        return Reply(text="hello", usage=Usage(input_tokens=10, output_tokens=5))

    @step
    def ask(text: str) -> str:
        return prompt(text)

    @flow
    async def subject(text: str) -> list[str]:
        return list(await gather(ask(text), ask("b")))

    model = Model("fake/one", handler=answer, price=Price(input=1, output=2))
    async with Runtime(default_model=model):
        result = await subject.run("a")

    assert ["hello", "hello"] == result.value
    assert Usage(input_tokens=20, output_tokens=10) == result.usage
    assert ["ask", "ask"] == [one.step for one in result.calls]
    assert len(result.attempts) == 2
    assert sum(one.cost_usd or 0 for one in result.calls) == result.cost_usd
    assert {result.run_id} == {one.run_id for one in result.calls}


# -- operations outside of any trace -----------------------------------------------------------------------------------


@task
async def boom(text: str) -> str:
    raise ValueError(text)


async def test_gather_raises_the_first_failure_as_itself() -> None:
    """Siblings are cancelled and awaited, and what they still raise is in `.others`."""
    log: list[str] = []

    @task
    async def stubborn(text: str) -> str:
        try:
            await anyio.sleep(30)
        finally:
            log.append("ended")
            raise KeyError(text)  # noqa: B012

    async with Runtime():
        with pytest.raises(ValueError, match="first") as caught:
            await gather(boom("first"), stubborn("later"))

    assert ["ended"] == log
    assert [KeyError] == [type(one) for one in caught.value.others]  # type: ignore[attr-defined]


async def test_the_branch_that_is_not_chosen_never_starts() -> None:
    """And nobody is told it was forgotten."""
    async with Runtime():
        assert await when(True, double(1), boom("never")) == 2
        assert await switch("a", {"a": double(2), "b": boom("never")}) == 4
        assert await switch("z", {"a": boom("never")}, double(3)) == 6
        assert await or_else(double(4), boom("never")) == 8
        assert await or_else(boom("x"), double(5), on=ValueError) == 10


async def test_a_switch_over_a_bool_covers_both_at_run_time() -> None:
    """The same rule as in a graph, as soon as the type is known."""
    async with Runtime():
        with pytest.raises(DefinitionError, match="does not cover False"):
            await switch(True, {True: double(1)})
        with pytest.raises(DefinitionError, match="none of 'a'"):
            await switch("b", {"a": double(1)})


async def test_or_else_lets_other_errors_pass() -> None:
    """Only what was named is caught; by default, failures of steps."""
    async with Runtime():
        with pytest.raises(ValueError, match="mine"):
            await or_else(boom("mine"), "value")


async def test_operations_are_coroutines() -> None:
    """Task groups take them as they take any coroutine."""
    values: list[int] = []

    async def keep(call: Any) -> None:
        values.append(await call)

    async with Runtime(), anyio.create_task_group() as group:
        group.start_soon(keep, when(True, double(1), double(2)))

    assert [2] == values


def test_an_operation_nobody_awaits_warns_once() -> None:
    """The calls in it were taken over, so there is one warning and not three."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        when(True, double(1), double(2))

    assert ["coroutine 'when' was never awaited"] == [str(one.message) for one in caught]


def test_the_condition_of_a_constant_branch_is_decided_when_built() -> None:
    """Only the chosen call is in the graph."""

    @flow
    async def subject(number: int) -> int:
        return await when(False, boom_number(number), double(number))

    @task
    async def boom_number(number: int) -> int:
        return number

    assert ["double"] == [node.name for node in subject.graph().nodes]
    assert Constant(1) != subject.graph().result


async def test_a_flow_says_what_its_kept_answers_saved():
    """What the steps inside did not have to ask again is added up; without a kept answer nothing is said."""

    async def answer(request):
        return Reply(text="ok", usage=Usage(input_tokens=1000, output_tokens=500))

    @step(Model("my/model", handler=answer, price=Price(input=1, output=2)), Cache("1h"))
    def ask(word: str) -> str:
        return prompt(word)

    @flow
    async def both(word: str) -> tuple[str, str]:
        return await gather(ask(word), ask("always"))

    with Runtime():
        first, second = await both.run("x"), await both.run("x")

    assert (None, Decimal("0.004")) == (first.saved_usd, second.saved_usd)
