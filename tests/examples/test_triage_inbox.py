"""The example and `llmflow demo`: with a scripted model, and with the real one."""

from __future__ import annotations

import importlib.util
import json
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from llmflow import Model, Reply, Runtime, Usage
from llmflow.cli import main
from llmflow.cli._demo import demo_folder
from llmflow.context import runtimes

FOLDER = Path(__file__).parents[2] / "examples" / "triage_inbox"


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("triage_inbox_under_test", FOLDER / "triage_inbox.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def scripted(request) -> Reply:
    """Answer every step of the example; each in a way that has to be put right once."""
    asked = request.messages[-1].content
    if request.call.step == "classify":
        text = '{"content": "billing"}'
    elif request.call.step == "extract":
        name = request.messages[-1].content.splitlines()[-1] if not request.turns else asked.splitlines()[-1]
        text = json.dumps(
            {"customer": name if request.turns else "Nobody Atall", "quote": "Please refund one of the two payments"}
        )
    else:
        words = " ".join(asked.split()[:6])
        text = "JSON:\n" + json.dumps({"text": words})
    return Reply(text=text, usage=Usage(input_tokens=100, output_tokens=10))


def test_the_mailbox_holds_20_messages(example):
    """Encodings, odd characters and quoted replies included."""
    mails = example.read_mailbox.sync(FOLDER / "inbox.mbox")

    assert 20 == len(mails)
    assert "Problème de connexion — code à 6 chiffres 🔐" == mails[11].subject
    assert "6‑digit" in mails[11].body  # noqa: RUF001
    assert all(mail.received.tzinfo is not None for mail in mails)


def test_a_message_without_text_is_no_obstacle(example):
    """An empty body is read and shortened."""
    message = EmailMessage()
    message["Subject"], message["Date"] = "empty", "Fri, 02 Oct 2026 09:14:00 +0200"
    message.set_content("")
    mail = example.read_mail(message)

    assert "empty. \n" == example.shorten.sync(mail)


def test_the_flow_has_parallel_steps_and_a_switch(example):
    """No step waits for another's answer; one of four tasks makes the ticket."""
    graph = example.triage.graph()
    nodes = {node.name: node for node in graph.nodes}

    assert len(graph.nodes) >= 4
    assert {"shorten", "find_clues"} == {graph.nodes[index].name for index in nodes["classify"].after}
    assert {"shorten"} == {graph.nodes[index].name for index in nodes["extract"].after}
    assert 4 == len(next(node for node in graph.nodes if node.kind == "switch").branches)


def test_answers_are_mended_and_asked_for_again(example):
    """A wrong customer is asked for again, prose is taken off, and the ticket is the right one."""
    mail = example.read_mailbox.sync(FOLDER / "inbox.mbox")[0]
    with Runtime().override(model=Model("scripted/model", handler=scripted)) as runtime:
        ticket = example.triage.sync(mail)
        steps = runtime.stats().steps

    assert ("billing", "Maria Lopez", ["49.00"]) == (
        ticket.queue,
        ticket.customer,
        [str(one) for one in ticket.amounts],
    )
    assert "Please refund one of the two payments" == ticket.quote
    assert (1, 1) == (steps["extract"].reasks, steps["summarise"].repaired)


def test_a_quote_that_nobody_wrote_is_dropped(example):
    """The ticket says None rather than what the model invented."""
    mail = example.read_mailbox.sync(FOLDER / "inbox.mbox")[2]
    request = example.Request(customer="Aiko Tanaka", quote="I am sorry, I cannot help you")

    assert example.to_accounts.sync(mail, request, example.Summary(text="Cannot log in")).quote is None


def test_the_demo_uses_the_example():
    """One program, not two."""
    assert FOLDER == demo_folder()


@pytest.fixture
def demo(capsys, monkeypatch, tmp_path):
    """Run the demo in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        code = main(["demo", *arguments])
        return code, *capsys.readouterr()

    yield run
    runtimes.forget_made()


@pytest.fixture
def scripted_provider(monkeypatch):
    """Reach the scripted model by a name that `--model` can say."""
    from llmflow import hookimpl, plugins

    class Provider:
        def connect(self, model, output, /):
            return scripted

        async def aclose(self):
            pass

    class Plugin:
        @hookimpl
        def llmflow_provider(self, name):
            return Provider() if name == "scripted" else None

    class Entry:
        name, dist = "scripted", None

        def load(self):
            return Plugin()

    monkeypatch.setattr(plugins, "entry_points", lambda group: (Entry(),))


def test_demo_with_another_model(demo, scripted_provider):
    """Tickets on stdout, the table on stderr, code 0."""
    code, out, err = demo("--model", "scripted/one", "--limit", "3")

    assert (0, 3) == (code, len([json.loads(line) for line in out.splitlines()]))
    assert "3 of 3 messages became validated tickets" in err
    assert "classify" in err


def test_demo_as_json(demo, scripted_provider):
    """One document with tickets and figures."""
    code, out, err = demo("--model", "scripted/one", "--limit", "2", "--json")
    said = json.loads(out)

    assert (0, 2, 2, 2) == (code, said["valid"], said["mended"], said["reasked"])
    assert "" == err


def test_demo_without_the_plugin_says_what_to_install(demo, monkeypatch):
    """Exit code 2 and one message."""
    from llmflow.cli import _demo
    from llmflow.cli._local_model import LocalModel

    monkeypatch.setattr(_demo, "find_local_model", lambda environ: LocalModel(installed=False))
    code, out, err = demo()

    assert (2, "") == (code, out)
    assert "pip install llmflow-local" in err


def test_demo_without_weights_says_what_to_do(demo, monkeypatch, tmp_path):
    """A file that is not there is named; exit code 2."""
    pytest.importorskip("llmflow_local")
    monkeypatch.setenv("LLMFLOW_LOCAL_MODEL", str(tmp_path / "missing.gguf"))
    code, out, err = demo()

    assert (2, "") == (code, out)
    assert "the embedded model cannot run" in err
    assert "fetching" not in err
    assert "missing.gguf" in err


@pytest.mark.slow
def test_demo_on_the_real_model(demo):
    """All 20 messages end as valid tickets, and malformed answers really happened and were put right."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("llmflow_local")
    code, out, err = demo("--json")
    said = json.loads(out)

    assert (0, 20, 0) == (code, said["valid"], said["failed"])
    assert 20 == len(said["results"])
    assert {"billing", "bug", "account", "sales"} == {ticket["queue"] for ticket in said["results"]}
    assert said["mended"] >= 1
    assert said["reasked"] >= 1
    assert said["fallbacks"] >= 1
