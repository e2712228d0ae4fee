"""The normal form, the scopes and the values, each by itself."""

from __future__ import annotations

import ast
import collections
import dataclasses
import datetime as dt
import fractions
import types
import typing
from decimal import Decimal
from pathlib import PurePosixPath

import pytest

from llmflow.versions._fallback import compiled_form
from llmflow.versions._home import Home, home_of
from llmflow.versions._normal import annotation_of, normal_form
from llmflow.versions._scopes import reads_of
from llmflow.versions._source import function_node, source_of, source_text
from llmflow.versions._values import Unseen, Writer


def parsed(text: str):
    """Return the first definition of a text."""
    node = ast.parse(text).body[0]
    return node.value if isinstance(node, ast.Expr) else node


def free(text: str) -> set[str]:
    """Return the names that a definition takes from outside, with their attributes."""
    return {".".join(one) for one in reads_of(parsed(text)).free}


# -- the normal form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(): return 'a' 'b'", "def g():\n  return (('ab'))"),
        ("def f(): return f'{x}' f'{y:>{w}}'", "def f(): return f'{x}{y:>{w}}'"),
        ("def f(): return f'{x:}'", "def f(): return f'{x}'"),
        ("def f(): return f'a'", "def f(): return 'a'"),
        ("def f(): return f''", "def f(): return ''"),
        ("async def f(x: int) -> str: ...", "async def f(x): 'doc'"),
        ("def f():\n  x: int\n  return x", "def f():\n  x: 'str'\n  return x"),
        ("def f():\n  if a:\n    pass\n    x: int = 1", "def f():\n  if a:\n    x = 1"),
        ("class A:\n  x: 'list[int]'", "class A:\n  x: list['int']"),
        ("class A:\n  x: 'A | None'", "class A:\n  x: 'A' | None"),
        ("class A:\n  x: Annotated['int', 'a b']", "class A:\n  x: Annotated[int, 'a b']"),
        ("class A:\n  x: dict['str', Callable[['int'], 'str']]", "class A:\n  x: dict[str, Callable[[int], str]]"),
        ("class A:\n  def f(self, x: int): 'doc'", "class A:\n  'doc'\n  def f(self, x): pass"),
        ("lambda x: (x)", "lambda x: x"),
    ],
)
def test_two_ways_to_write_one_thing(one: str, other: str):
    """They have one normal form."""
    assert normal_form(parsed(one)) == normal_form(parsed(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(): return 1", "def f(): return True"),
        ("def f(): return 1", "def f(): return 1.0"),
        ("def f(): return 'a'", "def f(): return b'a'"),
        ("def f(): return None", "def f(): return"),
        ("def f(): return ...", "def f(): return 1j"),
        ("def f(): return {**a}", "def f(): return {a: a}"),
        ("def f(x, /): return x", "def f(x): return x"),
        ("def f(*, x): return x", "def f(*, x=1): return x"),
        ("def f(): return f'{x!r}'", "def f(): return f'{x}'"),
        ("def f(): return f'{x:>5}'", "def f(): return f'{x:>6}'"),
        ("def f(): yield x", "async def f(): yield x"),
        ("class A:\n  x: Literal['int']", "class A:\n  x: Literal[int]"),
        ("class A:\n  x: 'not a type'", "class A:\n  x: 'nor this one'"),
        ("class A: pass", "class B: pass"),
        ("class A:\n  @property\n  def f(self): ...", "class A:\n  def f(self): ..."),
        ("def f():\n  @a\n  def g(): ...", "def f():\n  @b\n  def g(): ..."),
        ("def f():\n  import a", "def f():\n  import b"),
        ("def f():\n  class A: x = 1", "def f():\n  class A: x = 2"),
        (f"def f(): return 0x{'9' * 5000}", f"def f(): return 0x{'8' * 5000}"),
    ],
)
def test_two_things(one: str, other: str):
    """They have two normal forms."""
    assert normal_form(parsed(one)) != normal_form(parsed(other))


def test_an_annotation_that_is_no_type_stays_a_text():
    """It is compared as it stands."""
    node = ast.parse("x: 'a b'").body[0].annotation

    assert annotation_of(node) is node


