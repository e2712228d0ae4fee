"""The runtime nobody made finds its prompts beside pyproject.toml, or where that or the environment says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmflow import DefinitionError, Runtime, plan, prompt, step
from llmflow.runtime import Setting, default_runtime, read_config
from llmflow.testing import scripted

VARIANTS = """
[tool.llmflow.variants.triage]
production = 9
canary = 1
sticky = "user"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder `prompts`; the current folder is below it."""
    monkeypatch.delenv("LLMFLOW_PROMPTS", raising=False)
    for name in ("prompts", "wordings", "below"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "triage.md").write_text(f"{name}: {{{{ message }}}}")
    (tmp_path / "prompts" / "triage@canary.md").write_text("canary: {{ message }}")
    monkeypatch.chdir(tmp_path / "below")
    return tmp_path


@pytest.fixture
def said(project: Path) -> Callable[[str], Path]:
    """Write the project's pyproject.toml."""

    def write(text: str) -> Path:
        path = project / "pyproject.toml"
        path.write_text(text)
        return path

    return write


@step(scripted(default="ok"))
def triage(message: str) -> str:
    """Docstring: {{ message }}"""
    return prompt()


def asked(runtime: Runtime) -> str:
    """Return where the step's prompt is written, from the project on."""
    return "/".join(Path(plan(triage, runtime=runtime).nodes[0].wording).parts[-2:])


def test_the_folder_beside_a_table_is_found(project: Path, said: Callable[[str], Path]) -> None:
    """Its name is the one that everybody chooses."""
    path = said("[tool.llmflow]\n")

    assert Setting(str(project / "prompts"), f"beside {path}") == read_config().settings["prompts"]
    assert "prompts/triage.md" == asked(default_runtime())


@pytest.mark.parametrize("text", ["", "[tool.other]\n", "no TOML"])
def test_without_a_table_there_are_no_prompts(said: Callable[[str], Path], text: str) -> None:
    """A folder of that name is somebody else's."""
    said(text)

    assert "prompts" not in read_config().settings
    assert "" == asked(default_runtime())


def test_without_a_folder_there_are_no_prompts(project: Path, said: Callable[[str], Path]) -> None:
    """Nobody has to have one."""
    said("[tool.llmflow]\nseed = 1\n")
    (project / "prompts").rename(project / "texts")

    assert "prompts" not in read_config().settings


def test_a_runtime_made_in_code_reads_no_file(said: Callable[[str], Path]) -> None:
    """As with every other setting."""
    said("[tool.llmflow]\n")

    assert "" == asked(Runtime())


def test_the_file_names_a_folder_from_itself_on(project: Path, said: Callable[[str], Path]) -> None:
    """Wherever the program is started."""
    path = said('[tool.llmflow]\nprompts = "wordings"\n')

    assert Setting(str(project / "wordings"), str(path)) == read_config().settings["prompts"]
    assert "wordings/triage.md" == asked(default_runtime())


def test_the_environment_goes_before_the_file(
    project: Path, said: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the current folder on."""
    said('[tool.llmflow]\nprompts = "prompts"\n')
    monkeypatch.setenv("LLMFLOW_PROMPTS", "../wordings")

    assert "LLMFLOW_PROMPTS" == read_config().settings["prompts"].source
    assert "wordings/triage.md" == asked(default_runtime())


def test_a_folder_stays_where_it_was(
    project: Path, said: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that goes elsewhere has the prompts that it had."""
    said("")
    monkeypatch.setenv("LLMFLOW_PROMPTS", "../wordings")
    made = default_runtime()
    monkeypatch.chdir(project.parent)

    assert "wordings/triage.md" == asked(made)


@pytest.mark.parametrize("value", ["nowhere", ""])
def test_a_folder_that_is_not_there_is_said_with_its_place(said: Callable[[str], Path], value: str) -> None:
    """`llmflow doctor` says it too."""
    path = said(f'[tool.llmflow]\nprompts = "{value}"\n')

    with pytest.raises(
        DefinitionError, match=re.escape(f"[tool.llmflow] in {path}: prompts is {value!r}, and there is")
    ):
        read_config()


def test_a_variable_that_names_no_folder_is_said(said: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name."""
    said("")
    monkeypatch.setenv("LLMFLOW_PROMPTS", "nowhere")

    with pytest.raises(DefinitionError, match="LLMFLOW_PROMPTS: prompts is 'nowhere', and there is no folder"):
        read_config()


def test_prompts_are_a_text(said: Callable[[str], Path]) -> None:
    """A wrong type is said before the folder is looked for."""
    said("[tool.llmflow]\nprompts = 7\n")

    with pytest.raises(DefinitionError, match="prompts is 7, expected text"):
        read_config()


def test_variants_of_the_file_are_the_runtime_s(said: Callable[[str], Path]) -> None:
    """In the order they are written."""
    said(f"[tool.llmflow]\n{VARIANTS}")
    (node,) = plan(triage, runtime=default_runtime()).nodes

    assert [("production", 0.9), ("canary", 0.1)] == [(one.label, one.share) for one in node.variants]


def test_variants_that_cannot_be_are_said_with_their_place(said: Callable[[str], Path]) -> None:
    """When the file is read, not when the step is first called."""
    path = said(f"[tool.llmflow]\n{VARIANTS.replace('9', '-9')}")

    where = re.escape(f"[tool.llmflow.variants] in {path}: 'triage': the weight of 'production' is -9")
    with pytest.raises(DefinitionError, match=where):
        read_config()
