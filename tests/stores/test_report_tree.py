"""The nodes of a run as a tree: by their places, with items of a map counted and only some of them kept."""

from __future__ import annotations

import pytest

from llmflow.stores._journal_reports import Reports
from llmflow.stores._report_places import Branch, Series, Taken
from llmflow.stores._report_records import Spend
from llmflow.stores._report_tree import FAILURES, tree_of

from .journal_rows import DOWN, PAID, Rows

AT = 1000.0


@pytest.fixture
def rows():
    made = Rows()
    made.run("r", AT)
    yield made
    made.close()


def grown(rows, **options):
    return tree_of(Reports(rows.connection, AT).run("r"), **options)


def drawn(places):
    """Return names, with what is inside them."""
    return [
        (one.name, one.number, drawn(one.items)) if isinstance(one, Series) else (one.name, drawn(one.children))
        for one in places
    ]


def test_a_run_without_nodes_has_no_tree(rows):
    """As one that has only begun."""
    assert () == grown(rows)


def test_places_are_paths(rows):
    """What began first stands first, whatever it is called."""
    for number, key in enumerate(("support/zeta", "support/inner/draft", "support/alpha")):
        rows.step("r", key, AT + number)
    rows.node("r", "support", AT, kind="flow", latency_s=3.0)

    assert [("support", [("zeta", []), ("inner", [("draft", [])]), ("alpha", [])])] == drawn(grown(rows))


def test_a_place_that_stands_between_others_is_one(rows):
    """In the order of keys, `a-b` comes between `a` and what is inside it."""
    for key in ("f/a", "f/a-b", "f/a/x", "f/a!"):
        rows.step("r", key, AT)

    assert [("f", [("a", [("x", [])]), ("a!", []), ("a-b", [])])] == drawn(grown(rows))


def test_a_place_has_what_it_and_all_inside_it_took(rows):
    """Tokens and money, those of failed requests too."""
    rows.step("r", "support/triage", AT, (DOWN, PAID))
    rows.step("r", "support/draft", AT + 2, (PAID,))
    (support,) = grown(rows)

    assert Taken(240, 80, Spend(known_nano=220_000)) == support.taken
    assert (AT, AT + 3.0) == (support.started, support.ended)
    assert "" == support.status


def test_a_small_map_is_shown_whole(rows):
    """Grouping three items would hide more than it saves."""
    for item in "cab":
        rows.step("r", f"f/draft[{item}]", AT)
    ((_, (drafts,)),) = drawn(grown(rows))

    assert ("draft", 3, [("draft[a]", []), ("draft[b]", []), ("draft[c]", [])]) == drafts


def test_of_a_large_map_the_first_and_the_failed_are_kept(rows):
    """All are counted, and what they took is added up."""
    for item in range(100):
        failed = {"error": "ProviderUnavailable"} if item % 4 == 3 else {}
        rows.step("r", f"draft[{item:03}]", AT + item, ({**PAID, "latency_s": 1.0 + item},), **failed)
    (drafts,) = grown(rows)

    assert (100, {"ok": 75, "failed": 25}) == (drafts.number, drafts.statuses)
    assert ["draft[000]", "draft[001]", "draft[002]", "draft[003]"] == [one.name for one in drafts.items][:4]
    assert 3 + FAILURES == len(drafts.items)
    assert (12_000, 11_000_000) == (drafts.taken.input_tokens, drafts.taken.spend.known_nano)
    assert [50.0, 95.0, 99.0] == [drafts.latency.p50, drafts.latency.p95, drafts.latency.p99]
    assert (AT, AT + 199) == (drafts.started, drafts.ended)


def test_items_may_be_flows_and_have_maps_inside(rows):
    """What is inside an item is a tree of its own."""
    for item in "ab":
        for part in "xy":
            rows.step("r", f"f/support[{item}]/draft[{part}]", AT)
        rows.step("r", f"f/support[{item}]/triage", AT + 1)
    inside = [("draft", 2, [("draft[x]", []), ("draft[y]", [])]), ("triage", [])]

    assert [("f", [("support", 2, [("support[a]", inside), ("support[b]", inside)])])] == drawn(grown(rows))


