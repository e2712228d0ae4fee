"""What runs the pages of the docs fails when a page is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    "raises.md": '```python\nraise ValueError("the page is wrong")\n```\n',
    "prints.md": '```python\nprint("one")\n```\n\n```text title="prints"\ntwo\n```\n',
    "doctest.md": "```python\n>>> 1 + 1\n3\n```\n",
    "console.md": "```console\n$ llmflow --version\nllmflow 0.0\n```\n",
    "warns.md": "```python\nimport warnings\nwarnings.warn('old', DeprecationWarning)\n```\n",
    "indented.md": "- a list\n\n    ```python title=\"x.py\"\n    assert False\n    ```\n",
    "good.md": "```python\nx = 1\n```\n\n- a list\n\n    ```python\n    x += 1\n    ```\n\n```python\n>>> x\n2\n```\n",
}  # fmt: skip


def test_each_kind_of_wrong_block_fails_its_page(tmp_path):
    """An example that is not run, or whose output is not compared, would be worse than none."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "docs").mkdir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "docs", "-q", "--tb=short"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    failed = {
        line.split("::")[0].removeprefix("FAILED docs/")
        for line in done.stdout.splitlines()
        if line.startswith("FAILED")
    }

    assert set(PAGES) - {"good.md"} == failed, done.stdout
    assert "raises.md:2" in done.stdout
