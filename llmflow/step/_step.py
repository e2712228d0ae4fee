"""`@step`: a typed function that a language model answers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, cast, overload

from pydantic_core import to_json

from llmflow.errors import DefinitionError
from llmflow.messages import Message
from llmflow.models import Model, Params, as_model
from llmflow.policy import Policy
from llmflow.prompts import Prompt, Template, Wording, names_used_by, prompt, render
from llmflow.schema import OutputSchema, local_namespace
from llmflow.step._bound_variants import bind_step
from llmflow.step._signature import check_name, misfit, read_signature
from llmflow.step._unit import Unit

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.policy import Off
    from llmflow.schema import Codec
    from llmflow.step._bound import BoundStep
    from llmflow.step._bound_variants import BoundVariants
    from llmflow.versions import PromptParts

__all__ = ["Step", "step"]

P = ParamSpec("P")
T = TypeVar("T")

Check = Callable[..., None]
Example = tuple[Any, Any]

_CALLER = 4  # frames from a warning about a template to the line of the decorator
_KEPT = 64


class Step(Unit[P, T]):
    """A function that a language model answers; its return type is the schema of the answer.

    Attributes:
        name: What it is called in records, plans and errors.
        output: The validated shape of the answer.
        model: The model to ask, None for the runtime's default.
        params: Sampling parameters of every request.
        wording: What took the place of the docstring, None where it is the step's own text that is asked.
        prompt_version: First 12 digits of a hash over everything that shapes the prompt, or what `version=` said.
    """

    kind: ClassVar[str] = "step"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        model: Model | str | None = None,
        policies: tuple[Any, ...] = (),
        system: str | None = None,
        examples: Sequence[Example] = (),
        checks: Sequence[Check] = (),
        params: Params | None = None,
        version: str | None = None,
    ) -> None:
        name = check_name(name, function, kind="step")
        signature = read_signature(function, kind="step", name=name)
        super().__init__(function, signature, name=name, policies=policies)
        self.model = None if model is None else as_model(model)
        self.output = OutputSchema.of(signature.returns, step=name, namespace=local_namespace(function))
        self.params = _check_params(params, f"step {name!r}")
        self.checks = _check_checks(checks, name)
        self.system = system
        self.body = _ask_docstring if _is_empty(function) and function.__doc__ else function
        self.is_async = inspect.iscoroutinefunction(self.body)
        self.wording: Wording | None = None
        self._parameters = signature.names
        self._template = self._read_template(function)
        self._system = Template(system, step=name, where="its system text") if system is not None else None
        self._check_body()
        self._check_templates(self._template, self._system)
        self._examples = tuple(self._read_example(one, index) for index, one in enumerate(examples))
        self._shots: tuple[Message, ...] | None = None if self._examples else ()
        self.version = version
        self._later_params: Params = {}
        self._read: dict[Wording, tuple[Template, Template | None]] = {}  # shared by all copies of the step
        self._parts: list[PromptParts] = []  # of this step and its copies: a method's step is copied at every call

    def _read_template(self, function: Callable[..., Any]) -> Template | None:
        """Compile the docstring if the body uses it, so that its mistakes show at decoration; else it is documentation."""
        docstring = function.__doc__
        if docstring is None or not docstring.strip() or not _uses_docstring(function):
            return None
        return Template(docstring, step=self.name)

    def _check_templates(self, template: Template | None, system: Template | None) -> None:
        parameters = tuple(name for name in self._parameters if not self._is_self(name))
        in_system = system.names if system is not None else frozenset[str]()
        used = names_used_by(self.function) | in_system
        if template is not None:
            if self._is_self("self") and "self." in template.source:
                msg = f"step {self.name!r}: a template cannot use `self`, which Jinja takes for the template itself; write prompt(f'...') in the body"
                raise DefinitionError(msg)
            template.check(parameters, used=used, stacklevel=_CALLER)
        if system is not None:
            system.check(parameters, used=parameters)

    def _check_body(self) -> None:
        """Refuse a body that cannot ask: it calls nothing, so it returns its prompt as the answer."""
        code = self.function.__code__
        if self.body is self.function and not code.co_names and not code.co_freevars and self.signature.names:
            msg = f"step {self.name!r}: its body does not call prompt(...), so nothing would be asked; write `return prompt(...)`"
            raise DefinitionError(msg)

    def _is_self(self, name: str) -> bool:
        return name == "self" and self._parameters[:1] == ("self",)

    # -- prompts -------------------------------------------------------------------------------------------------------

    def messages(self, built: Prompt, inputs: Mapping[str, object]) -> tuple[Message, ...]:
        """Return the turns that ask the question: system text, examples, the prompt itself."""
        shots = self._shots
        if shots is None:
            shots = self._shots = self._render_examples()
        return render(
            built, template=self._template, inputs=inputs, system=self._system, examples=shots, step=self.name
        )

    def _read_example(self, example: object, index: int) -> tuple[dict[str, object], str]:
        """Return an example's inputs by name and its output as the model should write it."""
        where = f"step {self.name!r}: example {index + 1}"
        pair = cast("tuple[object, ...]", example) if isinstance(example, tuple) else ()
        if len(pair) != 2:  # noqa: PLR2004  # (input, output)
            msg = f"{where} is {example!r}, expected a tuple (input, output)"
            raise DefinitionError(msg)
        given, output = pair
        text = self.output.dump(self.output.check(output, what=f"the output of example {index + 1}"))
        try:
            inputs = self._example_inputs(given)
        except TypeError as exc:
            msg = f"{where}: its input does not fit the parameters: {exc}"
            raise DefinitionError(msg) from exc
        for name, value in inputs.items():
            if (problem := misfit(value, self.signature.hints.get(name))) is not None:
                msg = f"{where}: its input {name!r} does not fit the parameter's type: {problem}"
                raise DefinitionError(msg)
        return inputs, text

    def _example_inputs(self, given: object) -> dict[str, object]:
        names, alone = self.signature.names, (given,)
        if isinstance(given, Mapping):
            named = cast("Mapping[str, object]", given)
            if set(named) <= set(names):
                return self.inputs((), dict(named))
        if isinstance(given, tuple) and len(names) != 1:
            return self.inputs(cast("tuple[object, ...]", given), {})
        return self.inputs(alone, {})

    def _render_examples(self) -> tuple[Message, ...]:
        """Build the few-shot turns once, at the first call: a prompt written in the body needs the body to run."""
        turns: list[Message] = []
        for inputs, output in self._examples:
            built: object = self.body(**inputs)
            if inspect.iscoroutine(built):
                built = _finish(cast("Coroutine[Any, Any, object]", built), self.name)
            if type(built) is not Prompt:
                msg = (
                    f"step {self.name!r}: an example's input makes the body return {type(built).__name__}, not a prompt"
                )
                raise DefinitionError(msg)
            asked = render(built, template=self._template, inputs=inputs, system=None, examples=(), step=self.name)
            turns += [asked[-1], Message("assistant", output)]  # what goes before is said once, in the call itself
        return tuple(turns)

    @property
    def prompt_version(self) -> str:
        """What identifies the wording that was used: `version=`, else a hash over all that shapes the prompt."""
        return self.prompt_parts.version if self.version is None else self.version

    @property
    def prompt_parts(self) -> PromptParts:
        """What the prompt is made of, each part that its version depends on, and what the version cannot see."""
        if not self._parts:
            self._parts.append(self._take_apart())
        return self._parts[0]

    def _take_apart(self) -> PromptParts:
        from llmflow.versions import Shape, prompt_parts  # at the first call, not while decorating

        output = self.output
        return prompt_parts(
            self.function,
            template=self._template.source if self._template else None,
            has_body=self.body is self.function,
            system=self._system.source if self._system else None,
            examples=self._examples,
            checks=self.checks,
            params=self.params,
            shape=Shape(output.name, output.json_schema, output.fingerprint, output.model),
        )

    @property
    def prompt_as_json(self) -> str:
        """What the prompt version is made of, as the journal keeps it."""
        return to_json(self.prompt_parts, fallback=_type_name).decode()

    def _make_codec(self) -> Codec | None:
        return self.output.codec

    @property
    def lacks_template(self) -> bool:
        """Whether the body says `prompt()` without a text, and there is neither a docstring nor a wording to take."""
        return self._template is None and _uses_docstring(self.function)

    # -- wordings ------------------------------------------------------------------------------------------------------

    def reworded(self, wording: Wording) -> Step[P, T]:
        """Return a copy that asks with a wording from outside of the code, so its version is another.

        What `.with_()` said still holds: its parameters go before those of the wording.

        Raises:
            DefinitionError: For a body that writes its text itself, or a wording that does not fit the parameters.
        """
        made = self._copy()
        made._take(wording)  # noqa: SLF001  # a copy of our own class
        return made

    def _take(self, wording: Wording) -> None:
        if (read := self._read.get(wording)) is None:
            if len(self._read) >= _KEPT:
                self._read.clear()
            read = self._read[wording] = self._read_wording(wording)
        self.wording = wording
        self._template, system = read
        if system is not None:
            self.system, self._system = wording.system, system
        params = _check_params(wording.params, f"step {self.name!r}: {wording.origin}")
        self.params = cast("Params", {**self.params, **params, **self._later_params})
        self._shots = None if self._examples else ()
        self._parts = []

    def _read_wording(self, wording: Wording) -> tuple[Template, Template | None]:
        """Compile a wording and hold it against the parameters, as the docstring is at decoration."""
        where = wording.origin
        if not _uses_docstring(self.function):
            msg = f"step {self.name!r}: {where} would never be asked, as the body at {self.origin} gives prompt(...) a text; write prompt() there, or remove the file"
            raise DefinitionError(msg)
        template = Template(wording.template, step=self.name, where=where, first_line=wording.line)
        system = None
        if wording.system is not None:
            system = Template(wording.system, step=self.name, where=f"the system text of {where}")
        self._check_templates(template, system or self._system)
        return template, system

    # -- binding -------------------------------------------------------------------------------------------------------

    def bind(self, runtime: Any, scope: Scope | None) -> BoundStep | BoundVariants:
        """Make the step ready for a runtime and a place."""
        return bind_step(self, runtime, scope)

    def _adjust(self, model: Model | None, params: Params | None, version: str | None) -> None:
        if model is not None:
            self.model = model
            asked = (model.name, model.base_url, model.account, dict(model.options))
            self.said = {**self.said, "with model": asked}  # no parameter has a space in its name
        if params is not None:
            said = _check_params(params, f"step {self.name!r}")
            self.params = cast("Params", {**self.params, **said})
            self._later_params = cast("Params", {**self._later_params, **said})
            if self._later_params:
                self.said = {**self.said, "with params": self._later_params}
            self.version = None
            self._parts = []
        if version is not None:
            self.version = version

    def partial(self, /, **fixed: object) -> Step[..., T]:
        """Return a copy with some arguments fixed."""
        return cast("Step[..., T]", super().partial(**fixed))

    @overload
    def __get__(self, instance: None, owner: type, /) -> Step[P, T]: ...

    @overload
    def __get__(self, instance: object, owner: type, /) -> Step[..., T]: ...

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        """Bind a step that is a method to its object."""
        if instance is None or not self.signature.names:
            return self
        return self.partial(**{self.signature.names[0]: instance})


