"""OpenAI's chat completions: what is sent, and what is read from the reply."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import warnings

import anyio
import pytest

from llmflow.errors import AuthenticationFailed, DefinitionError
from llmflow.messages import File, Message, Usage
from llmflow.models import Model
from llmflow.providers import ParamDroppedWarning
from llmflow.providers._openai import OpenAIProvider
from llmflow.testing._http_faults import close_after, refused_url
from llmflow.testing._http_responses import answer, json_reply
from llmflow.testing._loopback import LoopbackServer

TICKET = '{"category":"bug","urgent":true}'


def completion(message: object, **choice: object) -> dict[str, object]:
    return {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]}


@pytest.mark.anyio
async def test_typed_answer_comes_from_the_tool_call(server, model, output, make_request):
    """The schema goes out as a forced tool, and its arguments come back as the text."""
    server.enqueue(answer(TICKET, usage=(12, 7)))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert TICKET == reply.text
    assert Usage(input_tokens=12, output_tokens=7) == reply.usage
    assert ("stop", "gpt-x") == (reply.finish_reason, reply.model)


@pytest.mark.anyio
async def test_request_body_holds_model_messages_tool_and_params(server, model, output, make_request):
    """Everything of the request reaches the provider, once."""
    request = make_request(model, output, Message("system", "Be brief"), Message("user", "héllo"))

    await OpenAIProvider().connect(model, output)(request)

    (received,) = server.requests
    body = received.json
    assert "/v1/chat/completions" == received.path
    assert [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "héllo"}] == body["messages"]
    assert ("gpt-x", 100) == (body["model"], body["max_tokens"])
    assert {"type": "function", "function": {"name": "Ticket"}} == body["tool_choice"]
    assert {"category", "urgent"} == set(body["tools"][0]["function"]["parameters"]["properties"])


@pytest.mark.anyio
async def test_headers_are_those_of_the_sdk(server, model, output, make_request, monkeypatch):
    """Key, user agent, organisation and custom headers are what the SDK itself would send."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-7")

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    headers = server.requests[0].headers
    assert f"Bearer {model.api_key.reveal()}" == headers["authorization"]
    assert "org-7" == headers["openai-organization"]
    assert headers["user-agent"].startswith("AsyncOpenAI/Python")
    assert "0" == headers["x-stainless-retry-count"]


@pytest.mark.anyio
async def test_text_step_sends_no_schema(server, model, text_output, make_request):
    """A step that returns str gets plain text and offers no re-ask turns of its own."""
    server.enqueue(answer("All good."))

    reply = await OpenAIProvider().connect(model, text_output)(make_request(model, text_output))

    assert "All good." == reply.text
    assert reply.reask is None
    assert {"model", "messages", "max_tokens"} == set(server.requests[0].json)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["json_schema", "json", "md_json"])
async def test_json_modes_take_the_content(mode, server, output, make_request):
    """The other modes of instructor ask for the schema in their own way."""
    model = Model("openai/gpt-x", base_url=server.base_url, mode=mode)
    server.enqueue(answer(TICKET))

    reply = await OpenAIProvider().connect(model, output)(
        make_request(model, output, Message("system", "Be brief"), Message("user", "hi"))
    )

    body = server.requests[0].json
    roles = [message["role"] for message in body["messages"]]
    assert TICKET == reply.text
    assert "tools" not in body
    assert "mode" not in body
    assert 1 == roles.count("system") == [roles[0]].count("system")
    assert "category" in json.dumps(body.get("response_format", {})) + body["messages"][0]["content"]


def test_unknown_mode_is_refused_when_connecting(output):
    """A misspelt mode is found before any request."""
    with pytest.raises(DefinitionError, match="mode 'jsn' does not exist for openai"):
        OpenAIProvider().connect(Model("openai/gpt-x", mode="jsn"), output)


