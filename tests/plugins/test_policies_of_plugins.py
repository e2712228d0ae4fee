"""The policies that plugins contribute: where they stand, who goes before whom, whose fault a failure is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import (
    Band,
    DefinitionError,
    Model,
    PluginCallError,
    PluginError,
    ProviderUnavailable,
    Repair,
    Request,
    Retry,
    Runtime,
    Step,
    StepError,
    Timeout,
    flow,
    hookimpl,
    plan,
    prompt,
    step,
)
from llmflow.policy import Declared, resolve
from llmflow.testing._scripted import scripted

from .conftest import SitePackages


async def _never(request: Request) -> str:
    raise AssertionError(f"asked {request.messages}")


SILENT = Model("fake/silent", handler=_never)
BANDS = [getattr(Band, name) for name in vars(Band) if name.isupper()]


@dataclass(frozen=True)
class Mark:
    """A request policy that writes its name into what is sent."""

    name: str
    band: ClassVar[Band] = Band.before(Band.RETRY)

    def wrap(self, proceed: Any, site: Any, /) -> Any:
        async def mark(request: Request) -> Any:
            first, *others = request.messages
            return await proceed(
                replace(request, messages=(replace(first, content=f"{first.content} {self.name}"), *others))
            )

        return mark


class Contributing:
    """A plugin that contributes these policies to every step."""

    def __init__(self, *policies: object) -> None:
        self.policies = policies

    @hookimpl
    def llmflow_policies(self, step: str) -> tuple[object, ...]:
        return self.policies


def asking(*policies: Any, model: Any = SILENT) -> Step[[], str]:
    """Return a step with these policies."""

    @step(model, *policies, name="question")
    def question() -> str:
        return prompt("Well?")

    return question


def layers(target: Any, band: str = "RETRY") -> list[tuple[str, str]]:
    """Return the policies that a plan shows in one band of its last node, and who supplied each."""
    return [(one.policy, one.source) for one in plan(target).nodes[-1].layers if one.band == band]


# -- precedence --------------------------------------------------------------------------------------------------------


def test_the_step_goes_before_all_others() -> None:
    """step > flow > runtime > plugin > default, one at a time taken away."""

    def inside(inner: Step[[], str], *policies: Any) -> Any:
        @flow(*policies, name="around")
        async def around() -> str:
            return await inner()

        return around

    from_plugin = Contributing(Retry(5))
    with Runtime(policies=[Retry(6)], plugins=[from_plugin]):
        assert [("Retry(attempts=8)", "step:question")] == layers(inside(asking(Retry(8)), Retry(7)))
        assert [("Retry(attempts=7)", "flow:around")] == layers(inside(asking(), Retry(7)))
        assert [("Retry(attempts=6)", "runtime")] == layers(inside(asking()))
    with Runtime(plugins=[from_plugin]):
        assert [("Retry(attempts=5)", "plugin:Contributing")] == layers(inside(asking()))
    with Runtime():
        assert [("Retry(attempts=3)", "default")] == layers(inside(asking()))


@pytest.mark.parametrize("level", ["step", "runtime", "plugin"])
def test_off_takes_out_what_farther_levels_declare(level: str) -> None:
    """`Retry.off` leaves no Retry at all, wherever it is said, unless something nearer declares one."""
    by_step = [Retry.off] if level == "step" else []
    by_runtime = [Retry.off] if level == "runtime" else []
    by_plugin = Contributing(Retry.off if level == "plugin" else Retry(5))
    with Runtime(policies=by_runtime, plugins=[by_plugin]):
        assert [] == layers(asking(*by_step))
        assert [("Retry(attempts=8)", "step:question")] == layers(asking(Retry(8)))


def test_a_plugin_s_limit_adds_to_the_others() -> None:
    """Of a limit every declaration applies: a plugin's deadline stands beside the author's."""
    from llmflow import Deadline  # noqa: PLC0415  # the only test that needs it

    with Runtime(plugins=[Contributing(Deadline(50))]):
        shown = layers(asking(Deadline(10)), "DEADLINE")

    assert {("Deadline(seconds=10)", "step:question"), ("Deadline(seconds=50)", "plugin:Contributing")} == set(shown)


def test_two_plugins_settings_of_one_kind_do_not_multiply() -> None:
    """Whoever of them wins, a request is retried by one Retry, never by two around each other."""
    with Runtime(plugins=[Contributing(Retry(5)), Contributing(Retry(6))]):
        assert 1 == len(layers(asking()))


# -- bands -------------------------------------------------------------------------------------------------------------


def test_bands_are_in_the_order_of_the_onions() -> None:
    """The order that the documentation states is the order in which they compare."""
    expected = "OBSERVE DEADLINE FALLBACK CACHE REPAIR RETRY HEDGE BREAKER BUDGET RATE BULKHEAD TIMEOUT".split()

    assert expected == [band.name for band in sorted(BANDS)]


@pytest.mark.parametrize(("outer", "inner"), list(pairwise(sorted(BANDS))), ids=lambda band: band.name)
def test_before_and_after_are_just_outside_and_just_inside(outer: Band, inner: Band) -> None:
    """`after(outer)` and `before(inner)` both lie between two neighbours, in this order."""
    assert Band.before(outer) < outer < Band.after(outer) < Band.before(inner) < inner


@given(st.lists(st.tuples(st.sampled_from(BANDS), st.sampled_from([-1, 0, 1]), st.text(max_size=3)), max_size=12))
def test_the_order_is_total(places: list[tuple[Band, int, str]]) -> None:
    """However policies are declared, the chain is sorted by band, and within a band by distribution."""

    def declared(band: Band, shift: int, plugin: str) -> Declared:
        moved = {-1: Band.before, 0: lambda same: same, 1: Band.after}[shift](band)
        kind = type("One", (), {"band": moved, "wrap": lambda self, proceed, site: proceed})
        return Declared(kind(), f"plugin:{plugin}", plugin)

    given_policies = [declared(*place) for place in places]
    one_way = [(one.band, one.plugin) for one in resolve([given_policies])]
    other_way = [(one.band, one.plugin) for one in resolve([given_policies[::-1]])]

    assert sorted((one.band, one.plugin) for one in given_policies) == one_way == other_way


MARKER = """
from dataclasses import dataclass, replace
from typing import ClassVar

