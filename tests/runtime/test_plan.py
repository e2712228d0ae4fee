"""What a plan says a call takes at worst: exact where the worst can be brought about, unknown where it is unknown."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any, ClassVar, Literal

import anyio
import pytest

from llmflow import (
    Band,
    Budget,
    BudgetTooSmallWarning,
    Bulkhead,
    Cache,
    Deadline,
    DefinitionError,
    Fallback,
    Hedge,
    Price,
    ProviderUnavailable,
    RateLimit,
    Repair,
    Reply,
    Retry,
    Runtime,
    StepError,
    Timeout,
    Usage,
    build,
    flow,
    gather,
    or_else,
    plan,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.backend import monotonic
from llmflow.policy import Bounds
from llmflow.prices import dollars, worst_case_nano
from llmflow.runtime import plan_map
from llmflow.runtime._words import bounds_in_words
from llmflow.testing import after, scripted
from llmflow.testing._time import virtual_backend
from llmflow.tokens import estimate_tokens

PRICE = Price(input=1.0, output=4.0)
QUICK = Retry(3, wait_initial=0)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


@pytest.fixture(autouse=True)
def _runtime() -> Any:
    with Runtime(seed=1) as runtime:
        yield runtime


def asking(model: Any, *policies: Any, name: str = "question", returns: Any = Literal["yes"], **options: Any) -> Any:
    def question(word):
        return prompt(f"Is {word} a word?")

    question.__annotations__ = {"word": str, "return": returns}
    return step(model, *policies, name=name, **options)(question)


def calls(target: Any, **options: Any) -> int | None:
    return plan(target, **options).bounds.calls


# -- the worst comes about: the bounds of single calls are exact -------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("reasks", [0, 1, 2])
@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_model_that_uses_every_try_and_every_re_ask_takes_as_many_requests_as_planned(attempts, reasks):
    """B2: each ask fails until its last try, and no answer fits; then the fallback does the same."""

    def trouble(request):
        return ProviderUnavailable("503") if request.attempt < attempts else "nonsense"

    one, two = scripted(default=trouble, name="a/one"), scripted(default=trouble, name="a/two")
    question = asking(one, Fallback(two), Retry(attempts, wait_initial=0), Repair(reasks))

    with pytest.raises(StepError):
        await question("this")

    assert calls(question) == len(one.requests) + len(two.requests) == 2 * attempts * (1 + reasks)


@pytest.mark.anyio
async def test_hedges_are_counted():
    """B2: a slow request has others beside it, each of which is a request."""
    model = scripted(default=after(10, '"yes"'))
    question = asking(model, Hedge(1, max=2), Retry.off, Repair.off)

    await question("this")

    assert calls(question) == len(model.requests) == 3


@pytest.mark.anyio
async def test_a_request_of_full_length_costs_no_more_than_was_planned():
    """B1: with its inputs the prompt is known, but for the third that an estimate may be wrong by."""
    model = scripted(
        default=lambda request: Reply(
            text='"yes"', usage=Usage(input_tokens=estimate_tokens(request), output_tokens=100)
        ),
        price=PRICE,
    )
    question = asking(model, Retry.off, Repair.off, params={"max_tokens": 100})

    result = await question.run("this")

    planned = plan(question, inputs={"word": "this"}).bounds.usd
    tokens = math.ceil(result.usage.input_tokens * 4 / 3)

    assert result.cost_usd < planned == dollars(worst_case_nano(tokens, 100, PRICE))


def test_an_unknown_prompt_is_taken_to_be_long():
    """The dollars are those of the longest prompt that is assumed, and the plan says so."""
    question = asking(scripted(price=PRICE), Retry.off, Repair.off, params={"max_tokens": 100})
    planned = plan(question, prompt_tokens=1000).bounds

    assert dollars(worst_case_nano(1000, 100, PRICE)) == planned.usd
    assert "assumes prompts of up to 1,000 tokens; change with prompt_tokens=" in planned.notes


def test_a_re_ask_shows_the_model_its_answer():
    """Each re-ask is longer by the longest answer and what is said about it."""
    question = asking(scripted(price=PRICE), Retry.off, Repair(1), params={"max_tokens": 100})
    first, second = worst_case_nano(1000, 100, PRICE), worst_case_nano(1000 + 100 + 512, 100, PRICE)

    assert dollars(first + second) == plan(question, prompt_tokens=1000).bounds.usd


def test_many_re_asks_are_planned_at_once():
    """A hundred thousand re-asks are not added up one by one."""
    assert 300_003 == calls(asking(scripted(), QUICK, Repair(100_000)))


@pytest.mark.anyio
async def test_the_seconds_of_a_model_that_never_answers_in_time():
    """R3: without queues and jitter the time is exactly that of the tries."""
    model = scripted(default=after(100, "yes"))
    question = asking(model, Timeout(5), Retry(3, wait_initial=0, retry_after_max=0), Bulkhead.off, Deadline(60))
    started = monotonic()

    with pytest.raises(StepError):
        await question("this")

    assert 15 == pytest.approx(monotonic() - started)
    assert 15 <= plan(question.with_(Repair.off)).bounds.seconds <= 15.5


def test_only_the_deadline_bounds_a_queue():
    """R3: others may stand in line before it; how long it works at most is in a note."""
    question = asking(scripted(), Timeout(5), Retry.off, Repair.off)
    planned = plan(question).bounds

    assert 300 == planned.seconds
    assert any("all but 5 s" in note for note in planned.notes)
    assert 5 == plan(question.with_(Bulkhead(1, queue=0))).bounds.seconds


@pytest.mark.parametrize("policy", [RateLimit(1), Budget(calls=1), Cache("1h")])
def test_whoever_waits_for_others_has_no_other_bound_than_its_deadline(policy):
    """R3: a limit, a budget and the answer of another call are waited for as long as the deadline lets them."""
    question = asking(scripted(), Timeout(5), Retry.off, Repair.off, Bulkhead.off)

    assert 5 == plan(question).bounds.seconds
    assert 300 == plan(question.with_(policy)).bounds.seconds


def test_without_any_limit_there_is_no_bound_in_time():
    """None is said, not a large number."""
    question = asking(scripted(), Timeout.off, Deadline.off)

    assert plan(question).bounds.seconds is None
    assert "unknown time" in str(plan(question))


# -- money -------------------------------------------------------------------------------------------------------------


def test_a_model_without_a_price_has_no_bound_in_dollars():
    """The model is named."""
    planned = plan(asking(scripted(name="acme/rules"))).bounds

    assert planned.usd is None
    assert any("'acme/rules'" in note for note in planned.notes)


def test_a_free_model_costs_nothing():
    """And then the length of its prompts need not be assumed."""
    planned = plan(asking(scripted(price=Price(input=0, output=0)))).bounds

    assert (Decimal(0), ()) == (planned.usd, tuple(note for note in planned.notes if "prompts" in note))


def test_options_that_ask_for_more_than_max_tokens_are_counted():
    """What goes into the body of a request may say otherwise than `params`."""
    from llmflow import Model

    model = Model("openai/gpt-5-mini", price=PRICE, n=3)
    question = asking(model, Retry.off, Repair.off, params={"max_tokens": 100})

    assert dollars(worst_case_nano(10, 300, PRICE)) == plan(question, prompt_tokens=10).bounds.usd


def test_a_budget_caps_the_bounds():
    """B1: what it refuses is not sent."""
    question = asking(scripted(price=PRICE), Budget(calls=4, usd="0.05", per="call"))
    planned = plan(question).bounds

    assert (4, Decimal("0.05")) == (planned.calls, planned.usd)


@pytest.mark.parametrize("budget", [Budget(calls=4, per="day"), Budget(calls=4, key="tenant")])
def test_a_budget_that_may_be_filled_again_caps_nothing(budget):
    """A run may see midnight, and several tenants."""
    assert 9 == calls(asking(scripted(), budget))


def test_the_steps_of_a_flow_share_its_budget():
    """One pot: two steps together take no more than it holds, and a third has its own."""

    def one_of_three(number, *policies):
        return asking(scripted(), *policies, name=f"step{number}", returns=str)

    one, two, three = one_of_three(1), one_of_three(2), one_of_three(3, Budget.off)

    @flow(Budget(calls=5))
    async def sharing(word: str) -> str:
        return await three(await two(await one(word)))

    assert 5 + 9 == calls(sharing)


def test_a_budget_that_can_pay_for_nothing_is_said_to_refuse():
    """B3: such a step is never sent."""
    question = asking(scripted(price=PRICE), Budget(usd="0.0001"))

    with pytest.warns(BudgetTooSmallWarning):
        planned = plan(question)

    assert [
        "step 'question': budget 'step:question' of $0.0001 cannot pay for a request to scripted/model, which may cost $0.016384"
    ] == list(planned.refused)
    assert "  refused: step 'question'" in str(planned)


def test_a_budget_in_tokens_that_can_pay_for_nothing():
    """B3: with the inputs, the length of the prompt is known."""
    question = asking(scripted(), Budget(tokens=150), params={"max_tokens": 100})

    assert () == plan(question).refused
    assert 1 == len(plan(question, inputs={"word": "long " * 100}).refused)


# -- flows -------------------------------------------------------------------------------------------------------------


def timed(seconds: float, name: str, *, tries: int = 1) -> Any:
    """A step that takes so long at most, and so many requests."""
    return asking(
        scripted(), Timeout(seconds), Retry(tries, wait_initial=0, retry_after_max=0), Repair.off, Bulkhead.off,
        name=name, returns=str,
    )  # fmt: skip


def test_a_chain_adds_up_and_branches_side_by_side_do_not():
    """Seconds are those of the longest path, requests those of all steps."""
    short, long, last = timed(1, "short"), timed(7, "long"), timed(10, "last")

    @flow
    async def both(word: str) -> str:
        _, second = await gather(short(word), long(word))
        return await last(second)

    planned = plan(both).bounds

    assert (3, 17) == (planned.calls, planned.seconds)


def test_of_branches_the_dearest_counts_and_each_is_told():
    """One of them runs."""
    cheap, dear = timed(9, "cheap"), timed(1, "dear", tries=4)

    @flow
    async def choosing(word: str, cond: bool) -> str:
        return await when(cond, cheap(word), dear(word))

    @flow
    async def switching(word: str) -> str:
        return await switch(word, {"a": cheap(word)}, default=dear(word))

    for target in (choosing, switching):
        (node,) = plan(target).nodes

        assert (4, 9) == (node.bounds.calls, node.bounds.seconds)
        assert [1, 4] == [branch.bounds.calls for branch in node.branches]


def test_what_is_caught_adds_to_what_catches_it():
    """Both calls of `or_else` may run, one after the other."""
    one, two = timed(5, "one", tries=2), timed(7, "two")

    @flow
    async def caught(word: str) -> str:
        return await or_else(one(word), two(word))

    planned = plan(caught).bounds

    assert 3 == planned.calls
    assert 17 <= planned.seconds < 18


def test_a_map_over_a_known_list_is_planned_as_a_whole():
    """Five items two at a time are three rounds."""
    one = timed(5, "one")

    @flow
    async def fan_out() -> list[str]:
        return await one.map(["a", "b", "c", "d", "e"], concurrency=2)

    planned = plan(fan_out)

    assert (5, 15) == (planned.bounds.calls, planned.bounds.seconds)
    assert (5, 1) == (planned.nodes[0].items, planned.nodes[0].bounds.calls)
    assert "1 provider call, unknown dollars, 5 s for each of 5 items" in str(planned)


def test_a_map_over_what_only_the_run_knows_has_bounds_for_each_item():
    """The whole has none, unless a budget of the run caps it; with the inputs it has."""
    one = timed(5, "one")

    @flow
    async def fan_out(words: list[str]) -> list[str]:
        return await one.map(words)

    planned = plan(fan_out)

    assert (None, 1) == (planned.bounds.calls, planned.nodes[0].bounds.calls)
    assert any("'fan_out/one' takes 1 provider call" in note for note in planned.bounds.notes)
    assert 7 == calls(fan_out.with_(Budget(calls=7)))
    assert 3 == calls(fan_out, inputs={"words": ["a", "b", "c"]})


def test_the_dearest_item_of_a_map_counts():
    """Prompts differ from item to item."""
    one = asking(scripted(price=PRICE), Retry.off, Repair.off, returns=str)

    @flow
    async def fan_out(words: list[str]) -> list[str]:
        return await one.map(words)

    short, long = (plan(one, inputs={"word": word}).bounds.usd for word in ("a", "a" * 3000))

    assert short < long
    assert 2 * long == plan(fan_out, inputs={"words": ["a", "a" * 3000]}).bounds.usd


def test_a_flow_inside_with_a_deadline_is_bounded_by_it():
    """It stays one node, and its steps are in the sum."""
    one = timed(50, "one", tries=2)

    @flow(Deadline(20))
    async def inner(word: str) -> str:
        return await one(await one(word))

    @flow
    async def outer(word: str) -> list[str]:
        return await inner.map([word, "b"], concurrency=1)

    planned = plan(outer).bounds

    assert (8, 40) == (planned.calls, planned.seconds)


def test_an_eager_flow_has_no_bounds_but_its_deadline():
    """What it does is decided as it runs."""
    one = timed(5, "one")

    @flow(Deadline(20), eager=True)
    async def eager(word: str) -> str:
        return await one(word)

    planned = plan(eager).bounds

    assert (None, None, 20) == (planned.calls, planned.usd, planned.seconds)
    assert any("eager" in note for note in planned.notes)


def test_a_task_sends_nothing_and_is_bounded_by_its_own_policies():
    """Without a limit its time is unknown, and the plan of the flow says whose."""

    @task(Timeout(3), Retry(2, on=ValueError, wait_initial=0, retry_after_max=0))
    def limited(word: str) -> str:
        return word

    @task
    def unlimited(word: str) -> str:
        return word

    @flow
    async def both(word: str) -> str:
        return await unlimited(await limited(word))

    planned = plan(limited).bounds

    assert (0, 0) == (planned.calls, planned.usd)
    assert 6 <= planned.seconds < 7
    assert plan(both).bounds.seconds is None
    assert ("task 'unlimited' has neither a Timeout nor a Deadline",) == plan(both).bounds.notes
    assert (5, ()) == (plan(both.with_(Deadline(5))).bounds.seconds, plan(both.with_(Deadline(5))).bounds.notes)


one_of_module = asking(scripted(), name="one_of_module", returns=str)


@task(Timeout(3))
async def loop(word: str) -> list[str]:
    return [await one_of_module(word) for _ in range(1000)]


def test_a_body_that_calls_steps_itself_has_no_bounds():
    """A loop in a task may go round any number of times; where the time ends is known all the same."""

    @flow
    async def looping(word: str) -> list[str]:
        return await loop(word)

    planned = plan(looping).bounds

    assert (None, None, 3) == (planned.calls, planned.usd, planned.seconds)
    assert any("names step 'one_of_module'" in note for note in planned.notes)


def test_a_body_that_waits_before_it_asks_has_no_bound_in_time():
    """No policy stands around the body."""

    @step(scripted(), Retry.off, Repair.off)
    async def slow(word: str) -> str:
        await anyio.sleep(1000)
        return prompt(word)

    @step(scripted(), Retry.off, Repair.off)
    async def quick(word: str) -> str:
        return prompt(word)

    assert (1, None) == (calls(slow, inputs={"word": "a"}), plan(slow).bounds.seconds)
    assert 300 == plan(quick, inputs={"word": "a"}).bounds.seconds


# -- policies of others ------------------------------------------------------------------------------------------------


class Foreign:
    band: ClassVar[Band] = Band.before(Band.RETRY)

    def wrap(self, proceed, site):
        return proceed


class Twice(Foreign):
    sends: ClassVar[int] = 2


class Patient(Foreign):
    def worst_case(self, inner):
        return inner.times(3).lasting(None if inner.seconds is None else 3 * inner.seconds + 10)


def test_a_policy_of_somebody_else_may_do_anything():
    """Then there is no bound but the deadline, and the plan says what its author can do."""
    planned = plan(asking(scripted(), Foreign())).bounds

    assert (None, None, 300) == (planned.calls, planned.usd, planned.seconds)
    assert any("Foreign does not say how often it sends" in note for note in planned.notes)


def test_a_policy_of_somebody_else_can_say_what_it_sends():
    """With `sends`, or with `worst_case` where that is not enough."""
    plain = asking(scripted(), Timeout(5), Retry.off, Repair.off, Bulkhead.off)

    assert (2, 10) == (calls(plain.with_(Twice())), plan(plain.with_(Twice())).bounds.seconds)
    assert (3, 25) == (calls(plain.with_(Patient())), plan(plain.with_(Patient())).bounds.seconds)


def test_a_budget_does_not_cap_what_is_sent_further_in():
    """Somebody else's policy behind the budget sends twice what was admitted."""

    class Inside(Twice):
        band: ClassVar[Band] = Band.after(Band.BUDGET)

    assert 18 == calls(asking(scripted(), Budget(calls=4), Inside()))


