"""Playing recorded runs again: with another prompt or model beside what they gave, or as they were.

An answer whose prompt, model and inputs are as they were stands, and costs nothing.
"""

from llmflow.replay._answers import Prepared, Replayable, play, prepare, reading_of, replay_step
from llmflow.replay._compare import WHOLE, FieldState, compare, flatten
from llmflow.replay._find import inheriting, step_in
from llmflow.replay._judge import Judge, Judgement, Verdict, check_judge
from llmflow.replay._pair import Pair
from llmflow.replay._recorded import Divergence
from llmflow.replay._report import Agreement, Figures, Report
from llmflow.replay._run import RunReplay, replay_run, restored_inputs
from llmflow.replay._setting import replaying
from llmflow.replay._verdict import share, verdict

__all__ = [
    "WHOLE",
    "Agreement",
    "Divergence",
    "FieldState",
    "Figures",
    "Judge",
    "Judgement",
    "Pair",
    "Prepared",
    "Replayable",
    "Report",
    "RunReplay",
    "Verdict",
    "check_judge",
    "compare",
    "flatten",
    "inheriting",
    "play",
    "prepare",
    "reading_of",
    "replay_run",
    "replay_step",
    "replaying",
    "restored_inputs",
    "share",
    "step_in",
    "verdict",
]
