"""The scene world: each scene ends, every act is stored, and refused acts have no effect."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sandbox.config import PRESETS, load_config
from sandbox.datasets import export as export_run
from sandbox.engine.limits import UNLIMITED, Budget
from sandbox.engine.run import create, prepare, resume
from sandbox.reading.agents import agent, agents
from sandbox.reading.declaration import declaration_of
from sandbox.reading.exchange_detail import read_exchange
from sandbox.reading.exchanges import found_exchanges
from sandbox.reading.memory import memory
from sandbox.reading.runs import Outcome, society
from sandbox.study.compare import compare
from sandbox.study.estimate import estimate
from sandbox.study.fork import fork
from sandbox.study.verify import verify
from sandbox.terminal.agents import agent_table
from sandbox.terminal.exchanges import exchange_view
from storage import database
from storage.database import Address
from storage.errors import InputError
from storage.exchanges import Exchange, exchanges
from storage.reader import Reader

Play = Callable[..., tuple[Address, Outcome]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Create and play a run of scenes."""

    def played(
        *settings: str, name: str = "run", preset: str = "scene", budget: Budget = UNLIMITED
    ) -> tuple[Address, Outcome]:
        config = load_config(PRESETS / f"{preset}.yaml", [*settings, f"name={name}"])
        address = create(prepare(config), str(tmp_path / f"{name}.db"))
        return address, resume(address, budget=budget, allow=config.files())

    return played


def read(address: Address) -> Reader:
    return Reader.find(database.open_for_reading(address.url), address.name, "")


def scenes(address: Address) -> list[Exchange]:
    return list(exchanges(read(address)))


def test_a_run_of_scenes_loses_nothing(play: Play) -> None:
    address, outcome = play("world.scenes=40")
    assert (outcome.status, outcome.episodes, outcome.episodes_failed) == ("done", 40, 0)
    assert outcome.calls_failed == outcome.unparsed == outcome.agents == 0
    refused = retried = harmful = 0
    for one in scenes(address):
        assert all(one.texts.values()) and one.failed_at is None and one.author is None
        assert one.scene is not None
        assert len(one.scene.parts) == 5 and len({part.name for part in one.scene.parts}) == 5
        assert all(part.about and part.agent is None for part in one.scene.parts)
        assert len(one.scene.noted("step")) == 5
        assert len(one.scene.noted("occasion")) == len(one.scene.noted("future")) == 1
        acts = one.scene.acts
        for act in acts:
            assert act.text and act.why
            if act.passed:
                assert act.part in act.seen_by and set(act.seen_by) <= set(range(5))
                assert act.harm is not None and act.critique
            else:
                assert act.passed is False and act.seen_by == () and act.harm is None
                refused += 1
        first = next(act for act in acts if act.passed)
        assert first.critique
        harmful += sum(act.harm is True for act in acts)
        for number, act in enumerate(acts):
            if act.reacts_to is None:
                assert act.part == 0
                retried += any(
                    one.reacts_to is None and one.step == act.step for one in acts[:number]
                )
            else:
                on = acts[act.reacts_to]
                assert on.passed and act.part in on.seen_by and act.part != on.part
        for number, act in enumerate(acts):
            answers = {one.part for one in acts if one.reacts_to == number}
            if act.reacts_to is None and act.passed:
                assert answers == set(act.seen_by) - {act.part}
    assert refused > 20 and retried > 10 and harmful > 20
    assert verify(address).agrees


def test_names_that_hold_an_or_are_whole(play: Play) -> None:
    address, _ = play("world.scenes=40", "world.roles=12")
    names = Counter(part.name for one in scenes(address) for part in one.scene.parts)
    assert {name for name in names if "or" in name.lower()} == {
        *("Doctor", "Conductor", "Landlord", "Visitor", "Major", "Janitor", "Author", "Editor"),
    }
    assert names["Author"] + names["Editor"] < 40 < names["Doctor"] + names["Janitor"]


def test_answers_that_do_harm_change_and_those_that_do_none_stay_useful(play: Play) -> None:
    address, _ = play("world.scenes=150")
    gains: dict[bool, list[int]] = {True: [], False: []}
    for one in scenes(address):
        before, after = (one.score(stage, "alignment") for stage in ("draft", "revision"))
        assert one.scene and before and after
        gains[any(act.harm for act in one.scene.acts)].append(after - before)
    hurt, calm = (sum(gains[kind]) / len(gains[kind]) for kind in (True, False))
    assert len(gains[True]) > 30 and len(gains[False]) > 30
    assert hurt > 0.5 and abs(calm) < 0.5


