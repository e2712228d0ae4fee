"""What models cost, from the table that comes with genai-prices; nothing is fetched.

Loading that table takes a tenth of a second, so it waits for the first model it may know: one of a public service, at
that service's own address. What cannot be told for certain is unknown: a company gateway has prices of its own, and
some services charge by the hour of the day, by the request or by the minute of sound.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from llmflow.hookspecs import hookimpl
from llmflow.prices import Price, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmflow.models import Model

    _Key: TypeAlias = tuple[str | None, str | None, str, tuple[tuple[str, str], ...], bool, datetime]

__all__ = ["PriceTable"]

_PROVIDERS: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "azure_openai": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "databricks": "databricks",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "gemini": "google",
    "genai": "google",
    "groq": "groq",
    "mistral": "mistral",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "vertexai": "google",
    "xai": "x-ai",
}
"""What llmflow and what the table call a service."""
_ADDRESS_VARIABLES: Mapping[str, str] = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "google": "GOOGLE_GEMINI_BASE_URL",
}
"""Where the SDKs look for another address."""
_RATES = {"input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok"}
_WRITTEN, _WRITTEN_FOR_AN_HOUR = "cache_write_mtok", "cache_write_1h_mtok"
_ASIDE = frozenset(
    [
        _WRITTEN,
        _WRITTEN_FOR_AN_HOUR,
        "cache_audio_read_mtok",
        "cache_image_read_mtok",
        "cache_video_read_mtok",
        "input_audio_mtok",
        "input_image_mtok",
        "input_video_mtok",
        "output_audio_mtok",
        "storage_searches_kcount",
        "web_searches_kcount",
    ]
)
"""Charged only for what a text step does not do. A model with any other rate has a price no `Price` can say."""
_STANDARD = ("auto", "default", "standard", "standard_only")

logger = logging.getLogger("llmflow")


class PriceTable:
    """Answers the hook `llmflow_price` when nobody else did.

    Args:
        wall_clock: Seconds since the epoch; announced changes of prices take effect by date.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._found: dict[_Key, Price | None] = {}
        self._snapshot: Any = None
        self._lock = threading.Lock()
        self._warned = False

    @hookimpl(trylast=True)
    def llmflow_price(self, model: Model) -> Price | None:
        """Return the list price of a model of a public service, at the service's own address."""
        provider = _PROVIDERS.get(model.provider)
        if model.handler is not None or (provider is None and model.provider != "litellm"):
            return None
        address, name = _address(model), model.model
        if model.provider == "litellm":
            service, _, name = name.partition("/")
            provider = _PROVIDERS.get(service)
        if (provider is None and address is None) or not name or _is_local(address):
            return None
        try:
            with self._lock:
                return self._look_up(None if address else provider, address, name, model)
        except (AttributeError, ImportError, TypeError, ValueError) as exc:
            self._warn(exc)
            return None

    def _look_up(self, provider: str | None, address: str | None, name: str, model: Model) -> Price | None:
        """Return what the table says, remembered for a day; the lock is held."""
        from genai_prices.data_snapshot import get_snapshot

        snapshot: Any = get_snapshot()
        if snapshot is not self._snapshot:  # the program lets genai-prices update itself
            self._snapshot = snapshot
            self._found.clear()
        day = datetime.fromtimestamp(self._wall_clock(), UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        key = (provider, address, name, tuple(_variant(model).items()), _keeps_for_an_hour(model), day)
        if key not in self._found:
            try:
                _, info = snapshot.find_provider_model(name, None, provider, address)
            except LookupError:
                self._found[key] = None
            else:
                self._found[key] = _price(info, *key[3:])
        return self._found[key]

    def _warn(self, exc: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("the price table of genai-prices cannot be read, so prices are unknown: %r", exc)


def _address(model: Model) -> str | None:
    """Return where requests go when that is not where the provider's own SDK sends them by default."""
    if (client := cast(Any, model.client)) is not None:
        inner = getattr(client, "client", client)
        found = getattr(inner, "base_url", None)
        return None if found is None else str(found)
    return model.base_url or os.environ.get(_ADDRESS_VARIABLES.get(model.provider, ""), "").strip() or None


def _is_local(address: str | None) -> bool:
    try:
        host = None if address is None else urlsplit(address).hostname
    except ValueError:  # no address at all, which whoever connects to it will say
        return True
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host


def _variant(model: Model) -> dict[str, str]:
    """Return the options of a model that make its requests dearer or cheaper."""
    options = {name: model.options.get(name) for name in ("service_tier", "speed")}
    return {name: value for name, value in options.items() if isinstance(value, str) and value not in _STANDARD}


def _keeps_for_an_hour(model: Model) -> bool:
    """Whether the prompt cache is written to for an hour, which Anthropic charges more for."""
    control = model.options.get("cache_control")
    return isinstance(control, Mapping) and cast("Mapping[str, object]", control).get("ttl") == "1h"


def _price(info: Any, variant: tuple[tuple[str, str], ...], for_an_hour: bool, day: datetime) -> Price | None:  # noqa: FBT001  # part of a key
    """Return the table's entry as a `Price`, None when a `Price` cannot say it."""
    if variant and not any(one.when == dict(variant) for one in info.price_variants or ()):
        return None
    rates = _rates_of_the_day(info, dict(variant), day)
    if rates is None or rates.keys() - _RATES.values() - _ASIDE or not {"input_mtok", "output_mtok"} <= rates.keys():
        return None
    written = _WRITTEN_FOR_AN_HOUR if for_an_hour and _WRITTEN_FOR_AN_HOUR in rates else _WRITTEN
    names = {**_RATES, "cache_write": written}
    starts = sorted({tier.start for name in names.values() for tier in getattr(rates.get(name), "tiers", ())})
    return Price(
        **_row(rates, names, 0),
        tiers=tuple(Tier(above=start, **_row(rates, names, start)) for start in starts),
        context_window=info.context_window,
    )


def _rates_of_the_day(info: Any, variant: dict[str, str], day: datetime) -> dict[str, Any] | None:
    """Return the rates by name, None when they change with the hour."""
    seen: list[dict[str, Any]] = []
    for hour in _half_hours(day):
        prices = info.get_prices(hour, variant) if variant else info.get_prices(hour)
        said: dict[str, Any] = prices.__dict__
        seen.append({name: rate for name, rate in said.items() if rate is not None})
        if seen[-1] != seen[0]:
            return None
    return seen[0]


def _half_hours(day: datetime) -> Iterator[datetime]:
    return (day + timedelta(minutes=30 * number) for number in range(48))


def _row(rates: Mapping[str, Any], names: Mapping[str, str], above: int) -> dict[str, Any]:
    """Return the rates for prompts of more than `above` tokens under llmflow's names."""
    return {name: _at(rates[known], above) for name, known in names.items() if known in rates}


def _at(rate: Any, above: int) -> float:
    tiers = getattr(rate, "tiers", None)
    if tiers is None:
        return float(rate)
    return float(next((tier.price for tier in reversed(tiers) if tier.start <= above), rate.base))
