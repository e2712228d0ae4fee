"""What `module:name` and `path.py:name` may be, and what is said about what they may not."""

import pytest


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.py:triage", "there is no file 'nowhere.py'"),
        ("progam.py:triage", "Did you mean program.py?"),
        ("no/folder/x.py:triage", "There is no folder 'no/folder'"),
        ("nowhere:triage", "there is no module 'nowhere'"),
        ("nowhere.inside:triage", "there is no module 'nowhere'"),
        ("program.py:nothing", "program.py has no 'nothing'"),
        ("program.py:triaje", "Did you mean program.py:triage?"),
        ("program.py:helper", "program.py:helper is a function, not a step, task or flow"),
        ("program.py:Ticket", "program.py:Ticket is a class"),
        ("program.py", "does not say what to take from the module"),
        ("program.py", "support (flow), careful (step)"),
        (":triage", "does not say what to take from the module"),
        ("program.py:", "does not say what to take from the module"),
    ],
)
def test_a_wrong_target_is_named(llmflow, target, said):
    """Exit code 2, what is wrong, and what there is instead."""
    ran = llmflow("plan", target)

    assert (2, "") == (ran.code, ran.out)
    assert said in ran.err


def test_a_module_that_raises_shows_its_own_frames(llmflow, home):
    """An import error shows where in the user's files it happened, and not how llmflow got there."""
    (home / "inner.py").write_text("def go():\n    return {}['missing']\n")
    (home / "outer.py").write_text("import inner\n\ninner.go()\n")
    ran = llmflow("run", "outer.py:x")

    assert 2 == ran.code
    assert "outer.py cannot be imported: KeyError: 'missing'" in ran.err
    assert 'inner.py", line 2' in ran.err
    assert "importlib" not in ran.err
    assert "llmflow/cli" not in ran.err


def test_a_missing_import_is_the_users(llmflow, home):
    """A module that the user's file needs is not mistaken for the target."""
    (home / "needy.py").write_text("import not_installed_anywhere\n")
    ran = llmflow("run", "needy:x")

    assert 2 == ran.code
    assert "needy cannot be imported: ModuleNotFoundError: No module named 'not_installed_anywhere'" in ran.err


def test_a_syntax_error_shows_the_line(llmflow, home):
    """The line with the error is shown."""
    (home / "typo.py").write_text("def go(:\n    pass\n")
    ran = llmflow("run", "typo.py:go")

    assert 2 == ran.code
    assert "SyntaxError" in ran.err
    assert "def go(:" in ran.err


def test_a_definition_error_names_file_and_line(llmflow, home):
    """What llmflow itself refuses while importing comes with the place."""
    (home / "wrong.py").write_text(
        "from llmflow import prompt, step\n\n\n@step('gpt')\ndef go(x: str) -> str:\n    return prompt(x)\n"
    )
    ran = llmflow("run", "wrong.py:go")

    assert 2 == ran.code
    assert "wrong.py:4: model 'gpt' does not name its provider" in ran.err


def test_a_module_that_exits_is_told(llmflow, home):
    """A script without a main guard says so."""
    (home / "script.py").write_text("import sys\nsys.exit(7)\n")

    assert 'if __name__ == "__main__"' in llmflow("run", "script.py:go").err


def test_relative_imports_work_from_a_path(llmflow, home):
    """A file of a package is imported as part of it."""
    package = home / "shop" / "inside"
    package.mkdir(parents=True)
    (home / "shop" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "numbers_of_shop.py").write_text("ONE = 1\n")
    (package / "app.py").write_text(
        "from llmflow import task\nfrom .numbers_of_shop import ONE\n@task\ndef one() -> int:\n    return ONE\n"
    )

    assert "1\n" == llmflow("run", "shop/inside/app.py:one", "-q").out
    assert "1\n" == llmflow("run", "shop.inside.app:one", "-q").out


def test_a_file_may_be_called_like_a_library(llmflow, home):
    """A file called email.py neither gets nor becomes the module of that name."""
    (home / "email.py").write_text("from llmflow import task\n@task\ndef one() -> int:\n    return 1\n")
    import email

    assert "1\n" == llmflow("run", "email.py:one", "-q").out
    assert hasattr(email, "message_from_bytes")
