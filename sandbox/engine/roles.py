"""Who speaks with which model: a mixed society, and the adapters that personas name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.agent import Agent
from agents.chance import chance
from sandbox.config import Config
from storage.errors import InputError


def roles_of(config: Config, agents: Sequence[Agent]) -> list[str]:
    """The role of each agent: `social`, or the first group of the config that it belongs to.

    A group by share takes that share of the whole society, drawn from those that no group before
    it has taken; whether an agent is in a group follows from the seed and the group's name.
    """
    roles = ["social"] * len(agents)
    for name, group in config.models.groups.items():
        left = [agent.number for agent in agents if roles[agent.number] == "social"]
        if group.share is not None:
            count = min(len(left), round(group.share * len(agents)))
            chosen = chance(config.seed, "group", name).sample(left, count)
        elif group.agents is not None:
            chosen = [number for number in left if number in group.agents]
        else:
            chosen = [number for number in left if agents[number].label == group.label]
        for number in chosen:
            roles[number] = name
    return roles


def check_models(config: Config, agents: Sequence[Agent], where: Callable[[str], str]) -> None:
    """Look at every model before anything starts.

    Args:
        config: what is asked for.
        agents: who is to speak.
        where: tells where a key was set.

    Raises:
        InputError: a model cannot work, a group is empty, or a persona names an adapter that its
            model does not have.
    """
    roles = roles_of(config, agents)
    settings = dict(config.models.roles())
    for name, group in config.models.groups.items():
        key = f"models.groups.{name}"
        for number in group.agents or ():
            if number >= len(agents):
                raise InputError(
                    f"{where(key)}: {key}.agents: found {number}; expected numbers of agents, "
                    f"0 to {len(agents) - 1}"
                )
        if name not in roles:
            raise InputError(f"{where(key)}: {key}: nobody is in it; expected an agent")
    for role, model in settings.items():
        key = f"models.{role}" if role in ("social", "observer") else f"models.groups.{role}.model"
        try:
            model.check()
        except ValueError as error:
            told = f"{key}.{error}"
            raise InputError(f"{where(told.partition(':')[0])}: {told}") from None
    for agent in agents:
        adapter, model = agent.persona.adapter, settings[roles[agent.number]]
        known = model.adapter_names()
        if adapter is not None and known is not None and adapter not in known:
            there = ", ".join(known) or "none"
            raise InputError(
                f"{where('personas')}: personas: {agent.persona.name} speaks with the adapter "
                f"{adapter!r}; expected one of the model's adapters: {there}"
            )
