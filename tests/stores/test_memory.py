"""`memory://`: bounded, and on a clock that never goes back."""

from __future__ import annotations

import pytest

from llmflow.stores._memory import MemoryCache

pytestmark = pytest.mark.anyio


class Now:
    def __init__(self):
        self.value = 100.0

    def __call__(self):
        return self.value


@pytest.fixture
def now():
    return Now()


async def test_an_entry_is_there_for_its_seconds(now):
    """With its age; afterwards it is gone."""
    store = MemoryCache(now)
    await store.put("k", b"{}", seconds=10)
    now.value += 9

    assert (b"{}", 9.0) == await store.get("k")
    now.value += 1
    assert None is await store.get("k")
    assert {"entries": 0} == dict(store.state().values)


async def test_a_clock_that_went_back_gives_nothing(now):
    """An age that is not known is no age."""
    store = MemoryCache(now)
    await store.put("k", b"{}", seconds=10)
    now.value -= 1

    assert None is await store.get("k")


async def test_the_number_of_entries_is_bounded(now):
    """K6: what was used longest ago goes first."""
    store = MemoryCache(now, entries=3, size=3000)
    for key in "abc":
        await store.put(key, b"{}", seconds=10)
    await store.get("a")
    await store.put("d", b"{}", seconds=10)

    assert [True, False, True, True] == [await store.get(key) is not None for key in "abcd"]


async def test_the_bytes_are_bounded(now):
    """K6: a few large entries take the room of many; one larger than everything is not kept."""
    store = MemoryCache(now, entries=1000, size=1000)
    for key in "abc":
        await store.put(key, b"x" * 400, seconds=10)
    await store.put("d", b"x" * 1001, seconds=10)

    assert [False, True, True, False] == [await store.get(key) is not None for key in "abcd"]


async def test_there_is_always_a_bound():
    """K6: without anybody saying so."""
    assert MemoryCache(lambda: 0.0)._kept.maxsize > 0