def _uses_docstring(function: Callable[..., Any]) -> bool:
    """Whether the body says `prompt()` without a text of its own, or is empty."""
    if _is_empty(function):
        return True
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return True
    return _calls_prompt_without_text(source)


def _calls_prompt_without_text(source: str) -> bool:
    import ast  # only while decorating
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # the source of a lambda or of a decorated fragment
        return True
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name_of(node.func) == prompt.__name__]
    return not calls or any(not node.args for node in calls)


def _type_name(value: object) -> str:
    return value.__qualname__ if isinstance(value, type) else type(value).__qualname__


def _name_of(node: Any) -> str | None:
    return getattr(node, "id", None) or getattr(node, "attr", None)


def _is_empty(function: Callable[..., Any]) -> bool:
    """Whether the body is a docstring and nothing else, or `...`."""
    return function.__code__.co_code in (_documented.__code__.co_code, _documented_async.__code__.co_code)


def _documented() -> None:
    """Is what a body looks like that has only a docstring; an ellipsis leaves no code."""


async def _documented_async() -> None:
    """Is the same for `async def`."""


def _ask_docstring(**inputs: object) -> object:  # noqa: ARG001  # the template has them
    """Stand in for an empty body."""
    return Prompt()


def _finish(coroutine: Coroutine[Any, Any, Any], name: str) -> Any:
    """Run an `async def` body that builds an example's prompt; it may not wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    msg = f"step {name!r} has examples, but its body waits for something before it builds the prompt; fetch that in a @task"
    raise DefinitionError(msg)


def _check_params(params: Params | None, who: str) -> Params:
    if params is None:
        return {}
    for key, value in params.items():
        if key not in _PARAMS:
            msg = f"{who} has an unknown parameter {key!r}; params takes {', '.join(sorted(_PARAMS))}. What only one provider knows goes into Model(..., {key}=...)"
            raise DefinitionError(msg)
        if not _PARAMS[key](value):
            msg = f"{who}: {key} is {value!r}, expected {_EXPECTED[key]}"
            raise DefinitionError(msg)
    return params


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(one, str) for one in cast("list[object]", value))
    )


_PARAMS: Mapping[str, Callable[[object], bool]] = {
    "temperature": _is_number,
    "top_p": _is_number,
    "max_tokens": _is_count,
    "stop": _is_stop,
    "seed": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "reasoning": lambda value: value in ("minimal", "low", "medium", "high"),
}
_EXPECTED = {
    "temperature": "a number from 0",
    "top_p": "a number from 0",
    "max_tokens": "a whole number of at least 1",
    "stop": "a text or a list of texts",
    "seed": "a whole number",
    "reasoning": "'minimal', 'low', 'medium' or 'high'",
}


def _check_checks(checks: Sequence[Check], name: str) -> tuple[Check, ...]:
    for check in checks:
        if not callable(check) or inspect.iscoroutinefunction(check):
            msg = (
                f"step {name!r}: check {check!r} is not a plain function (value, inputs) -> None that raises ValueError"
            )
            raise DefinitionError(msg)
        if not _takes_two(check):
            msg = f"step {name!r}: check {_name_of_check(check)!r} does not take two arguments; a check is called with (value, inputs)"
            raise DefinitionError(msg)
    return tuple(checks)


def _takes_two(check: Check) -> bool:
    try:
        inspect.signature(check).bind(None, {})
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True


def _name_of_check(check: Check) -> str:
    return getattr(check, "__name__", type(check).__name__)


class StepDecorator(Protocol):
    """What `step(...)` with arguments returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> Step[P, T]: ...


