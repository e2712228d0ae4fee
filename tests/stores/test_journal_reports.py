"""What the journal says of its runs: read only, with what is unknown counted apart."""

from __future__ import annotations

import os
import sqlite3
import stat
from datetime import UTC, datetime

import pytest

from llmflow.stores._database import VERSION, Database, NotOurs, close
from llmflow.stores._journal_reports import AmbiguousRun, NoJournal, NoRun, Reports, RunFilter, open_reports
from llmflow.stores._journal_tables import IS_ITEM, IS_REPLAY
from llmflow.stores._report_groups import Percentiles, Window
from llmflow.stores._report_records import AttemptRecord, Spend

from .journal_rows import DAY, HOUR, MINI, NEW, OLD, PAID, Rows, fill

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "journal.db"
    fill(made, NOW)
    made.chmod(0o600)
    return made


@pytest.fixture
def reports(path):
    with open_reports(path) as found:
        found.now = NOW
        yield found


# -- files -------------------------------------------------------------------------------------------------------------


def test_no_file_is_no_journal(tmp_path):
    """Nothing is made, not even the folder."""
    with (
        pytest.raises(NoJournal, match=r"no journal: .*/none/x.db does not exist"),
        open_reports(tmp_path / "none" / "x.db"),
    ):
        pass

    assert [] == list(tmp_path.iterdir())


def test_a_file_of_the_cache_alone_is_no_journal(tmp_path):
    """It is of an older version, and stays as it is."""
    Rows(tmp_path / "cache.db", version=1, journal=False).close()
    before = (tmp_path / "cache.db").read_bytes()
    with pytest.raises(NoJournal, match="no run is recorded in .*cache.db yet"), open_reports(tmp_path / "cache.db"):
        pass

    assert before == (tmp_path / "cache.db").read_bytes()


def test_a_corrupt_file_stays_where_it_is(tmp_path):
    """Only who writes sets it aside."""
    content = b"no database" * 100
    (tmp_path / "corrupt.db").write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"), open_reports(tmp_path / "corrupt.db"):
        pass

    assert ["corrupt.db"] == os.listdir(tmp_path)
    assert content == (tmp_path / "corrupt.db").read_bytes()


def test_an_empty_file_is_no_journal(tmp_path):
    """Somebody has begun to make one."""
    (tmp_path / "empty.db").touch()
    with pytest.raises(NoJournal, match="no run is recorded in"), open_reports(tmp_path / "empty.db"):
        pass

    assert ["empty.db"] == os.listdir(tmp_path)


def test_a_newer_file_is_refused(tmp_path):
    """Its columns may mean something else."""
    Rows(tmp_path / "newer.db", version=VERSION + 1).close()
    with pytest.raises(NotOurs, match="made by a newer llmflow"), open_reports(tmp_path / "newer.db"):
        pass


def test_reading_changes_nothing(path):
    """A report cannot write, whatever it does."""
    before = path.read_bytes()
    with open_reports(path) as found, pytest.raises(sqlite3.OperationalError, match="readonly"):
        found._connection.execute("DELETE FROM runs")

    assert before == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_reports_see_one_state(path):
    """What is written while a report is made is in none of its sums, else they would not agree."""
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    with open_reports(path) as found:
        before = len(list(found.runs()))
        other.execute("DELETE FROM runs")
        other.commit()

        assert before == len(list(found.runs()))
    other.close()


def test_text_that_is_none_ends_no_report(path):
    """Another program may have written it."""
    with sqlite3.connect(path) as other:
        other.execute("UPDATE runs SET target = CAST(X'ff41' AS TEXT) WHERE run_id = 'mailbox'")
    other.close()
    with open_reports(path) as found:
        assert "\ufffdA" == found.run("mailbox").summary.target


def test_other_tools_read_it(path):
    """Datasette and the sqlite3 shell open it without llmflow; the view has the money of each run."""
    plain = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    found = plain.execute(
        "SELECT run_id, requests, cost_usd, unpriced, started_utc FROM run_costs WHERE run_id = 'order-41'"
    )

    assert ("order-41", 3, 0.00022, 0, "2026-03-29 12:00:00") == found.fetchone()
    plain.close()