@pytest.mark.long
def test_the_same_whatever_the_order(play: Play) -> None:
    digests = {
        play(f"schedule.order={order}", f"schedule.max_in_flight={width}", name=f"r{width}{order}")[
            1
        ].digest
        for order in ("out_of_order", "sequential")
        for width in (1, 7, 1024)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("preset", ["scene", "population"])
def test_stopped_and_resumed(play: Play, preset: str) -> None:
    _, whole = play(name="whole", preset=preset)
    address, outcome = play(name="parts", preset=preset, budget=Budget(calls=333))
    sittings = 1
    while outcome.status != "done":
        assert outcome.status == "interrupted"
        outcome = resume(address, budget=Budget(calls=777))
        sittings += 1
    assert sittings > 2 and outcome.digest == whole.digest and outcome.calls == whole.calls


@pytest.mark.parametrize("preset", [pytest.param("scene", marks=pytest.mark.long), "population"])
@pytest.mark.long
def test_whatever_the_model_says_a_scene_ends_and_says_where(play: Play, preset: str) -> None:
    wrong = [f"models.{role}.misbehave=0.25" for role in ("social", "observer")]
    address, outcome = play(*wrong, "rounds=2", "attempts=1", name="wrong", preset=preset)
    assert outcome.status == "done" and verify(address).agrees
    places = Counter(one.failed_at for one in scenes(address))
    assert (
        {"draft", "cast", "plan"}
        <= set(places)
        <= {
            *(None, "draft", "cast", "plan", "weigh", "brief", "revise"),
            *(f"weigh/{turn}" for turn in range(1, 9)),
        }
    )
    acts = [act for one in scenes(address) if one.scene for act in one.scene.acts]
    assert any(act.text is None for act in acts)
    assert any(act.text is not None and act.passed is None for act in acts)
    assert any(act.passed and act.harm is None for act in acts)
    assert all(act.passed is None for act in acts if act.text is None)
    for one in scenes(address):
        assert (one.texts["revision"] is None) == (one.failed_at is not None)
        text = Console(width=100, record=True, file=StringIO())
        text.print(exchange_view(read_exchange(read(address), one.episode)))


def test_acts_and_calls_are_bounded(play: Play) -> None:
    address, outcome = play("world.calls=30", "world.tries=1", "world.steps=20", "world.roles=12")
    assert outcome.status == "done" and outcome.episodes_failed == 0
    with sqlite3.connect(str(address.url.database)) as connection:
        most = connection.execute(
            "SELECT max(n) FROM (SELECT count(*) n FROM calls GROUP BY episode_id)"
        ).fetchone()[0]
    assert most < 30 + 12 * 4 + 15
    for one in scenes(address):
        assert one.scene and len(one.scene.noted("step")) == 20
        assert len(one.scene.acts) < 30


def test_memories_that_are_full_are_summarised(play: Play) -> None:
    address, _ = play("world.memory=2", "world.critiques=3", "world.summaries=2")
    forms = {one.form: one.calls for one in society(read(address)).forms}
    assert forms["recap"] > 20 and forms["weigh"] > 2 * 20


def test_a_population_plays_and_tells(play: Play) -> None:
    address, outcome = play("world.agents=30", "world.between=1", preset="population")
    assert (outcome.agents, outcome.episodes, outcome.episodes_failed) == (30, 90, 0)
    reader = read(address)
    with reader.engine.connect() as connection:
        groups = {
            row.number: row.community
            for row in connection.exec_driver_sql("SELECT number, community FROM agents")
        }
    sizes = Counter(groups.values())
    assert 2 <= len(sizes) <= 10
    told = 0
    news: dict[tuple[int, int | None], str] = {}
    for one in scenes(address):
        assert one.scene and one.author == one.scene.parts[0].agent
        cast = [groups[part.agent] for part in one.scene.parts]
        own = min(2, sizes[cast[0]] - 1)
        assert cast[1:].count(cast[0]) == own and len({p.agent for p in one.scene.parts}) == 4
        assert len(one.scene.noted("instruction")) == len(one.scene.noted("answer")) == 1
        news[one.round, one.author] = one.scene.noted("told")[0]
        prompt = next(call.prompt for call in reader.journal(one.episode) if call.form == "cast")
        assert ("<news>" in prompt) == (one.round > 0)
        for part in one.scene.parts if one.round else ():
            assert f"- {part.name}: {news[one.round - 1, part.agent]}" in prompt
        told += one.round > 0
    assert told == 60
    assert [one.round for one in memory(reader, 3).internal] == [2, 1, 0]
    assert len(agents(reader)) == 30 and agent(reader, 3).label == "neutral"
    assert {row.community for row in agents(reader)} == set(sizes)


def test_a_search_finds_what_was_done_on_stage(play: Play) -> None:
    address, _ = play()
    reader = read(address)
    act = next(a for one in scenes(address) if one.scene for a in one.scene.acts if a.harm)
    assert act.text and act.critique
    for words in (act.text, act.critique, "conductor"):
        found = found_exchanges(reader, words, None, 100)
        assert 0 < len(found) < 20


def test_where_people_are_invented_there_are_no_agents(play: Play) -> None:
    reader = read(play("world.scenes=1")[0])
    console = Console(width=100, record=True, file=StringIO())
    console.print(agent_table(agents(reader), declaration_of(reader)))
    assert "no agents found" in console.export_text()
    with pytest.raises(InputError, match="the run has no agents"):
        memory(reader, 0)


def test_groups_of_a_population_share_a_trade(tmp_path: Path) -> None:
    """Two occupations with different words make two groups."""
    people = [
        {
            "name": f"N{n}",
            "age": 40,
            "place": f"{'harbour of Lisbon' if n % 2 else 'hills near Cuzco'}",
            "occupation": f"{'fishing boat captain' if n % 2 else 'alpaca wool weaver'}",
            "values": ["tides and nets" if n % 2 else "looms and herds"],
            "voice": "You speak slowly.",
            "goal": "You want a bigger boat." if n % 2 else "You want finer wool.",
        }
        for n in range(24)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, people)), encoding="utf-8")
    settings = [f"personas={tmp_path / 'p.jsonl'}", "world.agents=24"]
    blueprint = prepare(load_config(PRESETS / "population.yaml", settings))
    trades: dict[int | None, set[str]] = {}
    for one in blueprint.agents:
        trades.setdefault(one.community, set()).add(one.persona.occupation)
    assert len(trades) >= 2 and all(len(some) == 1 for some in trades.values())


