"""S2, S5, S7: neither keys nor prompts are where they do not belong."""

from __future__ import annotations

import io
import logging
import pickle
import traceback

import pytest

from llmflow import Fallback, FallbackExhausted, InvalidOutput, Model, Retry, StepError, configure_logging
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, status
from llmflow.testing._loopback import LoopbackServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

PROMPT = "the secret recipe of the house"


@pytest.fixture
def everything_logged():
    """The root logger at DEBUG into a text, every library included; switched back afterwards."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(
        logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s %(llmflow)s", defaults={"llmflow": ""})
    )
    root, ours = logging.getLogger(), logging.getLogger("llmflow")
    levels = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def all_that_is_shown(error):
    """Every text that a program, a log or a debugger makes of an error, and of all that hangs on it."""
    texts = ["".join(traceback.format_exception(error))]
    pending, seen = [error], set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ""))]
        texts += [repr(value) for value in vars(one).values()]
        for name in ("body", "response", "request"):
            value = getattr(one, name, None)
            texts += [repr(value), repr(getattr(value, "headers", "")), repr(getattr(value, "content", b""))]
        pending += [one.__cause__, one.__context__, *getattr(one, "causes", ()), *getattr(one, "others", ())]
        pending += [attempt.error for attempt in getattr(one, "attempts", ())]
    return "\n".join(texts)


ECHOES = [
    lambda key: status(401, message=f"Incorrect API key provided: {key}"),
    lambda key: status(400, message=f"bad header Authorization: Bearer {key}", error_code=key),
    lambda key: status(500, message=key, error_type=key, headers={"x-request-id": key}),
    lambda key: status(429, message=f"limit of {key}", headers={"retry-after": key}),
    lambda key: faults.error_in_200(f"upstream said {key}"),
    lambda key: faults.html(f"<html>{key}</html>", code=502),
    lambda key: faults.redirect(f"http://127.0.0.1:9/{key}"),
]


IN_HEADERS = (2, 3, 6)

every_echo = pytest.mark.parametrize("number", range(len(ECHOES)))


@every_echo
async def test_s2_a_key_that_the_provider_echoes_is_nowhere(
    number, server, model, asking, key, everything_logged, runtime
):
    """S2: 0 occurrences in messages, reprs, tracebacks, attempts, statistics and DEBUG logs, the SDK's included."""
    server.default = ECHOES[number](key)

    with pytest.raises(StepError) as caught:
        await asking(model, Retry(2))(PROMPT)

    assert key not in all_that_is_shown(caught.value)
    # The SDK and its HTTP client write the headers of replies at DEBUG, whatever is in them; bodies they do not.
    logged = everything_logged.getvalue().splitlines()
    assert not [line for line in logged if key in line and (number not in IN_HEADERS or line.startswith("llmflow"))]
    assert key not in repr(runtime.stats()) + repr(model)


@every_echo
async def test_s2_the_key_is_not_in_what_a_fallback_collects(number, server, model, asking, key):
    """The causes are kept whole, and clean."""
    server.default = ECHOES[number](key)

    try:
        await asking(model, Retry.off, Fallback(model))("x")
    except StepError as error:
        assert key not in all_that_is_shown(error)


async def test_s2_a_model_shows_no_key(model, key):
    """Neither does it pickle one."""
    assert key not in f"{model!r}{model.api_key!r}{model.api_key}{model.connection}"
    with pytest.raises(TypeError):
        pickle.dumps(model.api_key)


async def test_llm07_prompts_and_answers_are_in_no_error(server, model, asking, everything_logged):
    """What was asked and answered is the caller's; a message says what is wrong and not with what."""
    server.default = answer('{"category": "launch codes", "score": 1}')

    with pytest.raises(InvalidOutput) as caught:
        await asking(model)(PROMPT)

    shown = str(caught.value) + repr(caught.value) + repr(getattr(caught.value, "__notes__", ""))
    assert "launch codes" not in shown
    assert PROMPT not in "".join(traceback.format_exception(caught.value))
    logged = [line for line in everything_logged.getvalue().splitlines() if line.startswith("llmflow")]
    assert logged
    assert not [line for line in logged if "launch codes" in line or PROMPT in line]


async def test_s5_text_from_outside_forges_no_line(server, model, asking, everything_logged):
    """S5: CR, LF and ESC from a provider stay inside the line they belong to."""
    server.default = status(500, message="x\r\nllmflow WARNING forged \x1b[31mred\u2028next")

    with pytest.raises(StepError) as caught:
        await asking(model, name="tri\nage")("x")

    assert not {"\r", "\x1b", "\u2028"} & set(str(caught.value))
    assert not [
        line for line in everything_logged.getvalue().splitlines() if line.startswith(("llmflow WARNING forged", "age"))
    ]


async def test_the_log_is_silent_until_it_is_asked_for(server, model, asking, capfd):
    """A library writes nothing of itself."""
    server.enqueue(status(500))
    server.default = answer('{"category": "bug", "score": 1}')

    await asking(model)("x")

    assert ("", "") == capfd.readouterr()


async def test_configure_logging_writes_one_line_an_event(server, model, asking, capsys):
    """An application that asks for it gets step, model and error, without prompt and answer."""
    ours = logging.getLogger("llmflow")
    server.enqueue(status(500))
    server.default = answer('{"category": "bug", "score": 1}')
    configure_logging(level="DEBUG")
    try:
        await asking(model)(PROMPT)
    finally:
        for handler in [one for one in ours.handlers if not isinstance(one, logging.NullHandler)]:
            ours.removeHandler(handler)
        ours.setLevel(logging.NOTSET)

    lines = capsys.readouterr().err.splitlines()
    words = ("attempt finished", "retry scheduled", "attempt finished", "call finished")
    assert len(words) == len(lines)
    assert all(word in line and "step=triage" in line for word, line in zip(words, lines, strict=True))
    assert PROMPT not in "".join(lines)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_s7_a_redirect_to_another_host_gets_neither_key_nor_prompt(code, server, model, asking):
    """S7, fault 27: 0 requests at the other host, one at the first."""
    with LoopbackServer() as thief:
        server.default = faults.redirect(f"{thief.base_url}/chat/completions", code=code)

        with pytest.raises(StepError):
            await asking(model)(PROMPT)

        assert (1, 0, 0) == (len(server.requests), len(thief.requests), thief.connections_opened)


async def test_the_key_goes_to_its_own_provider_only(server, model, asking, key):
    """A fallback with a key of its own never sees the first one's."""
    with LoopbackServer(answer('{"category": "bug", "score": 1}')) as other:
        server.default = status(401)

        await asking(model, Fallback(Model("openai/gpt-y", base_url=other.base_url, api_key="sk-another-0123456789")))(
            "x"
        )

        assert f"Bearer {key}" == server.requests[0].headers["authorization"]
        assert "Bearer sk-another-0123456789" == other.requests[0].headers["authorization"]
        assert key not in str(other.requests[0].headers) + str(other.requests[0].body)


async def test_every_request_carries_a_limit(server, model, asking):
    """B3: 4096 tokens unless said otherwise, so that the worst case is known."""
    server.default = answer('{"category": "bug", "score": 1}')

    await asking(model)("x")

    body = server.requests[0].json
    assert 4096 in (body.get("max_tokens"), body.get("max_completion_tokens"))


async def test_all_failed_names_every_model(server, model, asking):
    """The message of a FallbackExhausted is for whoever is on call."""
    server.default = status(503)

    with pytest.raises(FallbackExhausted, match="ProviderUnavailable.*ProviderUnavailable"):
        await asking(model, Retry.off, Fallback(model))("x")
