"""What a step asks with when its wording is not in the code: a file, a plugin's, or one of several variants."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmflow import (
    Budget,
    Cache,
    DefinitionError,
    Model,
    PluginDefinitionError,
    Price,
    Runtime,
    UnusedParameterWarning,
    Wording,
    context,
    flow,
    hookimpl,
    plan,
    prompt,
    step,
)
from llmflow.runtime import plan_map
from llmflow.step import steps_of
from llmflow.testing import ScriptedModel, scripted

pytestmark = pytest.mark.anyio

EVEN = {"triage": {"production": 1, "canary": 1}}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a prompt file below `prompts`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()

    def write(name: str, text: str) -> Path:
        path = tmp_path / "prompts" / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def model() -> ScriptedModel:
    """A model that says `ok`."""
    return scripted(default="ok")


@pytest.fixture
def triage(model: ScriptedModel) -> Any:
    """A step with a docstring, a system text and parameters."""

    @step(model, system="Of the code.", params={"temperature": 0.5, "seed": 1})
    def triage(message: str) -> str:
        """Docstring: {{ message }}"""
        return prompt()

    return triage


def asked(model: ScriptedModel) -> list[str]:
    """Return the turns of the last request."""
    return [one.content for one in model.requests[-1].messages]


def key_of(label: str, step: str = "triage") -> str:
    """Return a key that has this label when two of equal weight share it out."""
    from llmflow.prompts import Variants

    made = Variants(step, {"production": 1, "canary": 1})
    return next(f"key-{n}" for n in range(99) if list(made.weights)[made.index(f"key-{n}")] == label)


# -- files -------------------------------------------------------------------------------------------------------------


async def test_a_file_takes_the_place_of_the_docstring(triage: Any, model: ScriptedModel, write: Any) -> None:
    """What it does not say stays."""
    write("triage.md", "File: {{ message }}\n")
    with Runtime(prompts="prompts"):
        await triage("hi")

    assert ["Of the code.", "File: hi"] == asked(model)
    assert {"temperature": 0.5, "seed": 1, "max_tokens": 4096} == model.requests[-1].params


async def test_front_matter_goes_before_the_decorator(triage: Any, model: ScriptedModel, write: Any) -> None:
    """Parameter by parameter; the system text is a template too."""
    write("triage.md", '+++\nsystem = "About {{ message }}."\nparams.temperature = 0.1\n+++\nFile: {{ message }}')
    with Runtime(prompts="prompts"):
        await triage("hi")

    assert ["About hi.", "File: hi"] == asked(model)
    assert {"temperature": 0.1, "seed": 1, "max_tokens": 4096} == model.requests[-1].params


async def test_an_empty_system_text_takes_it_out(triage: Any, model: ScriptedModel, write: Any) -> None:
    """As `prompt(system="")` does."""
    write("triage.md", '+++\nsystem = ""\n+++\nFile: {{ message }}')
    with Runtime(prompts="prompts"):
        await triage("hi")

    assert ["File: hi"] == asked(model)


async def test_what_is_said_at_the_call_goes_before_the_file(triage: Any, model: ScriptedModel, write: Any) -> None:
    """`.with_(params=)` is nearer than front matter."""
    write("triage.md", "+++\n[params]\ntemperature = 0.1\nseed = 2\n+++\nFile: {{ message }}")
    with Runtime(prompts="prompts"):
        await triage.with_(params={"seed": 3})("hi")

    assert (0.1, 3) == (model.requests[-1].params["temperature"], model.requests[-1].params["seed"])


async def test_without_a_folder_no_file_is_read(triage: Any, model: ScriptedModel, write: Any) -> None:
    """A runtime made in code has what it was given."""
    write("triage.md", "File: {{ message }}")
    with Runtime():
        await triage("hi")

    assert "Docstring: hi" == asked(model)[-1]


async def test_a_step_without_a_docstring_asks_its_file(model: ScriptedModel, write: Any) -> None:
    """`return prompt()` is all that is left in the code."""
    write("bare.md", "File: {{ message }}")

    @step(model)
    async def bare(message: str) -> str:
        return prompt()

    with Runtime(prompts="prompts"):
        await bare("hi")

    assert ["File: hi"] == asked(model)


async def test_without_the_file_the_error_names_it(model: ScriptedModel, write: Any) -> None:
    """And says where it would be looked for."""

    @step(model)
    def bare(message: str) -> str:
        return prompt()

    with (
        Runtime(prompts="prompts"),
        pytest.raises(DefinitionError, match=r"nothing to ask.*no file 'bare\.md'") as caught,
    ):
        await bare("hi")

    assert "Runtime(prompts=...)" in caught.value.__notes__[0]


async def test_a_file_that_would_never_be_asked_is_refused(model: ScriptedModel, write: Any) -> None:
    """Whoever edits it would wonder why nothing changes."""
    write("written.md", "File: {{ message }}")

    @step(model)
    def written(message: str) -> str:
        return prompt(f"Body: {message}")

    with Runtime(prompts="prompts"), pytest.raises(DefinitionError) as caught:
        await written("hi")

    assert f"step 'written': prompts/written.md would never be asked, as the body at {__name__}:" in str(caught.value)
    assert [] == model.requests


async def test_a_file_serves_the_part_of_a_body_that_asks_without_a_text(model: ScriptedModel, write: Any) -> None:
    """The other part has its own."""
    write("either.md", "File: {{ message }}")

    @step(model)
    def either(message: str) -> str:
        return prompt("Body.") if message == "body" else prompt()

    with Runtime(prompts="prompts"):
        await either("body")
        await either("hi")

    assert ["Body.", "File: hi"] == [one.messages[-1].content for one in model.requests]


async def test_a_file_is_sent_beside_earlier_turns(model: ScriptedModel, write: Any) -> None:
    """A docstring without expressions is documentation then; a file is no documentation."""
    write("chat.md", "Go on.")

    @step(model)
    def chat(history: list[tuple[str, str]]) -> str:
        """Go on with a chat."""
        return prompt(messages=history)

    with Runtime(prompts="prompts"):
        await chat([("user", "hi")])

    assert ["hi", "Go on."] == asked(model)


async def test_an_indented_file_stays_indented(model: ScriptedModel, write: Any) -> None:
    """A docstring is dedented, as it is written inside of a function; a file has the indentation that is meant."""
    write("bare.md", "\n\nList:\n    one\n\ttwo\n\n")

    @step(model)
    def bare() -> str:
        return prompt()

    with Runtime(prompts="prompts"):
        await bare()

    assert ["List:\n    one\n\ttwo"] == asked(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("+++\n+++\n\n\nHi {{ mesage }}", r"line 5 of prompts/triage\.md uses 'mesage', .*; did you mean 'message'\?"),
        ("\n\nHi {% if %}", r"line 3 of prompts/triage\.md is no valid template"),
        ("{% include 'x' %}", r"prompts/triage\.md refers to another template"),
        ("+++\nsystem = '{{ x }}'\n+++\nHi", r"line 1 of the system text of prompts/triage\.md uses 'x'"),
        ("+++\nparams.temprature = 1\n+++\nHi", r"'triage': prompts/triage\.md has an unknown parameter 'temprature'"),
        (
            "+++\nparams.seed = 1.5\n+++\nHi",
            r"step 'triage': prompts/triage\.md: seed is 1\.5, expected a whole number",
        ),
        ("---\na: 1\n---\nHi", r"prompts/triage\.md opens with '---', the sign of YAML"),
    ],
)
@pytest.mark.filterwarnings("ignore::llmflow.UnusedParameterWarning")
async def test_a_mistake_in_a_file_is_said_when_the_step_is_bound(
    triage: Any, model: ScriptedModel, write: Any, text: str, message: str
) -> None:
    """A plan finds it too, so nothing is paid for first."""
    write("triage.md", text)
    with Runtime(prompts="prompts") as runtime, pytest.raises(DefinitionError, match=message):
        plan(triage, runtime=runtime)
    with Runtime(prompts="prompts"), pytest.raises(DefinitionError, match=message):
        await triage("hi")

    assert [] == model.requests


async def test_what_a_template_reaches_for_in_vain_is_said_with_its_file(triage: Any, write: Any) -> None:
    """The same sandbox as for docstrings."""
    write("triage.md", "{{ message.missing }}")
    with (
        Runtime(prompts="prompts"),
        pytest.raises(DefinitionError, match=r"'triage': prompts/triage\.md cannot be ren"),
    ):
        await triage("hi")


async def test_data_is_no_template(triage: Any, model: ScriptedModel, write: Any) -> None:
    """Values are never rendered again."""
    write("triage.md", "File: {{ message }}")
    with Runtime(prompts="prompts"):
        await triage("{{ 7 * 7 }} {% raw %}")

    assert "File: {{ 7 * 7 }} {% raw %}" == asked(model)[-1]


def test_a_parameter_that_no_file_uses_is_warned_of_once_at_the_file(triage: Any, write: Any) -> None:
    """Whoever edited the file looks there."""
    write("triage.md", "+++\n+++\nHello")
    with warnings.catch_warnings(record=True) as caught, Runtime(prompts="prompts"):
        warnings.simplefilter("always")
        triage.sync("hi")
        triage.sync("ho")
        triage.with_(params={"seed": 2}).sync("hi")

    (warning,) = caught
    assert ("prompts/triage.md", 3) == (warning.filename, warning.lineno)
    assert warning.category is UnusedParameterWarning


async def test_a_file_is_read_once(triage: Any, model: ScriptedModel, write: Any) -> None:
    """An edit while a service runs would give one run two prompts."""
    write("triage.md", "First: {{ message }}")
    with Runtime(prompts="prompts"):
        await triage("hi")
        write("triage.md", "Second: {{ message }}")
        await triage.with_(Cache("1h"))("hi")

    assert "First: hi" == asked(model)[-1]


async def test_partial_arguments_are_parameters_of_a_file(model: ScriptedModel, write: Any) -> None:
    """They are fixed, not gone."""
    write("both.md", "File: {{ one }} {{ two }}")

    @step(model)
    def both(one: str, two: str) -> str:
        return prompt()

    with Runtime(prompts="prompts"):
        await both.partial(one="1")("2")

    assert ["File: 1 2"] == asked(model)


async def test_a_method_has_a_file(model: ScriptedModel, write: Any) -> None:
    """`self` is no parameter of it."""
    write("reply.md", "File: {{ message }}")

    class Desk:
        @step(model)
        def reply(self, message: str) -> str:
            return prompt()

    with Runtime(prompts="prompts"):
        await Desk().reply("hi")

    assert ["File: hi"] == asked(model)


async def test_self_is_refused_in_a_file(model: ScriptedModel, write: Any) -> None:
    """Jinja takes it for the template, in a method that is bound to its object too."""
    write("reply.md", "{{ self.name }} {{ message }}")

    class Desk:
        @step(model)
        def reply(self, message: str) -> str:
            return prompt()

    with Runtime(prompts="prompts"), pytest.raises(DefinitionError, match="a template cannot use `self`"):
        await Desk().reply("hi")


async def test_examples_are_shown_in_the_file_s_wording(model: ScriptedModel, write: Any) -> None:
    """A model that saw other questions than the one it is asked would learn the wrong thing."""
    write("mood.md", "File: {{ review }}")

    @step(model, examples=[("bad", "no")])
    def mood(review: str) -> str:
        """Docstring: {{ review }}"""
        return prompt()

    with Runtime():
        await mood("hi")
    before = asked(model)
    with Runtime(prompts="prompts"):
        await mood("hi")

    assert ["Docstring: bad", "no", "Docstring: hi"] == before
    assert ["File: bad", "no", "File: hi"] == asked(model)


async def test_a_file_has_a_version_of_its_own(triage: Any, write: Any) -> None:
    """Template, system text and parameters count; what is for people does not."""
    texts = [
        "File: {{ message }}",
        "File! {{ message }}",
        "+++\nsystem = 'x'\n+++\nFile: {{ message }}",
        "+++\nparams.seed = 7\n+++\nFile: {{ message }}",
        "+++\ndescription = 'x'\n+++\nFile: {{ message }}",
    ]
    versions = [triage.prompt_version]
    for text in texts:
        write("triage.md", text)
        with Runtime(prompts="prompts"):
            versions.append((await triage.run("hi")).prompt_version)

    assert 5 == len(set(versions))
    assert versions[1] == versions[5]


async def test_a_version_that_was_said_is_kept(triage: Any, write: Any) -> None:
    """`version=` stands for what is computed."""
    write("triage.md", "File: {{ message }}")
    with Runtime(prompts="prompts"):
        result = await triage.with_(version="7").run("hi")

    assert "7" == result.prompt_version


def test_a_plan_says_where_a_prompt_is_written(triage: Any, write: Any) -> None:
    """So that nobody has to guess which text is asked."""
    write("triage.md", "File: {{ message }}")
    made = plan(triage, runtime=Runtime(prompts="prompts"))

    assert "prompts/triage.md" == made.nodes[0].wording
    assert "  prompt  prompts/triage.md\n" in str(made)
    assert "" == plan(triage, runtime=Runtime()).nodes[0].wording


async def test_a_flow_asks_with_files(triage: Any, model: ScriptedModel, write: Any) -> None:
    """Wherever a step is bound."""
    write("triage.md", "File: {{ message }}")

    @flow
    async def support(message: str) -> str:
        return await triage(message)

    with Runtime(prompts="prompts"):
        await support("hi")

    assert "File: hi" == asked(model)[-1]


@pytest.mark.filterwarnings("ignore::llmflow.UnusedParameterWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="{}\r\ufeff"), min_size=1))
def test_any_text_without_markers_is_asked_as_it_is(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """But for blank lines around it."""
    if not text.strip() or text.strip().startswith(("+++", "---")):
        return
    folder, model = tmp_path_factory.mktemp("prompts"), scripted(default="ok")
    (folder / "bare.md").write_bytes(text.encode())

    @step(model)
    def bare() -> str:
        return prompt()

    with Runtime(prompts=folder):
        bare.sync()

    assert text.strip() == asked(model)[-1].strip()


# -- variants ----------------------------------------------------------------------------------------------------------


async def test_a_canary_needs_one_file(triage: Any, model: ScriptedModel, write: Any) -> None:
    """Everybody else is asked what the code says."""
    write("triage@canary.md", "Canary: {{ message }}")
    with Runtime(prompts="prompts", variants=EVEN):
        results = [await triage.with_(run_id=key_of(label)).run("hi") for label in ("production", "canary")]

    assert ["production", "canary"] == [one.prompt_label for one in results]
    assert ["Docstring: hi", "Canary: hi"] == [one.messages[-1].content for one in model.requests]
    assert triage.prompt_version == results[0].prompt_version != results[1].prompt_version


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["triage.md"], "triage.md"),
        (["triage.md", "triage@production.md"], "triage@production.md"),
    ],
)
async def test_production_falls_back_to_the_file_without_a_label(
    triage: Any, model: ScriptedModel, write: Any, files: list[str], expected: str
) -> None:
    """Its own file goes before that."""
    for name in [*files, "triage@canary.md"]:
        write(name, f"{name}: {{{{ message }}}}")
    with Runtime(prompts="prompts", variants=EVEN):
        await triage.with_(run_id=key_of("production"))("hi")

    assert f"{expected}: hi" == asked(model)[-1]


async def test_one_label_is_for_everybody(triage: Any, write: Any) -> None:
    """How a canary is tried alone, and how a release is named."""
    write("triage@canary.md", "Canary: {{ message }}")
    with Runtime(prompts="prompts", variants={"triage": {"canary": 1}}):
        only = await triage.run("hi")
    with Runtime(variants={"triage": {"release-7": 1}}):
        own = await triage.run("hi")

    assert ("canary", "release-7") == (only.prompt_label, own.prompt_label)
    assert own.prompt_version == triage.prompt_version


@pytest.mark.parametrize(
    ("variants", "options", "message"),
    [
        (
            EVEN,
            {"prompts": "prompts"},
            "has no prompt with the label 'canary': there is no file prompts/triage@canary.md",
        ),
        (EVEN, {}, "has no prompt with the label 'canary': no plugin supplies it, and Runtime(prompts=...) names no"),
        ({"triage": {"a": 1, "b": 1}}, {"prompts": "prompts"}, "there is no file prompts/triage@a.md"),
        (
            {"triage": {"production": 1, "x/y": 1}},
            {"prompts": "prompts"},
            "no prompt file can be called after the variant",
        ),
    ],
)
async def test_a_label_without_a_prompt_is_refused(
    triage: Any, model: ScriptedModel, write: Any, variants: Any, options: Any, message: str
) -> None:
    """When the step is bound, with the file that is missing."""
    write("triage.md", "File: {{ message }}")
    with Runtime(variants=variants, **options), pytest.raises(DefinitionError) as caught:
        await triage("hi")

    assert message in str(caught.value)
    assert [] == model.requests


async def test_a_main_label_without_any_text_is_refused(model: ScriptedModel, write: Any) -> None:
    """Nine of ten calls would fail; that is known when the step is bound."""
    write("bare@canary.md", "Canary: {{ message }}")

    @step(model)
    def bare(message: str) -> str:
        return prompt()

    variants = {"bare": {"production": 9, "canary": 1}}
    with Runtime(prompts="prompts", variants=variants) as runtime, pytest.raises(DefinitionError, match="'production'"):
        plan(bare, runtime=runtime)


def test_variants_that_cannot_be_are_refused_by_the_runtime() -> None:
    """Not at the first call."""
    with pytest.raises(DefinitionError, match=r"Runtime\(variants=...\): 'triage': the weight of 'a' is -1"):
        Runtime(variants={"triage": {"a": -1}})


@pytest.mark.parametrize(
    ("around", "sticky", "expected"),
    [
        ({"tenant": "T", "tags": {"user": "U"}}, "user", "U"),
        ({"tenant": "T", "tags": {"user": "U"}}, None, "T"),
        ({"tenant": "T"}, "user", "T"),
        ({"tags": {"user": "U"}}, None, "run"),
        ({}, "user", "run"),
    ],
)
@pytest.mark.parametrize("label", ["production", "canary"])
async def test_the_key_is_the_tag_then_the_tenant_then_the_run(
    triage: Any, write: Any, around: Any, sticky: str | None, expected: str, label: str
) -> None:
    """What is not the key has the other label's key."""
    write("triage@canary.md", "Canary: {{ message }}")
    other = "canary" if label == "production" else "production"
    given = {name: key_of(label if name == expected else other) for name in ("T", "U", "run")}
    tags = {name: given[value] for name, value in around.get("tags", {}).items()}
    tenant = given.get(around.get("tenant"))
    said = {"triage": {**EVEN["triage"], **({"sticky": sticky} if sticky else {})}}
    with Runtime(prompts="prompts", variants=said), context(tenant=tenant, tags=tags):
        result = await triage.with_(run_id=given["run"]).run("hi")

    assert label == result.prompt_label


