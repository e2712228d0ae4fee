"""Races of random requests: what is answered, what is recorded, and that nothing is left, on both backends."""

from __future__ import annotations

import asyncio

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmflow import Hedge, ProviderUnavailable, Retry, Runtime, prompt, step
from llmflow.testing._scripted import scripted
from llmflow.testing._time import VirtualLoop

AFTER = 2.0


class Behaviour:
    """What one request does: works so long, then answers or fails, and takes its time to end when it is cancelled."""

    def __init__(self, seconds, fails, lingers, ends_badly):
        self.seconds, self.fails, self.lingers, self.ends_badly = seconds, fails, lingers, ends_badly

    def __repr__(self):
        return f"Behaviour({self.seconds}, {self.fails}, {self.lingers}, {self.ends_badly})"


class World:
    """A model whose n-th request behaves as the n-th entry says; knows who is under way."""

    def __init__(self, behaviours):
        self.behaviours = behaviours
        self.model = scripted(default=self.answer, name="scripted/world")
        self.running = set()
        self.answered = []

    async def answer(self, request):
        number = len(self.model.requests) - 1
        behaviour = self.behaviours[number]
        self.running.add(number)
        try:
            await anyio.sleep(behaviour.seconds)
            if behaviour.fails:
                raise ProviderUnavailable(f"{number}", status=503)
            self.answered.append(number)
            return str(number)
        except anyio.get_cancelled_exc_class():
            if behaviour.lingers:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(behaviour.lingers)
            if behaviour.ends_badly:
                raise KeyError("while ending") from None
            raise
        finally:
            self.running.remove(number)


_behaviours = st.builds(
    Behaviour,
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0]),
    st.booleans(),
    st.sampled_from([0.0, 0.0, 1.0]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    behaviours=st.lists(_behaviours, min_size=4, max_size=4),
    extra=st.integers(1, 3),
    gives_up=st.none() | st.sampled_from([0.0, 0.5, 2.0, 3.0, 4.0, 4.5, 6.0, 7.0]),
)
def test_law_of_races(behaviours, extra, gives_up):
    """At most 1 + max requests, each recorded, the first answer taken, no task left, and no cancellation lost."""
    for run in (_on_asyncio, _on_trio):
        run(_race, behaviours, extra, gives_up)


async def _race(behaviours, extra, gives_up):
    world = World(behaviours)

    @step(world.model, Hedge(AFTER, max=extra), Retry.off)
    def question(word: str) -> str:
        return prompt(word)

    before = _tasks()
    result = failure = None
    with Runtime(), anyio.CancelScope() as scope:
        scope.deadline = float("inf") if gives_up is None else anyio.current_time() + gives_up
        try:
            result = await question.run("x")
        except ProviderUnavailable as error:
            failure = error
        except KeyError:  # what the model made of the cancellation
            assert scope.cancel_called

    assert set() == world.running
    assert before == _tasks()
    sent = len(world.model.requests)
    assert sent <= 1 + extra
    record = result or failure
    if record is None:
        assert scope.cancel_called
        return
    assert sorted(range(1, sent + 1)) == sorted(one.number for one in record.attempts)
    assert [False] + [True] * (sent - 1) == [one.hedge for one in sorted(record.attempts, key=lambda one: one.number)]
    ends = _ends(behaviours, sent)
    if result is not None:
        earliest = min(end for end, fails in ends if not fails)
        assert earliest == ends[int(result.value)][0]
        assert int(result.value) in world.answered
    else:
        assert all(fails for _, fails in ends)
        assert "0" == failure.message


def _ends(behaviours, sent):
    """When each request would have ended by itself, and whether badly."""
    return [(AFTER * number + one.seconds, one.fails) for number, one in enumerate(behaviours[:sent])]


def _tasks():
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


def _on_asyncio(main, *args):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main(*args))


def _on_trio(main, *args):
    import trio
    import trio.testing

    trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    behaviours=st.lists(_behaviours, min_size=2, max_size=2),
    cancelled_at=st.sampled_from([0.5, 2.0, 3.0, 3.5, 4.0, 5.0, 6.0]),
)
def test_law_of_asyncio_s_own_cancellation(behaviours, cancelled_at):
    """`Task.cancel()` and `asyncio.timeout` come once and are not repeated: ours is told from theirs by the count."""
    for way in (_by_cancel, _by_timeout):
        world = World(behaviours)

        @step(world.model, Hedge(AFTER), Retry.off, name=way.__name__)
        def question(word: str) -> str:
            return prompt(word)

        async def ask(question=question):
            try:
                return await question("x")
            except (ProviderUnavailable, KeyError) as error:
                return error

        async def main(way=way, world=world, ask=ask):
            outcome = await way(ask, cancelled_at)
            assert set() == world.running
            assert 1 == len(asyncio.all_tasks())
            ended = min(end for end, _ in _ends(world.behaviours, len(world.model.requests)))
            if ended > cancelled_at and not any(one.ends_badly or one.lingers for one in behaviours):
                assert "cancelled" == outcome

        with Runtime():
            _on_asyncio(main)


async def _by_cancel(ask, seconds):
    task = asyncio.get_running_loop().create_task(ask())
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        outcome = await task
    except asyncio.CancelledError:
        return "cancelled"
    return outcome


async def _by_timeout(ask, seconds):
    try:
        async with asyncio.timeout(seconds):
            outcome = await ask()
    except TimeoutError:
        outcome = "cancelled"
    assert 0 == asyncio.current_task().cancelling()
    return outcome
