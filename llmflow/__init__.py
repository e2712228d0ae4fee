"""Typed LLM steps, composed into DAGs, run with production policies."""