# -- how it is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(calls=36, usd=Decimal("0.04111"), seconds=300.0), "36 provider calls, $0.0412, 5 min 0 s"),
        (Bounds(calls=1, usd=Decimal("1.001"), seconds=0.31), "1 provider call, $1.01, 0.4 s"),
        (Bounds(calls=1200, usd=Decimal(0), seconds=3661), "1,200 provider calls, $0.00, 1 h 1 min 1 s"),
        (Bounds(calls=0, usd=Decimal(0), seconds=5), "no provider calls, 5 s"),
        (Bounds(), "any number of provider calls, unknown dollars, unknown time"),
    ],
)
def test_bounds_in_words_are_rounded_up(bounds, words):
    """What is said is never less than what is meant."""
    assert words == bounds_in_words(bounds)


def test_a_plan_is_plain_data():
    """Bounds are in the dict of the whole and of each node, dollars as text."""
    said = json.loads(json.dumps(plan(asking(scripted(price=PRICE), Retry.off, Repair.off)).to_dict()))

    assert {"calls": 1, "usd": "0.024576", "seconds": 300.0} == {
        name: said["bounds"][name] for name in ("calls", "usd", "seconds")
    }
    assert said["bounds"] == said["nodes"][0]["bounds"]


def test_a_map_over_inputs_that_are_given():
    """What `run --map --dry-run` prints."""
    question = asking(scripted(), Timeout(5), Retry.off, Repair.off, Bulkhead.off)
    planned = plan_map(question, [{"word": "a"}, {"word": "b"}, {"word": "c"}], concurrency=2)

    assert (3, 10, 3) == (planned.bounds.calls, planned.bounds.seconds, planned.items)
    assert "at worst: 3 provider calls, unknown dollars, 10 s for all 3 items" in str(planned)
    assert 0 == plan_map(question, [], concurrency=2).bounds.calls


