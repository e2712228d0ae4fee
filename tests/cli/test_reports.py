"""`llmflow runs`, `stats` and `cost`: what the journal says, for people and for programs."""

from __future__ import annotations

import json
import sqlite3
import time
from decimal import Decimal
from typing import get_args

import pytest

from llmflow.cli import _journal_file
from llmflow.cli._report_commands import Status
from llmflow.journal import RunStatus

from ..stores.journal_rows import DAY, NEW, OLD, Rows, fill  # noqa: TID252  # tests are no package


@pytest.fixture
def journal(home):
    (home / ".llmflow").mkdir()
    path = home / ".llmflow" / "llmflow.db"
    fill(path, time.time())
    return path


def table(out):
    """Return the cells of the lines of a table."""
    return [line.split() for line in out.splitlines()]


# -- which file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("runs",), ("show", "last"), ("stats",), ("cost",)])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_without_a_journal_there_is_one_message(llmflow, home, command, options):
    """Exit code 2, and nothing is made."""
    ran = llmflow(*command, *options)

    assert 2 == ran.code
    assert "there is no journal: " in (ran.out if options else ran.err)
    assert not (home / ".llmflow").exists()


def test_a_file_of_the_cache_alone_has_no_runs(llmflow, home):
    """A hint says how they come."""
    (home / ".llmflow").mkdir()
    Rows(home / ".llmflow" / "llmflow.db", version=1, journal=False).close()
    ran = llmflow("runs")

    assert (2, "") == (ran.code, ran.out)
    assert "llmflow.db yet\n  hint: It is made when something is run: llmflow run TARGET\n" in ran.err


def test_a_corrupt_journal_is_said(llmflow, home):
    """And left as it is."""
    (home / ".llmflow").mkdir()
    (home / ".llmflow" / "llmflow.db").write_bytes(b"no database" * 100)
    ran = llmflow("stats")

    assert (2, "") == (ran.code, ran.out)
    assert "cannot be read: file is not a database" in ran.err
    assert ["llmflow.db"] == [one.name for one in (home / ".llmflow").iterdir()]


def test_a_page_that_is_broken_is_said(llmflow, journal):
    """Its head may be whole."""
    with journal.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (journal.stat().st_size - 4096))
    ran = llmflow("stats")

    assert (2, "") == (ran.code, ran.out)
    assert "malformed" in ran.err


def test_a_page_far_in_that_is_broken_is_said(llmflow, journal):
    """What was read before it is not told as if it were all."""
    with sqlite3.connect(journal) as other:
        (page,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'calls'").fetchone()
    other.close()
    with journal.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)
    ran = llmflow("stats")

    assert (2, "") == (ran.code, ran.out)
    assert "malformed" in ran.err


def test_a_newer_journal_is_said(llmflow, journal):
    """Its tables may be others."""
    with sqlite3.connect(journal) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()

    assert "made by a newer llmflow (version 99 of its tables)" in llmflow("cost").err


def test_a_journal_in_memory_cannot_be_read(llmflow, monkeypatch):
    """It belongs to another process, if to any."""
    monkeypatch.setattr(_journal_file, "journal_path", lambda runtime: None)
    ran = llmflow("runs")

    assert (2, "") == (ran.code, ran.out)
    assert ran.err.startswith("error: the journal is in memory")


def test_the_path_is_that_of_the_runtime(llmflow, home, monkeypatch):
    """Where the configuration says."""
    fill(home / "other.db", time.time())
    monkeypatch.setenv("LLMFLOW_STORE", "sqlite:///other.db")
    monkeypatch.setenv("LLMFLOW_CACHE", "sqlite:///other.db")

    assert "order-42" in llmflow("runs").out


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_lists_the_latest_first(llmflow, journal):
    """A line each, with what is not known said."""
    rows = table(llmflow("runs").out)

    assert ["run", "target", "status", "when", "took", "calls", "cost"] == rows[0]
    assert ["alive", "died", "mailbox", "order-42", "order-41"] == [row[0] for row in rows[1:]]
    assert ["running", "unknown"] == [rows[1][2], rows[1][-1]]
    assert ["interrupted", ">", "$0.00011"] == [rows[2][2], *rows[2][-2:]]
    assert ["200", "$0.0194"] == rows[3][-2:]
    assert "ok, 4 of 200 items failed" in " ".join(rows[3])