# -- scopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f(a, *b, c=D, **e): return a, b, c, e, g.h.i", {"D", "g.h.i"}),
        ("def f():\n  a = b\n  a += c\n  return a", {"b", "c"}),
        ("def f():\n  x.a += 1", {"x.a"}),
        ("def f():\n  g += 1", set()),
        ("def f():\n  global g\n  g = 1\n  return g", {"g"}),
        ("def f(g):\n  def h():\n    global g\n    return g\n  return h", {"g"}),
        ("def f():\n  x = 1\n  def g():\n    nonlocal x\n    x = y\n  return g", {"y"}),
        ("def f(a): return [x for x in a if x in c for y in d(x)]", {"c", "d"}),
        ("def f(a): return {k: v for k, v in a}, {s for s in a}, (g for g in k)", {"k"}),
        ("def f(a): return [y := x for x in a], y", set()),
        ("def f(a): return lambda b, c=d: (a, b, c, e)", {"d", "e"}),
        ("def f(a):\n  try: g()\n  except E as e: return e", {"g", "E"}),
        ("def f(a):\n  with g() as h, i: return h", {"g", "i"}),
        ("def f(a):\n  match a:\n    case [x, *y] | {'k': x, **y}: return x, y\n    case C(z=1) as w: return w", {"C"}),
        ("def f(a):\n  class B(C, k=d):\n    x = y\n    y = 1\n    z = y\n    def g(self): return x\n  return B", {"C", "d", "y", "x"}),
        ("def f(a):\n  for b in c: del b", {"c"}),
        ("def f(x: A) -> B:\n  y: C = d\n  return y", {"d"}),
        ("def f(a): return g(a).h.i", {"g"}),
        ("class A(B):\n  x: C = D\n  @x.setter\n  def f(self): return E", {"B", "C", "D", "E"}),
        ("@a\ndef f(): return 1", set()),
        ("@a\nclass B: ...", {"a"}),
        ("class A:\n  x = 1\n  y = [x for _ in z]", {"z", "x"}),
    ],
)  # fmt: skip
def test_names_from_outside(text: str, names: set[str]):
    """By Python's rules of scope."""
    assert free(text) == names


def test_what_is_read_from_the_object():
    """Of the first parameter, in inner functions and comprehensions too, unless they bind it anew."""
    reads = reads_of(
        parsed("def f(self, a): return self.x.y, [self.z for _ in a], lambda: self.v, lambda self: self.w")
    )

    assert reads.bound == {"x", "z", "v"}


def test_imports_of_a_body():
    """Each name with where it comes from."""
    reads = reads_of(
        parsed("def f():\n  import a.b, c as d\n  from . import e\n  from .g import h as i\n  return a.b, d, e, i")
    )

    assert {name: (one.module, one.name, one.level) for name, one in reads.imports.items()} == {
        "a": ("a", None, 0), "d": ("c", None, 0), "e": ("", "e", 1), "i": ("g", "h", 1),
    }  # fmt: skip


# -- values ------------------------------------------------------------------------------------------------------------


def refer(value: object) -> str:
    """Write types by name and refuse the rest."""
    if isinstance(value, type):
        return value.__name__
    msg = "unseen"
    raise Unseen(msg)


WRITER = Writer(refer, Home("app", folder="/srv/app").relative, lambda part, reason: None)


@dataclasses.dataclass
class Pair:
    """A value of two fields."""

    a: int
    b: object = None


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"), (True, "True"), (1, "0x1"), (1.5, "1.5"), (2j, "2j"), (..., "Ellipsis"), (b"a", "b'61'"), ("é", '"\\u00e9"'),
        ([1, (2,)], "list[0x1,tuple[0x2]]"), ({"b", "a"}, 'set["a","b"]'), (collections.deque([1]), "deque[0x1]"),
        ({"b": 1, "a": 2}, 'dict["b":0x1,"a":0x2]'), (types.MappingProxyType({1: 2}), "mappingproxy[0x1:0x2]"),
        (bytearray(b"a"), "bytearray('61')"), (range(3), "range(0, 3)"), (fractions.Fraction(1, 2), "Fraction(1, 2)"),
        (Decimal("1.50"), '{"decimal:Decimal":"1.50"}'), (dt.date(2026, 1, 2), '{"datetime:date":"2026-01-02"}'),
        (PurePosixPath("a/b"), 'path("a/b")'), (PurePosixPath("/srv/app/a"), 'path("a")'), ("/srv/app", 'path(".")'),
        (Pair(1, [2]), 'Pair("a":0x1,"b":list[0x2])'), (Point(1, 2), 'Point("x":0x1,"y":0x2)'),
        (list[int], "list[int]"), (int | None, "type(Union,[int,NoneType])"), (typing.Optional[int], "type(Union,[int,NoneType])"),
        (typing.Literal["a"], 'type(Literal,["a"])'), (typing.Any, '"typing.Any"'), (typing.TypeVar("T"), 'TypeVar("T")'),
        (object, "object"), ([object()], "list[unseen object]"),
    ],
)  # fmt: skip
def test_values_as_text(value: object, text: str):
    """Types that look alike are told apart; sets are sorted, dicts are not."""
    assert WRITER.write(value) == text