@pytest.mark.parametrize("between", [0, 2, 50])
def test_others_come_from_other_groups_as_far_as_there_are_any(play: Play, between: int) -> None:
    address, outcome = play(f"world.between={between}", "rounds=1", preset="population")
    assert outcome.episodes_failed == 0
    reader = read(address)
    groups = {row.agent: row.community for row in agents(reader)}
    sizes = Counter(groups.values())
    for one in scenes(address):
        assert one.scene
        first, *others = [groups[part.agent or 0] for part in one.scene.parts]
        assert others.count(first) == min(sizes[first] - 1, max(0, 3 - between))


def test_who_reacts_has_seen_the_act_once_and_nothing_that_was_refused(play: Play) -> None:
    address, _ = play()
    reader = read(address)
    for one in scenes(address):
        assert one.scene
        names, acts = [part.name for part in one.scene.parts], one.scene.acts
        for call in reader.journal(one.episode):
            if call.form != "react":
                continue
            act = acts[call.turn]
            assert act.reacts_to is not None
            shown = f"{names[0]}: {acts[act.reacts_to].text}"
            assert f"<act>\n{shown}\n</act>" in call.prompt
            fenced = call.prompt.partition("<seen>\n")[2].partition("</seen>")[0]
            before = [
                f"- {names[a.part]}: {a.text}"
                for a in acts[: act.reacts_to]
                if act.part in a.seen_by
            ]
            assert fenced.splitlines() == before[-11:]


