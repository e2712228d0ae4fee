"""`llmflow run --map`: every line has a result, and no result is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def lines(home):
    """Write the input file."""

    def write(*items: object) -> None:
        text = [item if isinstance(item, str) else json.dumps(item) for item in items]
        (home / "in.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")

    return write


def results(text: str) -> dict[int, dict]:
    return {one["index"]: one for one in map(json.loads, text.splitlines())}


def test_a_line_for_every_item(llmflow, lines):
    """Values carry the position of their line, and the exit code is 0."""
    lines({"message": "a"}, '"b"', "", {"message": "c"})
    ran = llmflow("run", "program.py:triage", "--map", "in.jsonl")

    assert (0, {0, 1, 2}) == (ran.code, set(results(ran.out)))
    assert all(one["value"] == {"category": "billing", "urgent": True} for one in results(ran.out).values())
    assert "triage: 3 items in" in ran.err
    assert "3 ok, 0 failed" in ran.err


def test_bad_lines_are_reported_and_the_others_processed(llmflow, lines):
    """A line that is no JSON or does not fit is named by its number; the exit code is 1."""
    lines({"message": "a"}, '{"message": ', {"other": 1}, {"message": "down"}, {"message": "mend"})
    ran = llmflow("run", "program.py:triage", "--map", "in.jsonl")
    found = results(ran.out)

    assert (1, 5) == (ran.code, len(found))
    assert {1, 2, 3} == {index for index, one in found.items() if "error" in one}
    assert ("MalformedLine", 2) == (found[1]["error"]["type"], found[1]["error"]["line"])
    assert ("ProviderUnavailable", 4) == (found[3]["error"]["type"], found[3]["error"]["line"])
    assert "line 2: the input is not JSON: Expecting value at line 1, column 12" in ran.err
    assert "2 ok, 3 failed" in ran.err


def test_a_refused_budget_is_exit_code_3(llmflow, lines):
    """When a budget refused every item that failed, the exit code says so."""
    lines('"a"', '"poor"')

    assert 3 == llmflow("run", "program.py:triage", "--map", "in.jsonl").code


def test_results_go_to_a_file(llmflow, lines, home):
    """--out leaves stdout empty."""
    lines('"a"', '"b"')
    ran = llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl", "-q")

    assert ("", "") == (ran.out, ran.err)
    assert {0, 1} == set(results((home / "out.jsonl").read_text()))


def test_a_file_with_results_is_not_overwritten_by_accident(llmflow, lines, home):
    """It takes --resume or --overwrite."""
    lines('"a"')
    (home / "out.jsonl").write_text("precious\n")
    ran = llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl")

    assert (2, "precious\n") == (ran.code, (home / "out.jsonl").read_text())
    assert "--resume" in ran.err
    assert 0 == llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl", "--overwrite").code
    assert {0} == set(results((home / "out.jsonl").read_text()))


def test_resume_runs_what_has_no_value(llmflow, lines, home):
    """Values stay as they are, failures and a torn last line are run again."""
    lines('"a"', '"b"', '"a"', '"down"')
    llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl")
    out = home / "out.jsonl"
    first = [line for line in out.read_text().splitlines() if json.loads(line)["index"] == 0]
    out.write_text(first[0].replace("billing", "kept") + '\n{"index": 1, "key"')
    ran = llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl", "--resume")
    found = results(out.read_text())

    assert "kept" == found[0]["value"]["category"]
    assert ({0, 1, 2, 3}, 4) == (set(found), len(out.read_text().splitlines()))
    assert "2 ok, 1 failed, 1 kept" in ran.err


def test_lines_from_stdin(shell):
    """--map - reads stdin."""
    ran = shell("run", "program.py:triage", "--map", "-", "-q", stdin='"a"\n"b"\n')

    assert (0, {0, 1}) == (ran.code, set(results(ran.out)))


def test_a_missing_file_is_named(llmflow):
    """Exit code 2."""
    ran = llmflow("run", "program.py:triage", "--map", "missing.jsonl")

    assert 2 == ran.code
    assert "--map missing.jsonl: cannot read the file: No such file or directory" in ran.err


def test_a_folder_that_cannot_be_written_is_named(llmflow, lines):
    """Exit code 2, before anything is sent."""
    lines('"a"')

    assert 2 == llmflow("run", "program.py:triage", "--map", "in.jsonl", "--out", "no/such/folder/out.jsonl").code


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_what_is_finished_survives_any_end(home, lines, end, code):
    """After Ctrl-C or kill -9 the file holds whole lines, one for every finished item; Ctrl-C leaves no traceback."""
    lines(*({"message": f"{number}"} for number in range(5)), {"message": "slow"})
    command = [sys.executable, "-m", "llmflow", "run", "program.py:triage", "--map", "in.jsonl", "--out", "out.jsonl"]
    out = home / "out.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while (not out.exists() or len(out.read_text().splitlines()) < 5) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(end)
        err = process.communicate(timeout=120)[1]

    assert code == process.returncode
    assert set(range(5)) == set(results(out.read_text()))
    assert "Traceback" not in err
    if end == signal.SIGINT:
        assert "interrupted: 5 of 6 items are done" in err
        assert "--resume" in err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_a_single_run(home):
    """Exit code 130, no traceback."""
    command = [sys.executable, "-m", "llmflow", "run", "program.py:waiting", "-i", "x"]
    (home / "program.py").write_text(
        "import asyncio\nfrom llmflow import task\n@task\nasync def waiting(x: str) -> str:\n    print('started', flush=True)\n    await asyncio.sleep(60)\n    return x\n"
    )
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]

    assert (130, "") == (process.returncode, err)
