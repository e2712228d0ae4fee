"""The built-in providers: OpenAI and everything that speaks its API, Anthropic, Gemini.

Each is loaded, with its SDK, when the first model of it is bound.
"""

from llmflow.providers._params import ParamDroppedWarning

__all__ = ["ParamDroppedWarning"]
