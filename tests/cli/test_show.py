"""`llmflow show`: one run, with its nodes and attempts on one axis of time."""

from __future__ import annotations

import json
import time

import pytest

from llmflow.cli._timing import Axis

from ..stores.journal_rows import DOWN, NEW, PAID, Rows, fill  # noqa: TID252  # tests are no package


@pytest.fixture
def path(home):
    (home / ".llmflow").mkdir()
    return home / ".llmflow" / "llmflow.db"


@pytest.fixture
def journal(path):
    fill(path, time.time())
    return path


@pytest.fixture
def rows(path):
    made = Rows(path)
    yield made
    made.close()


def test_the_head_says_what_became_of_it(llmflow, journal):
    """Target, status, id, time, cost, prompts, tenant, tags."""
    out = llmflow("show", "order-41").out

    assert out.startswith("support  ok  order-41\n  started  ")
    assert ", taken up again 1 time\n  took     2.2 s, the last time\n" in out
    assert "  calls    2 calls, 3 requests, 240 tokens in, 80 out\n  cost     $0.00022\n" in out
    assert "  prompts  triage 1a2b3c4d5e6f (production), 1 call\n           draft 0d0d0d0d0d0d, 1 call\n" in out
    assert "  tenant   acme\n  tags     team=support\n" in out


def test_nodes_stand_in_a_tree_on_one_axis(llmflow, journal):
    """With their attempts below, where there were several."""
    lines = llmflow("show", "order-41").out.splitlines()
    tree = lines[lines.index("") + 1 :]

    assert ["node", "status", "when", "took", "in", "out", "cost", "model", "prompt"] == tree[0].split()
    assert ["support", "  triage", "    #1 RateLimited 429", "    #2 ok", "  draft"] == [
        line[:24].removesuffix("  ok").rstrip() for line in tree[1:6]
    ]
    assert (
        "ok      ================............   1.2 s  120   40  $0.00011  openai/gpt-5-mini           1a2b3c4d5e6f"
        in tree[2]
    )
    assert "        ===.........................  200 ms" in tree[3]


def test_what_failed_is_said_below(llmflow, journal):
    """In the words of the error."""
    out = llmflow("show", "order-42").out

    assert "  error    ProviderUnavailable: step 'draft': the provider is down\n" in out
    assert "#3 ProviderUnavailable 503, hedge" in out
    assert out.endswith("\n\nsupport/draft  ProviderUnavailable: step 'draft': the provider is down\n")


def test_a_map_is_summed_up(llmflow, journal):
    """Its first items, those that failed, and how many there are."""
    out = llmflow("show", "mailbox").out
    tree = out[out.index("node ") :].split("\n\n")[0].splitlines()

    assert out.startswith("triage  ok, 4 of 200 items failed  mailbox\n")
    assert "triage, 200 items" in tree[1]
    assert "4 failed" in tree[1]
    assert 3 + 4 == sum("triage[" in line for line in tree)
    assert "  193 more; of all 200: 176 ok, 20 cached, 4 failed; p50 1.9 s, p95 2.9 s" == tree[-1]
    assert "  saved    $0.0021\n" in out


def test_a_small_map_is_shown_whole(llmflow, rows):
    """Nothing is left to be told."""
    rows.run("r", 1000.0)
    for item in "abc":
        rows.step("r", f"support/draft[{item}]", 1000.0)
    out = llmflow("show", "r").out

    assert "  draft, 3 items  ok " in out
    assert 3 == out.count("draft[")
    assert "more" not in out


def test_what_is_uncertain_is_a_range(llmflow, journal):
    """What was spent at least, and at most."""
    ran = llmflow("show", "died")

    assert "support  interrupted  died\n" in ran.out
    assert "  calls    1 call and 1 without an end, 3 requests" in ran.out
    assert "draft 0d0d0d0d0d0d, 0 calls and 1 without an end\n" in ran.out
    assert "  cost     $0.00011 to $0.0016\n" in ran.out
    assert "#1 uncertain" in ran.out
    assert "< $0.00090" in ran.out
    assert "2 requests cut off when the process died: at most $0.0015 more\n" == ran.err


