"""The clock: configs, scheduling, calls, backends, and the command line."""

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _refuse_foreign_packages() -> None:
    """The packages beside this one have everyday names; another distribution may own one."""
    home = Path(__file__).resolve().parent.parent
    for name in ("agents", "worlds", "storage"):
        spec = find_spec(name)
        place = Path((spec and spec.origin) or "nowhere").parent
        if place.resolve() != home / name:
            raise ImportError(
                f"the module `{name}` comes from {place}, not from {home}: another distribution "
                f"has a module of that name; expected an environment without it"
            )


_refuse_foreign_packages()
