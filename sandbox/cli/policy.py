"""The verb of policies: `policy show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import AsJson, Set, show
from storage.errors import InputError

if TYPE_CHECKING:
    from sandbox.reading.policy import PolicyShown

policy = typer.Typer(
    help="Show the rules that bind what models say.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)


@policy.command("show")
def show_policy(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", help="a config or a policy file; default: the quickstart preset"
        ),
    ] = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Show the rules by tier; of a config also the wishes of its personas that they overrule."""
    from sandbox.terminal.policy import policy_view

    shown = _shown(file, set_ or [])
    show(as_json, shown.as_dict(), lambda: policy_view(shown))


@policy.callback()
def _group() -> None:
    """Keep `show` a sub-command, although it is the only one."""


def _shown(file: Path | None, settings: list[str]) -> PolicyShown:
    from sandbox.config import QUICKSTART, load_config
    from sandbox.reading.policy import shown_policy
    from sandbox.sources import read_personas
    from sandbox.sources.policies import TIER1, read_policy

    if file is not None and _is_policy(file):
        if settings:
            raise InputError(f"--set: found it with {file}, a policy; expected it with a config")
        return shown_policy(read_policy(None if file.resolve() == TIER1 else file))
    config = load_config(file or QUICKSTART, settings)
    chosen = config.policy
    policy = read_policy(chosen.file, chosen.checks, chosen.prompts)
    return shown_policy(policy, [one.preferences for one in read_personas(config.personas)])


def _is_policy(file: Path) -> bool:
    """Whether a file is a policy, not a config: it has rules and no models."""
    from sandbox.yaml_values import LONGEST_CONFIG, NotYaml, parse_yaml

    try:
        with file.open("rb") as opened:
            data = parse_yaml(opened.read(LONGEST_CONFIG).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, NotYaml):
        return False  # read as a config, which says what is wrong
    return isinstance(data, dict) and "rules" in data and "models" not in data