def test_the_view_adds_up_what_is_known():
    """What a crash cut off is charged at its worst, and in no sum of what was spent."""
    rows = Rows()
    rows.run("r", NOW)
    for number, row in enumerate(
        (
            {"cost_nano": 5},
            {"outcome": "uncertain", "cost_nano": 60, "reserved_nano": 60},
            {"outcome": None, "reserved_nano": 700},
            {"outcome": "cancelled", "reserved_nano": 8000},
            {"outcome": "Unreachable", "sent": 0},
            {"kind": "hit", "sent": 0},
        )
    ):
        rows.attempt("r", f"c{number}", NOW, **row)
    rows.run("none", NOW)

    assert [("none", 0, 0, 0, 0, 0, 0), ("r", 5, 5, 8765, 1, 1, 1)] == rows.connection.execute(
        "SELECT run_id, requests, cost_usd * 1e9, at_most_usd * 1e9, unpriced, uncertain, in_flight FROM run_costs ORDER BY 1"
    ).fetchall()
    rows.attempt("r", "c9", NOW, outcome="cut")
    assert (5, None, 2) == rows.connection.execute(
        "SELECT cost_usd * 1e9, at_most_usd, unpriced FROM run_costs WHERE run_id = 'r'"
    ).fetchone()
    rows.close()


def test_a_file_of_version_2_is_given_the_view(tmp_path):
    """In the place of the one that it has."""
    path = tmp_path / "old.db"
    Rows.of_version_2(path).close()
    close(Database(path).open_writer())
    rows = Rows(path)
    rows.run("r", NOW)
    rows.attempt("r", "c", NOW, outcome="uncertain", cost_nano=6, reserved_nano=6)

    assert [("r", 0, 6e-9, 1)] == rows.connection.execute(
        "SELECT run_id, cost_usd, at_most_usd, uncertain FROM run_costs"
    ).fetchall()
    rows.close()


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_come_latest_first(reports):
    """With what each took."""
    runs = list(reports.runs())

    assert ["alive", "died", "mailbox", "order-42", "order-41"] == [one.run_id for one in runs]
    assert [1, 1, 200, 2, 2] == [one.calls for one in runs]
    assert [2, 3, 180, 4, 3] == [one.requests for one in runs]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (RunFilter(target="triage"), ["mailbox"]),
        (RunFilter(status="failed"), ["mailbox", "order-42"]),
        (RunFilter(status="failed", target="support"), ["order-42"]),
        (RunFilter(status="ok"), ["mailbox", "order-41"]),
        (RunFilter(status="running"), ["alive"]),
        (RunFilter(status="interrupted"), ["died"]),
        (RunFilter(tenant="acme"), ["order-41"]),
        (RunFilter(window=Window(since=NOW - 1.5 * HOUR)), ["alive", "died"]),
        (RunFilter(window=Window(until=NOW - DAY)), ["order-41"]),
        (RunFilter(target="support", status="ok", window=Window(since=NOW - 3 * DAY, until=NOW)), ["order-41"]),
        (RunFilter(target="x' OR 1=1 --"), []),
        (RunFilter(target="\udcff"), []),
    ],
)
def test_runs_are_filtered(reports, wanted, found):
    """All conditions hold together; `interrupted` is what says it runs and has no process any more."""
    assert found == [one.run_id for one in reports.runs(wanted)]


def test_items_that_failed_are_counted(reports):
    """Of maps, whose own status need not be that one of them did; a step of a flow that failed is no item."""
    found = {one.run_id: (one.status, one.failed_items, one.items) for one in reports.runs()}

    assert ("ok", 4, 200) == found["mailbox"]
    assert ("failed", 0, None) == found["order-42"]


