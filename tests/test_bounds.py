"""What becomes of replies that break a rule, in every world: recorded, asked again, refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import scripted_backends, small

from agents.shapes import Choice
from sandbox.backends.base import Call, Reply
from sandbox.backends.scripted import ScriptedBackend
from sandbox.config import PRESETS, load_config
from sandbox.engine.run import create, prepare, resume
from sandbox.study.fork import fork
from sandbox.study.verify import verify
from storage.database import Address
from storage.errors import InputError

REFUSAL = "Nothing about that here."
TEA = {
    "id": "org.tea",
    "tier": 2,
    "kind": "restriction",
    "text": "Do not mention tea.",
    "source": "house rules",
    "check": {"regex": r"\btea\b"},
}


class TeaDrinker(ScriptedBackend):
    """Speaks of tea in the first attempt at a draft, and in every reason and revision."""

    always = ("revise", "rate")

    async def answer(self, call: Call) -> Reply:
        """Answer one call."""
        if isinstance(call.shape, Choice):
            verdict = "yes" if " tea." in call.user.split("</text>")[0] else "no"
            return Reply(f"Verdict: {verdict}\nReason: It is about a drink.")
        reply = await super().answer(call)
        speaks = call.name.form in self.always or call.name.attempt == 0
        if call.name.form.startswith("observe") or not speaks:
            return reply
        return reply._replace(text=f"{reply.text} And have some tea.")


def played(tmp_path: Path, rule: dict[str, Any], *settings: str, name: str = "run") -> Address:
    path = tmp_path / "org.yaml"
    path.write_text(yaml.safe_dump({"refusal": REFUSAL, "rules": [rule]}), encoding="utf-8")
    given = ("world.size=3", "rounds=1", f"name={name}", f"policy.file={path}", *settings)
    config = small(*given)
    address = create(prepare(config), str(tmp_path / f"{name}.db"))
    backends = scripted_backends(config, TeaDrinker)
    assert resume(address, backends=backends).status == "done"
    return address


def rows(address: Address, query: str) -> list[Any]:
    with sqlite3.connect(str(address.url.database)) as connection:
        return connection.execute(query).fetchall()


def shown_in_prompts(address: Address) -> int:
    """How many prompts show a text that mentions the drink."""
    query = (
        "SELECT count(*) FROM calls c JOIN texts t ON t.text LIKE '%have some tea%' "
        "AND ',' || c.prompt || ',' LIKE '%,' || (t.id & 4294967295) || ',%'"
    )
    return int(rows(address, query)[0][0])


BREACHES = (
    "SELECT f.name, c.attempt, b.rule, b.tier, b.action, count(*) FROM breaches b "
    "JOIN calls c ON c.id = b.call_id JOIN forms f ON f.id = c.form_id "
    "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2"
)


def test_a_reply_is_asked_for_again_and_refused_when_it_stays(tmp_path: Path) -> None:
    address = played(tmp_path, {**TEA, "action": "ask_again"})
    found = rows(address, BREACHES)
    assert ("draft", 0, "org.tea", 2, "asked_again", 9) in found
    assert ("revise", 0, "org.tea", 2, "asked_again", 9) in found
    assert ("revise", 1, "org.tea", 2, "refused", 9) in found
    texts = rows(address, "SELECT stage, text, rules, refused FROM stage_texts s "
                          "JOIN texts t ON t.id = s.text_id")  # fmt: skip
    for stage, text, rules, refused in texts:
        assert not text.endswith(" tea.")
        if stage == "revision":
            assert (text, rules, refused) == (REFUSAL, "org.tea", 1)
        else:
            assert (rules, refused) == (None, 0)
    assert verify(address).agrees


def test_a_rating_keeps_its_number_and_loses_its_reason(tmp_path: Path) -> None:
    address = played(tmp_path, TEA)
    ratings = rows(address, "SELECT rating, reason_id FROM ratings")
    assert ratings
    assert all(rating is not None and reason is None for rating, reason in ratings)
    assert shown_in_prompts(address) == 0


def test_what_is_recorded_passes_and_is_marked(tmp_path: Path) -> None:
    address = played(tmp_path, TEA, "policy.checks=record")
    assert {row[4] for row in rows(address, BREACHES)} == {"recorded"}
    texts = rows(address, "SELECT text, rules, refused FROM stage_texts s "
                          "JOIN texts t ON t.id = s.text_id")  # fmt: skip
    assert all(text.endswith("tea.") and rule == "org.tea" and not refused
               for text, rule, refused in texts)  # fmt: skip
    assert shown_in_prompts(address) > 0
    assert verify(address).agrees


def test_a_judge_is_a_call_of_its_own(tmp_path: Path) -> None:
    rule = {**TEA, "check": {"judge": "Does the text mention tea?"}, "action": "refuse"}
    address = played(tmp_path, rule)
    asked = rows(address, "SELECT count(*), m.role FROM calls c "
                          "JOIN forms f ON f.id = c.form_id JOIN models m ON m.id = c.model_id "
                          "WHERE f.name = 'check_org_tea' GROUP BY 2")  # fmt: skip
    assert asked == [(18, "observer")]  # nine drafts and nine revisions; no rating is judged
    assert {row[0] for row in rows(address, BREACHES)} == {"draft", "revise"}
    assert verify(address).agrees


class SilentJudge(TeaDrinker):
    """Its verdicts cannot be read."""

    async def answer(self, call: Call) -> Reply:
        """Answer one call."""
        if isinstance(call.shape, Choice):
            return Reply("Well, who knows.")
        return await ScriptedBackend.answer(self, call)


def test_without_a_verdict_a_reply_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "org.yaml"
    rule = {**TEA, "check": {"judge": "Does the text mention tea?"}}
    path.write_text(yaml.safe_dump({"rules": [rule]}), encoding="utf-8")
    config = small("world.size=3", "rounds=1", f"policy={path}")
    address = create(prepare(config), str(tmp_path / "silent.db"))
    resume(address, backends=scripted_backends(config, SilentJudge))
    assert rows(address, "SELECT DISTINCT action, found FROM breaches") == [
        ("refused", "no verdict")
    ]


@pytest.mark.parametrize("order", ["sequential", "lock_step"])
def test_the_same_breaches_in_every_order(tmp_path: Path, order: str) -> None:
    rule = {**TEA, "action": "ask_again"}
    one = played(tmp_path, rule, name="one")
    other = played(tmp_path, rule, f"schedule.order={order}", name="other")
    assert verify(one).of_tables == verify(other).of_tables
    query = "SELECT episode_id, number, rule, action, found FROM breaches ORDER BY 1, 2"
    assert rows(one, query) == rows(other, query)


def test_the_policy_is_the_runs_own(tmp_path: Path) -> None:
    address = played(tmp_path, {**TEA, "check": {"regex": "never said"}})
    stored = rows(address, "SELECT policy FROM runs")
    path = tmp_path / "org.yaml"
    path.write_text(path.read_text().replace("mention tea", "mention coffee"), encoding="utf-8")
    with pytest.raises(InputError, match=r"changed since it was started: the policy, org 1 \("):
        resume(address, rounds=2)
    assert rows(address, "SELECT policy FROM runs") == stored


def test_a_function_of_a_stored_policy_is_loaded_only_if_it_is_named(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def tea(text):\n    return ' tea.' in text\n", encoding="utf-8")
    rule = {**TEA, "check": {"python": "own.py:tea"}}
    path = tmp_path / "org.yaml"
    path.write_text(yaml.safe_dump({"rules": [rule]}), encoding="utf-8")
    config = small("world.size=3", "rounds=1", f"policy={path}")
    address = create(prepare(config), str(tmp_path / "own.db"))
    with pytest.raises(InputError, match=rf"--check {own}"):
        resume(address)
    backends = scripted_backends(config, TeaDrinker)
    assert resume(address, backends=backends, allow=[own]).status == "done"
    assert rows(address, "SELECT count(*) FROM breaches")[0][0] > 0
    with pytest.raises(InputError, match="--check"):
        verify(address)
    assert verify(address, allow=[own]).agrees


def test_wishes_that_rules_overrule_stand_in_no_prompt(tmp_path: Path) -> None:
    people = tmp_path / "people.jsonl"
    wishes = ["Swear when you like.", "Be brief."]
    lines: Sequence[dict[str, Any]] = [
        {"name": name, "description": "You bake.", "preferences": {"wishes": wishes}}
        for name in ("Ann", "Ben")
    ]
    people.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    rule = {**TEA, "overrules": r"\bswear"}
    address = played(tmp_path, rule, f"personas={people}")
    assert rows(address, "SELECT count(*), wish, rule FROM overruled GROUP BY 2, 3") == [
        (9, "Swear when you like.", "org.tea")
    ]
    assert rows(address, "SELECT count(*) FROM texts WHERE text LIKE '%Swear when%'") == [(0,)]
    assert rows(address, "SELECT count(*) FROM texts WHERE text LIKE '%Be brief.%'")[0][0] > 0


def test_a_fork_may_let_replies_pass_and_keeps_the_rules(tmp_path: Path) -> None:
    address = played(tmp_path, TEA, "rounds=2")
    forked = fork(address, 0, ["policy.checks=record"], name="let", db=str(tmp_path / "let.db"))
    config = small("world.size=3", "rounds=2")
    assert resume(forked, backends=scripted_backends(config, TeaDrinker)).status == "done"
    by_round = (
        "SELECT DISTINCT e.round, b.action FROM breaches b JOIN episodes e ON e.id = b.episode_id"
    )
    assert sorted(rows(forked, by_round)) == [(0, "refused"), (1, "recorded")]
    with pytest.raises(InputError, match=r"policy.prompts: found False; expected True"):
        fork(address, 0, ["policy.prompts=false"], name="no", db=str(tmp_path / "no.db"))


def test_a_setting_below_a_policy_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "org.yaml"
    path.write_text(yaml.safe_dump({"rules": [TEA]}), encoding="utf-8")
    for settings in (
        (f"policy={path}", "policy.checks=record"),
        ("policy.checks=record", f"policy.file={path}"),
    ):
        policy = prepare(small(*settings)).policy
        assert (policy.rules[-1].id, policy.checks) == ("org.tea", "record")
    preset = load_config(PRESETS / "personal.yaml", ["policy.checks=record"])
    assert prepare(preset).policy.name == "public-service"
