"""Policies: the tier-1 rules of this project, and an organisation's rules from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from agents.checks import CheckError, breaks, try_out
from agents.forms import clean
from agents.policy import Policy, Rule
from sandbox.text import short
from sandbox.yaml_values import LONGEST_CONFIG, NotYaml, parse_yaml
from storage.errors import InputError

TIER1 = Path(__file__).resolve().parents[2] / "worlds" / "policies" / "tier1.yaml"
"""The rules that bind every run."""

_KEYS = ("name", "version", "refusal", "rules")


def read_policy(
    path: Path | None,
    checks: Literal["enforce", "record"] = "enforce",
    prompts: bool = True,
    notes: list[str] | None = None,
) -> Policy:
    """Read a policy: the rules of tier 1, then those of a file.

    Args:
        path: a YAML file with ``name``, ``version``, ``rules`` and optionally ``refusal``; None for
            tier 1 alone. Paths of Python files in it are relative to its folder.
        checks: whether checks act on replies; see `agents.policy.Policy`.
        prompts: whether prompts show the rules.
        notes: a line about what was read is appended to it.

    Raises:
        InputError: the file cannot be read, a rule is invalid, contradicts another one or would
            lift a rule of tier 1, or a check does not work; it names the file and the rule.
    """
    law = _read_yaml(TIER1)
    tier1 = [_rule(TIER1, {"tier": 1, **rule}) for rule in law["rules"]]
    if path is None:
        given: dict[str, Any] = {"name": "tier 1", "version": law["version"]}
        added: list[Rule] = []
    else:
        given = _checked(path, _read_yaml(path))
        added = _added(path, given.pop("rules"), tier1)
        if notes is not None:
            plural = "" if len(added) == 1 else "s"
            notes.append(f"{len(added):,} rule{plural} from {path.name}, beside those of tier 1")
    policy = _valid(
        path,
        {
            **given,
            "tier1_version": law["version"],
            "rules": (*tier1, *added),
            "checks": checks,
            "prompts": prompts,
        },
    )
    if path is not None:
        _refuse_broken_refusal(path, policy)
    return policy


def _valid(path: Path | None, values: Mapping[str, Any]) -> Policy:
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise InputError(f"policy: {path}: {_first(error)}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_CONFIG + 1)
        if len(content) > LONGEST_CONFIG:
            raise InputError(
                f"policy: {path}: found more than {LONGEST_CONFIG:,} bytes; expected a policy"
            )
        data = parse_yaml(clean(content.decode("utf-8-sig")))
    except NotYaml as error:
        line = f":{error.line}" if error.line else ""
        raise InputError(f"policy: {path}{line}: not YAML: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"policy: {path}: found a file that is not UTF-8; expected YAML") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"policy: {path}: cannot be read: {reason}") from None
    if not isinstance(data, dict):
        raise InputError(f"policy: {path}: expected a mapping with {', '.join(_KEYS)}")
    return data


def _checked(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a policy file, with a name and a version."""
    unknown = next((key for key in data if key not in _KEYS), None)
    if unknown is not None:
        raise InputError(
            f"policy: {path}: {unknown}: unknown key; expected one of {', '.join(_KEYS)}"
        )
    rules = data.get("rules")
    if not isinstance(rules, list) or not rules:
        raise InputError(f"policy: {path}: rules: found {_shown(rules)}; expected a list of rules")
    version = data.get("version", "1")
    if isinstance(version, bool) or not isinstance(version, str | int | float):
        raise InputError(f"policy: {path}: version: found {_shown(version)}; expected a text")
    return {"name": path.stem, **data, "version": str(version)}


def _added(path: Path, rules: Sequence[Any], tier1: Sequence[Rule]) -> list[Rule]:
    """Validate the rules of a file, one after the other, against each other and against tier 1."""
    added: list[Rule] = []
    for number, given in enumerate(rules, 1):
        if not isinstance(given, dict):
            found = _shown(given)
            raise InputError(f"policy: {path}: rule {number}: found {found}; expected a mapping")
        rule = _rule(path, _tier(path, given, number), number)
        place = f"policy: {path}: {rule.id}"
        _refuse_lifting(place, rule, tier1)
        _refuse_contradiction(place, rule, added)
        added.append(rule)
    for rule in added:
        _refuse_broken_examples(path, rule, (*tier1, *added))
    return added


