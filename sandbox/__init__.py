"""The clock: configs, scheduling, calls, backends, and the command line."""

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


def _refuse_foreign_packages() -> None:
    """The packages beside this one have everyday names; another distribution may own one."""
    home = Path(__file__).resolve().parent.parent
    for name in ("agents", "worlds", "storage"):
        spec = find_spec(name)
        found = (spec.submodule_search_locations or [spec.origin]) if spec else []
        places = [str(place) for place in found]
        if str(home / name) not in [str(Path(place).resolve()) for place in places]:
            raise ImportError(
                f"the module `{name}` comes from {' '.join(places) or 'nowhere'}, not from {home}: another "
                f"distribution has a module of that name; expected an environment without it"
            )


_refuse_foreign_packages()
