"""A folder of prompt files, which supplies the prompts of the steps they are called after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError
from llmflow.hookspecs import hookimpl
from llmflow.wordings._front_matter import read_wording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from llmflow.prompts import Wording

__all__ = ["PromptFiles"]

_ELSEWHERE = frozenset("/\\:@")
"""What no part of a file's name may have: it leads out of the folder, or says where the label begins."""


class PromptFiles:
    """Reads `<step>.md` and `<step>@<label>.md` directly below one folder, and nothing else.

    A name is compared as it is written, also where the file system takes `Triage.md` for `triage.md`.

    Args:
        root: The folder.

    Raises:
        DefinitionError: When there is no such folder.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        try:
            self._root = Path(root).expanduser().resolve(strict=True)
        except (OSError, RuntimeError, TypeError, ValueError) as exc:
            raise DefinitionError(_no_folder(root)) from exc
        if not self._root.is_dir() or not str(root):
            raise DefinitionError(_no_folder(root))

    @hookimpl(trylast=True)
    def llmflow_prompt(self, name: str, label: str | None) -> Wording | None:
        """Return what the step's file says, None when there is none."""
        file = self.file(name, label)
        shown = self.shown(file)
        try:
            if file not in {one.name for one in self._root.iterdir()}:
                return None
            real = (self._root / file).resolve(strict=True)
            self._check_place(real, shown)
            data = real.read_bytes()
        except (OSError, RuntimeError) as exc:  # a loop of links is either, by the version of Python
            msg = f"cannot read {shown}: {getattr(exc, 'strerror', None) or exc}"
            raise DefinitionError(msg) from exc
        return read_wording(data, shown)

    def _check_place(self, real: Path, shown: str) -> None:
        if not real.is_relative_to(self._root):
            msg = f"{shown} is a link that leads out of the folder of prompts"
            raise DefinitionError(msg)
        if not real.is_file():  # a pipe or a device may be read for ever
            msg = f"{shown} is no file"
            raise DefinitionError(msg)

    def file(self, name: str, label: str | None) -> str:
        """Return what the file of a step's prompt is called.

        Raises:
            DefinitionError: For a name that no file directly below the folder can have.
        """
        _check(name, f"step {name!r}")
        if label is None:
            return f"{name}.md"
        _check(label, f"the variant {label!r} of step {name!r}")
        return f"{name}@{label}.md"

    def files(self) -> Iterator[tuple[str, str | None, str]]:
        """Yield step, label and path of each prompt file, as their names say it."""
        for name in sorted(one.name for one in self._root.iterdir() if one.suffix == ".md"):
            step, at, label = name.removesuffix(".md").partition("@")
            yield step, label if at else None, self.shown(name)

    def shown(self, file: str) -> str:
        """Return a file's path as messages and plans show it: from the current folder on, if it is below that."""
        path, here = self._root / file, Path.cwd().resolve()
        return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def _check(part: str, what: str) -> None:
    wrong = [one for one in part if one in _ELSEWHERE or not one.isprintable()]
    wrong += [one for one in (part[:1], part[-1:]) if not one.strip()]
    if part.startswith("."):
        wrong.append(".")
    if wrong:
        msg = f"no prompt file can be called after {what}, because of its {wrong[0]!r}; give it another name"
        raise DefinitionError(msg)


def _no_folder(root: object) -> str:
    return f"there is no folder of prompts {str(root) if not isinstance(root, str) else root!r}"