async def test_a_tag_that_is_no_text_is_a_key_too(triage: Any, write: Any) -> None:
    """User ids are often numbers."""
    write("triage@canary.md", "Canary: {{ message }}")
    tags: Any = {"user": 7}
    with Runtime(prompts="prompts", variants={"triage": {**EVEN["triage"], "sticky": "user"}}), context(tags=tags):
        number = await triage.run("hi")
    tags = {"user": "7"}
    with Runtime(prompts="prompts", variants={"triage": {**EVEN["triage"], "sticky": "user"}}), context(tags=tags):
        text = await triage.run("hi")

    assert number.prompt_label == text.prompt_label


@pytest.mark.parametrize("label", ["production", "canary"])
async def test_a_run_sees_one_variant(triage: Any, write: Any, label: str) -> None:
    """Every item of a map, and every call of a flow."""
    write("triage@canary.md", "Canary: {{ message }}")

    @flow
    async def support(messages: list[str]) -> list[str]:
        return await triage.map(messages)

    with Runtime(prompts="prompts", variants=EVEN):
        result = await support.with_(run_id=key_of(label)).run(["a", "b", "c"])

    assert [label] * 3 == [one.prompt_label for one in result.calls]


@pytest.mark.parametrize("label", ["production", "canary"])
async def test_a_variant_is_streamed(triage: Any, model: ScriptedModel, write: Any, label: str) -> None:
    """Piece by piece, like any other."""
    write("triage@canary.md", "Canary: {{ message }}")
    with Runtime(prompts="prompts", variants=EVEN), context(tenant=key_of(label)):
        async with triage.stream("hi") as answer:
            pieces = [piece async for piece in answer.deltas()]

    assert "ok" == "".join(pieces)
    assert {"production": "Docstring: hi", "canary": "Canary: hi"}[label] == asked(model)[-1]