@pytest.mark.parametrize(
    ("keys", "tree"),
    [
        (["m[a/b]"], [("m", 1, [("m[a/b]", [])])]),
        (["m[a[0]]/x"], [("m", 1, [("m[a[0]]", [("x", [])])])]),
        (["m[a/x"], [("m[a/x", [])]),
        (["m]/x"], [("m]", [("x", [])])]),
        (["a//b"], [("a", [("", [("b", [])])])]),
        (["m[a]", "m[b", "m[c]"], [("m", 2, [("m[a]", []), ("m[c]", [])]), ("m[b", [])]),
        (["m[a]", "m[[b]", "m[c]"], [("m", 3, [("m[[b]", []), ("m[a]", []), ("m[c]", [])])]),
        (["m[a]?", "m[a]?/x", "m[b]?"], [("m", 2, [("m[a]?", [("x", [])]), ("m[b]?", [])])]),
    ],
)
def test_keys_of_items_may_hold_anything(rows, keys, tree):
    """They come from the user; nothing of a run is lost for them."""
    for key in keys:
        rows.step("r", key, AT)

    assert sorted(map(str, tree)) == sorted(map(str, drawn(grown(rows))))


def test_a_call_without_a_place_stands_under_its_step(rows):
    """As calls of a program that is no flow do."""
    rows.attempt("r", rows.call("r", AT + 1, node=None), AT, node=None)

    assert [("triage", [])] == drawn(grown(rows))


@pytest.mark.parametrize(
    ("status", "node", "call", "outcomes"),
    [
        ("ok", {"status": "ok"}, None, []),
        ("failed", {"status": "failed"}, {"error": "X"}, ["X"]),
        ("cancelled", {"status": "cancelled"}, None, ["cancelled"]),
        ("cached", {"status": "ok"}, {"cached": 1}, []),
        ("failed", {"status": "failed"}, {"cached": 1}, []),
        ("ok", None, {}, ["X", "ok"]),
        ("cached", None, {"cached": 1}, []),
        ("failed", None, {"error": "X"}, ["X"]),
        ("in flight", None, None, ["X", None]),
        ("uncertain", None, None, ["X", "uncertain"]),
        ("", None, None, ["X"]),
    ],
)
def test_the_status_of_a_place(rows, status, node, call, outcomes):
    """What its node says, else its call, else its requests."""
    if node is not None:
        rows.node("r", "triage", AT, **node)
    call_id = "c" if call is None else rows.call("r", AT + 1, node="triage", **call)
    for number, outcome in enumerate(outcomes):
        rows.attempt("r", call_id, AT, number=number, node="triage", outcome=outcome)
    (place,) = grown(rows)

    assert status == place.status
    assert (place.ended is None) == (status == "in flight")


def test_what_holds_something_in_flight_is_in_flight(rows):
    """Up to the root; a map too."""
    rows.step("r", "f/m[a]", AT)
    rows.attempt("r", "c", AT + 1, node="f/m[b]", outcome=None, latency_s=None)
    (flow,) = grown(rows)
    (items,) = flow.children

    assert ("in flight", None) == (flow.status, flow.ended)
    assert None is items.ended


def test_items_that_are_all_in_flight_have_no_latency(rows):
    """Not yet."""
    for item in range(3):
        rows.attempt("r", f"c{item}", AT, node=f"m[{item}]", outcome=None, latency_s=None)
    (items,) = grown(rows)

    assert (None, {"in flight": 3}) == (items.latency.p50, items.statuses)


def test_the_model_of_a_place_is_who_answered(rows):
    """Else who was asked last."""
    rows.attempt("r", "c", AT, node="a", model="x/1", outcome="X", prompt_version=None)
    rows.attempt("r", "c", AT + 1, node="a", number=2, model="x/2", prompt_version="v2")
    rows.step("r", "b", AT, ({"model": "x/1"},), model="x/3")
    rows.node("r", "c", AT, kind="task")
    found = {one.name: (one.model, one.prompt_version) for one in grown(rows)}

    assert {"a": ("x/2", "v2"), "b": ("x/3", None), "c": (None, None)} == found


def test_content_is_in_the_tree_when_it_is_asked_for(rows):
    """Else it is not even read."""
    rows.step("r", "a", AT)
    (bare,), (whole,) = grown(rows), grown(rows, content=True)

    assert isinstance(bare, Branch)
    assert (None, '{"category": "billing"}') == (bare.node.output, whole.node.output)
