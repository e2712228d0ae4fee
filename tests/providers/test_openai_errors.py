"""The map from the openai SDK's errors to llmflow's is complete."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from llmflow import errors
from llmflow.providers._errors import Source
from llmflow.providers._http import http_module_of
from llmflow.providers._openai_errors import TRANSLATORS, translate

SOURCE = Source(provider="openai", model="openai/gpt-x", secrets=("sk-secret-key",))


def all_subclasses(cls: type[Any]) -> set[type[Any]]:
    return {cls}.union(*(all_subclasses(child) for child in cls.__subclasses__()))


def test_every_error_of_the_sdk_is_mapped():
    """A new version of the SDK with a new error fails here and not in production."""
    from openai import _exceptions  # noqa: F401 - loads every class there is

    names = {cls.__name__ for cls in all_subclasses(openai.OpenAIError) if cls.__module__.startswith("openai")}

    assert set() == names - set(TRANSLATORS)


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (openai.OpenAIError("Missing credentials"), errors.AuthenticationFailed),
        (openai.ContentFilterFinishReasonError(), errors.ContentFiltered),
    ],
)
def test_errors_without_a_reply(exc, kind):
    """They become llmflow's own too."""
    assert kind is type(translate(exc, SOURCE, 0.0))


def test_time_out_of_the_client_itself():
    """A client that the user configured may have a time-out of its own."""
    request = http_module_of(openai.DefaultAsyncHttpxClient).Request("POST", "http://x")

    assert errors.ProviderTimeout is type(translate(openai.APITimeoutError(request), SOURCE, 0.0))


def test_unmapped_error_is_still_llmflows():
    """An error that nobody knew of counts as its nearest known base."""

    class Novel(openai.OpenAIError):
        pass

    assert isinstance(translate(Novel("sk-secret-key"), SOURCE, 0.0), errors.ProviderError)