def test_what_was_cancelled_has_a_bound(llmflow, rows):
    """As what a crash cut off: whoever ended it, what was reserved is the most that it cost."""
    rows.run("r", 1000.0, status="cancelled")
    rows.step("r", "support/triage", 1000.0, (PAID, {"outcome": "cancelled", "reserved_nano": 900_000}))
    ran = llmflow("show", "r")

    assert "  cost     $0.00011 to $0.0010\n" in ran.out
    assert "1 request of unknown cost: at most $0.00090 more\n" == ran.err
    assert "> $0.00011\n" in llmflow("runs").out
    (said,) = json.loads(llmflow("runs", "--json").out)["runs"]
    assert ("0.00011", "0.00101", 1) == tuple(said[name] for name in ("cost_usd", "cost_most_usd", "unpriced"))


def test_a_run_that_runs_is_shown_up_to_now(llmflow, journal):
    """What is in flight has no latency yet."""
    ran = llmflow("show", "last")

    assert "support  running  alive\n" in ran.out
    assert "  took     -\n" in ran.out
    assert "#1 in flight" in ran.out
    assert (
        "1 request of unknown cost, 1 in flight: 1 of them at most $0.00070 more, nobody knows about 1\n"
    ) in ran.err


def test_a_map_that_had_nothing_more_to_do_is_shown_as_it_ran(llmflow, rows):
    """Called again with the same id a day later: the axis is that of its items, and what they took is said."""
    at = time.time() - 2 * 86400
    rows.run("r", at, target="triage", kind="map", resumed=1, latency_s=0.045, finished=at + 86400)
    for number, item in enumerate("abcd"):
        rows.step("r", f"triage[{item}]", at + number, (PAID,))
    out = llmflow("show", "r").out

    assert "  took     45 ms, the last time; its nodes 4.0 s\n" in out
    assert "=======.....................  1.0 s" in out
    assert ".....................=======  1.0 s" in out


def test_content_is_shown_when_it_is_asked_for(llmflow, journal):
    """Inputs and outputs may be anybody's letters."""
    assert "charged" not in llmflow("show", "order-41").out
    assert (
        '\nsupport/triage\n  in  {"message": "I was charged twice"}\n  out {"category": "billing"}\n'
        in llmflow("show", "order-41", "--content").out
    )


def test_content_that_is_not_stored_is_said(llmflow, rows):
    """With why; the run's own content stands first."""
    rows.run("r", 1000.0, inputs='{"n": 1}', output="2")
    rows.node("r", "support/a", 1000.0, content="hashed")
    rows.node("r", "support/b", 1001.0, content="inputs", inputs="{}")
    rows.node("r", "support/c", 1002.0)
    out = llmflow("show", "r", "--content").out

    assert '\nsupport\n  in  {"n": 1}\n  out 2\n' in out
    assert "\nsupport/a\n  in  not stored, only its hash\n  out not stored, only its hash\n" in out
    assert "\nsupport/b\n  in  {}\n  out not stored: the task says journal=False, or JSON cannot hold it\n" in out
    assert out.endswith("\nsupport/c\n")


def test_a_narrow_terminal_shows_all_of_it(llmflow, journal, narrow):
    """What does not fit beside the rest stands below, once for items that are alike."""
    order, mailbox = llmflow("show", "order-42").out, llmflow("show", "mailbox").out
    tree = order[order.index("node ") :]

    assert 80 >= max(map(len, (order + mailbox).splitlines()))
    assert f"│       openai/gpt-5-mini, prompt {NEW}\n" in tree
    assert "      #1 ProviderUnavailable 503           ▐██▌       500 ms\n" in tree
    assert "      #3 ProviderUnavailable 503, h…" in tree
    assert 1 == mailbox.count("openai/gpt-5-mini")
    assert "└─ 193 more; of all 200" in mailbox


def test_a_terminal_that_shows_no_blocks_gets_none(llmflow, journal, narrow, monkeypatch):
    """As pipes do."""
    monkeypatch.setenv("TERM", "dumb")

    assert "█" not in llmflow("show", "order-42").out
    assert "  triage" in llmflow("show", "order-42").out