@pytest.mark.parametrize("prompt_tokens", [-1, 1.5, "many"])
def test_a_prompt_has_a_whole_number_of_tokens(prompt_tokens):
    """Anything else is refused by name."""
    with pytest.raises(DefinitionError, match="prompt_tokens"):
        plan(asking(scripted()), prompt_tokens=prompt_tokens)


def test_inputs_that_are_no_parameters_are_refused():
    """As the call would refuse them."""
    with pytest.raises(TypeError, match="question"):
        plan(asking(scripted()), inputs={"sentence": "a"})


# -- what is known of the inputs ---------------------------------------------------------------------------------------


@task(Timeout(1))
async def size(word: str) -> str:
    return word


def prompts_of(target: Any, **inputs: Any) -> list[Decimal]:
    """The dollars of each node, which are those of its prompt."""
    return [node.bounds.usd for node in plan(target, inputs=inputs).nodes if node.kind == "step"]


def test_prompts_are_known_from_parts_of_inputs_and_from_what_is_made_of_them():
    """A field, an item, a list of them; what is not there is the run's failure and is assumed."""

    def about(words):
        return prompt(f"About {words}")

    about.__annotations__ = {"words": Any, "return": str}
    ask = step(scripted(price=PRICE), Retry.off, Repair.off)(about)

    @flow
    async def parts(given: dict[str, Any], missing: dict[str, Any]) -> list[str]:
        first = await ask(given["long"])
        second = await ask([given["long"], {"also": given["short"]}])
        return [first, second, await ask(missing["nowhere"]), await ask([await size(first)])]

    known = prompts_of(parts, given={"long": "word " * 100, "short": "a"}, missing={})
    assumed = plan(ask).bounds.usd

    assert known[0] < known[1] < assumed
    assert [assumed, assumed] == known[2:]


