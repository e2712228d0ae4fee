"""Bands, options and the protocol of policies: what every policy, ours or a plugin's, is written against."""

from llmflow.policy._bands import Band
from llmflow.policy._fold import fold
from llmflow.policy._options import Duration, check_count, check_key, check_name, check_seconds, seconds
from llmflow.policy._policy import CallLayer, Off, Options, Policy, RequestLayer, Site, State
from llmflow.policy._resolve import Declared, check_policies, kind_of, resolve
from llmflow.policy._worst import Bounds, SaysItsWorst

__all__ = [
    "Band",
    "Bounds",
    "CallLayer",
    "Declared",
    "Duration",
    "Off",
    "Options",
    "Policy",
    "RequestLayer",
    "SaysItsWorst",
    "Site",
    "State",
    "check_count",
    "check_key",
    "check_name",
    "check_policies",
    "check_seconds",
    "fold",
    "kind_of",
    "resolve",
    "seconds",
]