from llmflow import Band, hookimpl

@dataclass(frozen=True)
class Mark:
    band: ClassVar[Band] = Band.before(Band.RETRY)

    def wrap(self, proceed, site, /):
        async def mark(request):
            first, *others = request.messages
            return await proceed(replace(request, messages=(replace(first, content=first.content + " {name}"), *others)))
        return mark

@hookimpl
def llmflow_policies(step):
    return [Mark()]
"""


@pytest.mark.anyio
async def test_ties_are_decided_by_the_distribution(site_packages: SitePackages) -> None:
    """Two plugins in one band: the one whose distribution comes first in the alphabet is outermost, whatever its entry point."""
    site_packages.install("beta", MARKER.format(name="beta"), entry="a")
    site_packages.install("alpha", MARKER.format(name="alpha"), entry="b")
    model = scripted("fine")
    with Runtime():
        await asking(model=model)()
        shown = layers(asking(), "before RETRY")

    assert ["plugin:alpha 1.0", "plugin:beta 1.0"] == [source for _, source in shown]
    assert "Well? alpha beta" == model.requests[0].messages[0].content


@pytest.mark.anyio
async def test_an_author_s_own_policy_is_outside_of_a_plugin_s_in_its_band() -> None:
    """The author's own policies have no distribution and come first in their band."""
    model = scripted("fine")
    with Runtime(plugins=[Contributing(_other_mark("plugin"))]):
        await asking(Mark("step"), model=model)()

    assert "Well? step plugin" == model.requests[0].messages[0].content


def _other_mark(name: str) -> object:
    """Return a Mark of another class, as of one class the nearest declaration alone would act."""
    return type("OtherMark", (Mark,), {})(name)


# -- plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_says_who_supplied_each_layer(site_packages: SitePackages) -> None:
    """Every policy of a chain stands in the plan with its source, in the order in which it acts."""
    site_packages.install("acme-marker", MARKER.format(name="acme"), version="2.3")
    with Runtime(policies=[Timeout(9)]):
        (node,) = plan(asking(Retry(4))).nodes
    shown = [(one.band, one.source) for one in node.layers if one.source]

    assert [
        ("DEADLINE", "default"),
        ("REPAIR", "default"),
        ("before RETRY", "plugin:acme-marker 2.3"),
        ("RETRY", "step:question"),
        ("BULKHEAD", "default"),
        ("TIMEOUT", "runtime"),
    ] == shown


# -- failures ----------------------------------------------------------------------------------------------------------

