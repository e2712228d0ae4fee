"""What a helper, a method or an alias hides is refused, and never silently taken for a value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmflow import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

HEAD = """
import collections, functools, operator, types
from llmflow import flow, task
def is_missing(v): return v is None
def apply(f, v): return f(v)
def fill(found, v): found.append(v)
async def safe(x):
    try: return await up(x)
    except ValueError: return "fallback"
class K:
    v = 1
    def me(self, v): return v is None
    @staticmethod
    def st(v): return v is None
    def __call__(self, v): return v is None
    def empty(self): return self.v is None
    async def safe(self, step, x):
        try: return await step(x)
        except ValueError: return "fallback"
k = K()
@task
async def opt(x: str) -> str | None: return None
@task
async def up(x: str) -> str: return x.upper()
@task
async def take(x: object) -> str: return ""
UNITS = {"up": up}
def wrapped(f):
    @functools.wraps(f)
    async def wrapper(*args, **kwargs): return await f(*args, **kwargs)
    return wrapper
"""
HIDDEN = {
    "local-import": "from types import SimpleNamespace as m\nn = m(v=await opt(x))",
    "method-of-local": "h = K()\ny = h.me(await opt(x))",
    "method-of-new": "y = K().me(await opt(x))",
    "static-method": "y = k.st(await opt(x))",
    "callable-object": "y = k(await opt(x))",
    "function-as-argument": "y = apply(is_missing, await opt(x))",
    "lambda": "f = lambda v: v is None\ny = f(await opt(x))",
    "map": "y = list(map(is_missing, [await opt(x)]))",
    "sorted-key": "y = sorted([await opt(x)], key=is_missing)",
    "operator": "y = operator.is_(await opt(x), None)",
    "table": "y = {'m': is_missing}['m'](await opt(x))",
    "partial": "y = functools.partial(is_missing)(await opt(x))",
    "nonlocal": "v = None\nasync def fetch():\n    nonlocal v\n    v = await opt(x)\nawait fetch()\ny = v is None",
    "fills-closure": "found = []\ndef add(v): found.append(v)\nadd(await opt(x))\ny = found[0] is None",
    "fills-argument": "found = []\nfill(found, await opt(x))\ny = found[0] is None",
    "alias": "a = []\nb = a\nb.append(await opt(x))\ny = a[0] is None",
    "nested": "d = {'a': {}}\nd['a']['b'] = await opt(x)\ny = d['a']['b'] is None",
    "nested-attribute": "c = K()\nc.a = K()\nc.a.b = await opt(x)\ny = c.a.b is None",
    "setattr": "c = K()\nsetattr(c, 'v', await opt(x))\ny = c.v is None",
    "object": "c = K()\nc.v = await opt(x)\ny = c.empty()",
    "try-in-method": "h = K()\ny = await h.safe(up, x)",
    "try-in-table": "y = await {'s': safe}['s'](x)",
    "try-in-method-with-constant": "h = K()\ny = await h.safe(up, 'c')",
    "dict-values": "y = await take({'a': await up(x)}.values())",
    "dict-items": "y = await take({'a': await up(x)}.items())",
    "deque": "y = await take(collections.deque([await up(x)]))",
    "closure": "v = await up(x)\ny = await take(lambda: v)",
    "proxy": "y = await take(types.MappingProxyType({'a': await up(x)}))",
    "exception": "y = await take(ValueError(await up(x)))",
    "forgotten-in-list": "y = await take([up(c) for c in 'ab'])",
    "forgotten-in-dict": "y = await take({'a': up(x)})",
}


def write(body: str, decorators: str = "@flow") -> str:
    """Return a program with a flow of this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{HEAD}\n{decorators}\nasync def subject(x: str) -> object:\n{lines}\n    return await up(x)\n"


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_what_is_hidden_from_a_placeholder_is_refused(load: Callable[[str], ModuleType], body: str) -> None:
    """Each of these answered differently from eager=True."""
    module = load(write(body))

    with pytest.raises(DefinitionError, match=r"program_\d+\.py:\d+: flow 'subject'"):
        module.subject.graph()


def test_a_wrapped_body_is_checked_with_what_the_wrapper_is_given(load: Callable[[str], ModuleType]) -> None:
    """`functools.wraps` hides the parameters behind *args."""
    module = load(write("y = x is None", "@flow\n@wrapped"))

    with pytest.raises(DefinitionError, match="`is`"):
        module.subject.graph()


def test_a_result_that_does_not_fit_names_the_line_that_returns_it(load: Callable[[str], ModuleType]) -> None:
    """And not the line that happened to build the flow."""
    source = f"{HEAD}\n@flow\nasync def subject(x: str) -> int:\n    return await up(x)\n"
    module = load(source)
    line = len(Path(str(module.__file__)).read_text().splitlines())

    with pytest.raises(DefinitionError, match=rf"program_\d+\.py:{line}: flow 'subject': the flow returns int"):
        module.subject.graph()


ALLOWED = {
    "unit-in-table": "y = await {'u': up}['u'](x)",
    "unit-in-module-table": "y = await UNITS['up'](x)",
    "unit-in-loop": "for one in (up, up):\n    await one(x)",
    "unit-in-variable": "f = up\ny = await f(x)",
    "configured": "f = up.with_()\ny = await f(x)",
    "partial-unit": "y = await take.partial(x=x)()",
    "unit-passed": "async def go(s, v): return await s(v)\ny = await go(up, x)",
    "groups": "g = {'a': []}\ng['a'].append(await up(x))\ny = await take(g)",
    "helper-fills": "found = []\nfill(found, await up(x))\ny = await take(found)",
    "lambda": "f = lambda v: [v]\ny = await take(f(x))",
}


@pytest.mark.parametrize("body", ALLOWED.values(), ids=ALLOWED)
def test_what_can_be_followed_is_allowed(load: Callable[[str], ModuleType], body: str) -> None:
    """Units in variables and tables, helpers and lambdas whose source is there."""
    assert load(write(body)).subject.graph().nodes
