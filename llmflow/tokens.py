"""How many tokens a prompt has, before the provider has counted them: cheap, a little too high, and learning.

No tokenizer is used: each model has its own, most are not published, and those that are weigh tens of megabytes or are
fetched from the network at the first use. Three bytes of UTF-8 to the token is above the truth for English (by 90 %)
and for most other scripts, and below it for dense JSON (by a quarter). `TokenEstimator` corrects that from what the
provider counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from llmflow.messages import File, Message
from llmflow.models import DEFAULT_MAX_TOKENS
from llmflow.prices import worst_case_nano

if TYPE_CHECKING:
    from llmflow.messages import Ask, OutputFormat, Request, Usage
    from llmflow.models import Model, Params
    from llmflow.prices import Price

__all__ = ["Answers", "Place", "TokenEstimator", "estimate_tokens", "schema_tokens", "token_estimator", "worst_case_of"]

S = TypeVar("S")

BYTES_PER_TOKEN = 3
PER_REQUEST = 16
"""What providers put around a conversation."""
PER_MESSAGE = 8
"""Role and separators of one message."""
PER_SCHEMA = 32
"""What providers put around a schema, beside the schema itself."""

IMAGE_TOKENS = 2_500
"""One image; providers scale a large one down, and count between 250 and 2,500 for what is left."""
PAGE_TOKENS = 3_000
"""One page of a PDF, which is read both as text and as a picture."""
PAGE_BYTES = 50_000
"""Where the pages of a PDF cannot be counted, so many bytes are one."""
RECORDING_BYTES_PER_TOKEN = 250
"""Sound and video."""
LINKED_TOKENS = 10_000
"""A file that the provider fetches and that is no image: nobody here knows its size."""


def estimate_tokens(request: Request | Ask, /) -> int:
    """Return about how many tokens the prompt of a request has: messages, files, schema, and turns of a re-ask."""
    known = _remembered(request)
    return _count(request, schema_tokens(request.output)) if known is None else known


def _remembered(request: Request | Ask) -> int | None:
    memo = cast("tuple[object, object, object, int] | None", request.call.estimated)
    if memo is not None and memo[0] is request.messages and memo[1] is request.turns and memo[2] is request.output:
        return memo[3]
    return None


def _count(request: Request | Ask, schema: int) -> int:
    tokens = PER_REQUEST + schema
    for message in request.messages:
        text = message.content
        # As `_text_tokens` says, without a call: this is on the path of every request.
        tokens += PER_MESSAGE - (-len(text) // BYTES_PER_TOKEN if text.isascii() else -_text_tokens(text))
        if message.files:
            tokens += sum(map(_file_tokens, message.files))
    if request.turns:
        tokens += _turns_tokens(request.turns)
    # Kept with the call: retries, limits and budgets ask for the same prompt, and its text must not outlive the call.
    request.call.estimated = (request.messages, request.turns, request.output, tokens)
    return tokens


def schema_tokens(output: OutputFormat, /) -> int:
    """Return about how many tokens the schema of an answer has; it is part of every prompt that asks for one."""
    return 0 if output.is_text else PER_SCHEMA + _text_tokens(json.dumps(output.json_schema, ensure_ascii=False))


def _message_tokens(message: Message) -> int:
    tokens = PER_MESSAGE + _text_tokens(message.content)
    return tokens + sum(_file_tokens(one) for one in message.files) if message.files else tokens


def _text_tokens(text: str) -> int:
    return -(-_size(text) // BYTES_PER_TOKEN)


def _size(text: str) -> int:
    # CPython knows whether a text is ASCII without looking at it; lone surrogates must not break an estimate.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _turns_tokens(turns: Iterable[object]) -> int:
    return sum(PER_MESSAGE + -(-_weight(one) // BYTES_PER_TOKEN) for one in turns)


def _weight(part: object) -> int:
    """Return the bytes of text in a turn, whose form is the provider's own: texts, dicts and lists of them, objects."""
    if isinstance(part, str):
        return _size(part)
    if isinstance(part, Message):
        return _message_tokens(part) * BYTES_PER_TOKEN
    if isinstance(part, Mapping):
        return sum(_size(str(name)) + _weight(value) for name, value in cast("Mapping[object, object]", part).items())
    if isinstance(part, list | tuple):
        return sum(map(_weight, cast("list[object]", part)))
    return _size(repr(part))


