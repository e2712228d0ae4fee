"""List prices come from genai-prices, only where they hold, and only when they are needed."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import SimpleNamespace

import genai_prices
import pytest
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Tier as ForeignTier

from llmflow import Model, Price, Runtime, Tier, hookimpl
from llmflow.providers._price_table import PriceTable

OFFICIAL = "https://api.openai.com/v1"


def price(model: Model | str) -> Price | None:
    return PriceTable().llmflow_price(model if isinstance(model, Model) else Model(model))


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch):
    """Put a table with one model in the place of the real one; return a function that asks it."""

    def asked(prices, *, at: float = 0.0, variants=None, **options) -> Price | None:
        info = ModelInfo(
            id="m", match=ClauseEquals(equals="m"), context_window=1000, prices=prices, price_variants=variants
        )
        service = Provider(id="groq", name="Groq", api_pattern=r"https://api\.groq\.com", models=[info])
        snapshot = genai_prices.data_snapshot.DataSnapshot(providers=[service], from_auto_update=False)
        monkeypatch.setattr(genai_prices.data_snapshot, "get_snapshot", lambda: snapshot)
        return PriceTable(lambda: at).llmflow_price(Model("groq/m", **options))

    return asked


def rates(**more) -> ModelPrice:
    return ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), **more)


@pytest.mark.parametrize(
    "name",
    ["openai/gpt-5-mini", "openai/gpt-5-mini-2025-08-07", "litellm/openai/gpt-5-mini", "azure_openai/gpt-5-mini"],
)
def test_a_known_model_has_its_list_price(name):
    """Also under a dated name, and through a service that passes it on."""
    found = price(name)
    used = [
        genai_prices.Usage(input_tokens=1000, output_tokens=0),
        genai_prices.Usage(input_tokens=0, output_tokens=1000),
        genai_prices.Usage(input_tokens=1000, cache_read_tokens=1000, output_tokens=0),
    ]
    asked = [genai_prices.calc_price(one, "gpt-5-mini", provider_id="openai").total_price for one in used]

    assert [float(one * 1000) for one in asked] == [found.input, found.output, found.cached_input]


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("anthropic/claude-haiku-4-5", "anthropic"),
        ("google/gemini-2.5-flash", "google"),
        ("gemini/gemini-2.5-flash", "google"),
        ("vertexai/gemini-2.5-flash", "google"),
        ("xai/grok-4", "x-ai"),
        ("groq/llama-3.3-70b-versatile", "groq"),
        ("mistral/mistral-small-latest", "mistral"),
        ("cohere/command-r", "cohere"),
        ("together/meta-llama/Llama-3.3-70B-Instruct-Turbo", "together"),
        ("openrouter/openai/gpt-4o", "openrouter"),
        ("bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", "aws"),
    ],
)
def test_services_go_by_their_names(name, foreign):
    """What llmflow calls a service is not always what the table calls it."""
    used = genai_prices.Usage(input_tokens=1_000_000, output_tokens=0)
    cheap = genai_prices.Usage(input_tokens=1000, output_tokens=0)
    model = Model(name)
    found = price(model)

    assert found is not None
    assert float(genai_prices.calc_price(cheap, model.model, provider_id=foreign).total_price) * 1000 == pytest.approx(
        found.input
    )
    assert float(genai_prices.calc_price(used, model.model, provider_id=foreign).total_price) == pytest.approx(
        found.tiers[-1].input if found.tiers else found.input
    )


@pytest.mark.parametrize(
    "name", ["openai/gpt-unheard-of", "ollama/llama3", "acme/large", "litellm/acme/x", "litellm/x"]
)
def test_an_unknown_model_has_no_price(name):
    """Unknown is None, never 0."""
    assert price(name) is None


def test_a_handler_has_no_list_price():
    """A function in the process may be called like a model of OpenAI's; who knows what it costs."""

    async def handler(request):
        return "fine"

    assert price(Model("openai/gpt-5-mini", handler=handler)) is None


@pytest.mark.parametrize("address", [OFFICIAL, OFFICIAL + "/"])
def test_the_service_s_own_address_may_be_said(address):
    """It changes nothing."""
    assert price("openai/gpt-5-mini") == price(Model("openai/gpt-5-mini", base_url=address)) is not None


