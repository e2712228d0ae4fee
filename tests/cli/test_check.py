"""What `llmflow check` says beside what is wrong: variants and prompt files that nobody asks with."""

from __future__ import annotations

PROGRAM = """
from llmflow import Model, prompt, step


async def answer(request):
    return "fine"


@step(Model("fake/one", handler=answer))
def greet(name: str) -> str:
    \"\"\"Greet {{ name }}\"\"\"
    return prompt()
"""


def test_what_nobody_asks_with_is_told(shell, home):
    """A step's name that is written wrongly in a file or a setting changes nothing, so somebody has to say so."""
    (home / "greeting.py").write_text(PROGRAM, encoding="utf-8")
    (home / "pyproject.toml").write_text("[tool.llmflow.variants.gret]\na = 1\n", encoding="utf-8")
    (home / "prompts").mkdir()
    for name in ("greett", "greet@beta"):
        (home / "prompts" / f"{name}.md").write_text("Hi {{ name }}", encoding="utf-8")
    shell("prompts", "lock", "greeting.py")
    done = shell("check")

    assert 0 == done.code
    assert [
        "note: variants are said for 'gret', which no step is called",
        "note: prompts/greet@beta.md is asked by nobody, as no variant of 'greet' has the label 'beta'",
        "note: prompts/greett.md is the prompt of no step",
    ] == [line for line in done.err.splitlines() if line.startswith("note: ")]


def test_what_is_asked_with_is_not_told(shell, home):
    """A file for each label that has a weight."""
    (home / "greeting.py").write_text(PROGRAM, encoding="utf-8")
    (home / "pyproject.toml").write_text("[tool.llmflow.variants.greet]\na = 1\nb = 1\n", encoding="utf-8")
    (home / "prompts").mkdir()
    for label in ("a", "b"):
        (home / "prompts" / f"greet@{label}.md").write_text("Hi {{ name }}", encoding="utf-8")
    shell("prompts", "lock", "greeting.py")
    done = shell("check")

    assert (0, "") == (done.code, "".join(line for line in done.err.splitlines() if "note" in line))