def test_what_is_inside_an_item_is_no_item():
    """Items of a map of flows have nodes of their own, of which a fallback may make good what failed."""
    rows = Rows()
    rows.run("r", NOW, kind="map")
    for key, status in (
        ("f[a]", "ok"), ("f[a]/draft", "failed"), ("f[a]/m[x]", "failed"), ("f[a]#2", "failed"), ("f[a]#2/draft", "failed"),
        ("f[b]", "failed"), ("f[c/d]", "cancelled"),
    ):  # fmt: skip
        rows.node("r", key, NOW, status=status)
    (one,) = Reports(rows.connection, NOW).runs()

    assert (2, 4) == (one.failed_items, one.items)
    rows.close()


def test_items_that_failed_are_found_without_reading_all():
    """Which hold what customers wrote."""
    rows = Rows()
    plan = rows.connection.execute(
        f"EXPLAIN QUERY PLAN SELECT count(*) FROM nodes WHERE run_id = 'r' AND status = 'failed' AND {IS_ITEM}"
    ).fetchall()

    assert "nodes_failed" in plan[0][-1]
    rows.close()


def test_so_many_runs_and_no_more(reports):
    """A limit counts what fits."""
    assert ["order-41"] == [one.run_id for one in reports.runs(RunFilter(status="ok", target="support"), limit=5)]
    assert ["alive", "died"] == [one.run_id for one in reports.runs(limit=2)]


def test_a_run_without_an_owner_is_interrupted():
    """Nobody is there who could end it."""
    rows = Rows()
    rows.run("lost", NOW, status="running")

    assert "interrupted" == Reports(rows.connection, NOW).run("lost").summary.status
    rows.close()


@pytest.mark.parametrize(
    ("name", "found"), [("order-41", "order-41"), ("mail", "mailbox"), ("last", "alive"), ("order-42", "order-42")]
)
def test_a_run_is_found_by_its_beginning(reports, name, found):
    """Or as the last one."""
    assert found == reports.run(name).summary.run_id


def test_an_id_goes_before_ids_that_begin_so():
    """And before the word for the last run."""
    rows = Rows()
    for number, name in enumerate(("last", "order-1", "order-12")):
        rows.run(name, NOW + number)
    found = Reports(rows.connection, NOW)

    assert ["last", "order-1"] == [found.run(name).summary.run_id for name in ("last", "order-1")]
    rows.close()


def test_a_beginning_of_several_runs_names_them(reports):
    """So that more of it can be written."""
    with pytest.raises(AmbiguousRun, match="^2 runs have an id that begins with 'order'$") as caught:
        reports.run("order")

    assert ("order-42", "order-41") == caught.value.runs


def test_a_beginning_of_many_runs_names_some():
    """A hundred ids would help nobody."""
    rows = Rows()
    for number in range(100):
        rows.run(f"run{number}", NOW + number)
    with pytest.raises(AmbiguousRun, match="^more than 5 runs") as caught:
        Reports(rows.connection, NOW).run("run")

    assert 5 == len(caught.value.runs)
    rows.close()


@pytest.mark.parametrize(
    ("name", "said"), [("nope", "there is no run 'nope'"), ("", "there is no run ''"), ("last", "there is no run yet")]
)
def test_a_run_that_is_not_there_is_said(name, said):
    """No id begins with nothing."""
    rows = Rows()
    if name != "last":
        rows.run("x", NOW)
    with pytest.raises(NoRun, match=said):
        Reports(rows.connection, NOW).run(name)
    rows.close()


def test_a_run_has_its_nodes_calls_and_attempts(reports):
    """Content is read only when it is asked for."""
    run = reports.run("order-41")
    bare, whole = list(run.nodes()), list(run.nodes(content=True))

    assert ["support", "support/draft", "support/triage"] == [one.node for one in bare]
    assert [None, None, None] == [one.inputs for one in bare]
    assert '{"message": "I was charged twice"}' == whole[1].inputs
    assert [("draft", False), ("triage", False)] == [(one.step, one.repaired) for one in run.calls()]
    assert [("ok", 1), ("RateLimited", 1), ("ok", 2)] == [(one.outcome, one.number) for one in run.attempts()]
    assert [("triage", OLD, "production", 1, 0), ("draft", "0d0d0d0d0d0d", None, 1, 0)] == [
        (one.step, one.prompt_version, one.label, one.calls, one.unended) for one in run.prompts()
    ]


