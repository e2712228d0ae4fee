"""The docs say what is there: a page for each policy, every public name in the reference, only blocks that are run."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

import llmflow
import llmflow.testing
from llmflow import policies
from llmflow.cli import _failures, app
from llmflow.runtime import _config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
FENCE = re.compile(r"^[ >]*```(?!`)(?P<info>[^\n`]*)\n(?P<body>.*?)^[ >]*```[ ]*$", re.MULTILINE | re.DOTALL)
INFOS = re.compile(
    r'python( title="[\w.]+\.py")?|console|markdown title="[\w./@-]+\.md"|text( title="prints")?|sh|toml|json|yaml'
)
TEMPLATE = ["What it is for", "Usage", "Defaults", "Where it stands", "What it records", "What not to do"]


def fences(page: Path) -> list[re.Match[str]]:
    return list(FENCE.finditer(page.read_text(encoding="utf-8")))


def test_pages_are_found():
    """The tests below look at something."""
    assert 25 < len(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_is_of_a_kind_that_is_run_or_cannot_be(page):
    """A block of an unknown kind would look like an example and never be executed."""
    assert [] == [fence["info"] for fence in fences(page) if not INFOS.fullmatch(fence["info"].strip())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_that_are_not_run_are_valid(page):
    """TOML that a reader copies can be parsed."""
    for fence in fences(page):
        if fence["info"].strip() == "toml":
            tomllib.loads(fence["body"].replace("\n    ", "\n").lstrip())


def page_of(policy):
    """Return the page of a policy: `rate-limit.md` for `RateLimit`."""
    return DOCS / "reference" / "policies" / f"{re.sub(r'(?<!^)(?=[A-Z])', '-', policy).lower()}.md"


@pytest.mark.parametrize("name", policies.__all__)
def test_each_policy_has_a_page_in_the_template(name):
    """One page per policy, all with the same headings in the same order."""
    text = page_of(name).read_text(encoding="utf-8")

    assert TEMPLATE == re.findall(r"^## (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", policies.__all__)
def test_the_table_of_defaults_is_that_of_the_code(name):
    """Each option is in the table, with its default."""
    text = page_of(name).read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `\*?(\w+)` \| (?:`([^`]*)`|–) \|", text, re.MULTILINE))
    options = {
        one.name: "" if name == "Fallback" and one.name == "models" else repr(one.default)
        for one in dataclasses.fields(getattr(llmflow, name))
    }

    assert options == rows


@pytest.mark.parametrize("module", [llmflow, llmflow.testing], ids=lambda module: module.__name__)
def test_each_public_name_is_in_the_reference(module):
    """Every name of `__all__` has an entry of its own."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").rglob("*.md"))
    listed = set(re.findall(rf"^::: {re.escape(module.__name__)}(?:\.\w+)?\.(\w+)$", text, re.MULTILINE))

    assert set() == set(module.__all__) - listed


def test_each_page_is_in_the_navigation():
    """`mkdocs build --strict` says so too; this says it without building."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    assert [] == [
        page.as_posix() for page in (one.relative_to(DOCS) for one in DOCS.rglob("*.md")) if page.as_posix() not in nav
    ]


def test_each_setting_is_documented():
    """Every setting of `[tool.llmflow]`, and the variable of those that have one."""
    text = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    variables = [f"LLMFLOW_{name.upper()}" for name in _config._FROM_ENVIRONMENT]

    assert [] == [name for name in (*_config._KNOWN, *variables) if f"`{name}`" not in text]


def test_nothing_needs_a_network_to_be_read():
    """No font, script or picture is loaded from elsewhere."""
    loaded = re.compile(r"!\[[^]]*\]\(https?:|<script|<link|<img[^>]+https?:")

    assert [] == [page.name for page in PAGES if loaded.search(page.read_text(encoding="utf-8"))]
    assert "font: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_command_line_page_has_every_command_and_option():
    """One section for each command, with a row for each of its options, and nothing that is not there."""
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    documented = {
        section.split("\n", 1)[0]: re.findall(r"^\| `(--[\w-]+)`(?:, `(-\w)`)? \|", section, re.MULTILINE)
        for section in re.split(r"^## llmflow ", text, flags=re.MULTILINE)[1:]
    }
    there = {
        name: [
            (one.opts[0], one.opts[1] if len(one.opts) > 1 else "")
            for one in command.params
            if one.opts[0].startswith("--")
        ]
        for name, command in get_command(app).commands.items()
    }

    assert there == documented


def test_the_exit_codes_are_those_of_the_code():
    """The table of exit codes is complete."""
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    codes = {0} | {value for name, value in vars(_failures).items() if name.startswith("EXIT_")}

    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