FAILING = """
from dataclasses import dataclass
from typing import ClassVar

from llmflow import Band, hookimpl

@dataclass(frozen=True)
class Careless:
    band: ClassVar[Band] = Band.{band}

    def wrap(self, proceed, site, /):
        async def careless(message):
            if {after}:
                await proceed(message)
            raise KeyError("colour")
        return careless

@hookimpl
def llmflow_policies(step):
    return [Careless()]
"""


@pytest.mark.anyio
@pytest.mark.parametrize("band", ["OBSERVE", "REPAIR", "RETRY", "TIMEOUT"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_policy_that_fails_fails_the_call_in_its_plugin_s_name(
    site_packages: SitePackages, band: str, after: bool
) -> None:
    """What a plugin's policy raises leaves as an error that names step, policy and distribution, in every band."""
    site_packages.install("acme-careless", FAILING.format(band=band, after=after))
    with (
        Runtime(),
        pytest.raises(PluginCallError, match=r"step 'question'.*Careless.*'acme-careless'.*colour") as raised,
    ):
        await asking(Repair.off, model=scripted("fine"))()

    assert "acme-careless" == raised.value.plugin
    assert isinstance(raised.value.__cause__, KeyError)
    assert isinstance(raised.value, StepError)
    assert isinstance(raised.value, PluginError)
    assert "question" == raised.value.step


@pytest.mark.anyio
async def test_what_comes_from_further_in_is_not_the_plugin_s_fault(site_packages: SitePackages) -> None:
    """A failure of the provider, or of the author's own handler, passes a plugin's policy unchanged."""
    site_packages.install("acme-marker", MARKER.format(name="acme"))
    with Runtime():
        with pytest.raises(ProviderUnavailable):
            await asking(Retry.off, model=scripted(ProviderUnavailable("down")))()
        with pytest.raises(ZeroDivisionError):
            await asking(model=scripted(ZeroDivisionError("mine")))()


def test_a_policy_that_returns_nothing_is_refused_when_the_step_is_bound(site_packages: SitePackages) -> None:
    """`wrap` without a `return` is found before the first request, with the policy and the plugin in the message."""
    site_packages.install("acme-empty", FAILING.replace("return careless", "pass").format(band="RETRY", after=False))
    with Runtime(), pytest.raises(DefinitionError, match=r"Careless.*acme-empty.*wrap\(\) returned None"):
        plan(asking())


@pytest.mark.anyio
async def test_a_listener_that_fails_breaks_no_call(
    site_packages: SitePackages, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its plugin's name, once, and the others are told all the same."""
    site_packages.install(
        "acme-careless",
        """
        from llmflow import hookimpl

        @hookimpl
        def llmflow_call_finished(event):
            raise KeyError("colour")
        """,
    )
    told: list[object] = []

    class Listener:
        @hookimpl
        def llmflow_call_finished(self, event: object) -> None:
            told.append(event)

    with Runtime(plugins=[Listener()]), caplog.at_level(logging.ERROR, logger="llmflow"):
        for _ in range(3):
            assert "fine" == await asking(model=scripted("fine"))()

    assert 3 == len(told)
    assert ["acme-careless 1.0"] == [_plugin(record) for record in caplog.records]


def _plugin(record: logging.LogRecord) -> str:
    assert isinstance(record.args, tuple)
    return str(record.args[1])


@pytest.mark.anyio
async def test_a_hook_may_leave_out_its_argument() -> None:
    """A listener that only counts need not take the event."""
    count = [0]

    class Counter:
        @hookimpl
        def llmflow_call_finished(self) -> None:
            count[0] += 1

    with Runtime(plugins=[Counter()]):
        await asking(model=scripted("fine"))()

    assert [1] == count


@pytest.mark.anyio
async def test_nothing_is_built_for_hooks_that_nobody_implements() -> None:
    """Where nobody listens, a policy need not make the event."""
    heard: list[tuple[bool, bool]] = []

    class Asking:
        band: ClassVar[Band] = Band.OBSERVE

        def wrap(self, proceed: Callable[..., Any], site: Any, /) -> Callable[..., Any]:
            from llmflow.events import CallFinished, CallStarted  # noqa: PLC0415

            heard.append((site.listens(CallStarted), site.listens(CallFinished)))
            return proceed

    class Listener:
        @hookimpl
        def llmflow_call_started(self, event: object) -> None:
            """Listen."""

    with Runtime():
        await asking(Asking(), model=scripted("fine"))()
    with Runtime(plugins=[Listener()]):
        await asking(Asking(), model=scripted("fine"))()

    assert [False, True] == [started for started, _ in heard]