def _file_tokens(file: File) -> int:
    kind = file.media_type
    if kind.startswith("image/"):
        return IMAGE_TOKENS
    if file.data is None:
        return LINKED_TOKENS
    if kind == "application/pdf":
        # The marks of pages can be counted unless they are compressed.
        marks = file.data.count(b"/Type /Page") + file.data.count(b"/Type/Page")
        return PAGE_TOKENS * max(1, marks, -(-len(file.data) // PAGE_BYTES))
    if kind.startswith(("audio/", "video/")):
        return PER_MESSAGE + len(file.data) // RECORDING_BYTES_PER_TOKEN
    return -(-len(file.data) // BYTES_PER_TOKEN)


class TokenEstimator:
    """Estimates the prompts of one model, and learns from what the provider counted.

    The estimate is a line above what was seen: `factor * estimate_tokens(request) + extra`. A provider that puts its own
    instructions before every prompt adds to `extra`, which short prompts show; a text that its tokenizer cuts into more
    pieces raises `factor`, which long ones show. Were there only a factor, the instructions before a prompt of ten words
    would multiply the estimate of a book. Both rise at once to what was seen and come down slowly, the factor never below
    a half, so that the estimate is above the truth for nearly all prompts like those before.

    One object for each model of a runtime, see `token_estimator`. Any thread may use it without a lock: when two learn
    in the same instant one of them may be forgotten, and the next request teaches it again.
    """

    __slots__ = ("_last", "_schemas", "extra", "factor")

    def __init__(self) -> None:
        self.factor = 1.0
        self.extra = 0.0
        self._last: Usage | None = None
        self._schemas: dict[int, tuple[OutputFormat, int]] = {}

    def estimate(self, request: Request | Ask, /) -> int:
        """Return how many tokens the prompt has, rather too many than too few."""
        return ceil(self.plain(request) * self.factor + self.extra)

    def plain(self, request: Request | Ask, /) -> int:
        """Return `estimate_tokens(request)`; the schema, which is the same at every call of a step, is counted once."""
        memo = cast("tuple[object, object, object, int] | None", request.call.estimated)
        if memo is not None and memo[0] is request.messages and memo[1] is request.turns and memo[2] is request.output:
            return memo[3]
        output = request.output
        known = self._schemas.get(id(output))
        if known is None or known[0] is not output:
            if len(self._schemas) >= SCHEMAS_KEPT:  # steps that are made anew all the time
                self._schemas.clear()
            known = self._schemas[id(output)] = (output, schema_tokens(output))
        return _count(request, known[1])

    def learn(self, request: Request, usage: Usage | None, /) -> None:
        """Take note of what the provider counted for a request; the same usage again, from another policy, is ignored."""
        if usage is None or usage is self._last:
            return
        self._last = usage
        counted = usage.input_tokens
        if counted is None or counted <= 0:
            return
        plain = self.plain(request)
        if (
            counted > plain * IMPLAUSIBLE_FACTOR + IMPLAUSIBLE_EXTRA
        ):  # junk must not make every further request unaffordable
            return
        if plain < LONG:
            self.extra = _towards(self.extra, max(0.0, counted - self.factor * plain))
        else:
            self.factor = max(FLOOR, _towards(self.factor, (counted - self.extra) / plain))


LONG = 1_000
"""A prompt of so many tokens teaches the factor, a shorter one what is added to each."""
FLOOR = 0.5
IMPLAUSIBLE_FACTOR = 20
IMPLAUSIBLE_EXTRA = 100_000
DECAY = 0.02
SCHEMAS_KEPT = 1_000


def _towards(known: float, seen: float) -> float:
    return seen if seen >= known else known - (known - seen) * DECAY


class Place(Protocol):
    """Where prompts are estimated: a `Site`, or what has as much of one."""

    @property
    def model(self) -> Model:
        """The model that is asked."""
        ...

    def shared(self, key: Hashable, make: Callable[[], S], /) -> S:
        """Return the one object of the runtime under `key`."""
        ...


def token_estimator(site: Place, /) -> TokenEstimator:
    """Return what estimates the prompts for the model of `site`, shared by all policies and steps of the runtime."""
    model = site.model
    return site.shared(("tokens", model.name, model.connection), TokenEstimator)


# -- the worst case of a request ---------------------------------------------------------------------------------------

_LONGER_ANSWERS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MORE_ANSWERS = ("n", "candidate_count")


class Answers:
    """How long the answers of a model may be, by what its requests carry."""

    __slots__ = ("_least", "_times")

    def __init__(self, model: Model) -> None:
        options = {name: value for name, value in model.options.items() if type(value) is int and value > 0}
        # Options go into the body as they are, and may say otherwise than `params`.
        self._least = max((options[name] for name in _LONGER_ANSWERS if name in options), default=0)
        self._times = max((options[name] for name in _MORE_ANSWERS if name in options), default=1)

    def longest(self, params: Params) -> int:
        """Return the most tokens that a request with these parameters may be answered with."""
        return max(params.get("max_tokens") or DEFAULT_MAX_TOKENS, self._least) * self._times


def worst_case_of(site: Place, price: Price | None, *, counted: bool) -> Callable[[Request], tuple[int, int]]:
    """Return what says the most nano-dollars and tokens that a request may take.

    Args:
        site: Where the budget stands.
        price: What the model costs; without one no dollars are counted.
        counted: Whether anything but requests is counted at all.
    """
    if not counted:
        return lambda _: (0, 0)
    estimate, longest = token_estimator(site).estimate, Answers(site.model).longest
    if price is None:
        return lambda request: (0, estimate(request) + longest(request.params))

    def worst_case(request: Request) -> tuple[int, int]:
        prompt, answer = estimate(request), longest(request.params)
        return worst_case_nano(prompt, answer, price), prompt + answer

    return worst_case
