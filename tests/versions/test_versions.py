"""What a version covers, what it does not, and what is said about that."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel

from llmflow import Model, prompt, step

HEAD = """
from llmflow import prompt, step, task, Model
"""


def of(load, body: str, **files: str):
    """Return the step `ask` of a program of which `body` is the first file."""
    ask = load(app=HEAD + body, **files).ask
    assert ask.prompt_parts  # while its modules are those of the process
    return ask


def differ(load, before: str, after: str, **files: str) -> bool:
    """Whether two programs ask with different versions."""
    return of(load, before, **files).prompt_version != of(load, after, **files).prompt_version


ASK = """
@step("acme/one")
def ask(message: str) -> str:
    return prompt(helper(message))
"""


# -- what counts -------------------------------------------------------------------------------------------------------


def test_a_version_is_twelve_digits_and_stays():
    """It is computed once."""

    @step("acme/one")
    def ask(message: str) -> str:
        """Say {{ message }}"""

    first = ask.prompt_version

    assert len(first) == 12
    assert int(first, 16)
    assert ask.prompt_version is first


def test_a_declared_version_overrides():
    """What it is made of is still known."""

    @step("acme/one", version="v7")
    def ask(message: str) -> str:
        """Say {{ message }}"""

    assert ask.prompt_version == "v7"
    assert len(ask.prompt_parts.version) == 12


def test_the_model_and_the_policies_do_not_count(load):
    """They change who answers, not what is asked."""
    asked = '\ndef ask(message: str) -> str:\n    """Say {{ message }}"""\n'

    assert not differ(load, '@step("acme/one")' + asked, '@step(Model("acme/two", handler=print))' + asked)


def test_parameters_given_later_count():
    """A copy with others has a version of its own, and the step keeps its."""

    @step("acme/one", params={"temperature": 0})
    def ask(message: str) -> str:
        """Say {{ message }}"""

    before = ask.prompt_version
    copy = ask.with_(params={"temperature": 1})

    assert copy.prompt_version != before
    assert ask.prompt_version == before


def test_fixed_arguments_are_inputs():
    """A partial step asks the same prompt."""

    @step("acme/one")
    def ask(message: str, tone: str) -> str:
        """Say {{ message }} in a {{ tone }} tone."""

    assert ask.partial(tone="kind").prompt_version == ask.prompt_version


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def helper(x): return x", "def helper(x): return x + x"),
        ("helper = lambda x: x + 'a'", "helper = lambda x: x + 'b'"),
        ("def inner(x): return 1\ndef helper(x): return inner(x)", "def inner(x): return 2\ndef helper(x): return inner(x)"),
        ("LIST = ['a', 'b']\ndef helper(x): return LIST", "LIST = ['b', 'a']\ndef helper(x): return LIST"),
        ("D = {'a': 1, 'b': 2}\ndef helper(x): return D", "D = {'b': 2, 'a': 1}\ndef helper(x): return D"),
        ("def helper(x, n=1): return x * n", "def helper(x, n=2): return x * n"),
        ("def helper(x): return x.a", "async def helper(x): return x.a"),
        ("class A:\n  def f(self): return 1\ndef helper(x): return A().f()", "class A:\n  def f(self): return 2\ndef helper(x): return A().f()"),
        ("class A:\n  x = 1\nclass B(A): pass\ndef helper(x): return B.x", "class A:\n  x = 2\nclass B(A): pass\ndef helper(x): return B.x"),
        ("import functools\n@functools.cache\ndef helper(x): return 'a'", "import functools\n@functools.cache\ndef helper(x): return 'b'"),
        ("import functools\nhelper = functools.partial(lambda a, x: a + x, 'a')", "import functools\nhelper = functools.partial(lambda a, x: a + x, 'b')"),
        ("def loud(f): return lambda x: f(x) + '!'\n@loud\ndef helper(x): return x", "def loud(f): return lambda x: f(x) + '?'\n@loud\ndef helper(x): return x"),
        ("def loud(f): return lambda x: f(x)\n@loud\ndef helper(x): return x", "def loud(f): return lambda x: f(x)\n@loud\ndef helper(x): return x + x"),
        ("import re\nR = re.compile('a')\ndef helper(x): return R.sub('', x)", "import re\nR = re.compile('a', re.I)\ndef helper(x): return R.sub('', x)"),
        ("import string\nT = string.Template('$a')\ndef helper(x): return T", "import string\nT = string.Template('$b')\ndef helper(x): return T"),
        ("from typing import Literal\nT = Literal['a']\ndef helper(x): return T", "from typing import Literal\nT = Literal['b']\ndef helper(x): return T"),
        ("TABLE = {'a': lambda x: 'a'}\ndef helper(x): return TABLE['a'](x)", "TABLE = {'a': lambda x: 'b'}\ndef helper(x): return TABLE['a'](x)"),
        ("X = 1\nclass helper:\n  Y = X\n  def __init__(self, x): ...", "X = 2\nclass helper:\n  Y = X\n  def __init__(self, x): ..."),
        ("from functools import singledispatch\n@singledispatch\ndef helper(x): return x\n@helper.register\ndef _(x: int): return 1", "from functools import singledispatch\n@singledispatch\ndef helper(x): return x\n@helper.register\ndef _(x: int): return 2"),
        ("from collections import namedtuple\nP = namedtuple('P', 'a')\nC = P(1)\ndef helper(x): return C", "from collections import namedtuple\nP = namedtuple('P', 'a')\nC = P(2)\ndef helper(x): return C"),
        ("N = 0\ndef helper(x):\n  global N\n  N += 1\n  return x", "N = 5\ndef helper(x):\n  global N\n  N += 1\n  return x"),
    ],
)  # fmt: skip
def test_an_edit_of_what_the_body_names_counts(load, before: str, after: str):
    """Functions, constants, classes, what decorators make of them, and what these name in turn."""
    assert differ(load, before + ASK, after + ASK)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def helper(x): return x", "def helper(x: 'int') -> 'str':\n    '''Doc.'''\n    return x  # why"),
        ("def helper(x): return x", "UNUSED = 1\ndef other(): return 2\ndef helper(x): return x"),
        ("def helper(x): return [y for y in x]", "y = 1\ndef helper(x): return [y for y in x]"),
        ("def helper(x): return x\nZ = 1", "def helper(x): return (\n    x\n)\nZ = 2"),
        ("def helper(x):\n  y: int = 1\n  return y", "def helper(x):\n  y = 1\n  pass\n  return y"),
        ("def helper(x): return 'a' f'{x}' 'b'", "def helper(x): return f'a{x}b'"),
        ("def helper(x): return 'ab'", "def helper(x): return ('a'\n  f'b')"),
        ("S = {'a', 'b', 'c'}\ndef helper(x): return S", "S = {'c', 'b', 'a'}\ndef helper(x): return S"),
        ("class A:\n  x: 'int' = 1\ndef helper(x): return A", "class A:\n  '''Doc.'''\n  x: int = 1\ndef helper(x): return A"),
        ("def helper(x):\n  lambda z: z\n  return x", "z = 3\ndef helper(x):\n  lambda z: z\n  return x"),
    ],
)  # fmt: skip
def test_how_it_is_written_does_not_count(load, before: str, after: str):
    """Types, documentation, comments, order of sets, names that only look the same."""
    assert not differ(load, before + ASK, after + ASK)


def test_a_file_may_be_renamed(load):
    """And the function in it may come by another way."""
    first = of(load, "from texts import helper" + ASK, texts="def helper(x): return x")
    second = of(load, "from other import helper" + ASK, other="def helper(x): return x")

    assert first.prompt_version == second.prompt_version


def test_two_helpers_of_one_name_stay_two(load):
    """Which one says what cannot be confused."""
    app = "import one, two\ndef helper(x): return one.say(x) + two.say(x)" + ASK
    a, b = "def say(x): return 'a'", "def say(x): return 'b'"

    first = of(load, app, one=a, two=b)
    second = of(load, app, one=b, two=a)

    assert first.prompt_version != second.prompt_version
    assert ["app.helper", "one.say", "two.say"] == list(first.prompt_parts.uses)


def test_functions_may_go_in_circles(load):
    """Each counts once."""
    program = "def helper(x): return other(x)\ndef other(x): return helper(x) or {}" + ASK

    assert differ(load, program.format(1), program.format(2))


def test_closures_count(load):
    """Two steps of one function that hold different values are two prompts."""
    program = """
