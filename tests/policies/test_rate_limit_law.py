"""RateLimit against an exact model: any order of coming, giving up, settling and passing time."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmflow import RateLimited, RateLimitTimeout
from llmflow.errors import ProviderUnavailable
from llmflow.models import Model
from llmflow.policies._rate_limiter import Limiter
from llmflow.runtime import SystemClock
from llmflow.testing._time import VirtualLoop

PER = 4.0
TICK = 0.25  # sums of it are exact, so times can be compared for equality


def make_limiter(requests, tokens):
    return Limiter(
        name=None, model=Model("a/b", handler=print), requests=requests, tokens=tokens, per=PER, clock=SystemClock()
    )


class Taken:
    """One request of the model: when it was let through, what it holds, and whether it was given back."""

    def __init__(self, number, tokens):
        self.number, self.tokens = number, tokens
        self.at = None
        self.counted = True


class Exact:
    """What a rate limit is: a list of what was let through, a line, and nothing clever."""

    def __init__(self, requests, tokens, now):
        self.requests, self.tokens, self.now = requests, tokens, now
        self.log, self.line, self.closed_until = [], [], now

    def held(self):
        return [one for one in self.log if one.counted and one.at + PER > self.now]

    def pump(self):
        while self.line and self.now >= self.closed_until:
            held = self.held()
            if len(held) >= self.requests or sum(one.tokens for one in held) + self.line[0].tokens > self.tokens:
                return
            first = self.line.pop(0)
            first.at = self.now
            self.log.append(first)

    def pass_time(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self.pump()


class RateLimitMachine(RuleBasedStateMachine):
    """Drives a limiter on a loop of virtual time, and the model beside it."""

    @initialize(requests=st.integers(1, 4), tokens=st.integers(5, 30))
    def begin(self, requests, tokens):
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.loop = self.runner.get_loop()
        self.model = Exact(requests, tokens, self.loop.time())
        self.limiter = make_limiter(requests, tokens)
        self.pot = self.runner.run(self._pot())
        self.tasks, self.let_through, self.requests = {}, {}, []
        self.order = []
        self.settled = set()

    async def _pot(self):
        return self.limiter.pot(None, self.limiter.monotonic())

    def teardown(self):
        if hasattr(self, "runner"):
            self.runner.close()

    async def _take(self, number, tokens):
        entry = self.pot.take_nowait(self.limiter.monotonic(), tokens)
        if entry is None:
            entry = await self.pot.take(tokens, float("inf"), hedge=False)
        self.order.append(number)
        self.let_through[number] = (entry, entry.leaves - PER)

    def _settle_down(self, seconds=0.0):
        """Let the loop do all that is to be done now, or in so many seconds."""

        async def sleep():
            await asyncio.sleep(seconds)
            for _ in range(6):
                await asyncio.sleep(0)

        self.runner.run(sleep())

    @rule(tokens=st.integers(0, 5), count=st.integers(1, 4))
    def come(self, tokens, count):
        """Some requests come at the same time."""
        for _ in range(count):
            one = Taken(len(self.requests), tokens)
            self.requests.append(one)
            self.tasks[one.number] = self.loop.create_task(self._take(one.number, tokens))
            self.model.line.append(one)
        self.model.pump()
        self._settle_down()

    @rule(ticks=st.integers(1, 24))
    def pass_time(self, ticks):
        """Time goes by."""
        self.model.pass_time(ticks * TICK)
        self._settle_down(ticks * TICK)

    @precondition(lambda self: self.model.line)
    @rule(data=st.data())
    def give_up(self, data):
        """One of those in line is cancelled."""
        one = data.draw(st.sampled_from(self.model.line))
        self.model.line.remove(one)
        self.model.pump()
        self.tasks[one.number].cancel()
        self._settle_down()

    @precondition(lambda self: len(self.model.log) > len(self.settled))
    @rule(
        data=st.data(),
        used=st.integers(0, 12),
        how=st.sampled_from(["answered", "refused", "unsent", "unknown", "429"]),
    )
    def settle(self, data, used, how):
        """One that was let through comes to an end."""
        open_ones = [one for one in self.model.log if one.number not in self.settled]
        one = data.draw(st.sampled_from(open_ones))
        self.settled.add(one.number)
        entry = self.let_through[one.number][0]
        in_window = one.at + PER > self.model.now
        if how == "answered":
            one.tokens = used if in_window else one.tokens
        elif how == "unsent":
            one.counted = not in_window
        elif how in ("refused", "429"):
            one.tokens = 0 if in_window else one.tokens
        if how == "429":
            self.model.closed_until = max(self.model.closed_until, self.model.now + used * TICK)
        self.model.pump()

        async def end():
            if how == "answered":
                self.limiter.answered(self.pot, entry, used, None)
                return
            error = {
                "refused": ProviderUnavailable("503", status=503),
                "429": RateLimited("429", status=429, retry_after=used * TICK),
            }.get(how, ProviderUnavailable("reset"))
            self.limiter.failed(self.pot, entry, error, was_sent=how != "unsent")

        self.runner.run(end())
        self._settle_down()

    @invariant()
    def it_lets_through_what_the_model_does_when_the_model_does(self):
        """The same requests, at the same instants, in the same order."""
        if not hasattr(self, "model"):
            return
        assert [(one.number, one.at) for one in self.model.log] == sorted(
            ((number, at) for number, (_, at) in self.let_through.items()), key=lambda one: (one[1], one[0])
        )
        assert self.order == [one.number for one in self.model.log]
        assert len(self.model.line) == self.pot.waiting
        held = self.model.held()
        assert (len(held), sum(one.tokens for one in held)) == self.pot.window.held(self.loop.time())

    @invariant()
    def never_more_than_n_in_any_window(self):
        """Stated without the model: what was sent lies in no window of `PER` seconds more than n times."""
        if not hasattr(self, "model"):
            return
        times = [self.let_through[one.number][1] for one in self.model.log if one.counted]
        assert all(sum(begin <= one < begin + PER for one in times) <= self.model.requests for begin in times)


TestRateLimit = RateLimitMachine.TestCase
TestRateLimit.settings = settings(
    max_examples=300, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


class _Caller:
    """One task of the property below."""

    def __init__(self, begins, waits, tokens):
        self.begins, self.waits, self.tokens = begins, waits, tokens


_callers = st.lists(
    st.builds(_Caller, begins=st.integers(0, 8), waits=st.none() | st.integers(0, 12), tokens=st.integers(0, 4)),
    max_size=14,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=st.integers(1, 4), tokens=st.integers(4, 10), callers=_callers)
def test_law_on_both_backends_in_order_within_the_limits_and_nobody_waits_in_vain(requests, tokens, callers):
    """Whoever comes when and has how long: the window holds, the order holds, a refusal comes at once."""
    for run in (_on_asyncio, _on_trio):
        run(partial(_play, requests, tokens, callers))


async def _play(requests, tokens, callers):
    limiter = make_limiter(requests, tokens)
    pot = limiter.pot(None, limiter.monotonic())
    let_through = []

    async def call(caller):
        await anyio.sleep(caller.begins)
        came = limiter.monotonic()
        deadline = float("inf") if caller.waits is None else came + caller.waits
        entry = pot.take_nowait(came, caller.tokens)
        if entry is None:
            try:
                entry = await pot.take(caller.tokens, deadline, hedge=False)
            except RateLimitTimeout:
                assert came == limiter.monotonic()  # nothing is given back here, so a turn is known at once
                return
        at = entry.leaves - PER
        assert at <= deadline
        let_through.append((came, at, caller.tokens))

    async with anyio.create_task_group() as group:
        for caller in callers:
            group.start_soon(call, caller)

    for came, at, _ in let_through:
        within = [one for one in let_through if at <= one[1] < at + PER]
        assert len(within) <= requests
        assert sum(one[2] for one in within) <= tokens
        assert not any(other > came and start < at for other, start, _ in let_through)
    assert sum(caller.waits is None for caller in callers) <= len(let_through)
    assert 0 == pot.waiting


def _on_asyncio(main):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def _on_trio(main):
    import trio
    import trio.testing

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_those_in_line_at_a_429_keep_their_order():
    """Found by the machine above: those whose turn was put off by it woke at the same instant, and overtook each other."""
    order = []

    async def main():
        limiter = make_limiter(4, 5)
        pot = limiter.pot(None, limiter.monotonic())
        sent = [pot.take_nowait(limiter.monotonic(), 0) for _ in range(4)]

        async def take(number):
            await pot.take(0, float("inf"), hedge=False)
            order.append(number)

        await asyncio.sleep(11 * TICK)
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(take(number))
            await asyncio.sleep(0)
            limiter.failed(pot, sent[0], RateLimited("429", status=429, retry_after=6 * TICK), was_sent=True)

    _on_asyncio(main)

    assert [0, 1, 2, 3, 4, 5] == order