def test_runs_are_filtered(llmflow, journal):
    """By target, status, tenant and time."""
    assert ["mailbox"] == [row[0] for row in table(llmflow("runs", "--target", "triage").out)[1:]]
    assert ["died"] == [row[0] for row in table(llmflow("runs", "--status", "interrupted").out)[1:]]
    assert ["mailbox", "order-42"] == [row[0] for row in table(llmflow("runs", "--status", "failed").out)[1:]]
    assert ["order-41"] == [row[0] for row in table(llmflow("runs", "--tenant", "acme").out)[1:]]
    assert ["alive", "died"] == [row[0] for row in table(llmflow("runs", "--since", "90m").out)[1:]]
    assert ["order-41"] == [row[0] for row in table(llmflow("runs", "--until", "36h").out)[1:]]


def test_runs_marks_replays(llmflow, home):
    """In the table and in JSON; `show` says of what, and `show last` does not mean one."""
    (home / ".llmflow").mkdir()
    rows = Rows(home / ".llmflow" / "llmflow.db")
    rows.run("asked", 1000.0)
    rows.run("again", 2000.0, command='{"replay": "asked", "step": null}')
    rows.close()

    assert [["again", "support", "(replay)", "ok"], ["asked", "support", "ok"]] == [
        row[: 4 - place] for place, row in enumerate(table(llmflow("runs").out)[1:])
    ]
    assert ["asked", None] == [one["replay_of"] for one in json.loads(llmflow("runs", "--json").out)["runs"]]
    assert "  replay   of asked\n" in llmflow("show", "again").out
    assert llmflow("show", "last").out.startswith("support  ok  asked\n")


def test_runs_says_when_there_are_more(llmflow, journal):
    """Nobody should take the latest for all."""
    ran = llmflow("runs", "-n", "2")

    assert ["run", "alive", "died"] == [row[0] for row in table(ran.out)]
    assert "the latest 2; --limit 10 shows more\n" == ran.err
    assert "" == llmflow("runs", "-n", "5").err


def test_no_runs_is_no_error(llmflow, home):
    """None at all, or none that fit."""
    (home / ".llmflow").mkdir()
    Rows(home / ".llmflow" / "llmflow.db").close()

    assert [(0, "", "no runs\n"), (0, "", "no such runs\n")] == [
        (ran.code, ran.out, ran.err) for ran in (llmflow("runs"), llmflow("runs", "--target", "x"))
    ]
    assert ["no calls\n", "no such calls\n"] == [llmflow("stats").err, llmflow("stats", "--since", "1h").err]
    assert ["no requests\n", "no such requests\n"] == [llmflow("cost").err, llmflow("cost", "--until", "1h").err]


def test_runs_as_json(llmflow, journal):
    """Money is text, so that nobody rounds it; what is unknown is null."""
    runs = {one["run_id"]: one for one in json.loads(llmflow("runs", "--json").out)["runs"]}

    assert (None, None, 1, 1) == tuple(
        runs["alive"][name] for name in ("cost_usd", "cost_most_usd", "unpriced", "in_flight")
    )
    assert ("0.00011", "0.00161", 2) == tuple(runs["died"][name] for name in ("cost_usd", "cost_most_usd", "uncertain"))
    assert ("ok", 4, 200) == tuple(runs["mailbox"][name] for name in ("status", "failed_items", "items"))
    assert (0, None) == (runs["order-42"]["failed_items"], runs["order-42"]["items"])
    assert ({"team": "support"}, "acme") == (runs["order-41"]["tags"], runs["order-41"]["tenant"])


# -- stats -------------------------------------------------------------------------------------------------------------


def test_stats_counts_by_step(llmflow, journal):
    """Validity, percentiles, requests, money; below it the errors."""
    ran = llmflow("stats")
    rows = table(ran.out)

    assert ["step", "calls", "valid", "failed", "re-asks", "repaired", "p50", "p95", "p99"] == rows[0][:9]
    assert ["triage", "204", "98.0", "%", "4", "1", "1"] == rows[2][:7]
    assert "  5 ProviderUnavailable: draft 1, triage 4" == ran.out.splitlines()[-1]
    assert (
        "1 request of unknown cost, 2 cut off when the process died, 1 in flight: 3 of them at most $0.0022 more,"
        " nobody knows about 1\n"
    ) in ran.err
    assert "everything since " in ran.err