async def test_adjusted_copies_have_the_same_variants(triage: Any, write: Any) -> None:
    """`.with_`, `.partial` and an override change nothing of who is asked what."""
    write("triage@canary.md", "Canary: {{ message }}")
    other = scripted(default="ok")
    with Runtime(prompts="prompts", variants=EVEN) as runtime, context(tenant=key_of("canary")):
        results = [await triage.with_(params={"seed": 5}).run("hi"), await triage.partial(message="hi").run()]
        with runtime.override(model=other):
            results.append(await triage.run("hi"))

    assert ["canary"] * 3 == [one.prompt_label for one in results]
    assert ["Of the code.", "Canary: hi"] == asked(other)


async def test_variants_have_answers_of_their_own_in_a_cache(triage: Any, model: ScriptedModel, write: Any) -> None:
    """Even where both happen to ask in the same words, so that reports by version stay true."""
    write("triage@canary.md", "Docstring: {{ message | trim }}")
    cached = triage.with_(Cache("1h"))
    with Runtime(prompts="prompts", variants=EVEN):
        for label in ("production", "canary", "production", "canary"):
            await cached.with_(run_id=key_of(label))("hi")

    assert ["Docstring: hi"] * 2 == [one.messages[-1].content for one in model.requests]


async def test_variants_share_the_budget_of_their_step(triage: Any, write: Any) -> None:
    """One step, one pot."""
    write("triage@canary.md", "Canary: {{ message }}")
    paid = triage.with_(Budget(calls=1, per="total"))
    with Runtime(prompts="prompts", variants=EVEN):
        await paid.with_(run_id=key_of("production"))("hi")
        with pytest.raises(Exception, match="budget"):
            await paid.with_(run_id=key_of("canary"))("hi")


