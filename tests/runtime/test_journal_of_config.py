"""Where runs are recorded, as `pyproject.toml` and the environment say it."""

from __future__ import annotations

import pytest

from llmflow import DefinitionError
from llmflow.runtime import default_runtime, read_config


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JOURNAL", "STORE", "STORE_CONTENT", "ON_CHANGE"):
        monkeypatch.delenv(f"LLMFLOW_{name}", raising=False)


def test_the_file_says_where_and_what(tmp_path):
    """The journal may live elsewhere than the cache, and without content."""
    lines = 'journal = "sqlite:///runs.db"\nstore_content = false\non_change = "use-recorded"'
    (tmp_path / "pyproject.toml").write_text(f"[tool.llmflow]\n{lines}\n", encoding="utf-8")
    runtime = default_runtime()

    assert tmp_path / "runs.db" == runtime.journal.path
    assert (False, "use-recorded") == (runtime.recorder.keeps_content, runtime.recorder.on_change)


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    """As for every other setting."""
    (tmp_path / "pyproject.toml").write_text('[tool.llmflow]\njournal = "sqlite:///runs.db"\n', encoding="utf-8")
    monkeypatch.setenv("LLMFLOW_JOURNAL", "sqlite:///other.db")
    monkeypatch.setenv("LLMFLOW_STORE_CONTENT", "off")
    runtime = default_runtime()

    assert tmp_path / "other.db" == runtime.journal.path
    assert not runtime.recorder.keeps_content


def test_a_store_holds_the_journal_unless_said_otherwise(tmp_path, monkeypatch):
    """Also before what a command would choose."""
    monkeypatch.setenv("LLMFLOW_STORE", "sqlite:///all.db")
    runtime = default_runtime(cache="sqlite:///command.db", journal="sqlite:///command.db")

    assert tmp_path / "all.db" == runtime.journal.path
    assert tmp_path / "all.db" == runtime.cache_store.path


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LLMFLOW_STORE_CONTENT", "perhaps", "LLMFLOW_STORE_CONTENT is 'perhaps', expected true or false"),
        ("LLMFLOW_ON_CHANGE", "never", r"Runtime\(on_change='never'\): expected one of 'refuse', "),
    ],
)
def test_a_wrong_setting_is_told(monkeypatch, variable, value, message):
    """Naming the variable, or the option."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(DefinitionError, match=message):
        default_runtime()


def test_a_switch_in_the_file_is_no_number(tmp_path):
    """1 is not true."""
    (tmp_path / "pyproject.toml").write_text("[tool.llmflow]\nstore_content = 1\n", encoding="utf-8")
    with pytest.raises(DefinitionError, match="store_content is 1, expected true or false"):
        read_config()