def test_stats_of_a_window_does_not_say_everything(llmflow, journal):
    """It was asked for less."""
    ran = llmflow("stats", "--since", "90m", "--step", "triage")

    assert ["triage", "2", "100", "%"] == table(ran.out)[1][:4]
    assert "everything" not in ran.err
    assert "errors" not in ran.out


@pytest.mark.parametrize(
    ("by", "heading", "keys"),
    [
        ("model", ["model"], ["anthropic/claude-haiku-4-5", "local/smollm2", "openai/gpt-5-mini"]),
        ("tenant", ["tenant"], ["-", "acme", "globex"]),
        ("prompt", ["step", "prompt"], ["draft", "draft", "triage", "triage"]),
    ],
)
def test_stats_by_other_keys(llmflow, journal, by, heading, keys):
    """What has no key is a line too."""
    rows = table(llmflow("stats", "--by", by).out)

    assert heading == rows[0][: len(heading)]
    assert keys == [row[0] for row in rows[1 : 1 + len(keys)]]


def test_a_version_has_its_label(llmflow, journal):
    """Which people know it by."""
    out = llmflow("stats", "--by", "prompt", "--step", "triage").out

    assert f"{OLD} (production)" in out
    assert f"{NEW} (canary)" in out


def test_stats_fits_80_columns(llmflow, journal, narrow):
    """In two tables then."""
    out = llmflow("stats").out

    assert 80 >= max(map(len, out.splitlines()))
    assert ["step", "step"] == [row[0] for row in table(out) if row and row[0] == "step"]
    assert "failed" not in out


def test_stats_as_json(llmflow, journal):
    """With the window that was counted, and keys by their names."""
    said = json.loads(llmflow("stats", "--by", "prompt", "--step", "triage", "--since", "7d", "--json").out)
    old, new = said["groups"]

    assert ("prompt", None) == (said["by"], said["until"])
    assert 7 * DAY == pytest.approx(time.time() - said["since"], abs=60)
    assert ("triage", OLD, "production", 2, 2, 1.2) == tuple(
        old[name] for name in ("step", "prompt_version", "label", "calls", "valid", "p95_s")
    )
    assert {"ProviderUnavailable": 4} == new["errors"]


def test_many_kinds_of_errors_are_cut(llmflow, home):
    """The most frequent are those to look at."""
    (home / ".llmflow").mkdir()
    rows = Rows(home / ".llmflow" / "llmflow.db")
    for number in range(14):
        rows.call("r", 1.0, error=f"Error{number}")
    rows.close()

    assert "  and 2 other kinds" == llmflow("stats").out.splitlines()[-1]


def test_hits_of_unknown_worth_are_not_worth_nothing(llmflow, home):
    """Nor is a step without hits one that saved nothing."""
    (home / ".llmflow").mkdir()
    rows = Rows(home / ".llmflow" / "llmflow.db")
    rows.attempt("r", "a", 1.0, kind="hit", number=0, cost_nano=0, step="unknown")
    rows.attempt("r", "b", 1.0, kind="hit", number=0, cost_nano=0, saved_nano=10**9, step="known")
    rows.attempt("r", "c", 1.0, step="none", cost_nano=0)
    rows.close()
    found = {row[0]: row[-1] for row in table(llmflow("cost").out)}

    assert {"unknown": "unknown", "known": "$1.00", "none": "-", "total": "$1.00", "step": "saved"} == found
    assert ["unknown", "-"] == [
        row[-1] for row in table(llmflow("stats").out) if row and row[0] in ("none", "unknown")
    ][::-1]


# -- cost --------------------------------------------------------------------------------------------------------------


def test_cost_adds_up(llmflow, journal):
    """Its total is the sum of its lines."""
    said = json.loads(llmflow("cost", "--by", "day", "--json").out)

    assert sum(Decimal(one["cost_usd"]) for one in said["groups"]) == Decimal(said["total"]["cost_usd"])
    assert 192 == said["total"]["requests"] == sum(one["requests"] for one in said["groups"])
    assert None is said["total"]["cost_most_usd"]


def test_cost_names_what_it_is_of(llmflow, journal):
    """The dearest first."""
    rows = table(llmflow("cost", "--by", "prompt").out)

    assert ["step", "prompt", "requests", "tokens", "in", "out", "cost", "hits", "saved"] == rows[0]
    assert ["triage", NEW, "(canary)"] == rows[1][:3]
    assert ["total", "192"] == rows[-1][:2]


