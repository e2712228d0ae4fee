"""Two ways to post a chat completion: through the SDK, and past it with the SDK's address, headers and errors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from pydantic_core import to_json

from llmflow.backend import on_asyncio
from llmflow.providers._decoding import ACCEPT_ENCODING, ReplyTooLarge, UnreadableReply
from llmflow.providers._direct import DirectClient
from llmflow.providers._http import async_client, environment_proxy, http_module_of, tls_context
from llmflow.providers._openai_reply import decode_json

if TYPE_CHECKING:
    from llmflow.providers._http1 import HttpReply

__all__ = ["DirectWire", "SdkWire", "Wire", "open_wire"]

_PATH = "/chat/completions"
_STATUS_ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


class Wire(Protocol):
    """Posts one body; what goes wrong is raised as the openai SDK raises it."""

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        """Return the content and the headers of a successful reply."""

    async def aclose(self) -> None:
        """Close the connections."""


class SdkWire:
    """Posts through an openai client, one level below `create`, which would validate what is known to be right."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._response = _http().Response

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        response = await self._client.post(_PATH, body=body, cast_to=self._response)
        return response.content, response.headers

    async def aclose(self) -> None:
        await self._client.close()


class DirectWire:
    """Posts over a connection of llmflow's own, with what the SDK's client would send."""

    def __init__(self, client: Any) -> None:
        url = client.base_url
        self._url = f"{str(url).rstrip('/')}{_PATH}"
        tls = tls_context(_http()) if url.scheme == "https" else None
        self._head = _head(client)
        self._direct = DirectClient(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls)

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        content = to_json(body)
        try:
            reply = await self._direct.exchange(b"%b%d\r\n\r\n%b" % (self._head, len(content), content))
        except (OSError, UnreadableReply, ReplyTooLarge) as exc:
            self._raise_connection_error(exc)
        if not 200 <= reply.status < 300:
            self._raise_status_error(reply)
        return reply.content, reply.headers

    async def aclose(self) -> None:
        await self._direct.aclose()

    def _raise_connection_error(self, exc: Exception) -> NoReturn:
        import openai

        raise openai.APIConnectionError(request=_http().Request("POST", self._url)) from exc

    def _raise_status_error(self, reply: HttpReply) -> NoReturn:
        import openai

        try:
            body = decode_json(reply.content)
        except ValueError:
            body = reply.content.decode("utf-8", "replace").strip()
        error = body.get("error", body) if isinstance(body, dict) else body
        name = _STATUS_ERRORS.get(reply.status, "InternalServerError" if reply.status >= 500 else "APIStatusError")
        request = _http().Request("POST", self._url)
        response = _http().Response(reply.status, headers=_plain(reply.headers), content=reply.content, request=request)
        raise getattr(openai, name)(f"Error code: {reply.status} - {body}", response=response, body=error)


def open_wire(base_url: str | None, api_key: str) -> Wire:
    """Return the way to post to this address on the running event loop."""
    import openai

    # The SDK reads OPENAI_BASE_URL, OPENAI_ORG_ID and its other variables here, so that they mean what they always mean.
    probe = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0, http_client=_unused_client())
    if on_asyncio() and _is_ordinary(probe):
        return DirectWire(probe)
    url = str(probe.base_url)
    return SdkWire(probe.with_options(http_client=async_client(_http(), url), timeout=None))


@functools.cache
def _http() -> Any:
    import openai

    return http_module_of(openai.DefaultAsyncHttpxClient)


@functools.cache
def _unused_client() -> Any:
    """An HTTP client that is never used: without one the SDK would build its own, with certificates and a pool."""
    http = _http()
    return http.AsyncClient(transport=http.MockTransport(lambda request: http.Response(500)), trust_env=False)


def _is_ordinary(client: Any) -> bool:
    return not client.default_query and environment_proxy(str(client.base_url)) is None


def _head(client: Any) -> bytes:
    """Return everything up to the value of `Content-Length`, which stands last."""
    url = client.base_url
    headers = {**client.auth_headers, **client.default_headers}
    lines = [
        f"POST {url.raw_path.decode('ascii').rstrip('/')}{_PATH} HTTP/1.1",
        f"Host: {url.netloc.decode('ascii')}",
        *(f"{name}: {value}" for name, value in headers.items() if isinstance(value, str)),
        "X-Stainless-Retry-Count: 0",
        f"Accept-Encoding: {ACCEPT_ENCODING}",
        "Connection: keep-alive",
        "Content-Length: ",
    ]
    if any("\r" in line or "\n" in line for line in lines):
        msg = "a header contains a line break"
        raise ValueError(msg)
    return "\r\n".join(lines).encode("latin-1")


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Leave out what no longer holds for the decoded content."""
    return {k: v for k, v in headers.items() if k not in ("content-encoding", "content-length", "transfer-encoding")}
