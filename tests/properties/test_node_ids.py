"""Laws of taking up: places in a run do not depend on time, and a run that breaks anywhere ends as if it had not.

The programs are those of test_traced_equals_eager, with tasks that take a random number of turns of the loop.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmflow.runtime import Runtime

from .test_traced_equals_eager import load, programs

laws = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
kinds = pytest.mark.parametrize("kind", ["traced", "eager"])


class Stopped(BaseException):
    """The power fails; nobody's `except Exception` helps."""


class Turns:
    """What every task does first."""

    def __init__(self, seed: int, stop: int = 10**9) -> None:
        self.random = Random(seed)
        self.left = stop
        self.started: Counter[str] = Counter()

    async def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped
        self.started[name] += 1
        for _ in range(self.random.randrange(6)):
            await checkpoint()


def slowed(source: str) -> dict[str, Any]:
    """Run a program whose tasks wait for `TURN` first."""
    slow = re.sub(r"@task\ndef (\w+)(.*)\n", r"@task\nasync def \1\2\n    await TURN('\1')\n", source)
    assert "await TURN" in slow
    # The one of typing has no fields for pydantic before Python 3.12.
    slow = slow.replace("NamedTuple, TypedDict\n", "NamedTuple\nfrom typing_extensions import TypedDict\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(slow)


async def nodes_of(names: dict[str, Any], kind: str, seed: int) -> set[tuple[Any, ...]]:
    names["TURN"] = Turns(seed)
    async with Runtime(seed=1) as runtime:
        await names[kind].with_(run_id="a")(3, "a")
        with runtime.journal.reading() as connection:  # type: ignore[attr-defined]  # the one in memory
            return set(connection.execute("SELECT key, name, kind, status, input_hash, output FROM nodes"))


@kinds
@laws
@given(source=programs(), seeds=st.tuples(st.integers(), st.integers()))
def test_places_do_not_depend_on_time(kind: str, source: str, seeds: tuple[int, int]) -> None:
    """The same keys with the same inputs, outputs and kinds, whatever waits for whatever."""
    names = slowed(source)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*reaches no step")
        first, second = (anyio.run(nodes_of, names, kind, seed) for seed in seeds)

    assert first == second


async def broken_anywhere(names: dict[str, Any], kind: str, seed: int, stop: int) -> None:
    names["TURN"] = whole = Turns(seed)
    async with Runtime(seed=1):
        expected = await names[kind](3, "a")
    async with Runtime(seed=1) as runtime:
        names["TURN"] = first = Turns(seed, stop % (whole.started.total() + 1))
        try:
            assert expected == await names[kind].with_(run_id="a")(3, "a")
            return
        except BaseException as exc:
            assert "Stopped" in repr(exc)  # noqa: PT017  # it may be in a group, and nothing else may be
        with runtime.journal.reading() as connection:  # type: ignore[attr-defined]  # the one in memory
            done = connection.execute("SELECT count(*) FROM nodes WHERE status = 'ok' AND kind = 'task'").fetchone()[0]
        names["TURN"] = second = Turns(seed + 1)

        assert expected == await names[kind].with_(run_id="a")(3, "a")
    # What failed as it always does is tried again, unless its fallback was taken.
    assert done + second.started.total() - second.started["fragile"] <= whole.started.total()
    assert first.started.total() - done <= whole.started.total()


@kinds
@laws
@given(source=programs(), seed=st.integers(), stop=st.integers(0, 100))
def test_a_run_that_breaks_anywhere_ends_as_if_it_had_not(kind: str, source: str, seed: int, stop: int) -> None:
    """The value is the same, and what was done is not done again."""
    names = slowed(source)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*reaches no step")
        anyio.run(broken_anywhere, names, kind, seed, stop)
