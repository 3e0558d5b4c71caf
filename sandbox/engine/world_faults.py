"""Faults of a world: an exception in its code becomes one line that says where it was raised."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agents.plugins import exception_line
from sandbox.backends.base import BackendDown
from sandbox.engine.limits import Stopped
from storage.errors import InputError
from worlds.base import Meeting, SettingError, Unanswered


class WorldFault(InputError):
    """The code of a world raised an exception, or did what a world must not do."""


@contextmanager
def reported(kind: str, what: str) -> Iterator[None]:
    """Report exceptions of a world's code as a `WorldFault`.

    Args:
        kind: the kind of world, or its file.
        what: the method that is running, and for which episode or round.

    Raises:
        WorldFault: with the type and message of the exception, its file and line.
    """
    try:
        yield
    except (SettingError, Unanswered, InputError, Stopped, BackendDown):
        raise
    except Exception as error:  # a world can raise any exception
        frame = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == kind]
        place = own[-1] if own else frame
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise WorldFault(f"world {kind}: {what}: {exception_line(error)} ({where})") from error


def checked(
    meetings: Sequence[Meeting], kind: str, round: int, per_round: int, agents: int
) -> Sequence[Meeting]:
    """Check the meetings of a round.

    Args:
        meetings: the meetings.
        kind: the kind of world, or its file.
        round: the round.
        per_round: the number of meetings that a round has.
        agents: the number of agents.

    Raises:
        WorldFault: there are too few or too many, an agent does not exist, or an agent is author
            twice.
    """
    place = f"world {kind}: meet, round {round}"
    if len(meetings) != per_round:
        raise WorldFault(f"{place}: found {len(meetings)} meetings; expected {per_round}")
    authors = [meeting.author for meeting in meetings if meeting.author is not None]
    if len(set(authors)) < len(authors):
        raise WorldFault(f"{place}: found an agent that is author twice; expected once a round")
    present = {*authors, *(peer for meeting in meetings for peer in meeting.peers)}
    unknown = next((number for number in present if not 0 <= number < agents), None)
    if unknown is not None:
        raise WorldFault(f"{place}: found agent {unknown}; expected 0 to {agents - 1}")
    return meetings
