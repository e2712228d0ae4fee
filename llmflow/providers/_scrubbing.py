"""Takes keys out of exceptions of SDKs, which are kept as the cause of ours and end up in tracebacks and logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from llmflow.providers._errors import scrub
from llmflow.providers._json import as_mapping

__all__ = ["scrub_exception"]

_SECRET_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization")
_DEEPEST = 20


def scrub_exception(exc: BaseException, secrets: tuple[str, ...]) -> None:
    """Hide the secrets in the texts, bodies and request headers of an exception and of everything behind it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [exc]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        _scrub_one(current, secrets)
        pending += [current.__cause__, current.__context__]


def _scrub_one(exc: BaseException, secrets: tuple[str, ...]) -> None:
    exc.args = tuple(_scrub_value(value, secrets) for value in exc.args)
    # Whatever the SDK copied out of the reply: `code`, `type`, `param`, `request_id`, and what its next version adds.
    for name, value in tuple(getattr(exc, "__dict__", {}).items()):
        _set(exc, name, _scrub_value(value, secrets))
    response = _get(exc, "response")
    for holder in (_get(exc, "request"), _get(response, "request"), response):
        _scrub_headers(_get(holder, "headers"), secrets)
    _scrub_content(response, secrets)
    if (extensions := _get(response, "extensions")) is not None:  # the reason phrase of the status line is in there
        _set(response, "extensions", _scrub_value(extensions, secrets))


def _scrub_headers(headers: Any, secrets: tuple[str, ...]) -> None:
    if headers is None:
        return
    for name, value in tuple(headers.items()):
        hidden = "**********" if name.lower() in _SECRET_HEADERS else scrub(value, secrets)
        if hidden != value:
            headers[name] = hidden


def _scrub_content(response: Any, secrets: tuple[str, ...]) -> None:
    """Hide secrets that the provider repeated in its reply; the SDKs' responses keep it in `_content`."""
    content = getattr(response, "_content", None)
    if isinstance(content, bytes):
        text = content.decode("utf-8", "replace")
        if (scrubbed := scrub(text, secrets)) != text:
            _set(response, "_content", scrubbed.encode())
            _set(response, "_text", scrubbed)


def _scrub_value(value: Any, secrets: tuple[str, ...], depth: int = 0) -> Any:
    if isinstance(value, str):
        return scrub(value, secrets)
    if isinstance(value, bytes):
        return scrub(value.decode("latin-1"), secrets).encode("latin-1")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth >= _DEEPEST:
        return None
    if isinstance(value, dict):
        items = as_mapping(cast(object, value)).items()
        return {_scrub_value(name, secrets): _scrub_value(item, secrets, depth + 1) for name, item in items}
    scrubbed = [_scrub_value(item, secrets, depth + 1) for item in cast(Iterable[object], value)]
    return scrubbed if isinstance(value, list) else tuple(scrubbed)


def _get(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except RuntimeError:  # httpx raises one for a request that was never set
        return None


def _set(owner: Any, name: str, value: Any) -> None:
    try:
        setattr(owner, name, value)
    except AttributeError:  # a read-only property: it reads one of the others
        return