def make(tone):
    @step("acme/one", name=tone)
    def ask(message: str) -> str:
        return prompt(tone + message)
    return ask
ask = make("kind")
other = make("rude")
"""
    module = load(app=HEAD + program)

    assert module.ask.prompt_version != module.other.prompt_version


def test_a_package_is_followed_as_a_whole(load):
    """Across its modules, by relative imports, inside the body too."""
    app = (
        HEAD
        + """
from . import texts
@step("acme/one")
def ask(message: str) -> str:
    from .more import ending
    return prompt(texts.INTRO + ending(message))
"""
    )
    files = {"pkg__texts": "INTRO = 'a'", "pkg__more": "def ending(x): return {}"}

    def version(ending: str) -> str:
        return load(pkg__app=app, **files | {"pkg__more": files["pkg__more"].format(ending)}).ask.prompt_version

    assert version("1") != version("2")


def test_a_method_counts_with_what_it_takes_from_its_class(load):
    """Methods, properties, constants; what the object holds is an input."""
    program = """
class Desk:
    RULE = {rule!r}
    def __init__(self): self.name = "x"
    @property
    def rules(self): return self.RULE + self.name
    @step("acme/one")
    def ask(self, message: str) -> str:
        return prompt(self.rules)
ask = Desk.ask
"""
    first, second = of(load, program.format(rule="a")), of(load, program.format(rule="b"))

    assert first.prompt_version != second.prompt_version
    assert {"self.name": "of the object, so it is an input"} == first.prompt_parts.not_covered


def test_llmflows_own_things_count_by_name(load):
    """Another step that a body names may change as it likes."""
    program = (
        """
