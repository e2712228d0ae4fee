"""Finding what `module:name` and `path.py:name` stand for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from llmflow.cli._failures import UsageError, user_frames
from llmflow.cli._similar import similar
from llmflow.errors import DefinitionError
from llmflow.step import Unit

__all__ = ["load_module", "load_target", "units_in"]

_FORMS = "Write TARGET as module:name or path.py:name, such as app.py:triage."


def load_target(target: str) -> Unit[..., Any]:
    """Import what a target names and return its step, task or flow.

    Raises:
        UsageError: When there is no such file, module or name, when importing it fails, or when it is something else.
    """
    place, separator, name = target.rpartition(":")
    if not separator or not place or not name or _looks_like_a_path(name):
        raise UsageError(f"TARGET {target!r} does not say what to take from the module", *_names_of(target), _FORMS)
    return _unit(load_module(place), name, place)


def load_module(place: str) -> ModuleType:
    """Import a module by its name or by the path of its file.

    Raises:
        UsageError: When it does not exist, or raises while it is imported.
    """
    if _looks_like_a_path(place):
        path = Path(place)
        if not path.is_file():
            raise UsageError(f"there is no file {place!r}", *_similar_files(path))
        return _imported(lambda: _from_file(path.resolve()), place)
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    return _imported(lambda: importlib.import_module(place), place)


def units_in(module: ModuleType) -> dict[str, Unit[..., Any]]:
    """Return the steps, tasks and flows of a module by the names they have there, flows first."""
    found: dict[str, Unit[..., Any]] = {
        name: value for name, value in vars(module).items() if isinstance(value, Unit) and not name.startswith("_")
    }
    return dict(sorted(found.items(), key=lambda one: (one[1].kind != "flow", one[1].kind != "step", one[0])))


# -- importing ---------------------------------------------------------------------------------------------------------


def _looks_like_a_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _from_file(path: Path) -> ModuleType:
    """Import a file under its own name; one inside a package as part of it, so that relative imports work."""
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if "." in name:
        return importlib.import_module(name.removesuffix(".__init__"))
    if getattr(known := sys.modules.get(name), "__file__", None) == str(path):
        assert known is not None
        return known
    if known is not None or name in sys.stdlib_module_names:
        name = f"_target_{name}"  # a file may be called like a module that others need
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(load: Any, place: str) -> ModuleType:
    """Import with what the module prints sent to stderr: stdout is for data."""
    try:
        with redirect_stdout(sys.stderr):
            module: ModuleType = load()
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{place}.".startswith(f"{exc.name}."):
            raise UsageError(f"there is no module {exc.name!r}", *_similar_modules(place)) from exc
        raise _broken(place, exc) from exc
    except SystemExit as exc:
        hint = 'Put what starts the program under `if __name__ == "__main__":`.'
        raise UsageError(f"{place} ends the program while it is imported: sys.exit({exc.code!r})", hint) from exc
    except Exception as exc:
        raise _broken(place, exc) from exc
    return module


def _broken(place: str, exc: Exception) -> UsageError:
    hints = tuple(getattr(exc, "__notes__", ()))
    frames = user_frames(exc)
    if isinstance(exc, DefinitionError):
        where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
        return UsageError(f"{where}{exc}", *hints)
    trace = "".join([*traceback.format_list(frames), *traceback.format_exception_only(exc)]).rstrip()
    return UsageError(f"{place} cannot be imported: {_summary(exc)}", *hints, trace=trace)


def _summary(exc: Exception) -> str:
    text = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    return f"{type(exc).__name__}: {text}"


# -- looking it up -----------------------------------------------------------------------------------------------------


def _unit(module: ModuleType, name: str, place: str) -> Unit[..., Any]:
    value: Any = module
    for part in name.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise UsageError(f"{place} has no {name!r}", *_contents(module, place, name)) from None
    if not isinstance(value, Unit):
        raise UsageError(f"{place}:{name} is {_kind(value)}, not a step, task or flow", *_contents(module, place))
    return cast("Unit[..., Any]", value)


def _kind(value: object) -> str:
    if isinstance(value, type):
        return "a class"
    article = "an" if type(value).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def _contents(module: ModuleType, place: str, wanted: str = "") -> tuple[str, ...]:
    units = units_in(module)
    if not units:
        return (f"{place} has no steps, tasks or flows; decorate a function with @step, @task or @flow.",)
    close = similar(wanted, units)
    guess = () if close is None else (f"Did you mean {place}:{close}?",)
    return (*guess, f"{place} has {', '.join(f'{name} ({unit.kind})' for name, unit in units.items())}.")


def _names_of(target: str) -> tuple[str, ...]:
    """List what a target without a name might have meant, when it is a module that can be imported."""
    place = target.strip(":")
    try:
        module = load_module(place)
    except UsageError:
        return ()
    return _contents(module, place)


def _similar_files(path: Path) -> tuple[str, ...]:
    folder = path.parent
    if not folder.is_dir():
        return (f"There is no folder {str(folder)!r} either; paths start at {str(Path.cwd())!r}.",)
    names = [one.name for one in folder.glob("*.py")]
    if (close := similar(path.name, names)) is not None:
        return (f"Did you mean {folder / close}?",)
    return (f"Paths start at {str(Path.cwd())!r}.",)


def _similar_modules(place: str) -> tuple[str, ...]:
    path = Path(*place.split(".")).with_suffix(".py")
    if path.is_file():
        return (f"Did you mean the file {path}?",)
    return (f"Modules are looked for in {str(Path.cwd())!r} and among the installed packages.",)