def test_how_many_items_an_iterator_has_is_not_known():
    """To count them would use them up."""
    one = timed(5, "one")

    @flow
    async def fan_out(words: Any) -> list[str]:
        return await one.map(words)

    assert calls(fan_out, inputs={"words": iter(["a"])}) is None
    assert calls(fan_out, inputs={"words": "a text is no list"}) is None
    assert 0 == calls(fan_out, inputs={"words": []})


def test_a_body_that_answers_itself_is_planned_as_one_that_asks():
    """It may ask the next time."""

    @step(scripted(), Retry.off, Repair.off)
    def known(word: str) -> str:
        return "known" if word == "a" else prompt(word)

    assert 1 == calls(known, inputs={"word": "a"})


def test_a_body_may_name_a_step_of_a_module_or_of_a_function_around_it():
    """Wherever the step is found, nobody knows how often it is called."""
    inner = timed(5, "inner")

    @task
    async def closed(word: str) -> str:
        return await inner(word)

    @task
    async def later(word: str) -> str:
        return await defined_later(word)

    assert (None, 0) == (calls(closed), calls(later))

    defined_later = inner

    assert calls(later) is None
    assert calls(through_a_module) is None


@task
async def through_a_module(word: str) -> str:
    return await this_module.one_of_module(word)