@pytest.mark.anyio
async def test_options_go_into_the_body(server, output, make_request):
    """What Model is given for this provider alone is sent as it is."""
    model = Model("openai/gpt-x", base_url=server.base_url, service_tier="flex")

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert "flex" == server.requests[0].json["service_tier"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param({"content": TICKET}, TICKET, id="content instead of the tool"),
        pytest.param({"content": None}, None, id="content null"),
        pytest.param(None, None, id="message null"),
        pytest.param({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", id="parts"),
        pytest.param({"tool_calls": [{"function": {"name": "Other", "arguments": TICKET}}]}, TICKET, id="other tool"),
        pytest.param({"tool_calls": [{"function": {"name": "Ticket", "arguments": {"a": 1}}}]}, '{"a":1}', id="object"),
        pytest.param(
            {"tool_calls": [{"function": {"arguments": "1"}}, {"function": {"arguments": "2"}}]}, "1", id="two calls"
        ),
        pytest.param({"tool_calls": []}, None, id="no calls"),
        pytest.param({"tool_calls": [None]}, None, id="call null"),
        pytest.param({"tool_calls": "oops", "content": "x"}, "x", id="calls are junk"),
        pytest.param({"function_call": {"name": "Ticket", "arguments": "{}"}}, "{}", id="old function call"),
        pytest.param({"content": 7}, None, id="content is junk"),
    ],
)
async def test_answers_are_read_leniently(message, text, server, model, output, make_request):
    """Whatever resembles an answer is handed on; validation decides."""
    server.enqueue(json_reply(completion(message)))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert text == reply.text


@pytest.mark.anyio
@pytest.mark.parametrize("choices", [[], None, {}, [None], ["x"], "x"])
async def test_reply_without_choices_has_no_text(choices, server, model, output, make_request):
    """No answer at all is a reply without text, not a crash."""
    server.enqueue(json_reply({"choices": choices}))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert reply.text is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sent", "expected"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("x", "stop")]
)
async def test_finish_reasons(sent, expected, server, model, output, make_request):
    """A cut or withheld answer is told from a complete one."""
    server.enqueue(answer("{", finish_reason=sent))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert ("{", expected) == (reply.text, reply.finish_reason)


@pytest.mark.anyio
async def test_refusal_is_a_finish_reason_with_its_text(server, model, output, make_request):
    """The model's own words for declining are kept."""
    server.enqueue(answer("I cannot help with that.", finish_reason="refusal"))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert ("I cannot help with that.", "refusal") == (reply.text, reply.finish_reason)