@step("acme/one")
def other(message: str) -> str:
    return prompt({!r} + message)
MODEL = Model({!r}, handler=print)
def helper(x): return (other, MODEL)
"""
        + ASK
    )

    assert not differ(load, program.format("a", "acme/one"), program.format("b", "acme/two"))


# -- checks, examples, schema ------------------------------------------------------------------------------------------


def test_checks_count_with_what_they_name(load):
    """Functions, partials, objects that can be called."""
    program = """
import functools
from dataclasses import dataclass
LIMIT = {limit}
def short(value, inputs): assert len(value) < LIMIT
@dataclass
class Longest:
    words: int
    def __call__(self, value, inputs): ...
@step("acme/one", checks=[short, functools.partial(lambda n, value, inputs: None, {part}), Longest({words})])
def ask(message: str) -> str:
    '''Say {{{{ message }}}}'''
"""
    first = of(load, program.format(limit=1, part=1, words=1)).prompt_version
    others = [
        of(load, program.format(limit=limit, part=part, words=words)).prompt_version
        for limit, part, words in [(2, 1, 1), (1, 2, 1), (1, 1, 2)]
    ]

    assert len({first, *others}) == 4


def test_examples_of_objects_count():
    """By what they hold."""

    class Mail(BaseModel):
        text: str

    def version(text: str) -> str:
        @step("acme/one", examples=[(Mail(text=text), "yes")])
        def ask(mail: Mail) -> str:
            """Say {{ mail }}"""

        return ask.prompt_version

    assert version("a") != version("b")
    assert version("a") == version("a")


def test_validators_of_the_output_are_not_covered(load):
    """They are in no schema."""
    ask = of(
        load,
        """
from pydantic import BaseModel, field_validator
class Answer(BaseModel):
    n: int
    @field_validator("n")
    def positive(cls, value): return value
@step("acme/one")
def ask(message: str) -> Answer:
    '''Say {{ message }}'''
