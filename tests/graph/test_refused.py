"""Everything that needs a real value is refused while a flow is built, with the line and the ways out."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from llmflow.errors import DefinitionError

Load = Callable[[str], ModuleType]

# The line that must be named is marked with `#!`; `ticket` is the value of a step, `text` a parameter.
REFUSED = {
    "if": ("if ticket.urgent:  #!\n    pass", "a decision"),
    "elif": ("if LIMIT == 9:\n    pass\nelif ticket.urgent:  #!\n    pass", "a decision"),
    "while": ("while ticket.urgent:  #!\n    pass", "a decision"),
    "ternary": ("x = 1 if ticket.urgent else 2  #!", "a decision"),
    "and": ("x = ticket.urgent and LIMIT  #!", "a decision"),
    "or": ("x = text or 'nothing'  #!", "a decision"),
    "not": ("x = not ticket.urgent  #!", "a decision"),
    "assert": ("assert ticket.urgent  #!", "a decision"),
    "bool": ("x = bool(ticket)  #!", "a decision"),
    "any": ("x = any([ticket])  #!", "a decision"),
    "comprehension-if": ("x = [1 for one in [text] if one]  #!", "a decision"),
    "for": ("for tag in ticket.tags:  #!\n    pass", "iterating"),
    "comprehension": ("x = [tag for tag in ticket.tags]  #!", "iterating"),
    "unpack-list": ("a, b = ticket.tags  #!", "iterating"),
    "star": ("x = [*ticket.tags]  #!", "iterating"),
    "list()": ("x = list(ticket.tags)  #!", "iterating"),
    "sorted": ("x = sorted(ticket.tags)  #!", "iterating"),
    "reversed": ("x = reversed(ticket.tags)  #!", "iterating"),
    "next": ("x = next(ticket)  #!", "iterating"),
    "async-for": ("async for x in text:  #!\n    pass", "`async for`"),
    "async-comprehension": ("x = [one async for one in text]  #!", "`async for`"),
    "async-with": ("async with contextlib.AsyncExitStack():  #!\n    pass", "`async with`"),
    "async-with-map": ("async with label.map([text]) as outcomes:  #!\n    pass", "`async with`"),
    "f-string": ("x = f'{text}'  #!", "formatting"),
    "f-string-repr": ("x = f'{text!r}'  #!", "formatting"),
    "f-string-spec": ("x = f'{ticket.score:03d}'  #!", "formatting"),
    "format": ("x = '{}'.format(text)  #!", "formatting"),
    "percent": ("x = '%s' % text  #!", "formatting"),
    "percent-tuple": ("x = '%s' % (text,)  #!", "formatting"),
    "percent-number": ("x = '%d' % (ticket.score,)  #!", None),
    "str": ("x = str(text)  #!", "formatting"),
    "repr": ("x = repr(text)  #!", "formatting"),
    "print": ("print(text)  #!", "formatting"),
    "join": ("x = ', '.join([text])  #!", "code that needs it now"),
    "bytes": ("x = bytes(text)  #!", None),
    "equal": ("x = text == 'a'  #!", "a comparison"),
    "equal-reflected": ("x = 'a' == text  #!", "a comparison"),
    "unequal": ("x = text != 'a'  #!", "a comparison"),
    "less": ("x = ticket.score < 3  #!", "a comparison"),
    "less-reflected": ("x = 3 < ticket.score  #!", "a comparison"),
    "chain": ("x = 1 < ticket.score <= 3  #!", "a comparison"),
    "equal-lists": ("x = [text] == ['a']  #!", "a comparison"),
    "max": ("x = max(ticket.score, 3)  #!", "a comparison"),
    "add": ("x = text + 'a'  #!", "operator"),
    "add-reflected": ("x = 'a' + text  #!", "operator"),
    "add-number": ("x = 1 + ticket.score  #!", "operator"),
    "add-in-place": ("text += 'a'  #!", "operator"),
    "sum": ("x = sum([ticket.score, 1])  #!", "operator"),
    "multiply": ("x = 'a' * ticket.score  #!", "operator"),
    "power": ("x = pow(ticket.score, 2)  #!", "operator"),
    "divmod": ("x = divmod(7, ticket.score)  #!", "operator"),
    "negate": ("x = -ticket.score  #!", "operator"),
    "abs": ("x = abs(ticket.score)  #!", "operator"),
    "invert": ("x = ~ticket.score  #!", "operator"),
    "merge": ("x = {'a': 1} | text  #!", "operator"),
    "round": ("x = round(ticket.score)  #!", "rounding"),
    "len": ("x = len(ticket.tags)  #!", "len()"),
    "int": ("x = int(ticket.score)  #!", "conversion"),
    "float": ("x = float(ticket.score)  #!", "conversion"),
    "range": ("x = range(ticket.score)  #!", "a number"),
    "index": ("x = [1, 2][ticket.score]  #!", "a number"),
    "slice": ("x = ticket.tags[:2]  #!", "slice"),
    "computed-key": ("x = ticket.tags[ticket.score]  #!", "not known yet"),
    "contains": ("x = 'a' in ticket.tags  #!", "`in`"),
    "contained": ("x = text in ('a', 'b')  #!", "`in`"),
    "contained-in-nothing": ("x = text in []  #!", "`in`"),
    "not-in": ("x = text not in []  #!", "`not in`"),
    "dict-key": ("x = {text: 1}  #!", "hashing"),
    "dict-lookup": ("x = {'a': 1}[text]  #!", "hashing"),
    "dict-get": ("x = {'a': 1}.get(text)  #!", "hashing"),
    "set": ("x = {text}  #!", "hashing"),
    "method": ("x = text.upper()  #!", "is a method of str"),
    "model-method": ("x = ticket.method()  #!", "is a method of Ticket"),
    "model-dump": ("x = ticket.model_dump()  #!", "is a method of Ticket"),
    "call": ("x = anything()  #!", "calling it"),
    "with": ("with anything:  #!\n    pass", "`with`"),
    "await-twice": ("x = await anything  #!", "awaiting it again"),
    "set-attribute": ("ticket.score = 1  #!", "changing it"),
    "delete-attribute": ("del ticket.score  #!", "changing it"),
    "set-item": ("ticket.tags[0] = 'a'  #!", "changing it"),
    "delete-item": ("del ticket.tags[0]  #!", "changing it"),
    "copy": ("x = copy.copy(ticket)  #!", None),
    "pickle": ("x = pickle.dumps(ticket)  #!", "pickling"),
    "json": ("x = json.dumps(ticket)  #!", None),
    "json-inside": ("x = json.dumps({'a': [text]})  #!", None),
    "open": ("x = open(text)  #!", None),
    "isinstance": ("x = isinstance(text, str)  #!", "isinstance()"),
    "issubclass": ("x = issubclass(text, str)  #!", "issubclass()"),
    "type": ("x = type(text)  #!", "type()"),
    "id": ("x = id(text)  #!", "id()"),
    "callable": ("x = callable(text)  #!", "callable()"),
    "class": ("x = ticket.__class__  #!", "isinstance()"),
    "is": ("x = text is None  #!", "`is`"),
    "is-not": ("x = text is not None  #!", "`is not`"),
    "is-field": ("x = ticket.parent is None  #!", "`is`"),
    "is-later": ("y = [text]\nfor one in y:\n    x = one is None  #!", "`is`"),
    "is-unpacked": ("a, b = ticket.pair\nx = b is None  #!", "`is`"),
    "is-appended": ("y = []\ny.append(ticket)\nx = y[0] is None  #!", "`is`"),
    "is-either": ("y = None\nif LIMIT > 2:\n    y = ticket\nx = y is None  #!", "`is`"),
    "is-in-helper": ("def helper(one):\n    return one is None  #!\nx = helper(text)", "`is`"),
    "is-in-lambda": ("x = (lambda: text is None)()  #!", "`is`"),
    "is-walrus": ("x = (y := text) is None  #!", "`is`"),
    "match": ("match text:  #!\n    case 'a':\n        pass", "`match`"),
    "match-tuple": ("match (LIMIT, ticket.score):  #!\n    case (3, 1):\n        pass", "`match`"),
    "try": ("try:  #!\n    x = await label(text)\nexcept ValueError:\n    pass", "or_else"),
    "try-finally": ("try:  #!\n    x = await label(text)\nfinally:\n    pass", "`try`"),
    "with-await": ("with contextlib.suppress(ValueError):  #!\n    x = await label(text)", "`with`"),
    "construct": ("x = Point(ticket.score, 1)  #!", "build(Point"),
    "construct-model": ("x = Ticket(category='bug', urgent=ticket.urgent)  #!", "build(Ticket"),
    "construct-holder": ("x = Point([text], 1)  #!", "build(Point"),
    "hidden-in-argument": ("x = await echo(Ticket.model_construct(category=text))  #!", None),
    "asyncio-gather": ("x = await asyncio.gather(label(text), label(text))  #!", "llmflow.gather"),
    "asyncio-sleep": ("await asyncio.sleep(1)  #!", "llmflow.gather"),
    "asyncio-sleep-zero": ("await asyncio.sleep(0)  #!", "llmflow.gather"),
    "asyncio-create-task": ("x = asyncio.create_task(label(text))  #!", "llmflow.gather"),
    "asyncio-wait-for": ("x = await asyncio.wait_for(label(text), 1)  #!", "llmflow.gather"),
    "asyncio-to-thread": ("x = await asyncio.to_thread(len, 'a')  #!", "llmflow.gather"),
    "asyncio-run": ("x = asyncio.run(label('a'))  #!", "llmflow.gather"),
    "anyio-sleep": ("await anyio.sleep(1)  #!", "@task"),
    "anyio-sleep-zero": ("await anyio.sleep(0)  #!", "@task"),
    "sync": ("x = label.sync(text)  #!", ".sync()"),
    "run-sync": ("x = label.run_sync('a')  #!", ".run_sync()"),
    "run": ("x = await label.run(text)  #!", ".run()"),
    "never-awaited": ("label(text)  #!", "never awaited"),
    "never-awaited-map": ("label.map([text])  #!", "never awaited"),
    "never-awaited-when": ("when(True, label('a'), label('b'))  #!", "never awaited"),
    "forgotten-await": ("x = await join(text, label(text))  #!", "not awaited"),
    "iterator": ("x = await echo(iter([1]))  #!", "only once"),
    "generator-mapped": ("x = await label.map(one for one in ['a'])  #!", "only once"),
    "unknown-field": ("x = ticket.categry  #!", "did you mean 'category'"),
    "field-of-dataclass": ("x = (await point(1)).z  #!", "Point has no field 'z'"),
    "key-as-field": ("x = (await row(text)).name  #!", "write ['name']"),
    "unknown-key": ("x = (await row(text))['nme']  #!", "did you mean 'name'"),
    "field-as-key": ("x = ticket['category']  #!", "write .category"),
    "optional-field": ("x = ticket.parent.score  #!", "None has no field 'score'"),
    "optional-result": ("x = (await maybe(text)).score  #!", "None has no field 'score'"),
    "tuple-out-of-range": ("x = ticket.pair[2]  #!", "has 2 items"),
    "named-tuple-field": ("x = (await named(1)).middle  #!", "no field 'middle'"),
    "field-of-scalar": ("x = ticket.score.name  #!", "int has no field 'name'"),
    "list-key": ("x = ticket.tags['a']  #!", "whole number"),
    "argument-type": ("x = await count(text)  #!", "takes number: int, but the value of parameter 'text'"),
    "argument-type-of-step": ("x = await label(ticket)  #!", "takes text: str, but the value of task 'triage'"),
    "argument-type-of-field": ("x = await label(ticket.score)  #!", "takes text: str, but .score of task 'triage'"),
    "argument-optional": ("x = await label.with_()(await maybe(text))  #!", "Ticket | None"),
    "argument-list": ("x = await words.map(ticket)  #!", "which is no list"),
    "mapped-type": ("x = await count.map(ticket.tags)  #!", "takes number: int, but it is mapped over list[str]"),
    "when-condition": ("x = await when(ticket.score, label('a'), label('b'))  #!", "takes a bool"),
    "when-value": ("x = await when(ticket.urgent, text, label('b'))  #!", "must be a call"),
    "when-gather": (
        "x = await when(ticket.urgent, gather(label('a')), label('b'))  #!",
        "make a branch of several calls a flow",
    ),
    "switch-missing": ("x = await switch(ticket.category, {'bug': label('a')})  #!", "does not cover 'billing'"),
    "switch-enum": ("x = await switch(await kind(text), {Kind.BUG: label('a')})  #!", "Kind.OTHER"),
    "switch-bool": ("x = await switch(ticket.urgent, {True: label('a')})  #!", "does not cover False"),
    "switch-impossible": ("x = await switch(ticket.category, {'bgu': label('a')}, label('b'))  #!", "never is"),
    "switch-unbounded": ("x = await switch(text, {'a': label('a')})  #!", "cannot cover every value"),
    "gather-value": ("x = await gather(label(text), ticket)  #!", "argument 2 of gather()"),
    "build-unknown": ("x = await build(Point, x=1, z=ticket)  #!", "no field 'z'"),
    "build-missing": ("x = await build(Point, x=1)  #!", "requires 'y'"),
    "build-type": ("x = await build(Point, x=text, y=1)  #!", "Point takes x: int"),
    "own-awaitable": ("class Wait:\n    def __await__(self):\n        yield 3\nx = await Wait()  #!", "awaits int"),
    "map-options": ("x = await label.map([text], on_error='x')  #!", "on_error"),
    "coroutine-argument": ("async def helper():\n    return 1\nx = await echo(helper())  #!", "not awaited"),
    "is-in-star": ("def helper(*many):\n    return many[0] is None  #!\nx = helper(*[text])", "`is`"),
    "is-in-named": ("def helper(**named):\n    return named['a'] is None  #!\nx = helper(**{'a': text})", "`is`"),
    "is-in-default": ("def helper(a, b=None, *c):\n    return c[0] is None  #!\nx = helper(1, 2, text)", "`is`"),
    "is-subscript-target": ("y = {}\ny['a'] = text\nx = y['a'] is None  #!", "`is`"),
    "is-attribute": ("y = Point(1, 2)\ny.x = text\nx = y.x is None  #!", "`is`"),
    "is-in-guard": ("match LIMIT:\n    case 3 if text is None:  #!\n        pass", "`is`"),
    "with-value": ("with contextlib.closing(text) as x:  #!\n    pass", None),
    "inner-constant": ("x = await first('abc')  #!", "reading 9 of it raises IndexError"),
    "or-else-errors": ("x = await or_else(fail(text), 'a', on=('x',))  #!", "exception classes"),
}


def write(body: str) -> str:
    head = "@flow\nasync def first(word: str) -> str:\n    return await label(word[9])\n\n"
    head += "@flow\nasync def subject(text: str, anything: Any) -> Any:\n    ticket = await triage(text)\n"
    return head + textwrap.indent(body, "    ") + "\n    return [await echo(anything), await echo(text)]\n"


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_needs_a_real_value_names_the_line_and_the_way_out(load: Load, body: str, expected: str | None) -> None:
    """Nothing is silently wrong: each construct is a DefinitionError with file, line and what to do instead."""
    module = load(write(body))
    lines = Path(str(module.__file__)).read_text().splitlines()
    line = next(number for number, one in enumerate(lines, 1) if "#!" in one)

    with pytest.raises(DefinitionError) as caught:
        module.subject.graph()

    message = str(caught.value)

    assert f"{module.__file__}:{line}" in message
    assert "flow 'subject'" in message
    assert expected is None or expected in message


@pytest.mark.parametrize(
    "name", ["if", "f-string", "is", "for", "try", "construct", "asyncio-gather", "len", "method", "copy", "join"]
)
def test_the_ways_out_are_named(load: Load, name: str) -> None:
    """The message says what can be written instead."""
    module = load(write(REFUSED[name][0]))

    with pytest.raises(DefinitionError, match=r"@task.*eager=True"):
        module.subject.graph()


@pytest.mark.parametrize("name", ["if", "f-string", "equal", "len", "argument-type", "unknown-field"])
def test_the_producer_is_named(load: Load, name: str) -> None:
    """The message says which step or parameter gives the value that is not there yet."""
    module = load(write(REFUSED[name][0]))

    with pytest.raises(DefinitionError, match="task 'triage'|parameter 'text'"):
        module.subject.graph()


SWALLOWED = {
    "try": "try:\n    x = str(text)  #!\nexcept Exception:\n    x = 'a'",
    "suppress": "with contextlib.suppress(Exception):\n    x = len(ticket.tags)  #!",
    "other-error": "try:\n    x = str(text)  #!\nexcept Exception:\n    raise KeyError('x')",
    "hasattr": "x = hasattr(ticket, 'categry')  #!",
    "getattr": "x = getattr(ticket, 'categry', None)  #!",
    "logging": "import logging\nlogging.getLogger('x').error('%s', text)  #!",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("body", SWALLOWED.values(), ids=SWALLOWED)
def test_a_mistake_that_the_body_swallows_is_raised(load: Load, body: str) -> None:
    """A body cannot hide a mistake by catching it."""
    module = load(write(body))

    with pytest.raises(DefinitionError, match="flow 'subject'"):
        module.subject.graph()


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_flow_leaves_nothing_behind(load: Load, name: str) -> None:
    """No warning about forgotten coroutines, and the next attempt says the same again."""
    module = load(write(REFUSED[name][0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        messages: list[str] = []
        for _ in range(2):
            with pytest.raises(DefinitionError) as caught:
                module.subject.graph()
            messages.append(str(caught.value))

    assert messages[0] == messages[1]
