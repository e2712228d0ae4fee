"""The runtime that a replay happens in: the one there is, with another model, another wording and no cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmflow.policies import Cache
from llmflow.runtime import Runtime

if TYPE_CHECKING:
    from llmflow.models import Model
    from llmflow.prompts import Variants, Wording
    from llmflow.step import Recording

__all__ = ["replaying"]


@contextmanager
def replaying(
    runtime: Runtime,
    *,
    of: str,
    model: Model | str | None = None,
    step: str | None = None,
    prompt: Wording | str | None = None,
    cache: bool = False,
    records: Callable[..., Recording] | None = None,
) -> Generator[Runtime]:
    """Give the runtime of a replay; what is run in it is told apart from other runs in the journal.

    Args:
        runtime: What it is made of.
        of: What is played again, for the journal.
        model: Asked in every step, without fallbacks.
        step: Which step `prompt` is for.
        prompt: What the step asks with: a wording, or the label of one that the runtime has.
        cache: Whether answers may come from the cache.
        records: What records its runs, instead of the ordinary.
    """
    with runtime.override(model=model, policies=() if cache else (Cache.off,)) as made:
        recorder = made.recorder.with_records(records or made.recorder.new_record)
        recorder.is_durable = made.recorder.is_durable or records is not None
        recorder.command, recorder.ref = json.dumps({"replay": of, "step": step}), None
        made.recorder, made.records_runs = recorder, recorder.is_durable
        if prompt is not None and step is not None:
            made.wordings = _OtherWordings(made.wordings, step, prompt)  # type: ignore[assignment]  # it is asked the same
        yield made


class _OtherWordings:
    """The wordings of a runtime, but for one step."""

    def __init__(self, wordings: Any, step: str, prompt: Wording | str) -> None:
        self._wordings = wordings
        self._step = step
        self._prompt = prompt

    def variants(self, step: str) -> Variants | None:
        return None if step == self._step else self._wordings.variants(step)

    def find(self, step: str, label: str | None) -> Wording | None:
        if step != self._step:
            return self._wordings.find(step, label)  # type: ignore[no-any-return]
        if not isinstance(self._prompt, str):
            return self._prompt
        return self._labelled(self._prompt)

    def _labelled(self, label: str) -> Wording | None:
        """Return the wording of a label; the main variant's may be written without one."""
        found: Wording | None = self._wordings.find(self._step, label)
        if found is not None:
            return found
        variants = self._wordings.variants(self._step)
        if variants is not None and label == variants.main:
            return self._wordings.find(self._step, None)  # type: ignore[no-any-return]
        raise self._wordings.missing(self._step, label)

    def missing(self, step: str, label: str) -> Exception:
        return self._wordings.missing(step, label)  # type: ignore[no-any-return]
