"""The provider of the models called `local/...`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.messages import Chunk
from llmflow_local._engines import ENGINES, Engines, EngineSettings
from llmflow_local._failures import LocalFailure
from llmflow_local._options import Options
from llmflow_local._request import fixed_body, reply, request_body
from llmflow_local._weights import check_name, find_weights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmflow.messages import OutputFormat, Reply, Request
    from llmflow.models import Model
    from llmflow.ports import Send

__all__ = ["LocalProvider"]


class LocalProvider:
    """Answers with a model in this process.

    Args:
        engines: Where loaded models are found; those of the process unless a test says otherwise.
    """

    def __init__(self, engines: Engines = ENGINES) -> None:
        self._engines = engines

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that answers a step's requests; the first one loads the model."""
        check_name(model.model)
        options = Options.of(model)
        fixed = fixed_body(output, constrained=options.constrained)

        async def send(request: Request) -> Reply:
            weights = find_weights(model.model)
            settings = EngineSettings(weights=weights, threads=options.threads, context=options.context)
            try:
                body = request_body(fixed, request)
                generation = await self._engines.get(settings).generate(body, _on_text(request))
            except LocalFailure as failure:
                raise failure.as_error(model.name) from failure
            return reply(generation, weights.title, is_json=options.constrained and not output.is_text)

        return send

    async def aclose(self) -> None:
        """Do nothing: an idle engine holds no thread and no loop, and other runtimes may use it."""


def _on_text(request: Request) -> Callable[[str], Awaitable[None]] | None:
    """Return what is told the text as it comes, None when nobody listens."""
    sink = request.sink
    if sink is None:
        return None
    return lambda text: sink(Chunk(text, request.attempt))
