"""Finds the key of a model, and checks the address, before anything is sent."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmflow.errors import AuthenticationFailed, DefinitionError

if TYPE_CHECKING:
    from llmflow.models import Model

__all__ = ["check_address", "connection_identity", "find_key", "hashed"]

_PLACEHOLDER = "none"


def find_key(model: Model, *variables: str) -> str:
    """Return the key for a model; a server on this machine gets a placeholder when there is none.

    Args:
        model: The model.
        *variables: Environment variables to look into, in this order.

    Raises:
        AuthenticationFailed: When there is no key, or one that no header can carry. It is what the provider would
            answer, and so a fallback is taken.
    """
    secret = model.key(*variables)
    if secret is not None:
        key = secret.reveal().strip()
        if key and key.isascii() and key.isprintable():
            return key
        msg = f"model {model.name!r}: the API key is empty or contains characters that no key has"
        raise AuthenticationFailed(msg, provider=model.provider, model=model.name)
    if model.base_url is not None and _is_loopback(model.base_url):
        return _PLACEHOLDER
    msg = f"model {model.name!r} has no API key; set {variables[0]} or pass Model({model.name!r}, api_key=...)"
    raise AuthenticationFailed(msg, provider=model.provider, model=model.name)


def hashed(key: str) -> str:
    """Return what tells one key from another and does not show it."""
    return hmac.new(b"llmflow connection identity", key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def connection_identity(model: Model, keys: tuple[str, ...], around: tuple[str, ...]) -> str:
    """Return what tells a model's connection from others: address, organisation, and account or a hash of the key.

    Args:
        model: The model.
        keys: Environment variables that may hold its key.
        around: Environment variables in which the SDK finds address and organisation, if the model does not say them.

    Raises:
        AuthenticationFailed: When there is no usable key.
    """
    key = find_key(model, *keys)
    said = [os.environ.get(name) for name in around]
    who = ("account", model.account) if model.account is not None else ("key", hashed(key))
    return repr((model.base_url, said, who))


def check_address(model: Model) -> None:
    """Refuse a `base_url` that is none.

    Raises:
        DefinitionError: When it has no scheme or no host.
    """
    if model.base_url is None:
        return
    try:
        parts = urlsplit(model.base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        msg = (
            f"model {model.name!r}: base_url {model.base_url!r} is no address; write it like 'http://localhost:8000/v1'"
        )
        raise DefinitionError(msg)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
