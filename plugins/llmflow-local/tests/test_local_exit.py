"""Real programs with the real model: what they print, and how they end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    RunProgram = Callable[..., CompletedProcess[str]]

pytestmark = [pytest.mark.weights, pytest.mark.usefixtures("weights")]


def test_the_engine_is_silent(run_program: RunProgram) -> None:
    """Not a byte on stderr, whatever the schema holds, and none on stdout."""
    done = run_program(
        r"""
from decimal import Decimal
from typing import Literal
from pydantic import BaseModel, Field
class Answer(BaseModel, regex_engine="python-re"):
    day: str = Field(pattern=r"^\d{4}-\d\d$")
    code: str = Field(pattern=r"^(?!x)\S+$")
    free: str = Field(pattern="ab")
    accent: str = Field(pattern="^é+$")
    path: str = Field(pattern=r"^[\w\.\/]{1,5}$")
    price: Decimal
    choice: Literal["café", 'a "quoted" one', "日本"]
    größe: int
    huge: int = Field(le=10**19, ge=-10**30)
    long: str = Field(max_length=5000)
    many: list[bool] = Field(max_length=3000)
    any: dict[str, object]
async def main():
    schema = Answer.model_json_schema()
    for name, field in schema["properties"].items():
        one = {"type": "object", "properties": {name: field}, "required": [name]}
        await ask("Answer in JSON.", schema=one)
    await ask("Answer in JSON.", schema=schema)
asyncio.run(main())
"""
    )

    assert ("", "", 0) == (done.stderr, done.stdout, done.returncode)


IN_A_CALL = """
async def main():
    task = asyncio.create_task(ask_for_long())
    await asyncio.sleep(1)
    {}
asyncio.run(main())
"""
AFTER_A_TIMEOUT = """
try:
    asyncio.run(asyncio.wait_for(ask_for_long(), 1))
except TimeoutError:
    sys.exit(5)
"""
IN_A_DAEMON_THREAD = """
threading.Thread(target=lambda: asyncio.run(ask_for_long()), daemon=True).start()
time.sleep(1)
sys.exit(6)
"""
ON_TRIO = """
import trio
async def main():
    with trio.move_on_after(1):
        await ask_for_long()
trio.run(main)
sys.exit(7)
"""
WHILE_LOADING = """
async def main():
    task = asyncio.create_task(ask("hi"))
    await asyncio.sleep(0)
asyncio.run(main())
sys.exit(8)
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("asyncio.run(ask('hi')); sys.exit(3)", 3),
        (IN_A_CALL.format("sys.exit(4)"), 4),
        (AFTER_A_TIMEOUT, 5),
        (IN_A_DAEMON_THREAD, 6),
        (ON_TRIO, 7),
        (WHILE_LOADING, 8),
    ],
    ids=["after a call", "in a call", "after a timeout", "a call in a daemon thread", "trio", "while loading"],
)
def test_sys_exit_is_quick_and_clean(run_program: RunProgram, ending: str, status: int) -> None:
    """Uncancelled, the long call takes most of a minute."""
    done = run_program(ending, seconds=20)

    assert (status, "") == (done.returncode, done.stderr)


def test_an_uncaught_exception_ends_the_program(run_program: RunProgram) -> None:
    """With the usual traceback and nothing after it."""
    done = run_program(IN_A_CALL.format("1 / 0"), seconds=20)

    assert (1, "ZeroDivisionError: division by zero") == (done.returncode, done.stderr.splitlines()[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill with SIGINT")
@pytest.mark.parametrize("run", ["asyncio.run(ask_for_long())", "import trio; trio.run(ask_for_long)"])
def test_control_c_ends_a_call(run_program: RunProgram, run: str) -> None:
    """In the middle of an answer, with KeyboardInterrupt."""
    done = run_program(
        f"threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"try:\n    {run}\nexcept KeyboardInterrupt:\n    sys.exit(9)",
        seconds=20,
    )

    assert (9, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a forked child had better not use threads at all")
@pytest.mark.parametrize("use", ["print(asyncio.run(ask('hi')).finish_reason)", "print('unused')"])
def test_a_forked_child_has_an_engine_of_its_own(run_program: RunProgram, use: str) -> None:
    """The child asks, or does not, and ends with its own status; the parent goes on."""
    done = run_program(
        f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
asyncio.run(ask("hi"))
child = os.fork()
if child == 0:
    {use}
    sys.exit(3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
asyncio.run(ask("hi"))
sys.exit(status)
""",
        seconds=30,
    )

    assert (3, "") == (done.returncode, done.stderr)
    assert done.stdout in {"length\n", "unused\n"}
