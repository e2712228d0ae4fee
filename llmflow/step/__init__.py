"""Steps, and what they share with tasks and flows."""

from llmflow.step._arguments import input_hash, inputs_as_json
from llmflow.step._attempts import chain_requests
from llmflow.step._bound import BoundSite, BoundStep, shortest_deadline
from llmflow.step._bound_variants import BoundVariants, steps_of
from llmflow.step._call import Call, Deferred
from llmflow.step._map import MapCall, Outcomes, raise_first
from llmflow.step._recall import OTHER_INPUTS, Recall, other_prompt, recorded_result
from llmflow.step._record import annotate, total_cost, total_usage
from llmflow.step._recorder import Recorder, Shape
from llmflow.step._recording import OnChange, Recording
from llmflow.step._run_ids import inner_run
from llmflow.step._signature import Signature, origin, read_signature
from llmflow.step._step import Step, StepDecorator, step
from llmflow.step._stream import Final, Restarted, Snapshot, Stream
from llmflow.step._sync import close_portals, run_blocking
from llmflow.step._unit import Bound, Unary, Unit

__all__ = [
    "OTHER_INPUTS",
    "Bound",
    "BoundSite",
    "BoundStep",
    "BoundVariants",
    "Call",
    "Deferred",
    "Final",
    "MapCall",
    "OnChange",
    "Outcomes",
    "Recall",
    "Recorder",
    "Recording",
    "Restarted",
    "Shape",
    "Signature",
    "Snapshot",
    "Step",
    "StepDecorator",
    "Stream",
    "Unary",
    "Unit",
    "annotate",
    "chain_requests",
    "close_portals",
    "inner_run",
    "input_hash",
    "inputs_as_json",
    "origin",
    "other_prompt",
    "raise_first",
    "read_signature",
    "recorded_result",
    "run_blocking",
    "shortest_deadline",
    "step",
    "steps_of",
    "total_cost",
    "total_usage",
]