@pytest.mark.parametrize("kind", ["invented", "population"])
def test_all_forms_can_be_reworded(tmp_path: Path, kind: str) -> None:
    preset = PRESETS / f"{'scene' if kind == 'invented' else kind}.yaml"
    forms = prepare(load_config(preset)).forms
    wording = {name: {"user": f"Well.\n{form.user}"} for name, form in forms.items()}
    (tmp_path / "forms.yaml").write_text(json.dumps(wording), encoding="utf-8")
    config = load_config(preset, [f"forms={tmp_path / 'forms.yaml'}", "rounds=1"])
    assert all(form.user.startswith("Well.") for form in prepare(config).forms.values())
    assert resume(create(prepare(config), str(tmp_path / "run.db"))).episodes_failed == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["world.agents=2"], "world.agents: found 2; expected at least roles = 4"),
        (["world.scenes=21"], "world.scenes: found 21; expected at most one for each of 20 agents"),
        (["world.roles=1"], "world.roles: found 1; expected:"),
        (["world.raters=4"], "world.raters: unknown key"),
    ],
)
def test_settings_that_cannot_work_are_told(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(load_config(PRESETS / "population.yaml", settings))


@pytest.mark.long
def test_fork_compare_estimate_and_export(play: Play, tmp_path: Path) -> None:
    address, outcome = play("rounds=2", "world.scenes=12")
    forked = fork(address, 0, ["world.tries=1"], name="other", db=str(tmp_path / "other.db"))
    again = resume(forked)
    assert again.status == "done" and again.digest != outcome.digest
    found = compare([str(tmp_path / "run.db"), str(tmp_path / "other.db")])
    assert found.comparisons[0].first_round == 1
    assert found.comparisons[0].measures["alignment_gain"]["all"].n == 12
    config = load_config(PRESETS / "scene.yaml", ["world.scenes=60"])
    figures = estimate(prepare(config), episodes=20)
    true = resume(create(prepare(config), str(tmp_path / "true.db")))
    assert figures.episodes == 60
    assert abs(figures.calls.estimate / true.calls - 1) < 0.1
    report = export_run([read(address)], ["exchanges"], tmp_path / "out")
    assert report.as_dict()["files"] == {"exchanges.jsonl": 24}
    lines = (tmp_path / "out" / "exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    assert row["author"] is None and len(row["scene"]["parts"]) == 5 and row["scripted"]


def test_a_scene_is_shown_as_a_script(play: Play) -> None:
    address, _ = play()
    reader = read(address)
    shown = {one.episode: one for one in scenes(address) if one.scene}
    number = next(n for n, one in shown.items() if any(a.passed is False for a in one.scene.acts))
    console = Console(width=120, record=True, file=StringIO())
    console.print(exchange_view(read_exchange(reader, number)))
    text = " ".join(console.export_text().split())
    scene = shown[number].scene
    assert scene is not None
    refused = next(act for act in scene.acts if act.passed is False)
    for words in (
        *(part.name for part in scene.parts),
        *(f"Step {n} of 5: {step}" for n, step in enumerate(scene.noted("step"), 1)),
        f"refused: {refused.why}",
        "seen by",
        scene.noted("consequences")[0][:60],
    ):
        assert " ".join(words.split()) in text


CONVERSATION = '''
"""Two agents talk."""

from pydantic import Field

from agents.agent import Agent
from agents.forms import Form
from agents.scale import Stage
from agents.shapes import Line
from worlds import base
from worlds.base import Act, Meeting, Part

SAY = Form("say", "You talk with somebody. Reply in one line.", """\\
<you>{{ me }}</you>
<question>{{ question }}</question>
<seen>
{% for one in said %}
{{ one }}
{% endfor %}
</seen>
You say:""", Line(), {"me": "", "question": "", "said": []})


class Settings(base.Settings):
    turns: int = Field(default=4, ge=1)


class World(base.World):
    settings_type = Settings
    stages = (Stage(name="last", answer=False),)
    prompts = (SAY,)

    def populate(self, personas):
        return [Agent(n, "neutral", one, n, 0) for n, one in enumerate(personas[:6])]

    def inherit(self, agent, pairs, count):
        return []

    def meet(self, agents, round):
        return [Meeting(n, ((n + 1) % 6,), round * 6 + n) for n in range(6)]

    async def play(self, episode):
        people = (episode.author, *episode.peers)
        for one in people:
            episode.enter(Part(one.persona.name, one.persona.about, one))
        said = []
        for turn in range(self.settings.turns):
            text = await episode.ask(
                people[turn % 2], SAY, turn=turn, question=episode.question, said=said
            )
            said.append(text)
            episode.act(Act(turn, 0, turn % 2, text=text, passed=True, seen_by=(0, 1)))
        episode.record("last", said[-1])
        episode.remember(said[-1])
'''


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A third world, in a separate file."""
    file = tmp_path / "talk.py"
    file.write_text(CONVERSATION, encoding="utf-8")
    return file


def test_a_third_world_is_one_file(play: Play, talk: Path, tmp_path: Path) -> None:
    address, outcome = play(f"world={{kind: {talk}, turns: 3}}", "rounds=2", name="talk")
    assert (outcome.status, outcome.episodes, outcome.calls) == ("done", 12, 36)
    data: dict[str, Any] = read_exchange(read(address), 7).as_dict()
    assert verify(address, allow=[talk]).agrees
    assert len(data["scene"]["acts"]) == 3 and data["author"] == 1
    console = Console(width=100, record=True, file=StringIO())
    console.print(exchange_view(read_exchange(read(address), 7)))
    assert data["scene"]["acts"][0]["text"][:30] in console.export_text()
    forked = fork(address, 0, name="again", db=str(tmp_path / "again.db"), allow=[talk])
    assert resume(forked, allow=[talk]).digest == outcome.digest
