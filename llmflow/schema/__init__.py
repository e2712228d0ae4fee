"""What a step may return: the validated output schema, the repair of answers that nearly fit, and type hints."""

from llmflow.schema._annotations import display, unwrap
from llmflow.schema._codec import Codec, codec_of, why_no_codec
from llmflow.schema._hints import local_namespace, resolve_hints
from llmflow.schema._output import OutputSchema
from llmflow.schema._partial import Partial

__all__ = [
    "Codec",
    "OutputSchema",
    "Partial",
    "codec_of",
    "display",
    "local_namespace",
    "resolve_hints",
    "unwrap",
    "why_no_codec",
]