def test_calls_without_an_end_are_counted_apart(reports):
    """They are no rows of `calls`; whatever is counted, prompts add up to the run."""
    for name in ("died", "alive", "order-41"):
        run = reports.run(name)

        assert (run.summary.calls, run.summary.unended) == tuple(
            sum(getattr(one, what) for one in run.prompts()) + (name == "alive" and what == "unended")
            for what in ("calls", "unended")
        )
    died = reports.run("died")

    assert (1, 1) == (died.summary.calls, died.summary.unended)
    assert [("triage", 1, 0), ("draft", 0, 1)] == [(one.step, one.calls, one.unended) for one in died.prompts()]


@pytest.mark.parametrize(
    ("spans", "worked"),
    [
        ((), None),
        (((0, 2),), 2),
        (((0, 2), (1, 2)), 3),
        (((0, 5), (1, 2)), 5),
        (((0, 2), (1000, 2), (1001, 3)), 6),
        (((5, 1), (0, 1)), 2),
    ],
)
def test_a_run_was_at_work_while_a_node_was(spans, worked):
    """What ran beside something else counts once, the night between two tries not at all."""
    rows = Rows()
    rows.run("r", NOW)
    for number, (started, latency) in enumerate(spans):
        rows.node("r", f"f/n{number}", started, latency_s=latency)

    assert worked == Reports(rows.connection, NOW).run("r").worked_s()
    rows.close()


def test_the_content_of_a_run_is_its_own():
    """Beside that of its nodes."""
    rows = Rows()
    rows.run("x", NOW, inputs="{}", output="1")

    assert ("{}", "1") == Reports(rows.connection, NOW).run("x").content()
    rows.close()


def test_who_reads_decides_what_time_it_is(monkeypatch):
    """The time of day, unless told."""
    monkeypatch.setattr("time.time", lambda: 5.0)

    assert 5.0 == Reports(None).now
    assert 0.0 == Reports(None, 0.0).now


# -- sums --------------------------------------------------------------------------------------------------------------


def test_stats_by_step(reports):
    """Calls by what became of them, requests and money beside."""
    draft, triage = reports.stats()

    assert ("triage",) == triage.key
    assert (204, 200, 4, {"ProviderUnavailable": 4}) == (triage.calls, triage.valid, triage.failed, triage.errors)
    assert (1, 1, 20) == (triage.reasks, triage.repaired, triage.cost.hits)
    assert (185, 180) == (triage.cost.requests, sum(one.requests for one in reports.runs(RunFilter(target="triage"))))
    assert Spend(known_nano=179 * 110_000, unpriced=1, unbounded=1) == triage.cost.spend
    assert (19 * 110_000, 1) == (triage.cost.saved_nano, triage.cost.unsaved)
    assert Spend(known_nano=110_000, uncertain=2, in_flight=1, open_nano=2_200_000) == draft.cost.spend


def test_stats_by_model_are_of_requests(reports):
    """What a provider did wrong is not what a call made of it; the loser of a hedge has done nothing wrong."""
    found = {one.key[0]: one for one in reports.stats("model")}

    assert {"ProviderUnavailable": 7, "RateLimited": 1} == found[MINI].errors
    assert (204, 199) == (found[MINI].calls, found[MINI].valid)
    assert Percentiles(1.0, 1.0, 1.0) == found["anthropic/claude-haiku-4-5"].latency


def test_stats_by_prompt_and_day_and_tenant(reports):
    """A key says what it is the sum of; what has no tenant is counted too."""
    assert [("draft", None), ("draft", "0d0d0d0d0d0d"), ("triage", OLD), ("triage", NEW)] == [
        one.key for one in reports.stats("prompt")
    ]
    assert [("2026-03-29",), ("2026-03-30",), ("2026-03-31",)] == [one.key for one in reports.stats("day")]
    assert [(None,), ("acme",), ("globex",)] == [one.key for one in reports.stats("tenant")]