this_module = sys.modules[__name__] if __name__ in sys.modules else ModuleType("this_module")
this_module.one_of_module = one_of_module


def test_a_construct_takes_nothing():
    """`build` sends nothing."""

    @dataclass
    class Pair:
        left: str
        right: str

    @flow
    async def building(word: str) -> Pair:
        return await build(Pair, left=word, right=word)

    assert (0, 0) == (plan(building).bounds.calls, plan(building).bounds.seconds)
    assert "no provider calls, 0 s" in str(plan(building))


def test_of_several_models_without_a_fallback_the_dearest_counts():
    """Somebody else's policy may choose the model; it says itself that it asks one of them."""
    other = scripted(name="a/other", price=Price(input=100.0, output=100.0))

    class Chooses(Foreign):
        band: ClassVar[Band] = Band.FALLBACK
        sends: ClassVar[int] = 1
        models = (other,)

    question = asking(scripted(price=PRICE), Chooses(), Retry.off, Repair.off, params={"max_tokens": 10})

    assert 1 == calls(question)
    assert Decimal("0.101") == plan(question, prompt_tokens=1000).bounds.usd
    assert 300 == plan(question.with_(Retry(200, wait_max=1, retry_after_max=0))).bounds.seconds


def test_a_task_may_be_ended_by_a_deadline_of_its_own():
    """Its tries and waits are inside of it."""

    @task(Deadline(3))
    async def limited(word: str) -> str:
        return word

    assert 3 == plan(limited).bounds.seconds


def test_a_map_of_flows_and_tasks_over_a_known_list():
    """Items are counted; what differs between them is told apart for steps only."""
    one = timed(5, "one")

    @flow
    async def twice(word: str) -> str:
        return await one(await one(word))

    @flow
    async def fan_out(words: list[str], cond: bool) -> list[str]:
        await size.map(words)
        return await when(cond, twice.map(words), one.map(words))

    planned = plan(fan_out.with_(Deadline(9)), inputs={"words": ["a", "b"], "cond": True})

    assert (4, 9) == (planned.bounds.calls, planned.bounds.seconds)
    assert "DEADLINE  Deadline(seconds=9)  flow:fan_out, for the whole run" in str(planned)
    assert "  | fan_out/twice  [map]" in str(planned)


def test_only_what_llmflow_runs_can_be_planned():
    """Anything else is named."""
    with pytest.raises(DefinitionError, match="got str"):
        plan("question")


def test_dollars_of_a_budget_are_shown_as_they_are_written():
    """A budget reads as in the program."""

    question = asking(scripted(price=PRICE), Budget(usd="0.10"))

    assert "Budget(usd='0.10')" in str(plan(question))
