"""The cache against a model of it: a dict with a clock, and one rule for who asks."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmflow import Cache, Deadline, ProviderUnavailable, Reply, Retry, Runtime, Timeout, prompt, step
from llmflow.testing import VirtualLoop, scripted

TTL, STALE = 10, 5
QUESTIONS = st.sampled_from("abc")


class CacheMachine(RuleBasedStateMachine):
    """Calls, answers, failures, cancellations and time in any order, one at a time.

    The model: what is kept is `answers`, by question: text and when. A question that is being asked has one `leader`
    and a line of `followers`; only the leader has a request under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.runtime = Runtime(seed=1).install()
        self.pending: dict[str, asyncio.Future] = {}  # the request under way, by question
        self.model = scripted(default=self.reply)
        self.answers: dict[str, tuple[str, float]] = {}
        self.calls: dict[str, list[asyncio.Task]] = {"a": [], "b": [], "c": []}  # the leader first, then in line
        self.sent: dict[str, int] = {"a": 0, "b": 0, "c": 0}  # by the failing leaders of the flight so far
        self.refreshing: set[asyncio.Task] = set()  # leaders that began with a stale answer in hand
        self.expected_requests = 0
        self.count = 0

        @step(self.model, Cache(TTL, stale=STALE), Retry.off, Timeout.off, Deadline.off)
        def question(word: str) -> str:
            return prompt(word)

        self.question = question

    async def reply(self, request):
        word = request.messages[0].content
        future = self.pending[word] = self.loop.create_future()
        return await future

    def settle(self) -> None:
        """Let every task go on as far as it can."""

        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def age(self, word: str) -> float:
        return self.loop.time() - self.answers[word][1] if word in self.answers else float("inf")

    @rule(word=QUESTIONS)
    def call(self, word: str) -> None:
        """A fresh answer is given; a stale one too, unless nobody asks yet; else one asks and the others wait."""
        task = self.loop.create_task(self.question.run(word))
        self.settle()
        age, line = self.age(word), self.calls[word]
        if age < TTL or (age < TTL + STALE and line):
            result = task.result()
            assert (self.answers[word][0], True) == (result.value, result.cached)
        else:
            assert not task.done()
            self.expected_requests += not line
            line.append(task)
            if age < TTL + STALE:
                self.refreshing.add(task)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def answer(self, data) -> None:
        """Everybody gets the answer, and it is kept."""
        word = data.draw(st.sampled_from(sorted(self.pending)))
        self.count += 1
        text = f"{word}{self.count}"
        self.pending.pop(word).set_result(text)
        self.settle()
        leader, *others = [task.result() for task in self.calls[word]]
        assert (text, False) == (leader.value, leader.cached)
        assert [(text, True)] * len(others) == [(one.value, one.cached) for one in others]
        self.answers[word] = (text, self.loop.time())
        self.calls[word], self.sent[word] = [], 0

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), invalid=st.booleans())
    def fail(self, data, invalid: bool) -> None:
        """The leader has the failure, or its stale answer; a follower takes over until three requests were sent."""
        word = data.draw(st.sampled_from(sorted(self.pending)))
        future = self.pending.pop(word)
        if invalid:
            future.set_result(Reply(text=None, finish_reason="refusal"))
        else:
            future.set_exception(ProviderUnavailable("503"))
        self.settle()
        self.sent[word] += 1
        leader, *line = self.calls[word]
        if leader in self.refreshing:
            assert (self.answers[word][0], True) == (leader.result().value, leader.result().cached)
        else:
            assert leader.exception() is not None
        if not line:
            self.calls[word], self.sent[word] = [], 0
        elif self.sent[word] + 1 <= 3:
            self.expected_requests += 1
            self.calls[word] = line
        else:
            assert all(one.exception() is not None for one in line)
            self.calls[word], self.sent[word] = [], 0

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data())
    def cancel(self, data) -> None:
        """A leader's place goes to the first in line, at the price of one more request; a follower just leaves."""
        word = data.draw(st.sampled_from(sorted(one for one, line in self.calls.items() if line)))
        line = self.calls[word]
        index = data.draw(st.integers(0, len(line) - 1))
        task = line.pop(index)
        task.cancel()
        self.settle()
        assert task.cancelled()
        if index == 0:
            self.sent[word] += 1
            if line:
                self.expected_requests += 1
            else:
                self.pending.pop(word, None)
                self.sent[word] = 0

    @rule(seconds=st.sampled_from([0.5, 3, 7, 20]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.loop.jump(seconds)
        self.settle()

    @invariant()
    def as_many_requests_as_expected(self) -> None:
        """K1: exactly one request for each leader."""
        assert self.expected_requests == len(self.model.requests)

    @invariant()
    def nothing_is_left_over(self) -> None:
        """Who waits is who the model says, and nobody else."""
        states = [one.values for one in self.runtime.stats().states if one.name == "single flight"]
        expected = {
            "in_flight": sum(bool(line) for line in self.calls.values()),
            "waiting": sum(max(0, len(line) - 1) for line in self.calls.values()),
        }
        assert [] == states or [expected] == states

    def teardown(self) -> None:
        for line in self.calls.values():
            for task in line:
                task.cancel()
        self.settle()
        self.runtime.close()
        self.loop.close()


TestCache = CacheMachine.TestCase
TestCache.settings = settings(
    max_examples=300, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
