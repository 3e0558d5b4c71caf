"""Roles: which model each agent uses, and checks of the models before a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agents.agent import Agent
from agents.chance import chance
from sandbox.backends import check_model
from sandbox.config import Config, role_key
from storage.errors import InputError


def roles_of(config: Config, agents: Sequence[Agent]) -> list[str]:
    """Return the role of each agent: `social`, or the first group that it belongs to.

    A group with a share draws that share of all agents from those that no earlier group has; the
    draw depends on the seed and the name of the group.
    """
    roles = ["social"] * len(agents)
    for name, group in config.models.groups.items():
        unassigned = [agent.number for agent in agents if roles[agent.number] == "social"]
        if group.share is not None:
            count = min(len(unassigned), round(group.share * len(agents)))
            chosen = chance(config.seed, "group", name).sample(unassigned, count)
        elif group.agents is not None:
            chosen = [number for number in unassigned if number in group.agents]
        else:
            chosen = [number for number in unassigned if agents[number].label == group.label]
        for number in chosen:
            roles[number] = name
    return roles


def check_models(config: Config, agents: Sequence[Agent], where: Callable[[str], str]) -> None:
    """Check the settings of every model before a run is created.

    Args:
        config: the run's config.
        agents: the society.
        where: returns the place where a key was set, for error messages.

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
            raise InputError(f"{where(key)}: {key}: found no agent in it; expected at least one")
    for role, model in settings.items():
        key = role_key(role)
        try:
            check_model(model)
        except ValueError as error:
            message = f"{key}.{error}"
            raise InputError(f"{where(message.partition(':')[0])}: {message}") from None
    for agent in agents:
        adapter, model = agent.persona.adapter, settings[roles[agent.number]]
        known = model.adapter_names()
        if adapter is not None and known is not None and adapter not in known:
            names = ", ".join(known) or "none"
            raise InputError(
                f"{where('personas')}: personas: {agent.persona.name}: found the adapter "
                f"{adapter!r}; expected one of the model's adapters: {names}"
            )
