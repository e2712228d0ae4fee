"""Prices in pyproject.toml are those of the runtime nobody made; a mistake in them is said with its place."""

from __future__ import annotations

import os
import re

import pytest

from llmflow import DefinitionError, Model, Price, Runtime, Tier
from llmflow.runtime import read_config
from llmflow.runtime._runtime import default_runtime


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Write a table of prices into the nearest pyproject.toml."""
    monkeypatch.chdir(tmp_path)

    def write(lines: str):
        path = tmp_path / "pyproject.toml"
        path.write_text(f"[tool.llmflow.prices]\n{lines}\n", encoding="utf-8")
        return path

    return write


def test_a_price_in_the_file_is_the_runtime_s(said):
    """It goes before the table of list prices."""
    said('"openai/gpt-5-mini" = { input = 7, output = 8.5, cached_input = 0.1 }')

    assert Price(input=7, output=8.5, cached_input=0.1) == default_runtime().price(Model("openai/gpt-5-mini"))


def test_tiers_are_a_list_of_tables(said):
    """As in code."""
    said('"a/b" = { input = 1, output = 2, max_output = 9, tiers = [{ above = 200000, input = 3 }] }')

    assert {
        "a/b": Price(input=1, output=2, max_output=9, tiers=(Tier(above=200_000, input=3),))
    } == read_config().prices()


def test_without_a_table_there_are_no_prices(said):
    """An empty one is fine too."""
    said("")

    assert {} == read_config().prices()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('"a/b" = 3', "'a/b' is 3, expected rates in dollars per million tokens"),
        ('"a/b" = { input = 1 }', "'a/b': output is missing"),
        ('"a/b" = { input = 1, output = 2, otput = 3 }', "'a/b': unknown key 'otput'; known are input, output,"),
        ('"a/b" = { input = -1, output = 2 }', "'a/b': Price: input is -1, expected dollars"),
        ('"a/b" = { input = nan, output = 2 }', "'a/b': Price: input is nan"),
        ('"a/b" = { input = "1", output = 2 }', "'a/b': Price: input is '1'"),
        ('"a/b" = { input = 1, output = 2, tiers = 3 }', "'a/b': tiers is 3, expected a list"),
        ('"a/b" = { input = 1, output = 2, tiers = [3] }', r"'a/b': tiers is \[3\], expected a list"),
        ('"a/b" = { input = 1, output = 2, tiers = [{ input = 3 }] }', "'a/b', tiers: above is missing"),
        ('"a/b" = { input = 1, output = 2, tiers = [{ above = 0 }] }', "'a/b', tiers: Tier: above is 0"),
    ],
)
def test_a_mistake_names_the_file_and_the_model(lines, message, said):
    """Whoever reads it knows which line to change."""
    path = said(lines)

    with pytest.raises(DefinitionError, match=rf"\[tool.llmflow.prices\] in {re.escape(str(path))}: {message}"):
        read_config()


def test_prices_are_a_table(tmp_path, monkeypatch):
    """Not a number."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.llmflow]\nprices = 3\n", encoding="utf-8")

    with pytest.raises(DefinitionError, match="prices is 3, expected a table"):
        read_config()


def test_a_price_is_for_a_provider_s_model(said):
    """A name without one would never be found."""
    said('"gpt-5-mini" = { input = 1, output = 2 }')

    with pytest.raises(DefinitionError, match="'gpt-5-mini' does not name its provider"):
        default_runtime()


def test_a_runtime_s_prices_are_prices():
    """Two numbers are not one."""
    with pytest.raises(DefinitionError, match="the price of 'a/b' is 3, expected Price"):
        Runtime(prices={"a/b": 3})


def test_settings_in_a_broken_file_are_not_passed_over(tmp_path, monkeypatch):
    """Without them the program would ask other models at other prices; a file that says nothing of llmflow is let be."""
    for name in [name for name in os.environ if name.startswith("LLMFLOW_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.llmflow]\ndefault_model = "openai/a"\nseed = [\n', encoding="utf-8")
    with pytest.raises(
        DefinitionError, match=r"\[tool.llmflow\] in .*pyproject.toml cannot be read, as the file is no TOML: "
    ):
        read_config(tmp_path)
    path.write_text("[project\n", encoding="utf-8")

    assert {} == read_config(tmp_path).settings
