"""Bands, options and the protocol of policies: what every policy, ours or a plugin's, is written against."""

from llmflow.policy._bands import Band
from llmflow.policy._options import Duration, check_count, check_seconds, seconds
from llmflow.policy._policy import CallLayer, Off, Options, Policy, RequestLayer, Site

__all__ = [
    "Band",
    "CallLayer",
    "Duration",
    "Off",
    "Options",
    "Policy",
    "RequestLayer",
    "Site",
    "check_count",
    "check_seconds",
    "seconds",
]