async def test_events_say_the_label(triage: Any, write: Any) -> None:
    """Of the call and of each of its requests."""
    write("triage@canary.md", "Canary: {{ message }}")
    told: list[Any] = []

    class Listener:
        @hookimpl
        def llmflow_call_finished(self, event: Any) -> None:
            told.append((event.label, event.prompt_version))

        @hookimpl
        def llmflow_attempt_finished(self, event: Any) -> None:
            told.append((event.label, event.prompt_version))

    with Runtime(prompts="prompts", variants=EVEN, plugins=[Listener()]):
        canary = await triage.with_(run_id=key_of("canary")).run("hi")
    with Runtime(plugins=[Listener()]):
        own = await triage.run("hi")

    assert [("canary", canary.prompt_version)] * 2 + [(None, own.prompt_version)] * 2 == told


async def test_a_value_instead_of_a_prompt_has_the_label(model: ScriptedModel, write: Any) -> None:
    """Nothing is asked, but the call is counted where it belongs."""
    write("short@canary.md", "Canary: {{ message }}")

    @step(model)
    def short(message: str) -> str:
        """Docstring: {{ message }}"""
        return "known" if message == "hi" else prompt()

    variants = {"short": {"canary": 1}}
    with Runtime(prompts="prompts", variants=variants):
        result = await short.run("hi")

    assert ("known", "canary") == (result.value, result.prompt_label)


