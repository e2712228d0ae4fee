"""Kill -9 at every point of a run where its journal speaks to SQLite: enumerated, not sampled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

PROGRAM = Path(__file__).with_name("twenty_nodes.py")
VALUE = (
    "hello!|<one: hello!>|<two: hello!>|<three: hello!>|<Sum up hello!-0>|<Sum up hello!-4>|<instead: <one: hello!>>"
    "|<wo: <inner one: <two: hello!>>>|<urgent: <three: hello!>>|<bug: <urgent: <three: hello!>>>"
)
NODES = 20
TASKS = {"fetch", "split", "join"}
FAILS = "order/fragile"


@pytest.fixture(scope="module", params=["before", "after"])
def kills(request, tmp_path_factory):
    """What became of a run that was killed before each statement, or after each COMMIT, and taken up again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    folder = tmp_path_factory.mktemp("kills")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), request.param],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1200,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def whole(kills):
    """The run that nobody killed."""
    return kills[-1]


def asked(result):
    """How often each node was asked for, on either side of the kill; counted where no kill can undo it."""
    return Counter(line.removeprefix("ask ") for line in result["logged"] + result["again"] if line.startswith("ask"))


def test_there_are_many_points(kills):
    """A flow of twenty nodes with parallel parts, and every statement or commit of it."""
    uninterrupted = whole(kills)

    assert NODES == len(uninterrupted["after"]["nodes"])
    assert sum(one["killed"] for one in kills) >= 5  # the busier the machine, the more goes into one commit
    assert [f"{number}" for number in range(1, len(kills) + 1)] == [one["point"].partition(":")[2] for one in kills]


def test_the_value_is_right_wherever_it_was_killed(kills):
    """The second try ends well, with the value of a run that nobody killed."""
    assert [] == [
        (one["point"], one["value"], one["code"]) for one in kills if (one["value"], one["code"]) != (VALUE, 0)
    ]
    assert {"ok"} == {one["after"]["run"][0] for one in kills}
    assert set(whole(kills)["after"]["nodes"]) == {key for one in kills for key in one["after"]["nodes"]}


def test_what_was_recorded_is_neither_asked_nor_run_again(kills):
    """Steps and tasks that the journal had as done when the process died."""
    again = []
    for one in kills:
        had = {key for key, status in one["before"]["nodes"].items() if status == "ok"}
        again += [(one["point"], f"{key}") for key in had if f"ask {key}" in one["again"]]
        again += [(one["point"], name) for name in TASKS if f"order/{name}" in had and f"task {name}" in one["again"]]

    assert [] == again


def test_no_node_is_asked_twice_but_those_in_flight(kills):
    """At most twice, and the second time only when its first request is on record as uncertain, or as failed."""
    for one in kills:
        attempts = one["after"]["attempts"]
        uncertain = Counter(node for node, outcome, *_ in attempts if outcome == "uncertain")
        for node, times in asked(one).items():
            failed_before = node == FAILS and any(
                key == FAILS and outcome is not None for key, outcome, *_ in one["before"]["attempts"]
            )
            assert times <= 1 + uncertain[node] + failed_before, (one["point"], node)
        assert set(uncertain.values()) <= {1}


def test_every_request_is_on_record(kills):
    """A request that was sent has a row, whatever came after it; nothing is left open."""
    for one in kills:
        attempts = Counter(node for node, *_ in one["after"]["attempts"])
        assert not asked(one) - attempts, one["point"]
        assert None not in {outcome for _, outcome, *_ in one["after"]["attempts"]}, one["point"]


def test_the_ledger_equals_that_of_a_run_that_nobody_killed(kills):
    """Without the uncertain ones, which are charged at what was reserved for them."""
    expected = paid(whole(kills))

    assert len(expected) == 15
    for one in kills:
        assert expected == {**paid(one), FAILS: 0}, one["point"]
        assert all(
            cost == reserved > 0 for _, outcome, cost, reserved in one["after"]["attempts"] if outcome == "uncertain"
        ), one["point"]


def paid(result):
    """What each node has cost with those of its requests whose end is known; each has one, but the one that fails."""
    rows = [(node, cost) for node, outcome, cost, _ in result["after"]["attempts"] if outcome != "uncertain"]
    assert [] == [node for node, times in Counter(node for node, _ in rows).items() if times > 1 and node != FAILS]
    return dict(rows)