""",
    )

    assert ["Answer.positive"] == list(ask.prompt_parts.not_covered)


# -- what cannot be seen -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "name", "reason"),
    [
        ("import jinja2\ndef helper(x): return jinja2.Template(x)", "jinja2.Template", "of another package, jinja2"),
        ("from jinja2 import Template\ndef helper(x): return Template(x)", "Template", "a class of another package, jinja2"),
        ("from jinja2.filters import do_trim\ndef helper(x): return do_trim(x)", "do_trim", "a function of another package, jinja2"),
        ("from jinja2.defaults import BLOCK_START_STRING as B\ndef helper(x): return B", "B", "of another package, jinja2"),
        ("def helper(x): return getattr(x, 'y')", "getattr", "a name that is known only while it runs"),
        ("def helper(x): return open(x).read()", "open", "a file that is read while it runs"),
        ("def helper(x): return __file__", "__file__", "the place of the module, which differs between machines"),
        ("import texts\ndef helper(x): return texts.__file__", "texts.__file__", "the place of the module, which differs between machines"),
        ("import texts\ndef helper(x): return vars(texts)", "texts", "a module as a whole"),
        ("import texts\ndef helper(x): return texts.nothing", "texts.nothing", "not defined when the version was computed"),
        ("def helper(x): return nowhere(x)", "nowhere", "not defined when the version was computed"),
        ("def helper(x):\n  from texts import nothing\n  return nothing", "nothing", "its import fails: ModuleNotFoundError"),
        ("def helper(x):\n  import jinja2\n  return jinja2.Template", "jinja2.Template", "of another package, jinja2"),
        ("class A: pass\nA1 = A()\ndef helper(x): return A1", "A1", "an object of the class A, whose state is not read"),
        ("import pathlib\nP = pathlib.Path('/etc/motd')\ndef helper(x): return P", "P", "an absolute path, which differs between machines"),
        ("def helper(x): return helper.__doc__", "app.helper: .__doc__", "a docstring, which is no part of what code does"),
        ("L = []\nL.append(L)\ndef helper(x): return L", "L", "it cannot be written down: RecursionError"),
        ("exec('def helper(x): return 1')", "app.helper", "there is no source to read"),
        ("from collections import namedtuple\nP = namedtuple('P', 'a')\ndef helper(x): return P", "app.P", "there is no source to read"),
        ("def helper(x): return later\nif not helper: later = 1", "later", "not defined when the version was computed"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_said(load, program: str, name: str, reason: str):
    """With the reason."""
    ask = of(load, program + ASK, texts="INTRO = 'a'")

    assert reason == ask.prompt_parts.not_covered[name]


@pytest.mark.parametrize(
    "program",
    [
        "import os, math\nfrom os.path import join\ndef helper(x): return join(x, os.sep, len(x), math.pi)",
        "import logging\nlogger = logging.getLogger()\ndef helper(x): return logger.info(x)",
        "from os import sep\nfrom typing import Any\ndef helper(x): return sep if x is Any else __name__",
        "from pydantic import BaseModel\nclass A(BaseModel):\n  n: int\ndef helper(x): return A(n=1)",
        "def helper(x):\n  import json\n  return json.dumps(x)",
    ],
)
def test_python_and_what_llmflow_stands_on_need_no_listing(load, program: str):
    """They are the same for everybody."""
    assert {} == of(load, program + ASK).prompt_parts.not_covered


def test_a_function_without_source_still_has_a_version(load):
    """By its names and constants."""
    program = "exec('''def helper(x):\\n  return [{} for y in x]''')"

    assert differ(load, program.format(1) + ASK, program.format(2) + ASK)
    assert not differ(load, program.format(1) + ASK, "\n\n" + program.format(1) + ASK)


def test_an_object_that_fails_when_it_is_looked_at_fails_no_call(load):
    """It is not covered."""
    ask = of(
        load,
        """
class Odd:
    @property
    def __dict__(self): raise RuntimeError