def test_a_plan_shows_the_variants(triage: Any, write: Any) -> None:
    """Their shares, versions, origins and parameters."""
    write("triage@canary.md", "+++\nparams.max_tokens = 9\n+++\nCanary: {{ message }}")
    made = plan(triage, runtime=Runtime(prompts="prompts", variants={"triage": {"production": 9, "canary": 1}}))
    (node,) = made.nodes

    assert [
        ("production", 0.9, triage.prompt_version, "", 4096),
        ("canary", 0.1, node.variants[1].prompt_version, "prompts/triage@canary.md", 9),
    ] == [(one.label, one.share, one.prompt_version, one.wording, one.params["max_tokens"]) for one in node.variants]
    assert triage.prompt_version == node.prompt_version
    assert "  variant production   90.0%" in str(made)
    assert "  variant canary       10.0%" in str(made)
    assert "canary" == json.loads(json.dumps(made.to_dict()))["nodes"][0]["variants"][1]["label"]


@pytest.mark.parametrize(("weight", "tokens"), [(1, 1_000), (0, 100)])
def test_a_plan_is_for_the_dearest_variant_that_is_asked(write: Any, weight: int, tokens: int) -> None:
    """Nobody knows before the run which one it will be; one of weight 0 it will not."""
    write("triage@canary.md", "+++\nparams.max_tokens = 1000\n+++\nCanary: {{ message }}")
    priced = Model("fake/priced", handler=scripted(default="ok").handler, price=Price(input=0, output=1))

    @step(priced, params={"max_tokens": 100})
    def triage(message: str) -> Literal["ok"]:
        """Docstring: {{ message }}"""
        return prompt()

    runtime = Runtime(prompts="prompts", variants={"triage": {"production": 1, "canary": weight}})
    asks, tries = 3, 3
    made = plan(triage, runtime=runtime)
    mapped = plan_map(triage, [{"message": "a"}, {"message": "b"}], concurrency=2, runtime=runtime)

    assert asks * tries == made.bounds.calls
    assert asks * tries * tokens == made.bounds.usd * 1_000_000
    assert 2 * made.bounds.usd == mapped.bounds.usd