def test_cost_without_hits_has_no_columns_for_them(llmflow, journal):
    """Days are UTC, as budgets count them."""
    rows = table(llmflow("cost", "--by", "day", "--until", "3h").out)

    assert ["day", "(UTC)", "requests", "tokens", "in", "out", "cost"] == rows[0]
    assert ["total", "7", "360", "120", "$0.00033"] == rows[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "tuesday"), "--since 'tuesday' is no time"),
        (("--until", "2026-13-01"), "--until '2026-13-01' is no time"),
        (("--since", "1h", "--until", "2h"), "--since 1h is not before --until 2h"),
        (("--by", "colour"), "--by"),
    ],
)
def test_wrong_options_are_refused(llmflow, journal, options, said):
    """Exit code 2, naming what is wrong."""
    ran = llmflow("cost", *options)

    assert (2, "") == (ran.code, ran.out)
    assert said in ran.err


def test_an_unknown_status_is_wrong_use(llmflow, journal):
    """It is no filter that matches nothing: exit code 2, naming those that there are."""
    ran = llmflow("runs", "--status", "bad")

    assert (2, "") == (ran.code, ran.out)
    assert "'bad' is not one of 'running', 'ok', 'failed', 'cancelled', 'interrupted'" in ran.err


def test_each_status_of_a_run_can_be_asked_for():
    """The command knows those of the journal."""
    assert get_args(RunStatus) == tuple(Status)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--step", "traige"), "hint: Did you mean triage?\n"),
        (("--step", "something else"), ""),
        (("--step", "triage", "--until", "2000-01-01"), ""),
    ],
)
def test_a_step_that_is_not_there_may_be_meant_otherwise(llmflow, journal, options, hint):
    """What is most like it is named; one that is there has no calls at that time."""
    assert f"no such calls\n{hint}" == llmflow("stats", *options).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs", "--limit", "0"), "Invalid value for '--limit' / '-n': Input should be greater than or equal to 1"),
        (("stats", "--by", "nope"), "Invalid value for '--by': 'nope' is not one of 'step', 'model', 'day', 'tenant'"),
        (("show",), "Missing argument 'RUN'"),
        (("runs", "--nope"), "No such option: --nope"),
        (("frob",), "No such command 'frob'"),
    ],
)
def test_arguments_that_cannot_be_read_are_told_as_other_errors(llmflow, arguments, said):
    """As JSON on stdout where JSON was asked for, without what pydantic puts before a message."""
    text, as_json = llmflow(*arguments), llmflow(*arguments, "--json")
    error = json.loads(as_json.out)["error"]

    assert (2, "", True) == (text.code, text.out, text.err.startswith(f"error: {said}"))
    assert (2, "", "UsageError") == (as_json.code, as_json.err, error["type"])
    assert error["message"].startswith(said)
    assert error["hints"][0].endswith(" --help` says how it is used.")


def test_what_stands_behind_two_dashes_is_no_option(llmflow):
    """There `--json` is an argument."""
    ran = llmflow("frob", "--", "--json")

    assert (2, "") == (ran.code, ran.out)


def test_names_cannot_command_the_terminal(llmflow, home):
    """They are the user's, or a provider's."""
    (home / ".llmflow").mkdir()
    rows = Rows(home / ".llmflow" / "llmflow.db")
    evil = "\x1b[2J\x9b31m\u202e\x07\r\n"
    rows.run(f"r{evil}", 1.0, target=evil, error=evil, message=evil, tenant=evil, tags=evil, status="failed")
    rows.step(
        f"r{evil}", f"f/{evil}", 1.0, ({"outcome": evil, "model": evil},), error=evil, model=evil, prompt_version=evil
    )
    rows.call("x", 1.0, step=evil, error=evil, tenant=evil)
    rows.prompt(evil, evil, 1.0, evil)
    rows.close()
    commands = [
        ("runs",),
        ("show", "last", "--content"),
        *(("stats", "--by", by) for by in ("step", "prompt", "model")),
    ]
    for command in (*commands, ("cost", "--by", "prompt")):
        for options in ((), ("--json",)):
            ran = llmflow(*command, *options)

            assert 0 == ran.code
            assert [] == [one for one in ran.out + ran.err if (one < " " or "\x7f" <= one < "\xa0") and one != "\n"]
            assert "\u202e" not in ran.out + ran.err