ODD = Odd()
def helper(x): return ODD
"""
        + ASK,
    )

    assert "ODD" in ask.prompt_parts.not_covered


def test_a_constant_of_which_a_part_cannot_be_seen_counts_by_the_rest(load):
    """The part is named."""
    program = (
        """
class Client: pass
TABLE = {{"client": Client(), "intro": {!r}}}
def helper(x): return TABLE
"""
        + ASK
    )
    ask = of(load, program.format("a"))

    assert differ(load, program.format("a"), program.format("b"))
    assert {"TABLE: Client": "an object of the class Client, whose state is not read"} == ask.prompt_parts.not_covered


def test_an_object_that_answers_nothing_fails_no_call(load):
    """It is not covered, and the rest of the body is."""
    program = (
        """
class Odd:
    def __getattribute__(self, name): raise RuntimeError
ODD = Odd()
def helper(x): return ODD, {}
"""
        + ASK
    )

    assert {"ODD": "it cannot be looked at: RuntimeError"} == of(load, program.format(1)).prompt_parts.not_covered
    assert differ(load, program.format(1), program.format(2))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import tenacity\n@tenacity.retry\ndef helper(x): return 'a'", "import tenacity\n@tenacity.retry\ndef helper(x): return 'b'"),
        ("class A:\n  @classmethod\n  def f(cls, x): return 1\nhelper = A.f", "class A:\n  @classmethod\n  def f(cls, x): return 2\nhelper = A.f"),
        ("class A:\n  @property\n  def p(self): return 1\nP = A.p\ndef helper(x): return P", "class A:\n  @property\n  def p(self): return 2\nP = A.p\ndef helper(x): return P"),
        ("helper, other = (lambda x: 1), (lambda x: 2)", "helper, other = (lambda x: 2), (lambda x: 1)"),
        ("from functools import cached_property\nclass A:\n  @cached_property\n  def p(self): return 1\nP = A.p\ndef helper(x): return P", "from functools import cached_property\nclass A:\n  @cached_property\n  def p(self): return 2\nP = A.p\ndef helper(x): return P"),
    ],
)  # fmt: skip
def test_what_is_wrapped_or_bound_counts(load, before: str, after: str):
    """By another package's decorator, a class, a property; lambdas of one line are told apart."""
    assert differ(load, before + ASK, after + ASK)


def test_a_decorator_of_another_package_is_said(load):
    """The function inside is seen."""
    ask = of(load, "import tenacity\n@tenacity.retry\ndef helper(x): return 1" + ASK)

    assert "of another package, tenacity" in " ".join(ask.prompt_parts.not_covered.values())


def test_functions_of_python_in_a_constant_count_by_name(load):
    """They need no listing."""
    program = (
        "import operator, os.path\n"
        "TABLE = {{'f': len, 'g': operator.add, 'k': int, 'p': os.path.join, 'n': {}}}\ndef helper(x): return TABLE"
        + ASK
    )

    assert differ(load, program.format(1), program.format(2))
    assert {} == of(load, program.format(1)).prompt_parts.not_covered


def test_a_cell_that_is_still_empty(load):
    """It is said."""
    ask = of(
        load,
        """
def make():
    def helper(x): return later
    @step("acme/one")
    def ask(message: str) -> str:
        return prompt(helper(message))
    made = ask.prompt_parts
    later = 1
    return ask
ask = make()
""",
    )

    assert {"later": "not assigned when the version was computed"} == ask.prompt_parts.not_covered


def test_a_local_class_counts_with_what_its_methods_close_over(load):
    """By way of its methods."""
    program = """
def make(n):
    class Local:
        def f(self): return n
    def helper(x): return Local().f()
    @step("acme/one")
    def ask(message: str) -> str:
        return prompt(helper(message))
    return ask
ask = make({})
"""

    assert differ(load, program.format(1), program.format(2))


def test_an_example_that_cannot_be_seen(load):
    """It is named by its number."""
    ask = of(
        load,
        """
class Odd: pass
@step("acme/one", examples=[((Odd(), [Odd()]), "yes")])
def ask(one: object, two: object) -> str:
    '''Say {{ one }} {{ two }}'''
""",
    )

    assert ["an example: Odd", "example 1: one"] == sorted(ask.prompt_parts.not_covered)


