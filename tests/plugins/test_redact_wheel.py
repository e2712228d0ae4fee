"""llmflow-redact as a stranger installs it: built into a wheel, unpacked elsewhere, found by its entry point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llmflow

ROOT = Path(llmflow.__file__).parent.parent
PROGRAM = """
import json

from llmflow import Model, Runtime, plan, prompt, step

async def handler(request):
    return request.messages[-1].content

@step(Model("fake/echo", handler=handler), name="echo")
def echo(message: str) -> str:
    return prompt(message)

with Runtime() as runtime:
    (info,) = [one for one in runtime.plugins if one.distribution == "llmflow-redact"]
    (layer,) = [one for one in plan(echo).nodes[0].layers if one.source.startswith("plugin:llmflow-redact")]
    print(json.dumps({
        "info": [info.name, info.version, info.status, info.hooks],
        "layer": [layer.band, layer.policy, layer.source],
        "answer": echo.sync("I am ann@example.com"),
    }))
"""


def pip(*arguments: object) -> None:
    """Run pip without a network: what is needed to build is installed, or the test fails."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    command = (sys.executable, "-m", "pip", *map(str, arguments), *quiet)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, and install it into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    # Other tests import the plugin meanwhile, and Python writes its compiled modules under names that it then changes.
    compiled = shutil.ignore_patterns("__pycache__")
    source = shutil.copytree(ROOT / "plugins" / "llmflow-redact", folder / "source", ignore=compiled)
    pip("wheel", "--no-build-isolation", "--no-index", "--wheel-dir", folder / "dist", source)
    (wheel,) = (folder / "dist").glob("llmflow_redact-*.whl")
    pip("install", "--no-index", "--target", folder / "site", wheel)
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_marker(installed: Path) -> None:
    """The modules and `py.typed` are in it, the tests are not, and nothing runs at start-up."""
    files = {path.relative_to(installed).parts[0] for path in installed.rglob("*") if path.is_file()}

    assert {"llmflow_redact", "llmflow_redact-0.1.0.dist-info"} == files
    assert (installed / "llmflow_redact" / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_is_found_and_acts(installed: Path) -> None:
    """The registry lists it with its version, a plan shows its layer, and a request is redacted."""
    path = os.pathsep.join([str(ROOT), str(installed)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("LLMFLOW_DISABLE_PLUGINS", None)
    done = subprocess.run((sys.executable, "-c", PROGRAM), env=environment, capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)

    assert ["redact", "0.1.0", "active", ["llmflow_policies", "llmflow_redactors"]] == said["info"]
    assert ["before RETRY", "plugin:llmflow-redact 0.1.0"] == [said["layer"][0], said["layer"][2]]
    assert said["layer"][1].startswith("Redact")
    assert "I am [EMAIL]" == said["answer"]