def _refuse_broken_refusal(path: Path, policy: Policy) -> None:
    """Refuse a refusal that itself breaks a rule, since it stands in place of replies."""
    for rule in policy.rules:
        if rule.action != "record" and breaks(rule, policy.refusal):
            raise InputError(
                f"policy: {path}: refusal: found {short(policy.refusal, 60)!r}, which breaks "
                f"{rule.id}; expected a text that keeps all rules"
            )


def _tier(path: Path, given: Mapping[str, Any], number: int) -> dict[str, Any]:
    tier = given.get("tier", 2)
    if isinstance(tier, bool) or tier not in (1, 2):
        name = given.get("id") or f"rule {number}"
        hint = " (tier 3 is what the personas prefer)" if tier == 3 else ""
        raise InputError(
            f"policy: {path}: {short(str(name), 60)}: tier: found {_shown(tier)}; expected 1 (law) "
            f"or 2 (organisation){hint}"
        )
    return {**given, "tier": tier}


def _rule(path: Path, given: Mapping[str, Any], number: int = 0) -> Rule:
    name = short(str(given.get("id") or f"rule {number}"), 60)
    place = f"policy: {path}: {name}"
    values = dict(given)
    check = values.get("check")
    if isinstance(check, dict):
        values["check"] = check = dict(check)
        if isinstance(check.get("python"), str):
            check["python"] = str((path.parent / check["python"]).resolve())
    try:
        rule = Rule.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{place}: {_first(error)}") from None
    try:
        try_out(rule)
    except CheckError as error:
        raise InputError(f"{place}: {error}") from None
    return rule


def _refuse_lifting(place: str, rule: Rule, tier1: Sequence[Rule]) -> None:
    """Refuse a rule that takes the place of a rule of tier 1, or asks for what one forbids."""
    for law in tier1:
        if rule.id == law.id:
            raise InputError(
                f"{place}: found the id of a rule of tier 1, which no file replaces; expected "
                "another id"
            )
        if rule.tier == 2 and rule.about == law.about is not None and rule.kind != law.kind:
            raise InputError(
                f"{place}: found a {rule.kind} about {rule.about}, which would lift the "
                f"{law.kind} {law.id} of tier 1; expected none"
            )


def _refuse_contradiction(place: str, rule: Rule, others: Sequence[Rule]) -> None:
    for other in others:
        if rule.id == other.id:
            raise InputError(f"{place}: found the id twice; expected an id of its own")
        if rule.about == other.about is not None and rule.kind != other.kind:
            raise InputError(
                f"{place}: found a {rule.kind} about {rule.about}, which contradicts the "
                f"{other.kind} {other.id}; expected one of them"
            )
        for name, choice in rule.settles.items():
            if other.settles.get(name, choice) != choice:
                raise InputError(
                    f"{place}: settles: found {name}: {choice}, which contradicts {other.id} "
                    f"({name}: {other.settles[name]}); expected one of them"
                )


def _refuse_broken_examples(path: Path, rule: Rule, rules: Sequence[Rule]) -> None:
    """Refuse a rule that is kept only by what another rule forbids."""
    for other in rules:
        if other.id == rule.id or other.check is None or other.check.regex is None:
            continue
        for example in rule.keeps:
            if breaks(other, example):
                raise InputError(
                    f"policy: {path}: {rule.id}: keeps: found {example[:60]!r}, which breaks "
                    f"{other.id}; expected rules that can be kept together"
                )


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key; expected one of {', '.join(Rule.model_fields)}"
    if first["type"] == "missing":
        return f"{key}: missing; expected a value"
    found = f"found {_shown(first['input'])}; " if key else ""
    return f"{key + ': ' if key else ''}{found}expected: {message}"


def _shown(value: Any) -> str:
    return short(repr(value), 60)