@pytest.mark.anyio
async def test_cached_and_reasoning_tokens_are_counted(server, model, output, make_request):
    """The parts of the totals that cost differently are known."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    server.enqueue(answer(TICKET, usage=usage))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert Usage(input_tokens=10, output_tokens=8, cached_tokens=4, reasoning_tokens=3) == reply.usage


@pytest.mark.anyio
async def test_reask_shows_the_answer_and_the_problem(server, model, output, make_request):
    """The turns that instructor builds go out natively after the prompt."""
    send = OpenAIProvider().connect(model, output)
    reply = await send(make_request(model, output))

    await send(make_request(model, output, turns=tuple(reply.reask("urgent: field required"))))

    prompt, call, result = server.requests[1].json["messages"]
    assert ("user", "assistant", "tool") == (prompt["role"], call["role"], result["role"])
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert "urgent: field required" in result["content"]


@pytest.mark.anyio
async def test_plain_messages_are_turns_too(server, model, output, make_request):
    """Where no native turns exist, messages follow the prompt."""
    turns = (Message("assistant", "{}"), Message("user", "Try again"))

    await OpenAIProvider().connect(model, output)(make_request(model, output, turns=turns))

    assert ["user", "assistant", "user"] == [m["role"] for m in server.requests[0].json["messages"]]


@pytest.mark.anyio
async def test_lone_surrogates_in_a_prompt_are_replaced(server, model, output, make_request):
    """Text that no encoder takes does not make the call fail."""
    await OpenAIProvider().connect(model, output)(make_request(model, output, Message("user", "a\ud800b é")))

    assert "a\ufffdb é" == server.requests[0].json["messages"][0]["content"]


@pytest.mark.anyio
async def test_lone_surrogates_in_an_answer_are_replaced(server, model, text_output, make_request):
    """No text leaves a provider that a log or a database cannot encode."""
    server.enqueue(json_reply(completion({"content": "a\ud800b"})))

    reply = await OpenAIProvider().connect(model, text_output)(make_request(model, text_output))

    assert "a\ufffdb" == reply.text


@pytest.mark.anyio
async def test_files_become_parts_of_the_content(server, model, text_output, make_request):
    """Images, sounds and PDFs go out in the form the API has for each."""
    files = (
        File(media_type="image/png", data=b"png"),
        File(media_type="image/jpeg", url="https://example.com/a.jpg"),
        File(media_type="audio/wav", data=b"wav"),
        File(media_type="application/pdf", data=b"pdf", name="a.pdf"),
    )

    await OpenAIProvider().connect(model, text_output)(make_request(model, text_output, Message("user", "Look", files)))

    text, png, jpeg, wav, pdf = server.requests[0].json["messages"][0]["content"]
    assert {"type": "text", "text": "Look"} == text
    assert "data:image/png;base64,cG5n" == png["image_url"]["url"]
    assert "https://example.com/a.jpg" == jpeg["image_url"]["url"]
    assert {"data": "d2F2", "format": "wav"} == wav["input_audio"]
    assert {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"} == pdf["file"]


@pytest.mark.anyio
async def test_file_the_api_does_not_take_is_refused(server, model, text_output, make_request):
    """A file that cannot be sent is named before anything is sent."""
    message = Message("user", "Look", (File(media_type="video/mp4", data=b"x"),))

    with pytest.raises(DefinitionError, match="video/mp4"):
        await OpenAIProvider().connect(model, text_output)(make_request(model, text_output, message))
    assert [] == server.requests


# -- keys and addresses ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_missing_key_names_variable_and_argument(output, make_request):
    """Without a key there is no request, and the message says both ways to give one."""
    model = Model("openai/gpt-x")
    send = OpenAIProvider().connect(model, output)

    with pytest.raises(
        AuthenticationFailed, match=r"set OPENAI_API_KEY or pass Model\('openai/gpt-x', api_key=\.\.\.\)"
    ):
        await send(make_request(model, output))


@pytest.mark.anyio
async def test_key_is_read_from_the_environment_at_the_first_request(server, output, make_request, monkeypatch):
    """The variable may be set after the step was bound."""
    model = Model("openai/gpt-x", base_url=server.base_url)
    send = OpenAIProvider().connect(model, output)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")

    await send(make_request(model, output))

    assert "Bearer sk-from-environment" == server.requests[0].headers["authorization"]


@pytest.mark.anyio
async def test_server_on_this_machine_needs_no_key(server, output, make_request):
    """Local servers work out of the box."""
    model = Model("openai/gpt-x", base_url=server.base_url)

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert 1 == len(server.requests)


@pytest.mark.anyio
async def test_key_with_a_line_break_is_refused(output, make_request, server):
    """A key read from a file with something behind it is named as the problem, without being shown."""
    model = Model("openai/gpt-x", base_url=server.base_url, api_key="sk-secret\nX-Evil: 1")

    with pytest.raises(AuthenticationFailed, match="contains characters that no key has") as caught:
        await OpenAIProvider().connect(model, output)(make_request(model, output))
    assert "sk-secret" not in str(caught.value)


@pytest.mark.anyio
async def test_base_url_of_the_environment_is_the_sdks(server, output, make_request, monkeypatch):
    """OPENAI_BASE_URL means what it means to the SDK."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    model = Model("openai/gpt-x", api_key="sk-some-key")

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert 1 == len(server.requests)


