"""The command line, `llmflow` and `python -m llmflow`; `app` is the typer application behind it."""

from llmflow.cli._app import app, main

__all__ = ["app", "main"]