def test_an_expression_of_a_thousand_parts(load):
    """It is compared by its code object, and its neighbours by their source."""
    ask = of(load, "def helper(x): return other(x) + " + "+".join(["x"] * 900) + "\ndef other(x): return 1" + ASK)

    assert {"app.helper": "there is no source to read"} == ask.prompt_parts.not_covered
    assert "app.other" in ask.prompt_parts.uses


def test_a_class_that_hides_what_it_is_fails_no_call(load):
    """It is not covered."""
    ask = of(
        load,
        """
class Meta(type):
    @property
    def __dict__(cls): raise RuntimeError
class Odd(metaclass=Meta):
    def f(self): return 1
def helper(x): return Odd
"""
        + ASK,
    )

    assert {"app.Odd": "it cannot be read: RuntimeError"} == ask.prompt_parts.not_covered


def test_a_method_of_an_object_counts_by_its_function(load):
    """What the object holds is said to be unseen."""
    program = (
        """
class Books:
    def render(self, x): return {}
helper = Books().render
"""
        + ASK
    )

    assert differ(load, program.format(1), program.format(2))
    assert ["Books.render"] == list(of(load, program.format(1)).prompt_parts.not_covered)


def test_a_generic_model_counts_with_its_argument(load):
    """`Page[Order]` is another thing than `Page[int]`."""
    program = (
        """
from typing import Generic, TypeVar
from pydantic import BaseModel
T = TypeVar("T")
class Page(BaseModel, Generic[T]):
    items: list[T]
KIND = Page[{}]
def helper(x): return KIND
"""
        + ASK
    )

    assert differ(load, program.format("int"), program.format("str"))


def test_nothing_is_computed_while_decorating(tmp_path):
    """A version costs at the first call."""
    program = (
        HEAD + "def helper(x): return x" + ASK + "import sys; print([one for one in sys.modules if 'llmflow.v' in one])"
    )
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "app.py")], capture_output=True, text=True, check=True, timeout=300
    )

    assert done.stdout == "[]\n"


def test_the_handler_of_a_model_is_not_looked_at():
    """The model is no part of the prompt."""

    @step(Model("acme/one", handler=print))
    def ask(message: str) -> str:
        return prompt(message)

    assert {} == ask.prompt_parts.not_covered


def test_what_a_method_finds_in_its_class_may_be_unseen(load):
    """The reason is said; what every class has is passed over."""
    ask = of(
        load,
        """
class Client: pass
class Desk:
    client = Client()
    @step("acme/one")
    def ask(self, message: str) -> str:
        return prompt(f"{self.client} {self.__class__} {message}")
ask = Desk.ask
""",
    )

    assert {"self.client": "an object of the class Client, whose state is not read"} == ask.prompt_parts.not_covered


def test_a_module_imported_in_the_body_is_followed(load):
    """As a whole, and by way of another module's import."""
    program = "def helper(x):\n  import texts\n  from more import INTRO\n  return texts.INTRO + INTRO" + ASK
    first = of(load, program, texts="from more import INTRO", more="INTRO = 'a'")
    second = of(load, program, texts="from more import INTRO", more="INTRO = 'b'")

    assert first.prompt_version != second.prompt_version


def test_an_object_of_an_installed_package_is_not_read(load):
    """Its class is named."""
    ask = of(load, "import jinja2\nE = jinja2.Environment()\ndef helper(x): return E" + ASK)

    assert {"E": "an object of the class Environment, whose state is not read"} == ask.prompt_parts.not_covered


def test_the_handle_of_a_compiled_package_is_not_followed(load):
    """It says which package it is of."""
    ask = of(load, "from markupsafe import _speedups as m\nF = [m._escape_inner]\ndef helper(x): return F" + ASK)

    assert ["F: builtin_function_or_method"] == list(ask.prompt_parts.not_covered)
