"""For tests of programs that use llmflow: scripted models, a provider on loopback with real faults, virtual time."""

from llmflow.testing import _http_faults as faults
from llmflow.testing._http_exchange import RecordedRequest, Response
from llmflow.testing._http_responses import answer, anthropic_answer, gemini_answer, json_reply, openai_answer, status
from llmflow.testing._http_streams import streamed
from llmflow.testing._loopback import LoopbackServer
from llmflow.testing._scripted import ScriptedModel, ScriptExhausted, after, hang, pieces, scripted
from llmflow.testing._time import VirtualLoop, virtual_backend

__all__ = [
    "LoopbackServer",
    "RecordedRequest",
    "Response",
    "ScriptExhausted",
    "ScriptedModel",
    "VirtualLoop",
    "after",
    "answer",
    "anthropic_answer",
    "faults",
    "gemini_answer",
    "hang",
    "json_reply",
    "openai_answer",
    "pieces",
    "scripted",
    "status",
    "streamed",
    "virtual_backend",
]