@pytest.mark.parametrize(
    "address",
    [
        "https://gateway.example.com/v1",
        "http://127.0.0.1:8000/v1",
        "http://localhost:11434/v1",
        "http://10.0.0.7/v1",
        "http://[oops/v1",
    ],
)
def test_a_gateway_has_no_list_price(address):
    """What a company, or a server at hand, asks for `gpt-5-mini` is not what OpenAI asks."""
    assert price(Model("openai/gpt-5-mini", base_url=address)) is None


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai/gpt-5-mini", "OPENAI_BASE_URL"),
        ("anthropic/claude-haiku-4-5", "ANTHROPIC_BASE_URL"),
        ("google/gemini-2.5-flash", "GOOGLE_GEMINI_BASE_URL"),
    ],
)
def test_an_address_from_the_environment_counts(name, variable, monkeypatch):
    """The SDKs follow it, so the price does."""
    monkeypatch.setenv(variable, "https://gateway.example.com")

    assert price(name) is None


def test_a_compatible_service_is_known_by_its_address():
    """Groq speaks OpenAI's language; its prices are its own."""
    by_address = price(Model("openai/llama-3.3-70b-versatile", base_url="https://api.groq.com/openai/v1"))

    assert price("groq/llama-3.3-70b-versatile") == by_address is not None


@pytest.mark.parametrize(("address", "known"), [(OFFICIAL, True), ("https://gateway.example.com/v1", False)])
def test_a_client_s_address_counts(address, known):
    """Whether it is an SDK's client or one of instructor around it."""
    client = SimpleNamespace(base_url=address)

    assert known == (price(Model("openai/gpt-5-mini", client=client)) is not None)
    assert known == (price(Model("openai/gpt-5-mini", client=SimpleNamespace(client=client))) is not None)


def test_a_client_without_an_address_is_taken_by_its_name():
    """Clients of some services have none to show."""
    assert price("cohere/command-r") == price(Model("cohere/command-r", client=object())) is not None


def test_long_prompts_have_tiers(entry):
    """Rates that begin at different lengths are put together."""
    table = ModelPrice(
        input_mtok=TieredPrices(base=Decimal(1), tiers=[ForeignTier(start=100, price=Decimal(3))]),
        output_mtok=TieredPrices(base=Decimal(2), tiers=[ForeignTier(start=500, price=Decimal(4))]),
        cache_read_mtok=Decimal("0.5"),
    )

    assert entry(table) == Price(
        input=1,
        output=2,
        cached_input=0.5,
        context_window=1000,
        tiers=(
            Tier(above=100, input=3, output=2, cached_input=0.5),
            Tier(above=500, input=3, output=4, cached_input=0.5),
        ),
    )


def test_an_announced_price_holds_from_its_day(entry):
    """Not before."""
    prices = [
        ConditionalPrice(prices=rates()),
        ConditionalPrice(
            constraint=StartDateConstraint(start_date=date(2027, 1, 1)),
            prices=ModelPrice(input_mtok=Decimal(5), output_mtok=Decimal(6)),
        ),
    ]

    days = [datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]

    assert [1, 5] == [entry(prices, at=day.timestamp()).input for day in days]


def test_a_price_that_changes_with_the_hour_is_unknown(entry):
    """A step is bound at one hour and called at another."""
    night = TimeOfDateConstraint(start_time=time(1, tzinfo=UTC), end_time=time(4, tzinfo=UTC))
    prices = [
        ConditionalPrice(prices=rates()),
        ConditionalPrice(constraint=night, prices=ModelPrice(input_mtok=Decimal(5), output_mtok=Decimal(6))),
    ]

    assert entry(prices) is None


@pytest.mark.parametrize(
    "table",
    [
        ModelPrice(),
        ModelPrice(input_mtok=Decimal(1)),
        ModelPrice(output_mtok=Decimal(1)),
        rates(requests_kcount=Decimal(5)),
        rates(output_reasoning_mtok=Decimal(5)),
    ],
    ids=["nothing", "no output", "no input", "by the request", "reasoning apart"],
)
def test_a_price_that_a_price_cannot_say_is_unknown(table, entry):
    """Half of the truth would be a wrong number."""
    assert entry(table) is None


def test_what_a_text_step_does_not_do_is_left_aside(entry):
    """Web searches of the provider's own and minutes of sound have rates that do not matter here."""
    assert Price(input=1, output=2, context_window=1000) == entry(rates(web_searches_kcount=Decimal(10)))


def test_a_tier_of_service_has_its_own_price(entry):
    """`service_tier=` goes into every request, and into the bill."""
    variants = [PriceVariant(when={"service_tier": "flex"}, prices=ModelPrice(input_mtok=Decimal("0.5")))]

    found = [entry(rates(), variants=variants, service_tier=tier) for tier in ("auto", "default", "flex", "priority")]

    assert [1, 1, 0.5, None] == [one and one.input for one in found]