@pytest.mark.anyio
async def test_proxy_of_the_environment_is_used(server, output, make_request, monkeypatch):
    """HTTP_PROXY means what it means to the SDK: the request goes to the proxy with its full address."""
    monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
    model = Model("openai/gpt-x", base_url="http://llm.invalid/v1", api_key="sk-some-key")

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert ["http://llm.invalid/v1/chat/completions"] == [request.path for request in server.requests]


@pytest.mark.anyio
async def test_no_proxy_of_the_environment_is_respected(server, model, output, make_request, monkeypatch):
    """NO_PROXY takes a host out again."""
    monkeypatch.setenv("HTTP_PROXY", refused_url())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert 1 == len(server.requests)


# -- parameters --------------------------------------------------------------------------------------------------------

PARAMS = {"max_tokens": 50, "temperature": 0.1, "top_p": 0.9, "stop": "END", "seed": 1, "reasoning": "low"}


def sent_params(
    name: str, params: dict[str, object], base_url: str | None = None
) -> tuple[dict[str, object], list[str]]:
    """Return what is sent for the parameters, and which are dropped."""
    from llmflow.providers._openai_body import param_names
    from llmflow.providers._params import ParamNames

    names = ParamNames(name, param_names(Model(name), base_url or "https://api.openai.com/v1"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sent = names.translate(params)
        assert sent == names.translate(params)
    return sent, [str(w.message) for w in caught if w.category is ParamDroppedWarning]


def test_params_of_an_ordinary_model():
    """Only reasoning is unknown to it, and that is said once."""
    sent, dropped = sent_params("openai/gpt-4.1-mini", PARAMS)

    assert {"max_tokens": 50, "temperature": 0.1, "top_p": 0.9, "stop": "END", "seed": 1} == sent
    assert ["openai/gpt-4.1-mini has no parameter 'reasoning'; it is left out"] == dropped


@pytest.mark.parametrize("name", ["openai/gpt-5-mini", "openai/o3", "openai/o4-mini"])
def test_params_of_openais_reasoning_models(name):
    """They have another word for max_tokens, take an effort, and no sampling parameters."""
    sent, dropped = sent_params(name, PARAMS)

    assert {"max_completion_tokens": 50, "seed": 1, "reasoning_effort": "low"} == sent
    assert 3 == len(dropped)


def test_params_elsewhere_keep_their_plain_names():
    """A service that only speaks the same API does not know OpenAI's newer names."""
    sent, dropped = sent_params("openai/gpt-5-mini", {"max_tokens": 50, "temperature": 0.1}, "http://127.0.0.1:8000/v1")

    assert {"max_tokens": 50, "temperature": 0.1} == sent
    assert [] == dropped


# -- loops, threads, processes -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_two_event_loops_in_a_row(server, model, output, make_request):
    """A second asyncio.run makes its own connections, and the first leaves none behind."""
    send = OpenAIProvider().connect(model, output)

    for _ in range(2):
        asyncio.run(send(make_request(model, output)))

    assert 2 == server.connections_opened
    assert 2 == len(server.requests)


@pytest.mark.filterwarnings("error")
def test_fifty_threads_get_their_own_answers(server, output, model, make_request):
    """Loops in many threads share nothing."""
    server.default = lambda request: answer(json.dumps({"echo": request.json["messages"][0]["content"]}))
    send = OpenAIProvider().connect(model, output)
    answers: dict[int, str] = {}

    def work(number: int) -> None:
        reply = asyncio.run(send(make_request(model, output, Message("user", str(number)))))
        answers[number] = json.loads(reply.text)["echo"]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: str(number) for number in range(50)} == answers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_of_a_fork_makes_its_own_connection(server, model, output, make_request):
    """A connection is never shared between parent and child."""
    send = OpenAIProvider().connect(model, output)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(send(make_request(model, output)))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(send(make_request(model, output)))
            status = 0
        finally:
            os._exit(status)

    _, result = os.waitpid(child, 0)

    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert 0 == result
    assert [1, 2] == [request.connection for request in server.requests]


@pytest.mark.anyio
async def test_connection_is_kept_between_calls(server, model, output, make_request):
    """Calls in a row share a connection."""
    send = OpenAIProvider().connect(model, output)

    for _ in range(3):
        await send(make_request(model, output))

    assert 1 == server.connections_opened


def wait_closed_by(server):
    """Return when the server, in its own thread, has closed every connection."""
    while not all(one.lost.is_set() for one in server._connections):
        time.sleep(0.01)
    time.sleep(0.05)  # it is told just before the socket is closed


@pytest.mark.anyio
async def test_dead_kept_connection_is_invisible(server, model, output, make_request):
    """A connection that the provider closed in the meantime is not used again."""
    server.enqueue(close_after(answer(TICKET)))
    send = OpenAIProvider().connect(model, output)

    first = await send(make_request(model, output))
    await anyio.to_thread.run_sync(wait_closed_by, server)
    second = await send(make_request(model, output))

    assert [TICKET, "{}"] == [first.text, second.text]


def test_dead_kept_connection_is_invisible_to_a_loop_that_stood_still(server, model, output, make_request):
    """The same when the loop did not run between the calls and could not notice the end."""
    server.enqueue(close_after(answer(TICKET)))
    send = OpenAIProvider().connect(model, output)
    with asyncio.Runner() as runner:
        runner.run(send(make_request(model, output)))
        wait_closed_by(server)

        reply = runner.run(send(make_request(model, output)))

    assert "{}" == reply.text


@pytest.mark.anyio
async def test_two_steps_share_connections(server, model, output, text_output, make_request):
    """Connections belong to the address and the key, not to a step."""
    provider = OpenAIProvider()
    for form in (output, text_output):
        await provider.connect(model, form)(make_request(model, form))

    assert 1 == server.connections_opened


@pytest.mark.anyio
async def test_two_keys_never_share_a_connection_or_header(server, output, make_request):
    """Each request carries the key of its own model, also under one account name."""
    provider = OpenAIProvider()
    for key in ("sk-first-key", "sk-second-key"):
        model = Model("openai/gpt-x", base_url=server.base_url, api_key=key, account="ours")
        await provider.connect(model, output)(make_request(model, output))

    assert ["Bearer sk-first-key", "Bearer sk-second-key"] == [r.headers["authorization"] for r in server.requests]
    assert 2 == server.connections_opened


@pytest.mark.anyio
async def test_aclose_closes_the_connections_of_this_loop(server, model, output, make_request):
    """After aclose the next request opens a new one."""
    provider = OpenAIProvider()
    send = provider.connect(model, output)
    await send(make_request(model, output))

    await provider.aclose()
    await send(make_request(model, output))

    assert 2 == server.connections_opened


@pytest.mark.anyio
async def test_two_hundred_parallel_calls_get_their_own_answers(server, model, output, make_request):
    """No answer is given to the wrong caller."""
    server.default = lambda request: answer(request.json["messages"][0]["content"], delay=0.001)
    send = OpenAIProvider().connect(model, output)
    wrong: list[int] = []

    async def call(number: int) -> None:
        reply = await send(make_request(model, output, Message("user", str(number))))
        if reply.text != str(number):
            wrong.append(number)

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(call, number)

    assert [] == wrong
    assert 200 == len(server.requests)


def test_importing_the_providers_imports_no_sdk():
    """`import llmflow.providers` is light."""
    import subprocess
    import sys

    code = "import sys, llmflow.providers, llmflow.providers._plugin; print([m for m in ('openai', 'instructor', 'httpx', 'httpx2', 'anthropic') if m in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert "[]" == printed.strip()


def test_loopback_server_is_a_context_manager():
    """The server stops with its block."""
    with LoopbackServer() as server:
        assert server.base_url.startswith("http://127.0.0.1:")