def test_a_window_counts_what_ended_in_it(reports):
    """From its beginning on, and before its end; of one step only, if asked for."""
    day = Window(since=NOW - DAY, until=NOW - DAY + 10)

    assert [("draft", 1), ("triage", 1)] == [(one.key[0], one.calls) for one in reports.stats("step", day)]
    assert [("triage", 1)] == [(one.key[0], one.calls) for one in reports.stats("step", day, step="triage")]
    assert [] == reports.stats("step", Window(since=NOW + 1))
    assert [] == reports.stats("step", step="\udcff")


def test_cost_names_the_dearest_first(reports):
    """But days in their order."""
    assert [(None,), ("acme",), ("globex",)] == [one.key for one in reports.cost("tenant")]
    assert ["2026-03-29", "2026-03-30", "2026-03-31"] == [one.key[0] for one in reports.cost("day")]
    assert ["draft"] == [one.key[0] for one in reports.cost("step", step="draft")]


def test_tokens_that_nobody_counted_are_not_nothing():
    """None, as soon as no request said any; else what is known."""
    rows = Rows()
    rows.attempt("r", "a", NOW, model="free")
    rows.attempt("r", "b", NOW, model="free", input_tokens=3)
    (free,) = Reports(rows.connection, NOW).cost("model")

    assert (3, None) == (free.input_tokens, free.output_tokens)
    rows.close()


def test_versions_of_a_step(reports):
    """The latest first, each with how its calls went."""
    new, old = reports.versions_of("triage")

    assert (NEW, "canary", NOW - DAY) == (new.version, new.label, new.first_seen)
    assert 198 / 202 == new.validity
    assert (OLD, "production", NOW - HOUR + 1) == (old.version, old.label, old.last_seen)
    assert (2, 1.0, 110_000) == (old.stats.calls, old.validity, int(old.cost_per_call_usd * 10**9))
    assert Percentiles(1.0, 1.2, 1.2) == old.stats.latency


def test_a_version_that_was_never_called_is_there():
    """And one whose wording was never recorded."""
    rows = Rows()
    rows.prompt("triage", NEW, NOW)
    rows.step("r", "triage", NOW - 10, ({"cost_nano": None},), prompt_version=OLD)
    new, old = Reports(rows.connection, NOW).versions_of("triage")

    assert (NEW, None, None, None) == (new.version, new.validity, new.last_seen, new.cost_per_call_usd)
    assert (OLD, 1.0, NOW - 10, NOW - 9, None) == (
        old.version,
        old.validity,
        old.first_seen,
        old.last_seen,
        old.cost_per_call_usd,
    )
    rows.close()


def test_labels_and_the_beginning(reports):
    """What tables are headed with."""
    assert {("triage", OLD): "production", ("triage", NEW): "canary"} == reports.labels()
    assert NOW - 2 * DAY == reports.began()


def test_an_empty_journal_has_no_beginning():
    """Nor anything else."""
    rows = Rows()
    found = Reports(rows.connection, NOW)

    assert (None, [], [], []) == (found.began(), list(found.runs()), found.stats("model"), found.cost("day"))
    rows.close()


def test_a_file_of_version_2_is_read(tmp_path):
    """Before anybody has written to it: all of its requests count as sent, and nothing is changed."""
    path = tmp_path / "old.db"
    rows = Rows.of_version_2(path)
    rows.run("r", NOW)
    rows.attempt("r", rows.call("r", NOW), NOW, outcome="cancelled", reserved_nano=7)
    rows.close()
    before = path.read_bytes()
    with open_reports(path) as found:
        (one,) = found.run("r").attempts()
        (step,) = found.cost()

        assert (True, Spend(unpriced=1, open_nano=7)) == (one.sent, one.spend)
        assert (one.spend, one.spend) == (step.spend, found.run("r").summary.spend)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            found._connection.execute("DELETE FROM runs")
    assert before == path.read_bytes()


# -- replays -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def replayed():
    """A call of a customer, and the same one played again."""
    rows = Rows()
    rows.run("asked", NOW, command='{"target": "app.py:triage"}')
    rows.run("by-program", NOW - 1)
    rows.run("again", NOW + 1, command='{"replay": "asked", "step": null}')
    for run in ("asked", "again"):
        rows.step(run, "triage", NOW, (PAID,), prompt_version=OLD if run == "asked" else NEW)
    yield Reports(rows.connection, NOW)
    rows.close()


