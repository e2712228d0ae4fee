"""What mypy and pyright say, in strict mode, about right and wrong use of the public surface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT, WRONG = HERE / "api.py", HERE / "errors.py"
EXPECTED = "# expect-error"

COMMANDS = {
    "mypy": ("mypy", "--strict", "--config-file=", "--no-pretty", "--hide-error-context"),
    # The files say `# pyright: strict` themselves.
    "pyright": ("pyright", "--pythonpath", sys.executable),
}
ERROR = re.compile(r"(?P<file>[\w./\\:-]+\.py):(?P<line>\d+)(?::\d+)?(?::| -) error\b")


@dataclass(frozen=True)
class Report:
    """What one checker said."""

    output: str

    def lines(self, path: Path) -> set[int]:
        """Return the lines of a file in which it found errors."""
        found = ERROR.finditer(self.output)
        return {int(one["line"]) for one in found if Path(one["file"]).name == path.name}


@pytest.fixture(scope="module", params=COMMANDS)
def report(request: pytest.FixtureRequest) -> Report:
    """Run a checker on both files at once, which takes it as long as on one."""
    command = (sys.executable, "-m", *COMMANDS[request.param], str(RIGHT), str(WRONG))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    # 0: nothing found; 1: errors found. Anything else is a crash, and its output must not pass for a clean report.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return Report(done.stdout)


def marked_lines() -> set[int]:
    """Return the lines of errors.py that say they are wrong."""
    return {number for number, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith(EXPECTED)}


def test_right_use_is_accepted(report: Report) -> None:
    """A checker accepts every line of api.py and infers what its `assert_type`s say."""
    assert set() == report.lines(RIGHT), report.output


def test_wrong_use_is_refused(report: Report) -> None:
    """A checker refuses every line of errors.py that is marked, and no other."""
    assert marked_lines() == report.lines(WRONG), report.output


def test_each_kind_of_mistake_is_there() -> None:
    """The list of mistakes does not shrink unnoticed: that nothing is refused must never pass for success."""
    assert len(marked_lines()) >= 100


def test_every_public_name_is_used() -> None:
    """Each name of `llmflow.__all__` stands in api.py or errors.py, so that the checkers see it at least once."""
    import llmflow  # noqa: PLC0415  # the other tests of this file need no import

    words = set(re.findall(r"\w+", RIGHT.read_text() + WRONG.read_text()))

    assert set() == set(llmflow.__all__) - words
