"""The state of a breaker against an exact model of it, over random outcomes, probes and waits."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmflow import CircuitOpen, Model
from llmflow.policies._breaker import Breaker

WINDOW, OPEN_FOR, PATIENCE = 20.0, 8.0, 5.0


class BreakerMachine(RuleBasedStateMachine):
    """Any number of requests under way, which end in any order; the model keeps every outcome and counts anew."""

    @initialize(min_calls=st.integers(1, 5), ratio=st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    def begin(self, min_calls, ratio):
        self.now = 100.0
        self.min_calls, self.ratio = min_calls, ratio
        self.told = []
        self.breaker = Breaker(
            Model("a/b"),
            failure_ratio=ratio,
            window=WINDOW,
            min_calls=min_calls,
            open_for=OPEN_FOR,
            now=lambda: self.now,
            emit=self.told.append,
        )
        # The model: where it is, since when, what counts, and who is out with a ticket of the present.
        self.state, self.opened_at, self.outcomes = "closed", 0.0, []
        self.probe, self.probe_until = None, 0.0
        self.out = []  # the tickets of requests under way, the model's own record of each beside it
        self.changes = []

    # -- what the model does -------------------------------------------------------------------------------------------

    def becomes(self, state):
        if state != self.state:
            self.changes.append((self.state, state))
        self.state, self.probe = state, None
        for record in self.out:
            record["current"] = False
        if state == "open":
            self.opened_at = self.now
        if state == "closed":
            self.outcomes = []

    def counted(self):
        tenth = WINDOW / 10
        return [failed for at, failed in self.outcomes if at // tenth > self.now // tenth - 10]

    def counts(self, *, failed):
        self.outcomes.append((self.now, failed))
        counted = self.counted()
        if sum(counted) and len(counted) >= self.min_calls and sum(counted) >= self.ratio * len(counted):
            self.becomes("open")

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(hedge=st.booleans(), deadline=st.sampled_from([PATIENCE, float("inf")]))
    def send(self, hedge, deadline):
        """Somebody wants to send: everybody may when it is closed, one when it is time for a probe."""
        if self.state == "closed":
            admitted = True
        else:
            if self.state == "open":
                due = self.now >= self.opened_at + OPEN_FOR
            else:
                due = self.probe is None or self.now > self.probe_until
            admitted = due and not hedge
        ticket = self.breaker.epoch
        try:
            if not self.breaker.closed:
                ticket = self.breaker.admit(self.now, self.now + deadline, hedge=hedge)
        except CircuitOpen as error:
            assert not admitted
            left = self.opened_at + OPEN_FOR - self.now
            assert (left if self.state == "open" and left > 0 else None) == error.retry_after
            return
        assert admitted
        record = {"ticket": ticket, "current": True}
        if self.state != "closed":
            self.becomes("half_open")
            self.probe = record
            self.probe_until = self.now + (300 if deadline == float("inf") else deadline + 1)
        self.out.append(record)

    def ends(self, data):
        record = data.draw(st.sampled_from(self.out), label="which")
        self.out.remove(record)
        return record

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def succeed(self, data):
        record = self.ends(data)
        self.breaker.succeeded(record["ticket"])
        if record["current"]:
            if self.state == "closed":
                self.counts(failed=False)
            else:
                self.becomes("closed")

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def fail(self, data):
        record = self.ends(data)
        self.breaker.failed(record["ticket"])
        if record["current"]:
            if self.state == "closed":
                self.counts(failed=True)
            else:
                self.becomes("open")

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def say_nothing(self, data):
        """Cancelled, thrown away, refused further in, or the caller's own mistake."""
        record = self.ends(data)
        self.breaker.ended(record["ticket"])
        if record is self.probe and record["current"]:
            self.probe = None

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def die(self, data):
        """Nobody ever tells what became of it."""
        self.ends(data)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0, 8.0, 21.0, 301.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def reset(self):
        self.breaker.reset()
        self.becomes("closed")

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def it_is_as_the_model_says(self):
        counted = self.counted()
        values = dict(self.breaker.state().values)
        values.pop("retry_after_s", None)
        assert self.state == values["state"]
        if self.state == "closed":
            assert {"state": "closed", "calls": len(counted), "failures": sum(counted)} == values
        assert (self.state == "closed") == self.breaker.closed

    @invariant()
    def every_change_was_told(self):
        assert self.changes == [(event.old, event.new) for event in self.told]

    @invariant()
    def its_memory_is_bounded(self):
        assert len(self.breaker._buckets) <= 10

    def teardown(self):
        """C3, fault 69: never wedged. Whatever happened, one more request closes it once everybody has had their time."""
        self.now += 1_000
        if not self.breaker.closed:
            self.breaker.succeeded(self.breaker.admit(self.now, self.now, hedge=False))
        assert self.breaker.closed


BreakerMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_law_a_breaker_does_as_its_model_says = BreakerMachine.TestCase


def test_threads_never_send_two_probes_and_lose_no_outcome():
    """Eight threads at once: in each round exactly one is let through, and every outcome of a closed breaker counts."""
    told = []
    breaker = Breaker(
        Model("a/b"), failure_ratio=1, window=1e9, min_calls=10**6, open_for=10, now=lambda: 100.0, emit=told.append
    )

    def all_at_once(work):
        ready = threading.Barrier(8)

        def run():
            ready.wait()
            work()

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    def count():
        for _ in range(500):
            breaker.failed(breaker.epoch)

    all_at_once(count)
    assert {"state": "closed", "calls": 4_000, "failures": 4_000} == breaker.state().values

    probes = []

    def probe():
        try:
            probes.append(breaker.admit(200.0, 500.0, hedge=False))
        except CircuitOpen:
            return

    breaker.min_calls = 1
    breaker.failed(breaker.epoch)
    for number in range(50):
        all_at_once(probe)
        assert number + 1 == len(probes)
        breaker.failed(probes[-1])


@pytest.mark.parametrize("steps", [1, 7, 1_000])
def test_the_window_moves_on_over_any_gap(steps):
    """A pause of several windows forgets everything, and counting goes on."""
    seconds = [0.0]
    breaker = Breaker(
        Model("a/b"), failure_ratio=1, window=10, min_calls=99, open_for=1, now=lambda: seconds[0], emit=lambda _: None
    )
    for _ in range(5):
        breaker.failed(breaker.epoch)
        seconds[0] += 10.0 * steps

    assert 0 == breaker.state().values["calls"]
    breaker.failed(breaker.epoch)
    assert 1 == breaker.state().values["calls"]