def test_a_run_without_nodes_has_a_head(llmflow, rows):
    """And tags of another program, or none that can be read, are shown as they are."""
    rows.run("r", 1000.0, tags="[1]", status="failed", error="ValueError")
    out = llmflow("show", "r").out

    assert "  tags     [1]\n  error    ValueError\n" in out
    assert "node" not in out


def test_much_of_one_kind_is_cut(llmflow, rows):
    """Attempts of a node, and nodes that failed."""
    rows.run("r", 1000.0)
    rows.step("r", "support/triage", 1000.0, (DOWN,) * 15)
    for item in range(12):
        rows.step("r", f"support/step{item:02}", 1010.0, (DOWN,), error="ProviderUnavailable")
    rows.node("r", "support", 1000.0, kind="flow", status="failed", error="ProviderUnavailable")
    out = llmflow("show", "r").out

    assert "    3 more requests\n" in out
    assert out.endswith("support/step09  ProviderUnavailable\nand 2 more\n")


def test_a_place_nobody_knows_the_status_of(llmflow, rows):
    """Items of a map that were cut before they ended."""
    rows.run("r", 1000.0)
    for item in range(9):
        rows.attempt("r", "c", 1000.0, node=f"m[{item}]", number=item, outcome="X")

    assert "  6 more; of all 9: 9 unknown; p50 1.0 s, p95 1.0 s" in llmflow("show", "r").out


def test_show_as_json(llmflow, journal):
    """Records as they are in the file, money in dollars."""
    said = json.loads(llmflow("show", "order-41", "--json").out)
    whole = json.loads(llmflow("show", "order-41", "--json", "--content").out)

    assert ["run", "prompts", "nodes", "calls", "attempts"] == list(said)
    assert [("RateLimited", 429, "0"), ("ok", None, "0.00011")] == [
        (one["outcome"], one["status"], one["cost_usd"]) for one in said["attempts"] if one["step"] == "triage"
    ]
    assert "inputs" not in said["nodes"][0]
    assert {"category": "billing"} == whole["nodes"][1]["output"]
    assert None is whole["run"]["inputs"]


def test_a_run_that_is_not_there_is_wrong_use(llmflow, journal):
    """With a way out."""
    none, several = llmflow("show", "nope"), llmflow("show", "order")

    assert (2, "error: there is no run 'nope'\n  hint: `llmflow runs` lists those that there are.\n") == (
        none.code,
        none.err,
    )
    assert (2, "error: 2 runs have an id that begins with 'order'\n  hint: Write more of it: order-42, order-41\n") == (
        several.code, several.err,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("span", "blocks", "plain"),
    [
        ((0, 10), "█████", "====="),
        ((0, 1), "▌    ", "=...."),
        ((1, 2), "▐    ", "=...."),
        ((3, 7), " ▐█▌ ", ".===."),
        ((4, 4), "  ▌  ", "..=.."),
        ((10, 10), "    ▐", "....="),
        ((4, None), "  ███", "..==="),
        ((-5, 99), "█████", "====="),
    ],
)
def test_bars(span, blocks, plain):
    """Half a cell is the least that is shown, and it is always shown."""
    assert blocks == Axis(0, 10, 5).bar(*span)
    assert plain == Axis(0, 10, 5, plain=True).bar(*span)


def test_an_axis_of_no_length():
    """A run that took no time."""
    assert "▌ " == Axis(1, 1, 2).bar(1, 1)


def test_paid_items_of_a_cheap_run(llmflow, rows):
    """Very little money is more than none."""
    rows.run("r", 1000.0)
    rows.step("r", "a", 1000.0, ({**PAID, "cost_nano": 7},))
    rows.step("r", "b", 1000.0, ({"reserved_nano": None, "outcome": "uncertain"},))
    ran = llmflow("show", "r")

    assert "  cost     > $0.0000000070\n" in ran.out
    assert "1 request cut off when the process died: nobody knows how much more\n" == ran.err
