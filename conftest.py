"""Runs the code blocks of the docs and the README.

One page is one test: its blocks share a namespace and run in order, in an empty folder of their own, without keys and
without a network. It is one test a page and not one a block because pytest-randomly shuffles tests and pytest-xdist
spreads them over processes, and a block needs those above it.

What is run:

- `python` blocks; one that starts with `>>>` is a doctest, so the output it shows is compared.
- `python title="name.py"` blocks are also written to that file, so that a command further down can use it.
- `markdown title="name.md"` blocks are written to that file, as prompts.
- `text title="prints"` blocks are what the `python` block above them prints.
- `console` blocks: each `$ llmflow ...` line, with the output that is shown under it.
- `<!-- invisible-code-block: python ... -->`, for what a reader need not see.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator, OutputChecker
from sybil.example import SybilFailure
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

if TYPE_CHECKING:
    from collections.abc import Iterator

# The development environment has llmflow-redact installed, which would stand in every plan; its own tests ask for it.
os.environ.setdefault("LLMFLOW_DISABLE_PLUGINS", "llmflow-redact")

# What a property says does not depend on how long the machine takes; hypothesis would fail an example after 0.2 s.
settings.register_profile("llmflow", deadline=None)
settings.load_profile("llmflow")

ROOT = Path(__file__).parent
FLAGS = doctest.ELLIPSIS
KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")
TITLE = re.compile(r'title="([^"]+)"')
NEEDS = {"local-model.md": "llmflow-local"}
"""Pages whose blocks need a distribution that is not always installed."""

_fenced = RawFencedCodeBlockLexer(
    re.compile(r"(?P<language>python|console|markdown(?= title=)|text(?= title=.prints))(?P<options>[^\n]*)\n")
)
_hidden = DirectiveInHTMLCommentLexer(r"invisible-code-block", arguments="python")


# -- what a block is ---------------------------------------------------------------------------------------------------


def parse(document: Document) -> Iterator[Region]:
    """Yield the parts of a page that are run."""
    for region in [*_fenced(document), *_hidden(document)]:
        source = region.parsed = region.lexemes["source"]
        if (language := region.lexemes.get("language", "python")) != "python":
            region.evaluator = EVALUATORS[language]
            yield region
        elif source.startswith(">>>"):
            for one in DocTestStringParser(DocTestEvaluator(FLAGS))(source, document.path):
                one.adjust(region, source)
                yield one
        else:
            region.evaluator = run_python
            yield region


def run_python(example: Example) -> None:
    """Run a block under the page's own file name and lines, and keep its source for whoever asks for it.

    A flow reads the source of its body. Python can only find it when the page, as `linecache` has it, holds nothing
    but code, so the text around the blocks is left out there.
    """
    path, source = str(example.path), str(example.parsed)
    start = example.line + example.parsed.line_offset
    lines: list[str] = example.namespace.setdefault("__lines__", [])
    lines.extend("\n" for _ in range(start + source.count("\n") + 1 - len(lines)))
    lines[start : start + source.count("\n") + 1] = [f"{line}\n" for line in source.split("\n")]
    linecache.cache[path] = (len(source), None, lines, path)
    code = compile("\n" * start + source, path, "exec", dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, example.namespace)  # noqa: S102  # the docs are ours
    example.namespace["__printed__"] = printed.getvalue()
    options = example.region.lexemes.get("options", "")
    if (title := TITLE.search(options)) is not None:
        Path(title[1]).write_text(source, encoding="utf-8")


def compare_printed(example: Example) -> str | None:
    """Compare a block of text with what the block above it printed."""
    expected, printed = str(example.parsed), example.namespace["__printed__"]
    if OutputChecker().check_output(expected, printed, FLAGS):
        return None
    return f"expected:\n{expected}\ngot:\n{printed}"


def write_file(example: Example) -> None:
    """Write a block to the file that its title names."""
    title = TITLE.search(example.region.lexemes["options"])
    assert title is not None  # or it were no block of this kind
    path = Path(title[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(example.parsed), encoding="utf-8")


def run_console(example: Example) -> str | None:
    """Run each `$ llmflow` line of a block and compare what it prints."""
    for command in re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)[1:]:
        line, _, expected = command.partition("\n")
        words = shlex.split(line)
        if words[0] != "llmflow":
            return f"a console block runs {words[0]!r}; only llmflow is run here, write `sh` for what is not"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "COLUMNS": "100",
        }
        done = subprocess.run(  # noqa: S603  # the docs are ours
            [sys.executable, "-m", "llmflow", *words[1:]],
            capture_output=True, text=True, check=False, timeout=300, env=environment,
        )  # fmt: skip
        if not OutputChecker().check_output(
            expected.rstrip() + "\n", (done.stdout + done.stderr).rstrip() + "\n", FLAGS
        ):
            return f"$ {line}\nexpected:\n{expected}\ngot (exit code {done.returncode}):\n{done.stdout}{done.stderr}"
    return None


EVALUATORS = {"console": run_console, "markdown": write_file, "text": compare_printed}
SYBIL = Sybil(parsers=[parse])


# -- a page is a test --------------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the pages of `docs/` and the README."""
    if file_path.suffix == ".md" and (file_path == ROOT / "README.md" or ROOT / "docs" in file_path.parents):
        return PageFile.from_parent(parent, path=file_path)
    return None


class PageFile(pytest.File):
    """A page of the docs."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the page's one test."""
        yield PageItem.from_parent(self, name="blocks")


class PageItem(pytest.Item):
    """All blocks of a page."""

    def runtest(self) -> None:
        """Run the blocks in order; the first that fails ends the page."""
        if (needed := NEEDS.get(self.path.name)) is not None and not _installed(needed):
            pytest.skip(f"needs {needed}")
        document = SYBIL.parse(self.path)
        with pytest.MonkeyPatch.context() as patch, page(self.path, document, patch):
            for example in document.examples():
                example.evaluate()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any) -> Any:
        """Show a wrong output as it is, an error from the page's line on."""
        if isinstance(excinfo.value, SybilFailure):
            return f"{self.path}:{excinfo.value.example.line}\n{excinfo.value}"
        excinfo.traceback = excinfo.traceback.cut(path=self.path)
        return super().repr_failure(excinfo, *args, **kwargs)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where the test is."""
        return self.path, 0, self.path.relative_to(ROOT).as_posix()


@contextlib.contextmanager
def page(path: Path, document: Document, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give a page a module, an empty folder and a runtime of its own, and take its keys and its network away."""
    from llmflow.context import runtimes  # coverage starts before it is imported

    before = dict(os.environ)
    module = ModuleType(f"docs_{path.stem.replace('-', '_')}")
    document.namespace = module.__dict__
    patch.setitem(sys.modules, module.__name__, module)
    for name in [
        *KEYS,
        *(one for one in os.environ if one.startswith("LLMFLOW_") and one != "LLMFLOW_DISABLE_PLUGINS"),
    ]:
        patch.delenv(name, raising=False)
    patch.setattr(socket.socket, "connect", _connect_here)
    _close(runtimes.forget_made())
    with tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        try:
            yield
        finally:
            _close(runtimes.forget_made())
            linecache.cache.pop(str(path), None)
            patch.undo()
            os.environ.clear()
            os.environ.update(before)  # a page may set variables; what other tests see must not depend on that


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _close(runtime: Any) -> None:
    if runtime is not None:
        runtime.close()


_connect = socket.socket.connect


def _connect_here(self: socket.socket, address: Any, /) -> None:
    """Connect to this machine only."""
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        msg = f"a page of the docs asks for the network: {address!r}"
        raise AssertionError(msg)
    _connect(self, address)
