"""`plan`, `graph`, `plugins`, `doctor`, `--help`, `--version`."""

import json
import os
from importlib.metadata import EntryPoint

import pytest

from llmflow import __version__, plugins

BROKEN = EntryPoint("shaky", "no_such_module_of_a_plugin", "llmflow")


def test_version(llmflow):
    """--version names the version."""
    assert f"llmflow {__version__}" == llmflow("--version").out.strip()


@pytest.mark.parametrize("command", ["run", "plan", "graph", "plugins", "doctor", "demo"])
def test_every_command_has_help(llmflow, command):
    """--help says what it does and is no error."""
    ran = llmflow(command, "--help")

    assert 0 == ran.code
    assert "Usage: llmflow" in ran.out
    assert "--debug" in ran.out or command == "graph"


@pytest.mark.parametrize("command", [(), ("cache",), ("prompts",)])
def test_nothing_asked_for_shows_the_help(llmflow, command):
    """Of all commands, or of a group of them; nothing is said to be wrong."""
    ran = llmflow(*command)

    assert "Usage: llmflow" in ran.out + ran.err
    assert "error" not in ran.err


def test_a_wrong_option_suggests_the_right_one(llmflow):
    """Exit code 2."""
    ran = llmflow("run", "program.py:triage", "--concurency", "3")

    assert 2 == ran.code
    assert "--concurrency" in ran.err


def test_plan_shows_the_chain(llmflow):
    """Each policy with who supplied it."""
    out = llmflow("plan", "program.py:triage").out

    assert "step triage: 1 node" in out
    assert "RETRY" in out
    assert "step:triage" in out


def test_plan_as_json(llmflow):
    """--json gives the nodes of a flow."""
    said = json.loads(llmflow("plan", "program.py:support", "--json").out)

    assert ("flow", ["support/triage"]) == (said["kind"], [node["key"] for node in said["nodes"]])


@pytest.mark.parametrize(("form", "begins"), [("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "<svg")])
def test_graph_forms(llmflow, form, begins):
    """Three forms, on stdout."""
    assert llmflow("graph", "program.py:support", "--format", form).out.startswith(begins)


def test_graph_to_a_file(llmflow, home):
    """--out writes the file and leaves stdout empty."""
    ran = llmflow("graph", "program.py:support", "--format", "svg", "--out", "g.svg")

    assert "" == ran.out
    assert (home / "g.svg").read_text().startswith("<svg")


def test_a_step_has_no_graph(llmflow):
    """Exit code 2."""
    assert 2 == llmflow("graph", "program.py:triage").code


def test_graph_refuses_other_forms(llmflow):
    """Exit code 2, and the forms there are."""
    ran = llmflow("graph", "program.py:support", "--format", "png")

    assert 2 == ran.code
    assert "mermaid" in ran.err


@pytest.fixture
def broken_plugin(monkeypatch):
    """An installed plugin that cannot be imported."""
    monkeypatch.setattr(plugins, "entry_points", lambda group: (BROKEN,))


def test_plugins_lists_broken_ones_with_the_error(llmflow, broken_plugin):
    """Broken is told, with why."""
    out = llmflow("plugins").out

    assert "shaky" in out
    assert "broken" in out
    assert "No module named 'no_such_module_of_a_plugin'" in out


def test_plugins_lists_disabled_ones(llmflow, broken_plugin, monkeypatch):
    """Disabled is told, and is not loaded."""
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "shaky")
    said = {one["name"]: one["status"] for one in json.loads(llmflow("plugins", "--json").out)}

    assert ("disabled", "active") == (said["shaky"], said["llmflow-stats"])


def test_doctor_is_content(llmflow, monkeypatch):
    """Exit code 0 when nothing is broken; missing keys are no fault."""
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    ran = llmflow("doctor")

    assert 0 == ran.code
    assert "Nothing is broken." in ran.out
    assert "no (OPENAI_API_KEY)" in ran.out


def test_doctor_names_what_is_broken_and_what_to_do(llmflow, broken_plugin, home, monkeypatch):
    """Exit code 1; each problem has its remedy."""
    monkeypatch.setenv("LLMFLOW_LOCAL_MODEL", str(home / "missing.gguf"))
    (home / "pyproject.toml").write_text("[tool.llmflow]\nsead = 3\n")
    ran = llmflow("doctor", "--json")
    said = json.loads(ran.out)

    assert (1, False) == (ran.code, said["ok"])
    told = " ".join(one["problem"] for one in said["problems"])
    assert "plugin shaky is broken" in told
    assert "unknown setting 'sead'" in told
    assert all(one["remedy"] for one in said["problems"])


def test_doctor_says_where_settings_come_from(llmflow, home, monkeypatch):
    """File, variable or default."""
    (home / "pyproject.toml").write_text('[tool.llmflow]\ndefault_model = "openai/a"\nseed = 3\n')
    monkeypatch.setenv("LLMFLOW_DEFAULT_MODEL", "openai/b")
    settings = json.loads(llmflow("doctor", "--json").out)["settings"]

    assert {"value": "openai/b", "source": "LLMFLOW_DEFAULT_MODEL"} == settings["default_model"]
    assert {"value": 3, "source": str(home / "pyproject.toml")} == settings["seed"]
    assert "default" == settings["models"]["source"]


@pytest.mark.parametrize("variable", ["LLMFLOW_STORE", "LLMFLOW_CACHE"])
def test_doctor_finds_a_store_that_nobody_supplies(llmflow, monkeypatch, variable):
    """The first call would fail for it. S2: the password in the address is not shown."""
    monkeypatch.setenv(variable, "redis://me:s3cret@db.example/0")
    plain, as_json = llmflow("doctor"), llmflow("doctor", "--json")

    assert 1 == plain.code == as_json.code
    assert "s3cret" not in plain.out + as_json.out
    assert variable in json.loads(as_json.out)["problems"][0]["problem"]


def test_doctor_never_shows_a_key(llmflow, monkeypatch):
    """A key is present or not."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    plain, as_json = llmflow("doctor").out, llmflow("doctor", "--json").out

    assert "very-secret" not in plain + as_json
    assert json.loads(as_json)["keys"]["openai"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "program.py:triage", "-i", "down"),
        ("run", "program.py:nothing"),
        ("plan", "program.py:support"),
        ("plugins",),
        ("doctor",),
        ("run", "--nonsense"),
    ],
)
def test_pipes_are_plain(shell, arguments):
    """No escape code where nobody looks."""
    ran = shell(*arguments)

    assert "\x1b" not in ran.out + ran.err


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
def test_no_color_on_a_terminal(home):
    """NO_COLOR takes the colours away where somebody looks."""
    coloured, plain = _on_a_terminal(), _on_a_terminal(NO_COLOR="1")

    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert "program.py has no 'nothing'" in plain


def _on_a_terminal(**environment: str) -> str:
    import pty
    import subprocess
    import sys

    main, side = pty.openpty()
    command = [sys.executable, "-m", "llmflow", "run", "program.py:nothing"]
    process = subprocess.Popen(
        command, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm-256color", **environment}
    )
    os.close(side)
    said = b""
    try:
        while chunk := os.read(main, 4096):
            said += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    process.wait(timeout=300)
    os.close(main)
    return said.decode()


def test_a_closed_pipe_is_no_error(home):
    """`llmflow ... | head -1` ends quietly."""
    import subprocess
    import sys

    first = subprocess.Popen(
        [sys.executable, "-m", "llmflow", "plan", "program.py:support"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first.stdout.close()
    err = first.stderr.read().decode()
    first.stderr.close()
    first.wait(timeout=300)

    assert "Traceback" not in err
