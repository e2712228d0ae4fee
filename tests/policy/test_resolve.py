"""Which policies act: the nearest declaration of a setting, every declaration of a limit."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llmflow import Band, Bulkhead, Deadline, DefinitionError, Repair, Retry, Timeout
from llmflow.policy import Declared, check_policies, resolve


def level(source, *policies):
    return [Declared(one, source) for one in policies]


def acting(*levels, defaults=()):
    return [(one.policy, one.source) for one in resolve(levels, [Declared(one, "default") for one in defaults])]


def test_the_nearest_setting_wins():
    """step > flow > runtime > plugin: layers never multiply."""
    step, flow, runtime = (
        level("step:a", Retry(1)),
        level("flow:f", Retry(2), Timeout(5)),
        level("runtime", Retry(3), Timeout(6)),
    )

    assert [(Retry(1), "step:a"), (Timeout(5), "flow:f")] == acting(step, flow, runtime)


def test_all_limits_apply():
    """Every deadline on the path holds."""
    acts = acting(level("step:a", Deadline(5)), level("flow:f", Deadline(7)), level("runtime", Deadline(9)))

    assert [Deadline(5), Deadline(7), Deadline(9)] == [policy for policy, _ in acts]


def test_off_takes_a_setting_out_for_what_is_nearer_than_it():
    """An off on the step hides the flow's and the default; one on the flow does not hide the step's."""
    assert [] == acting(level("step:a", Retry.off), level("flow:f", Retry(5)), defaults=[Retry(3)])
    assert [(Retry(5), "step:a")] == acting(level("step:a", Retry(5)), level("flow:f", Retry.off), defaults=[Retry(3)])


def test_off_takes_limits_of_farther_levels_out():
    """`Deadline.off` on a step leaves no deadline of the runtime."""
    assert [] == acting(level("step:a", Deadline.off), level("runtime", Deadline(9)), defaults=[Deadline(300)])


def test_defaults_are_filled_in_one_by_one():
    """Whoever says Retry still has the default Timeout."""
    acts = acting(level("step:a", Retry(5)), defaults=[Retry(3), Timeout(60), Repair(2)])

    assert [(Repair(2), "default"), (Retry(5), "step:a"), (Timeout(60), "default")] == acts


def test_a_default_limit_gives_way_to_any_declaration():
    """`Deadline(400)` on a step is not cut by the default of 300."""
    assert [(Deadline(400), "step:a")] == acting(level("step:a", Deadline(400)), defaults=[Deadline(300)])


def test_a_limit_of_one_name_acts_once():
    """The same pot on two levels is one pot."""
    shared = Bulkhead(3, name="gpu")

    assert [(shared, "step:a")] == acting(level("step:a", shared), level("runtime", Bulkhead(3, name="gpu")))


def test_limits_without_a_name_act_where_they_are_declared():
    """Two levels, two pots."""
    assert 2 == len(acting(level("step:a", Bulkhead(3)), level("runtime", Bulkhead(3))))


class Audit:
    """A policy of somebody else, with nothing but the protocol."""

    band: ClassVar[Band] = Band.before(Band.RETRY)

    def wrap(self, proceed, site):
        return proceed


def test_the_order_is_by_band_and_then_by_distribution():
    """Ties of two plugins are ordered by their names, whatever order they were found in."""
    two = [Declared(Audit(), "plugin:b", "b"), Declared(type("Other", (Audit,), {})(), "plugin:a", "a")]

    assert ["a", "b", ""] == [one.plugin for one in resolve([two, level("step:s", Retry())])]


@pytest.mark.parametrize(
    "wrong", [Retry, "retry", 3, object(), None], ids=["class", "text", "number", "object", "None"]
)
def test_what_is_no_policy_is_refused(wrong):
    """Naming the owner; a class is told how to be written."""
    with pytest.raises(DefinitionError, match="step 'triage'"):
        check_policies([wrong], "step 'triage'")


def test_a_setting_twice_is_refused():
    """Two retries on one step: one of them is a mistake."""
    with pytest.raises(DefinitionError, match="Retry twice"):
        check_policies([Retry(2), Retry(3)], "step 'triage'")
    with pytest.raises(DefinitionError, match="Retry twice"):
        check_policies([Retry(2), Retry.off], "step 'triage'")


def test_a_limit_may_be_given_twice():
    """A pool of its own and one that is shared."""
    both = (Bulkhead(2), Bulkhead(10, name="gpu"))

    assert both == check_policies(both, "step 'triage'")


def test_a_policy_needs_nothing_but_a_band_and_wrap():
    """Third parties inherit from nothing."""
    audit = Audit()

    assert (audit,) == check_policies([audit], "step 'triage'")
