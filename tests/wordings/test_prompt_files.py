"""Prompt files are read directly below one folder, and nowhere else (promise S4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import DefinitionError, Wording
from llmflow.wordings import PromptFiles

Write = Callable[[str, str], Path]


def test_a_file_is_found_by_its_step(folder: Path, write: Write) -> None:
    """It is shown as it would be opened from here."""
    write("triage.md", "Hello")

    assert Wording("Hello", origin="prompts/triage.md") == PromptFiles(folder).llmflow_prompt("triage", None)


def test_a_label_stands_behind_the_step(folder: Path, write: Write) -> None:
    """The file without one is another."""
    write("triage.md", "Hello")
    write("triage@canary.md", "Hi")

    found = PromptFiles("prompts").llmflow_prompt("triage", "canary")

    assert found is not None
    assert ("Hi", "prompts/triage@canary.md") == (found.template, found.origin)


def test_a_file_elsewhere_is_shown_with_its_whole_path(
    folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path from a folder that nobody is in would name another file."""
    path = write("triage.md", "Hello")
    files = PromptFiles("prompts")
    monkeypatch.chdir(folder)
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")

    found = files.llmflow_prompt("triage", None)

    assert found is not None
    assert path.resolve().as_posix() == found.origin


def test_without_a_file_there_is_none(folder: Path) -> None:
    """The step's own text is asked then."""
    assert PromptFiles(folder).llmflow_prompt("triage", None) is None


@pytest.mark.parametrize("name", ["simple", "with space", "dotted.name", "under_score", "résumé", "what now?"])
def test_ordinary_names_have_files(folder: Path, write: Write, name: str) -> None:
    """Whatever is one part of a path and no more."""
    write(f"{name}.md", "Hello")

    assert PromptFiles(folder).llmflow_prompt(name, None) is not None


ODD = [
    "../secret",
    "..",
    ".hidden",
    "/etc/passwd",
    "below/secret",
    "..\\secret",
    "C:secret",
    "file:stream",
    "secret\0",
    "sec\nret",
    "sec\x1bret",
    "sec\u202eret",
    "triage@canary",
    " secret",
    "secret ",
    "",
]


@pytest.mark.parametrize("name", [one for one in ODD if one])
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """Nothing is looked for; the step is named."""
    (tmp_path / "secret.md").write_text("secret")
    (folder / "below").mkdir()
    (folder / "below" / "secret.md").write_text("secret")

    with pytest.raises(DefinitionError, match="no prompt file can be called after step"):
        PromptFiles(folder).llmflow_prompt(name, None)


@pytest.mark.parametrize("label", [one for one in ODD if one])
def test_a_label_that_leads_elsewhere_is_refused(folder: Path, label: str) -> None:
    """As for the name."""
    with pytest.raises(DefinitionError, match="no prompt file can be called after the variant"):
        PromptFiles(folder).llmflow_prompt("triage", label)


@given(name=st.text(min_size=1, max_size=12) | st.sampled_from(ODD), label=st.none() | st.text(max_size=8))
def test_no_name_makes_a_path_of_more_than_one_part(name: str, label: str | None) -> None:
    """Whatever is not refused is a file directly below the folder."""
    files = PromptFiles(Path(__file__).parent)
    try:
        file = files.file(name, label)
    except DefinitionError:
        return

    assert (Path("root") / file).parts == ("root", file)
    assert not file.startswith(".")


def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path) -> None:
    """A file that somebody else may write is no prompt of this program."""
    (tmp_path / "secret.md").write_text("secret")
    (folder / "triage.md").symlink_to(tmp_path / "secret.md")

    with pytest.raises(DefinitionError, match=r"prompts/triage\.md is a link that leads out of the folder of prompts"):
        PromptFiles(folder).llmflow_prompt("triage", None)


def test_a_link_out_of_a_folder_whose_name_begins_alike_is_refused(folder: Path, tmp_path: Path) -> None:
    """Paths are compared part by part."""
    (tmp_path / "prompts-of-others").mkdir()
    (tmp_path / "prompts-of-others" / "x.md").write_text("secret")
    (folder / "triage.md").symlink_to(tmp_path / "prompts-of-others" / "x.md")

    with pytest.raises(DefinitionError, match="leads out"):
        PromptFiles(folder).llmflow_prompt("triage", None)


def test_a_link_to_another_prompt_is_followed(folder: Path, write: Write) -> None:
    """One file may serve two steps."""
    write("triage.md", "Hello")
    (folder / "sort.md").symlink_to("triage.md")

    found = PromptFiles(folder).llmflow_prompt("sort", None)

    assert found is not None
    assert ("Hello", "prompts/sort.md") == (found.template, found.origin)


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path, write: Write) -> None:
    """Whoever configured it means where it leads."""
    write("triage.md", "Hello")
    (tmp_path / "linked").symlink_to(folder)

    assert PromptFiles(tmp_path / "linked").llmflow_prompt("triage", None) is not None


def test_a_loop_of_links_is_no_file(folder: Path) -> None:
    """It is said, and not followed for ever."""
    (folder / "triage.md").symlink_to("sort.md")
    (folder / "sort.md").symlink_to("triage.md")

    with pytest.raises(DefinitionError, match=r"cannot read prompts/triage\.md"):
        PromptFiles(folder).llmflow_prompt("triage", None)


def test_a_link_to_nothing_is_no_file(folder: Path) -> None:
    """The step's own text would be asked in silence."""
    (folder / "triage.md").symlink_to("gone.md")

    with pytest.raises(DefinitionError, match=r"cannot read prompts/triage\.md: No such file"):
        PromptFiles(folder).llmflow_prompt("triage", None)


def test_a_folder_is_no_file(folder: Path) -> None:
    """Nor are pipes and devices, which would be read for ever."""
    (folder / "triage.md").mkdir()
    os.mkfifo(folder / "sort.md")

    for name in ("triage", "sort"):
        with pytest.raises(DefinitionError, match=rf"prompts/{name}\.md is no file"):
            PromptFiles(folder).llmflow_prompt(name, None)


def test_a_name_is_compared_as_it_is_written(folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no case would give `Triage.md` on one machine and nothing on the next."""
    path = write("triage.md", "Hello")
    real = Path.resolve
    monkeypatch.setattr(
        Path, "resolve", lambda self, **options: path if self.name == "Triage.md" else real(self, **options)
    )

    assert PromptFiles(folder).llmflow_prompt("Triage", None) is None


def test_a_file_that_cannot_be_read_is_said(folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to the docstring would ask something else."""
    write("triage.md", "Hello")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)

    with pytest.raises(DefinitionError, match=r"cannot read prompts/triage\.md: Permission denied"):
        PromptFiles(folder).llmflow_prompt("triage", None)


@pytest.mark.parametrize("root", ["nowhere", "", "a\0b", 7])
def test_a_folder_that_is_not_there_is_refused(folder: Path, root: Any) -> None:
    """When the runtime is made, not at the first call."""
    with pytest.raises(DefinitionError, match="there is no folder of prompts"):
        PromptFiles(root)


def test_a_file_is_no_folder(folder: Path, write: Write) -> None:
    """Somebody named the prompt instead."""
    with pytest.raises(DefinitionError, match="there is no folder of prompts"):
        PromptFiles(write("triage.md", "Hello"))
