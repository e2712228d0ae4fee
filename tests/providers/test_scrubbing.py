"""Keys are taken out of whatever an SDK's exception carries."""

from __future__ import annotations

import httpx
import openai
import pytest

from llmflow.providers._scrubbing import scrub_exception

KEY = "secret+key/0123456789"


def shown(value):
    """Everything that is written somewhere in an exception, deeply."""
    return repr(value) + repr(vars(value)) + repr(value.args)


@pytest.mark.parametrize("name", ["code", "type", "param", "request_id", "new_in_the_next_version"])
def test_every_attribute_is_scrubbed(name):
    """Also those that are not known here."""
    exc = openai.APIError("failed", httpx.Request("POST", "http://x.invalid"), body=None)
    setattr(exc, name, f"bad {KEY}")

    scrub_exception(exc, (KEY,))

    assert "bad **********" == getattr(exc, name)


@pytest.mark.parametrize(
    "body",
    [
        f"text {KEY}",
        KEY.encode(),
        {"error": {"code": KEY}},
        {KEY: 1},
        [[{"a": (KEY, 1)}]],
        (KEY,),
    ],
)
def test_bodies_of_every_form_are_scrubbed(body):
    """A key may be a value, a name, or deep inside."""
    exc = openai.APIError("failed", httpx.Request("POST", "http://x.invalid"), body=body)
    exc.add_note(f"note {KEY}")

    scrub_exception(exc, (KEY,))

    assert KEY not in shown(exc)
    assert type(body) is type(exc.body)


def test_long_content_is_scrubbed_to_its_end():
    """Padding hides nothing."""
    request = httpx.Request("POST", "http://x.invalid")
    response = httpx.Response(
        500, content=b"x" * 200_000 + KEY.encode(), request=request, extensions={"reason_phrase": KEY.encode()}
    )
    exc = openai.InternalServerError("failed", response=response, body=None)

    scrub_exception(exc, (KEY,))

    assert KEY.encode() not in response.content
    assert KEY not in response.text + response.reason_phrase


def test_what_holds_no_secret_stays_itself():
    """Numbers and objects are not touched."""
    exc = ValueError(1, None, b"bytes", "text")
    exc.flag = marker = object()

    scrub_exception(exc, (KEY,))

    assert (1, None, b"bytes", "text") == exc.args
    assert marker is exc.flag
