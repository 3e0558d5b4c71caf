"""The stored policy of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agents.forms import Form
from agents.policy import Policy
from storage.reader import Reader


def policy_of(reader: Reader) -> Policy | None:
    """Read the policy of a run from its database; None for a run that has none."""
    stored = reader.run.policy
    return None if stored is None else Policy.model_validate_json(stored)


def all_forms(forms: Iterable[Form[Any]], policy: Policy | None) -> list[Form[Any]]:
    """Return prompt templates with the rules of a policy, and those of its judges."""
    if policy is None:
        return list(forms)
    return [*map(policy.applied, forms), *policy.judge_forms()]