def test_a_plan_says_which_variant_cannot_be_paid_for(write: Any) -> None:
    """The canary alone would be refused, in one of ten runs."""
    write("triage@canary.md", "+++\nparams.max_tokens = 1000000\n+++\nCanary: {{ message }}")
    priced = Model("fake/priced", handler=scripted(default="ok").handler, price=Price(input=0, output=1))

    @step(priced, Budget(usd="0.1", per="call"), params={"max_tokens": 100})
    def triage(message: str) -> str:
        """Docstring: {{ message }}"""
        return prompt()

    runtime = Runtime(prompts="prompts", variants={"triage": {"production": 9, "canary": 1}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (refused,) = plan(triage, runtime=runtime).refused

    assert refused.endswith("(variant 'canary')")


# -- plugins -----------------------------------------------------------------------------------------------------------


class Shelf:
    """A plugin that keeps prompts in memory."""

    def __init__(self, **prompts: Any) -> None:
        self.prompts = prompts
        self.asked: list[tuple[str, str | None]] = []

    @hookimpl
    def llmflow_prompt(self, name: str, label: str | None) -> Any:
        self.asked.append((name, label))
        return self.prompts.get(label or name)


async def test_a_plugin_supplies_prompts_and_labels(triage: Any, model: ScriptedModel) -> None:
    """Without any file."""
    shelf = Shelf(triage=Wording("Shelf: {{ message }}"), canary=Wording("Shelf canary: {{ message }}"))
    with Runtime(plugins=[shelf], variants=EVEN):
        for label in ("production", "canary"):
            await triage.with_(run_id=key_of(label))("hi")

    assert ["Shelf: hi", "Shelf canary: hi"] == [one.messages[-1].content for one in model.requests]


async def test_a_plugin_goes_before_the_files(triage: Any, model: ScriptedModel, write: Any) -> None:
    """llmflow's own are asked when no other has it."""
    write("triage.md", "File: {{ message }}")
    with Runtime(plugins=[Shelf(triage=Wording("Shelf: {{ message }}"))], prompts="prompts"):
        await triage("hi")

    assert "Shelf: hi" == asked(model)[-1]


async def test_a_plugin_is_asked_once_for_each_label(triage: Any) -> None:
    """However often the step is bound."""
    shelf = Shelf()
    with Runtime(plugins=[shelf]):
        await triage("hi")
        await triage.with_(Cache("1h"))("hi")

    assert [("triage", None)] == shelf.asked


def test_a_prompt_of_a_plugin_has_its_name(triage: Any) -> None:
    """Unless it says better where it comes from."""
    named = Shelf(triage=Wording("{{ message }}", origin="shelf://triage"))

    assert (
        "plugin Shelf"
        == plan(triage, runtime=Runtime(plugins=[Shelf(triage=Wording("{{ message }}"))])).nodes[0].wording
    )
    assert "shelf://triage" == plan(triage, runtime=Runtime(plugins=[named])).nodes[0].wording


def test_two_plugins_with_one_prompt_are_refused(triage: Any) -> None:
    """Nobody could say which is asked."""
    one, other = Shelf(triage=Wording("1 {{ message }}")), Shelf(triage=Wording("2 {{ message }}"))
    with pytest.raises(PluginDefinitionError, match="two plugins supply the prompt 'triage': Shelf and Shelf+"):
        plan(triage, runtime=Runtime(plugins=[one, other]))


def test_a_plugin_that_gives_something_else_is_named(triage: Any) -> None:
    """With what it gave."""
    with pytest.raises(
        PluginDefinitionError, match="plugin 'Shelf' gave str as the prompt 'triage', expected a Wording"
    ):
        plan(triage, runtime=Runtime(plugins=[Shelf(triage="Hello")]))


def test_a_step_tells_what_it_asks_with_in_a_runtime(triage: Any, write: Any) -> None:
    """By label, for reports and locks."""
    write("triage@canary.md", "Canary: {{ message }}")
    plain, shared = steps_of(triage, Runtime()), steps_of(triage, Runtime(prompts="prompts", variants=EVEN))

    assert {None: triage} == plain
    assert ["production", "canary"] == list(shared)
    assert shared["production"] is triage
    assert shared["canary"].wording is not None


def test_only_so_many_wordings_are_kept_compiled(triage: Any) -> None:
    """A plugin may have a new one for each runtime."""
    for number in range(200):
        triage.reworded(Wording(f"{number} {{{{ message }}}}"))

    assert len(triage._read) <= 64
