"""Cache: an answer that was accepted once is given again, and asked for once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic_core import from_json, to_json

from llmflow.backend import alarm
from llmflow.context import caller
from llmflow.errors import InvalidOutput, ProviderTimeout, StepError
from llmflow.events import CacheHit
from llmflow.messages import Answer
from llmflow.policies._cache_key import Keys, Unkeyable
from llmflow.policies._flights import Flight, Flights, Landed, Seat, copied
from llmflow.policy import Band, CallLayer, Duration, Options, Site, check_seconds
from llmflow.prices import dollars, nanos, total

if TYPE_CHECKING:
    from decimal import Decimal

    from llmflow.messages import Ask
    from llmflow.ports import Kept

__all__ = ["Cache"]

logger = logging.getLogger("llmflow")

_VERSION = 1
"""Of the entries; one of another version is a miss."""
_REFRESH_SHARE = 0.9
"""How much of what is left until the deadline a refresh may take, so that the stale answer can still be given."""


@dataclass(frozen=True, slots=True)
class Cache(Options):
    """Keeps accepted answers and gives them again, and lets one of many who ask the same at the same time ask for all.

    What is kept is the text of the answer. Each hit validates it anew, so every caller gets an object of its own.
    Two asks are the same when everything that the answer depends on is the same: the prompt and its version, files,
    model, connection, parameters, schema, validation context and tenant. Failures are never kept.

    Args:
        ttl: How long an answer is fresh: seconds, a timedelta, or text such as `"1h"`.
        stale: How much longer it may be given while one caller asks for a new one.
    """

    ttl: Duration = 3600.0
    stale: Duration = 0.0

    band: ClassVar[Band] = Band.CACHE

    def __post_init__(self) -> None:
        object.__setattr__(self, "ttl", check_seconds(self.ttl, name="Cache: ttl"))
        object.__setattr__(self, "stale", check_seconds(self.stale, name="Cache: stale", zero=True))

    def wrap(self, proceed: CallLayer, site: Site, /) -> CallLayer:
        """Return `proceed` behind the cache of the runtime."""
        return _Layer(proceed, site, float(self.ttl), float(self.stale)).answer  # type: ignore[arg-type]  # seconds


class _Layer:
    """The cache of one step and model."""

    def __init__(self, proceed: CallLayer, site: Site, ttl: float, stale: float) -> None:
        self._proceed = proceed
        self._site = site
        self._ttl = ttl
        self._life = ttl + stale
        self._parse = site.parse
        self._keys = Keys(site)
        self._store = site.cache_store
        self._flights = site.shared("llmflow.cache.flights", Flights)
        self._listened = site.listens(CacheHit)
        self._warned: set[str] = set()

    async def answer(self, ask: Ask) -> Answer:
        """Return a kept answer, or ask."""
        try:
            key = self._keys.of(ask)
        except Unkeyable as exc:
            self._warn("key", "answers of step %r are not cached: %s", self._site.step, exc)
            return await self._proceed(ask)
        except StepError:  # the model has no key; asking says so
            return await self._proceed(ask)
        found = await self._find(key, ask)
        if found is None:
            return await self._fly(key, ask)
        answer, age = found
        if age < self._ttl:
            return self._given(answer, ask, "hit")
        return await self._refresh(key, ask, answer)

    # -- what is kept --------------------------------------------------------------------------------------------------

    async def _find(self, key: str, ask: Ask) -> tuple[Answer, float] | None:
        """Return the kept answer as a new object, and its age."""
        try:
            kept = await self._store.get(key)
        except Exception as exc:  # noqa: BLE001  # a third party's store; whatever is wrong with it is a miss
            self._warn("get", "the cache store of step %r failed, its answers are asked for: %r", self._site.step, exc)
            return None
        if kept is None or kept.age >= self._life:
            return None
        answer = self._read(kept, ask)
        return None if answer is None else (answer, kept.age)

    def _read(self, kept: Kept, ask: Ask) -> Answer | None:
        try:
            entry: Any = from_json(kept.entry)
            if entry["v"] != _VERSION:
                return None
            text, by, cost = entry["text"], entry["by"], entry["cost_nano"]
        except (ValueError, KeyError, TypeError):
            text, by, cost = None, None, None
        if type(text) is not str or not _fits(by, cost):
            message = "an entry in the cache of step %r cannot be read; it is asked for again"
            self._warn("entry", message, self._site.step)
            return None
        answer = self._validated(text, by, cost, ask)
        if answer is None:
            message = "an answer in the cache of step %r no longer fits; it is asked for again"
            self._warn("text", message, self._site.step)
        return answer

    def _validated(self, text: str, by: str | None, cost_nano: int | None, ask: Ask) -> Answer | None:
        """Return an answer of this call's own, None when the text does not fit it."""
        try:
            value, repaired = self._parse(text, ask)
        except InvalidOutput:
            return None
        saved = None if cost_nano is None else dollars(cost_nano)
        return Answer.kept(value, text, self._site.model, by=by, repaired=repaired, saved_usd=saved)

    async def _keep(self, key: str, ask: Ask, landed: Landed) -> None:
        site = self._site
        entry = {
            "v": _VERSION,
            "step": site.step,
            "model": site.model.name,
            "prompt_version": ask.call.prompt_version,
            "created": site.clock.time(),
            "by": landed.by,
            "cost_nano": landed.cost_nano,
            "text": landed.text,
        }
        try:
            await self._store.put(key, to_json(entry), seconds=self._life)
        except Exception as exc:  # noqa: BLE001  # as in `_find`; and a text may hold what no file can
            self._warn("put", "the cache store of step %r failed, its answers are not kept: %r", site.step, exc)

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _fly(self, key: str, ask: Ask) -> Answer:
        flight, seat = self._flights.board(key)
        if flight is None:
            return await self._alone(key, ask)
        if seat is None:
            return await self._begin(flight, ask)
        await self._wait(flight, seat, ask)
        if seat.leads:
            return await self._lead(flight, ask)
        if seat.error is not None:
            raise copied(seat.error)
        landed = seat.landed
        answer = None if landed is None else self._validated(landed.text, landed.by, landed.cost_nano, ask)
        # Without one, this call must not wait for the next leader, or its own checks refuse the answer.
        return await self._alone(key, ask) if answer is None else self._given(answer, ask, "coalesced")

    async def _begin(self, flight: Flight, ask: Ask) -> Answer:
        """Lead a new flight, unless one has just landed in another thread between the look and the boarding."""
        try:
            found = await self._find(flight.key, ask)
        except BaseException as exc:
            self._flights.crash(flight, exc, 0)
            raise
        if found is None or found[1] >= self._ttl:
            return await self._lead(flight, ask)
        answer = found[0]
        self._flights.land(flight, Landed(answer.text, answer.reply.model, _nano(answer.saved_usd)))
        return self._given(answer, ask, "hit")

    async def _lead(self, flight: Flight, ask: Ask) -> Answer:
        """Ask, keep the answer, and give it to everybody who waits."""
        call = ask.call
        before, records = call.started, len(call.attempts)
        try:
            answer = await self._proceed(ask)
        except BaseException as exc:
            self._flights.crash(flight, exc, call.started - before)
            raise
        landed = _landed(answer, ask, records)
        try:
            await self._keep(flight.key, ask, landed)
        finally:
            self._flights.land(flight, landed)
        return answer

    async def _alone(self, key: str, ask: Ask) -> Answer:
        records = len(ask.call.attempts)
        answer = await self._proceed(ask)
        await self._keep(key, ask, _landed(answer, ask, records))
        return answer

    async def _wait(self, flight: Flight, seat: Seat, ask: Ask) -> None:
        left = ask.deadline - self._site.clock.monotonic()
        with alarm(left):
            try:
                return await seat.wait()
            except BaseException:
                self._flights.leave(flight, seat)
                raise
        msg = f"the deadline passed while another call asked {self._site.model.name} the same"
        error = ProviderTimeout(msg, cut=True, provider=self._site.model.provider, model=self._site.model.name)
        error.sent = False
        raise error

    async def _refresh(self, key: str, ask: Ask, stale: Answer) -> Answer:
        """Ask for a new answer if nobody does; whoever does waits for it, all others get the old one at once."""
        flight = self._flights.lead(key)
        if flight is None:
            return self._given(stale, ask, "stale")
        try:
            with alarm((ask.deadline - self._site.clock.monotonic()) * _REFRESH_SHARE):
                return await self._lead(flight, ask)
        except StepError:  # the old answer is there for this
            pass
        return self._given(stale, ask, "stale")

    # -- telling -------------------------------------------------------------------------------------------------------

    def _given(self, answer: Answer, ask: Ask, kind: Literal["hit", "stale", "coalesced"]) -> Answer:
        if self._listened:
            call = ask.call
            event = CacheHit(
                run_id=call.run_id,
                call_id=call.call_id,
                step=call.step,
                model=self._site.model.name,
                kind=kind,
                saved_usd=answer.saved_usd,
                prompt_version=call.prompt_version,
                tenant=caller.get().tenant,
                node=call.node,
            )
            self._site.emit(event)
        return answer

    def _warn(self, cause: str, message: str, *values: object) -> None:
        """Say what is wrong, once for each cause."""
        if cause not in self._warned:
            self._warned.add(cause)
            logger.warning(message, *values)


def _landed(answer: Answer, ask: Ask, records: int) -> Landed:
    """Return what is kept of an answer; `records` is how many attempts the call had before it was asked for."""
    cost = total(one.cost_usd for one in ask.call.attempts[records:])
    return Landed(answer.text, answer.reply.model, _nano(cost))


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else nanos(usd)


def _fits(by: object, cost_nano: object) -> bool:
    """Whether two fields of an entry are what an entry has there."""
    if by is not None and type(by) is not str:
        return False
    return cost_nano is None or (type(cost_nano) is int and cost_nano >= 0)