def test_a_subclass_of_something_plain():
    """The class and the value."""
    assert WRITER.write(type("Name", (str,), {})("a")) == 'Name("a")'
    assert WRITER.write(type("Many", (list,), {})([1])) == "Many(list[0x1])"


@pytest.mark.parametrize("value", [PurePosixPath("/etc"), object()])
def test_a_value_that_says_nothing(value: object):
    """It is refused."""
    with pytest.raises(Unseen):
        WRITER.write(value)


# -- where things are --------------------------------------------------------------------------------------------------


def test_whose_a_module_is():
    """A package's own, a program's neighbours, Python's, and others."""
    package, notebook = Home("pkg.app", package="pkg"), Home("__main__")

    assert [package.standing(one) for one in ("pkg", "pkg.a", "os", "json.decoder", "llmflow", "pydantic.main", "jinja2")] == [
        "own", "own", "known", "known", "known", "known", "foreign",
    ]  # fmt: skip
    assert (notebook.standing("__main__"), notebook.standing("texts"), notebook.relative("/a")) == (
        "own",
        "foreign",
        None,
    )


@pytest.mark.parametrize(
    ("names", "home"),
    [
        ({"__name__": "llmflow.demo"}, Home("llmflow.demo")),
        ({"__name__": "nowhere"}, Home("nowhere")),
        ({"__name__": "no_such.module"}, Home("no_such.module", package="no_such")),
        ({"__name__": "six", "__file__": "/lib/site-packages/six.py"}, Home("six")),
        ({"__name__": "app", "__file__": "/srv/app/app.py"}, Home("app", folder="/srv/app")),
        ({"__name__": "__main__", "__spec__": types.SimpleNamespace(name="pkg_x.app")}, Home("__main__", package="pkg_x")),
        ({"__name__": "__main__", "__file__": "/srv/app/app.py", "__spec__": None}, Home("__main__", folder="/srv/app")),
    ],
)  # fmt: skip
def test_the_home_of_a_module(names, home):
    """Its package, or its folder."""
    assert home_of(names) == home


def test_what_is_no_python_has_no_source(tmp_path):
    """Nor has what is not there."""
    (tmp_path / "no.py").write_text("def (", encoding="utf-8")

    assert source_of(str(tmp_path / "no.py"), {}) is None
    assert source_of(str(tmp_path / "nothing.py"), {}) is None


def test_source_is_shown_without_decorators_and_docstring(tmp_path):
    """A lambda by itself."""
    path = tmp_path / "a.py"
    path.write_text(
        'class A:\n    @b\n    def f(self):\n        """Doc."""\n        # why\n        return 1\n\nx = [lambda: 1]\n'
    )
    source = source_of(str(path), {})

    assert source_text(source.functions["f", 2][0], source) == "def f(self):\n    # why\n    return 1"
    assert source_text(source.lambdas[0], source) == "lambda: 1"


def test_what_a_code_object_says():
    """Names and constants, however the compiler folds them."""
    names: dict = {}
    exec("def f(x): return x.a in {1, 2}, (3, 'b'), lambda: 'c'", names)  # noqa: S102  # a function without source

    assert compiled_form(names["f"]) == "compiled(['x'],['a'],[\"'b'\", \"'c'\", '1', '2', '3'])"


def test_a_lambda_whose_place_is_not_known(tmp_path):
    """By its line and what it returns; some compilers do not say where a constant stands."""
    path = tmp_path / "a.py"
    path.write_text("first, second = (lambda: 1), (lambda: x)\n", encoding="utf-8")
    names: dict = {"x": 2}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)  # noqa: S102  # a file of this test
    placeless = types.FunctionType(names["first"].__code__.replace(co_linetable=b""), names)
    found = function_node(placeless)

    assert found is not None
    assert ast.unparse(found[0]) == "lambda: 1"
