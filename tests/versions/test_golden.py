"""Versions that are known: no Python, pydantic, machine, folder or hash seed may change them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llmflow
from llmflow.schema._fingerprint import fingerprint

ROOT = Path(llmflow.__file__).parent.parent
PROGRAM = Path(__file__).parent / "program"

# A change of these is a change of every version that users have locked: it needs a new FORMAT.
VERSIONS = {
    "documented": "561f2944684d",
    "full": "ff661d0cad52",
    "written": "091b0bd0cd98",
    "answer": "4d19743958b1",
}

# The normal form alone, without any of llmflow's dependencies.
BARE = """
import ast, hashlib, json, sys, types
package = types.ModuleType("llmflow")
package.__path__ = [sys.argv[1] + "/llmflow"]
sys.modules["llmflow"] = package
inner = types.ModuleType("llmflow.versions")
inner.__path__ = [sys.argv[1] + "/llmflow/versions"]
sys.modules["llmflow.versions"] = inner
from llmflow.versions._normal import normal_form
from llmflow.versions._scopes import reads_of
found = {}
for path in sys.argv[2:]:
    for node in ast.walk(ast.parse(open(path, encoding="utf-8").read())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            reads = reads_of(node)
            text = normal_form(node) + repr([sorted(reads.free), sorted(reads.bound), sorted(reads.imports)])
            key = f"{path.rpartition('/')[2]}:{node.lineno}:{node.col_offset}"
            found[key] = hashlib.sha256(text.encode()).hexdigest()[:12]
print(json.dumps(found))
"""


def other_pythons() -> list[str]:
    """Return interpreters of other minor versions: those of LLMFLOW_TEST_PYTHONS, else what lies beside this one."""
    named = os.environ.get("LLMFLOW_TEST_PYTHONS")
    if named is not None:
        return [one for one in named.split(os.pathsep) if one]
    beside = Path(sys.base_prefix).parent.glob("3.*/bin/python3")
    found = {_minor(str(path)): str(path) for path in sorted(beside)}
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [path for minor, path in found.items() if minor not in ("", this)]


def _minor(python: str) -> str:
    """Return the minor version of an interpreter that llmflow supports, nothing for any other."""
    code = "import sys; print('%d.%d' % sys.version_info[:2] if sys.version_info >= (3, 11) else '')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    return done.stdout.strip()


def versions_by(python: str, folder: Path, **environment: str) -> dict[str, str]:
    """Return the versions that an interpreter computes."""
    done = subprocess.run(
        [python, "-W", "ignore", str(folder / "steps.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"{python} has no {done.stderr.strip().rpartition(' ')[2]}")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_versions_are_as_they_were(seed: str) -> None:
    """In a process of its own, as `__main__`, whatever strings hash to."""
    assert versions_by(sys.executable, PROGRAM, PYTHONHASHSEED=seed) == VERSIONS


def test_another_folder_changes_nothing(tmp_path: Path) -> None:
    """The program holds a path of its own folder in a constant."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(PROGRAM, folder, ignore=shutil.ignore_patterns("__pycache__"))

    assert versions_by(sys.executable, folder) == VERSIONS


@pytest.mark.parametrize("python", other_pythons() or [""])
def test_another_python_computes_the_same(python: str) -> None:
    """With llmflow's dependencies installed beside it."""
    if not python:
        pytest.skip("no other Python is here; name some in LLMFLOW_TEST_PYTHONS")

    assert versions_by(python, PROGRAM) == VERSIONS


@pytest.mark.parametrize("python", other_pythons() or [""])
def test_another_python_has_the_same_normal_form(python: str) -> None:
    """Of hundreds of functions of llmflow itself; this needs nothing installed."""
    if not python:
        pytest.skip("no other Python is here; name some in LLMFLOW_TEST_PYTHONS")
    files = sorted(str(one) for one in [*(ROOT / "llmflow").glob("[gsv]*/*.py"), *PROGRAM.glob("*.py")])
    here, there = (
        json.loads(
            subprocess.run(
                [one, "-c", BARE, str(ROOT), *files], capture_output=True, text=True, check=True, timeout=300
            ).stdout
        )
        for one in (sys.executable, python)
    )

    assert len(here) > 500
    assert here == there


def test_a_whole_limit_is_one_number() -> None:
    """Pydantic 2.10 writes a limit of 0 on a float as 0.0, later ones as 0."""
    old, new = ({"type": "number", "minimum": limit} for limit in (0.0, 0))

    assert fingerprint(old) == fingerprint(new)
