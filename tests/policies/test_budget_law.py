"""The laws of the purse: an exact model of every reservation, whatever is asked, settled, dropped or thrown away when."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmflow import Budget, BudgetExceeded, Price, Runtime, Usage, prompt, step
from llmflow.policies._fund import period_of_day
from llmflow.policies._pot import Pot, Terms
from llmflow.policies._purse import Claim, Purse
from llmflow.testing._scripted import scripted
from llmflow.testing._time import VirtualLoop

DAY = 86_400.0
CAPS = ((10, 30, 4), (15, 20, 6), (8, 40, 5))
UNITS = ("usd", "tokens", "calls")

amounts = st.tuples(st.sampled_from([0, 1, 2, 5, 8, 11]), st.sampled_from([0, 1, 5, 10, 25]))
some_pots = st.sets(st.integers(0, 2), min_size=1).map(sorted)


class Asked:
    """One request as the model sees it."""

    def __init__(self, claim: Claim | None, pots: list[int], need: tuple[int, int, int]) -> None:
        self.claim, self.pots, self.need = claim, pots, need
        self.fate = "waits"


class Accounts(RuleBasedStateMachine):
    """Three pots, the last one of a day, and the simplest ledger there can be beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10 * DAY
        self.purse = Purse(lambda: self.now)
        terms = [
            Terms(name=str(n), usd=usd, tokens=tokens, calls=calls, period=period_of_day if n == 2 else None)
            for n, (usd, tokens, calls) in enumerate(CAPS)
        ]
        self.pots = [Pot(one, now=self.now) for one in terms]
        self.settled = [[0, 0, 0] for _ in CAPS]
        self.held: list[Asked] = []
        self.line: list[Asked] = []
        self.days = (10, 10)

    # -- the model -----------------------------------------------------------------------------------------------------

    def fits(self, asked, *, held):
        return all(
            self.settled[pot][unit]
            + asked.need[unit]
            + held * sum(one.need[unit] for one in self.held if pot in one.pots)
            <= CAPS[pot][unit]
            for pot in asked.pots
            for unit in range(3)
        )

    def first(self, asked, pot):
        return next(one for one in self.line if pot in one.pots) is asked

    def serve(self, pots):
        """Look at the first of each line that may have moved: who fits is let in, who never will is refused."""
        moved = list(pots)
        while moved:
            line = [one for one in self.line if moved[0] in one.pots]
            if line and not self.fits(line[0], held=False):
                line[0].fate = "refused"
            elif line and all(self.first(line[0], pot) for pot in line[0].pots) and self.fits(line[0], held=True):
                line[0].fate = "held"
                self.held.append(line[0])
            else:
                del moved[0]
                continue
            self.line.remove(line[0])
            moved += line[0].pots

    # -- what can happen -----------------------------------------------------------------------------------------------

    @rule(pots=some_pots, amount=amounts, patient=st.booleans())
    def one_asks(self, pots, amount, patient):
        self.ask(pots, amount, patient=patient)

    @rule(asks=st.lists(st.tuples(some_pots, amounts), min_size=2, max_size=6))
    def many_ask(self, asks):
        """So that there are lines behind lines."""
        for pots, amount in asks:
            self.ask(pots, amount, patient=True)

    def ask(self, pots, amount, *, patient):
        asked = Asked(None, pots, (*amount, 1))
        at_once = self.fits(asked, held=True) and not any(pot in one.pots for one in self.line for pot in pots)
        self.serve(pots)
        crowded = any(pot in one.pots for one in self.line for pot in pots)
        if not self.fits(asked, held=False):
            asked.fate = "refused"
        elif self.fits(asked, held=True) and not crowded:
            asked.fate = "held"
            self.held.append(asked)
        elif patient:
            self.line.append(asked)
        else:
            asked.fate = "refused"

        chosen = [self.pots[pot] for pot in pots]
        taken = self.purse.take(chosen, *amount)
        assert taken == at_once
        if not taken:
            asked.claim = Claim(chosen, *amount)
            short = self.purse.line_up(asked.claim, patient=patient)
            assert (short is not None) == (asked.fate == "refused")
            assert asked.claim.held == (asked.fate == "held")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), abandoned=st.booleans())
    def settle(self, data, abandoned):
        """What was spent is anything up to the reservation."""
        asked = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        spent = tuple(data.draw(st.integers(0, most)) for most in asked.need)
        for pot in asked.pots:
            self.settled[pot] = [before + more for before, more in zip(self.settled[pot], spent, strict=True)]
        self.serve(asked.pots)

        settle = self.purse.settle_abandoned if abandoned else self.purse.settle
        settle([self.pots[pot] for pot in asked.pots], *asked.need[:2], spent)

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data):
        """Cancelled in the line."""
        asked = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        self.serve(asked.pots)

        self.purse._leave(asked.claim)

    @precondition(lambda self: any(one.claim is not None for one in self.held))
    @rule()
    def leave_as_it_is_let_in(self):
        """Cancelled in the instant it was granted: it gives back what it never used."""
        asked = next(one for one in self.held if one.claim is not None)
        self.held.remove(asked)
        self.serve(asked.pots)

        self.purse._leave(asked.claim)

    @rule(days=st.sampled_from([-1, 1, 1, 2]))
    def jump(self, days):
        """The wall clock goes on, or is set back, by whole days."""
        self.now += days * DAY
        today, (first, last) = int(self.now // DAY), self.days
        if today > last:
            self.settled[2] = [0, 0, 0]
        if not first <= today <= last:  # set back by one day, both are one; by more, it was wrong before
            self.days = (today, last if today == first - 1 else today)
        self.serve(range(3))

        self.purse.sums(self.pots)

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def no_cap_is_exceeded(self):
        for pot in self.pots:
            for unit in UNITS:
                settled, held = getattr(pot, unit), getattr(pot, f"held_{unit}")
                assert held >= 0
                assert settled + held <= getattr(pot, f"cap_{unit}")

    @invariant()
    def every_sum_is_that_of_the_model(self):
        for n, pot in enumerate(self.pots):
            held = [sum(one.need[unit] for one in self.held if n in one.pots) for unit in range(3)]
            assert self.settled[n] == [pot.usd, pot.tokens, pot.calls]
            assert held == [pot.held_usd, pot.held_tokens, pot.held_calls]
            assert [one.claim for one in self.line if n in one.pots] == list(pot.line)

    @invariant()
    def everybody_was_told(self):
        for asked in (*self.held, *self.line):
            if asked.claim is not None:
                assert (asked.fate == "held", None) == (asked.claim.held, asked.claim.short)

    @invariant()
    def nobody_waits_for_nothing(self):
        for asked in self.line:
            if all(self.first(asked, pot) for pot in asked.pots):
                assert not self.fits(asked, held=True)
                assert self.fits(asked, held=False)
        assert self.held or not self.line


Accounts.TestCase.settings = settings(
    max_examples=900, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
test_law_of_accounts = Accounts.TestCase


def test_who_waited_only_behind_another_is_served_with_it():
    """One is let in by the first of its pots; who stood behind it at the second, where there was room, is next."""
    purse = Purse(lambda: 0.0)
    first, second = Pot(Terms(name="a", usd=10)), Pot(Terms(name="b", usd=10))
    assert purse.take([first], 10, 0)
    both, behind = Claim([first, second], 1, 0), Claim([second], 1, 0)
    for claim in (both, behind):
        assert purse.line_up(claim, patient=True) is None
        assert not claim.held

    purse.settle([first], 10, 0, (0, 0, 0))

    assert (True, True) == (both.held, behind.held)


def test_what_is_thrown_away_while_the_purse_is_busy_is_settled_at_the_next_chance():
    """The garbage collector may close a coroutine in the middle of what this thread does under the lock."""
    purse, pot = Purse(lambda: 0.0), Pot(Terms(name="a", usd=10))
    assert purse.take([pot], 10, 0)
    waits = Claim([pot], 5, 0)
    assert purse.line_up(waits, patient=True) is None

    with purse._lock:
        purse.settle_abandoned([pot], 10, 0, (3, 0, 1))
        assert not waits.held

    assert 5 == purse.sums([pot])["held_usd"]
    assert (True, 3) == (waits.held, pot.usd)


def test_a_waiter_that_is_thrown_away_leaves_the_line():
    """Its task was destroyed while it waited."""
    purse, pot = Purse(lambda: 0.0), Pot(Terms(name="a", usd=10))
    assert purse.take([pot], 10, 0)
    claim = Claim([pot], 5, 0)
    purse.line_up(claim, patient=True)
    loop = asyncio.new_event_loop()
    task = loop.create_task(purse.wait(claim, float("inf")))
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))

    task.get_coro().close()
    loop.close()

    assert 0 == purse.sums([pot])["waiting"]