@pytest.mark.parametrize(("ttl", "expected"), [("5m", 1.25), ("1h", 2.0)])
def test_a_cache_kept_for_an_hour_costs_more_to_write(ttl, expected, entry):
    """Anthropic's own option says for how long."""
    table = rates(cache_write_mtok=Decimal("1.25"), cache_write_1h_mtok=Decimal(2))
    found = entry(table, cache_control={"type": "ephemeral", "ttl": ttl})

    assert expected == found.cache_write


def test_a_table_that_cannot_be_read_is_said_once_and_prices_are_unknown(monkeypatch, caplog):
    """Another version of the library may look different inside; calls go on."""

    def broken():
        raise AttributeError("gone")

    monkeypatch.setattr(genai_prices.data_snapshot, "get_snapshot", broken)
    table = PriceTable()
    with caplog.at_level(logging.WARNING, logger="llmflow"):
        found = [table.llmflow_price(Model("openai/gpt-5-mini")) for _ in range(3)]

    assert [None] * 3 == found
    assert ["the price table of genai-prices cannot be read, so prices are unknown: AttributeError('gone')"] == [
        record.getMessage() for record in caplog.records
    ]


def test_a_price_is_remembered(monkeypatch):
    """Every layer of every step asks for it."""
    table, looked = PriceTable(), []
    snapshot = genai_prices.data_snapshot.get_snapshot()
    find = type(snapshot).find_provider_model
    monkeypatch.setattr(
        type(snapshot), "find_provider_model", lambda *arguments: (looked.append(arguments), find(*arguments))[1]
    )

    for name in ("openai/gpt-5-mini", "openai/unheard-of") * 3:
        table.llmflow_price(Model(name))

    assert 2 == len(looked)


def test_a_table_that_updates_itself_is_followed(entry):
    """A price that was looked up in the old one is not remembered."""
    table = PriceTable()
    before = table.llmflow_price(Model("groq/m"))
    entry(rates())

    assert (None, 1) == (before, table.llmflow_price(Model("groq/m")).input)


class Acme:
    """A plugin that knows one price better."""

    @hookimpl
    def llmflow_price(self, model):
        return Price(input=7, output=8) if model.model == "gpt-5-mini" else None


def test_code_goes_before_plugins_and_plugins_before_the_table():
    """The nearest to the author decides."""
    mine, said = Price(input=1, output=1), Price(input=2, output=2)

    with Runtime(plugins=[Acme()], prices={"openai/gpt-5": said}) as runtime:
        found = [
            runtime.price(model)
            for model in (
                Model("openai/gpt-5-mini", price=mine),
                Model("openai/gpt-5"),
                Model("openai/gpt-5-mini"),
                Model("openai/gpt-5-nano"),
            )
        ]

    assert [mine, said, Price(input=7, output=8), price("openai/gpt-5-nano")] == found


def test_max_output_is_the_max_tokens_of_a_model():
    """Requests that name none ask for as much as the model can answer."""
    known = {"acme/thinker": Price(input=1, output=1, max_output=32_000), "acme/x": Price(input=1, output=1)}
    with Runtime(prices=known) as runtime:
        found = [runtime.default_params(Model(name)) for name in (*known, "acme/unheard-of")]

    assert [{"max_tokens": 32_000}, {}, {}] == found


NOT_NEEDED = """
import asyncio, sys
from llmflow import Model, Price, Runtime, prompt, step

async def fake(request):
    return "fine"

def ask(model):
    @step(model)
    def question(text: str) -> str:
        return prompt(text)
    return question

with Runtime(prices={"openai/gpt-5-mini": Price(input=1, output=1)}) as runtime:
    asyncio.run(ask(Model("openai/gpt-5", handler=fake))("x"))
    for model in (
        Model("openai/gpt-5-mini"),
        Model("openai/gpt-5", price=Price(input=1, output=1)),
        Model("openai/llama", base_url="http://127.0.0.1:1/v1"),
        Model("local/smollm2"),
    ):
        runtime.price(model)
    assert "genai_prices" not in sys.modules, "loaded too early"
    assert runtime.price(Model("openai/gpt-5")).input > 0
    assert "genai_prices" in sys.modules
"""


def test_the_table_is_loaded_only_when_it_is_needed():
    """Handlers, models with a price and servers at hand do not wait for it."""
    done = subprocess.run([sys.executable, "-c", NOT_NEEDED], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)