@overload
def step(function: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...


@overload
def step(function: Callable[P, T], /) -> Step[P, T]: ...


@overload
def step(
    model: Model | str | None = None,
    /,
    *policies: Policy | Off,
    name: str | None = None,
    system: str | None = None,
    examples: Iterable[Example] = (),
    checks: Iterable[Check] = (),
    params: Params | None = None,
    version: str | None = None,
) -> StepDecorator: ...


@overload
def step(
    *policies: Policy | Off,
    model: Model | str | None = None,
    name: str | None = None,
    system: str | None = None,
    examples: Iterable[Example] = (),
    checks: Iterable[Check] = (),
    params: Params | None = None,
    version: str | None = None,
) -> StepDecorator: ...


def step(  # noqa: D417  # `**options` are the named ones of the overloads
    *args: Any, model: Any = None, examples: Iterable[Any] = (), checks: Iterable[Any] = (), **options: Any
) -> Any:
    """Turn a typed function into a step: a call that a language model answers.

    The return annotation is the schema of the answer, and what the step returns is an instance of it. The body runs
    once per call, with real values, and returns `prompt(...)`; without a text, the docstring is the template.

    Args:
        *args: The model as `"provider/name"` or `Model(...)`, then policies; without a model the runtime's default.
        model: The model, when it is not the first argument.
        name: What the step is called, the function's name unless given.
        system: System text, a template over the parameters.
        examples: Pairs `(input, output)` shown to the model as earlier turns; checked here. The input is the argument
            itself, a tuple of arguments, or a dict of them.
        checks: Functions `(value, inputs) -> None`; a ValueError asks the model again with its text.
        params: Sampling parameters, the same for every provider.
        version: The prompt's version, instead of the one that is computed.

    Raises:
        DefinitionError: When anything about the function, its types, its template or its policies is wrong.
    """
    if len(args) == 1 and not options and model is None and _is_function(args[0]):
        made: Step[..., Any] = Step(args[0], examples=tuple(examples), checks=tuple(checks))
        return made
    if args and (args[0] is None or isinstance(args[0], str | Model)):
        model, args = args[0], args[1:]
    if (stray := next((one for one in args if isinstance(one, str | Model)), None)) is not None:
        msg = f"@step is given the model {stray!r} behind policies; the model comes first, further ones go into Fallback(...)"
        raise DefinitionError(msg)

    if callable(checks):
        msg = f"@step(checks={checks!r}): expected a list of functions, `checks=[...]`"
        raise DefinitionError(msg)

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        made: Step[..., Any] = Step(
            function, model=model, policies=args, examples=tuple(examples), checks=tuple(checks), **options
        )
        return made

    return decorate


def _is_function(value: object) -> bool:
    """Whether bare `@step` was written: policies have a band, classes of policies too."""
    return callable(value) and not hasattr(value, "band")