def test_a_run_says_what_it_played_again(replayed):
    """A replay is a run like others, and told apart from them."""
    assert [("again", "asked"), ("asked", None), ("by-program", None)] == [
        (one.run_id, one.replay_of) for one in replayed.runs()
    ]


def test_the_last_run_is_no_replay(replayed):
    """As for resume and replay; by its id a replay is shown like any other."""
    assert ["asked", "again"] == [replayed.run(name).summary.run_id for name in ("last", "again")]


@pytest.mark.parametrize("by", ["step", "model", "day", "tenant", "prompt"])
def test_replays_are_paid_and_no_traffic(replayed, by):
    """Their requests are in `cost`, neither they nor their calls in `stats`."""
    (one,) = replayed.stats(by)

    assert (1, 1, PAID["cost_nano"]) == (one.calls, one.cost.requests, one.cost.spend.known_nano)
    assert 2 == sum(each.requests for each in replayed.cost(by))


def test_a_version_that_was_only_played_again_was_never_called(replayed):
    """It stands beside the others for its wording alone, if that was recorded."""
    assert [OLD] == [one.version for one in replayed.versions_of("triage")]


def test_a_replay_that_another_program_wrote():
    """What it played again is nobody's to know."""
    rows = Rows()
    rows.run("r", NOW, command='{"replay"')

    assert "" == Reports(rows.connection, NOW).run("r").summary.replay_of
    rows.close()


def test_replays_are_found_without_reading_all_runs():
    """Which hold what customers wrote."""
    rows = Rows()
    plan = rows.connection.execute(f"EXPLAIN QUERY PLAN SELECT run_id FROM runs WHERE {IS_REPLAY}").fetchall()

    assert "runs_of_replays" in plan[0][-1]
    rows.close()


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "spend"),
    [
        ({"outcome": "ok", "cost_nano": 5}, Spend(known_nano=5)),
        ({"outcome": "ok", "cost_nano": None}, Spend(unpriced=1, unbounded=1)),
        ({"outcome": "cancelled", "cost_nano": None, "reserved_nano": 7}, Spend(unpriced=1, open_nano=7)),
        ({"outcome": "cancelled", "cost_nano": 0, "reserved_nano": 7, "sent": 0}, Spend()),
        ({"outcome": "ProviderUnavailable", "cost_nano": None, "sent": 0}, Spend()),
        ({"outcome": None, "cost_nano": None, "reserved_nano": 7}, Spend(in_flight=1, open_nano=7)),
        ({"outcome": "uncertain", "cost_nano": None, "reserved_nano": 7}, Spend(uncertain=1, open_nano=7)),
        ({"outcome": "uncertain", "cost_nano": 6, "reserved_nano": 7}, Spend(uncertain=1, open_nano=6)),
        ({"outcome": "uncertain", "cost_nano": None}, Spend(uncertain=1, unbounded=1)),
        ({"outcome": None, "cost_nano": None}, Spend(in_flight=1, unbounded=1)),
        ({"kind": "hit", "number": 0, "cost_nano": 0}, Spend()),
        ({"kind": "hit", "number": 0, "cost_nano": None}, Spend()),
    ],
)
def test_what_a_request_cost(row, spend):
    """One rule, in SQL for sums and in Python for a single one."""
    rows = Rows()
    rows.run("r", NOW)
    rows.attempt("r", "c", NOW, **row)
    found = Reports(rows.connection, NOW)
    (one,) = found.run("r").attempts()

    assert isinstance(one, AttemptRecord)
    assert spend == one.spend
    assert [spend] == [group.spend for group in found.cost()]
    rows.close()


def test_the_most_that_was_spent_is_known_or_not():
    """None as soon as something has no bound."""
    assert "0.000000012" == f"{Spend(known_nano=5, open_nano=7).most_usd:f}"
    assert "0.000000012" == f"{Spend(known_nano=5, unpriced=1, open_nano=7).most_usd:f}"
    assert None is Spend(unbounded=1, in_flight=1).most_usd