def test_what_is_granted_to_a_loop_that_has_ended_goes_to_the_next():
    """A loop that was stopped in mid-wait must not hurt those of other loops, however many of its tasks waited."""
    purse, pot = Purse(lambda: 0.0), Pot(Terms(name="a", usd=10))
    assert purse.take([pot], 10, 0)
    loop = asyncio.new_event_loop()
    lost = [Claim([pot], 10, 0) for _ in range(1_100)]
    for claim in lost:
        purse.line_up(claim, patient=True)
        task = loop.create_task(purse.wait(claim, float("inf")))
        task._log_destroy_pending = False
    tasks = asyncio.all_tasks(loop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    alive = Claim([pot], 10, 0)
    purse.line_up(alive, patient=True)

    purse.settle([pot], 10, 0, (0, 0, 1))

    assert (True, 10) == (alive.held, pot.held_usd)
    for task in tasks:
        task.get_coro().close()
    assert (True, 10) == (alive.held, pot.held_usd)


def test_b4_a_million_charges_do_not_drift():
    """B4: money is whole nano-dollars; a million requests of odd amounts sum up to the last one."""
    purse = Purse(lambda: 0.0)
    pots = (Pot(Terms(name="a")), Pot(Terms(name="b")))
    expected = 0
    for n in range(1_000_000):
        spent = 1 + n * 7919 % 104_729
        purse.take(pots, 104_729, 9)
        purse.settle(pots, 104_729, 9, (spent, 3, 1))
        expected += spent

    assert [(expected, 3_000_000, 1_000_000, 0)] * 2 == [(pot.usd, pot.tokens, pot.calls, pot.held_usd) for pot in pots]


callers = st.lists(
    st.tuples(
        st.integers(0, 5),  # when it begins
        st.integers(0, 4),  # how long the provider takes
        st.none() | st.integers(0, 6),  # when it gives up
        st.sampled_from(["counted", "silent", "400", "lost"]),
        st.integers(0, 1000),  # tokens of its answer
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(callers=callers)
def test_law_whoever_comes_when_and_ends_how(callers):
    """Through the whole policy, on both backends: never above a cap, all settled at the end, nobody forgotten."""
    for run in (_on_asyncio, _on_trio):
        run(partial(_play, callers))


async def _play(callers):
    from llmflow import BadRequest, ProviderUnavailable, Retry

    bill, peaks, begun = [], [], set()

    async def answer(request):
        n = int(request.messages[0].content)
        _, seconds, _, ending, tokens = callers[n]
        states = [one.values for one in runtime.stats().states if one.kind == "budget"]
        peaks.extend(one["usd_settled"] + one["usd_reserved"] for one in states)
        begun.add(n)
        place = len(bill)
        bill.append(1000)  # of tokens: what it costs when nobody says more
        if ending == "400":
            await anyio.sleep(seconds)
            bill[place] = 0
            raise BadRequest("400", status=400)
        if ending == "lost":
            await anyio.sleep(seconds)
            raise ProviderUnavailable("lost", retryable=False)
        from llmflow import Reply

        await anyio.sleep(seconds)
        if ending == "counted":
            bill[place] = tokens
            return Reply(text="fine", usage=Usage(input_tokens=1, output_tokens=tokens))
        return Reply(text="fine")

    model = scripted(default=answer, price=Price(input=0, output=1000))  # a token is 0.001 dollars

    @step(model, Budget("3", per="total"), Budget("3", per="day"), Retry.off, params={"max_tokens": 1000})
    def ask(word: str) -> str:
        return prompt(word)

    async def call(n, begins, gives_up):
        await anyio.sleep(begins)
        with anyio.move_on_after(float("inf") if gives_up is None else gives_up):
            try:
                await ask(str(n))
            except (BudgetExceeded, BadRequest, ProviderUnavailable):
                return

    async with Runtime() as runtime, anyio.create_task_group() as group:
        for n, (begins, _, gives_up, _, _) in enumerate(callers):
            group.start_soon(call, n, begins, gives_up)

    final = [one.values for one in runtime.stats().states if one.kind == "budget"]
    assert [(sum(bill) * Decimal("0.001"), 0, 0)] * (2 if callers else 0) == [
        (one["usd_settled"], one["usd_reserved"], one["waiting"]) for one in final
    ]
    assert all(peak <= 3 for peak in peaks)


def _on_asyncio(main):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def _on_trio(main):
    import trio
    import trio.testing

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
