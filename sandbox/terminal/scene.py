"""A scene as a script: acts, who saw them, refusals with reasons, and harm."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from sandbox.terminal.style import plain
from storage.scenes import Scene, SceneAct, ScenePart


def scene_view(scene: Scene) -> RenderableType:
    """The characters, the steps of the plan with their acts, and the consequences."""
    notes: dict[str, list[str]] = {}
    for note in scene.notes:
        notes.setdefault(note.kind, []).append(note.text)
    parts: list[RenderableType] = [Rule("the scene", align="left")]
    parts += [
        _labelled(kind, text) for kind in ("occasion", "future") for text in notes.get(kind, ())
    ]
    parts += [_person(number, one) for number, one in enumerate(scene.parts)]
    steps = notes.get("step", ())
    for step, what in enumerate(steps):
        acts = [one for one in enumerate(scene.acts) if one[1].step == step]
        parts += [Text(), plain(f"Step {step + 1} of {len(steps)}: {what}", "bold")]
        parts += [_act(scene, number, one) for number, one in acts] or [
            Text("  not played", style="dim")
        ]
    for kind in ("consequences", "told", "instruction", "answer"):
        parts += [_labelled(kind, text, above=kind != "answer") for text in notes.get(kind, ())]
    return Group(*parts)


def _labelled(kind: str, text: str, above: bool = False) -> RenderableType:
    line = Text.assemble((f"{kind}: ", "italic"), plain(text))
    return Padding(line, (1, 0, 0, 0)) if above else line


def _person(number: int, one: ScenePart) -> Text:
    played = "" if one.agent is None else f" (agent {one.agent})"
    line = Text(f"{number + 1}. ").append_text(plain(one.name, "bold"))
    return line.append_text(plain(f"{played}: {one.about}"))


def _act(scene: Scene, number: int, one: SceneAct) -> RenderableType:
    """An act with its verdicts; reactions are indented."""
    name = scene.parts[one.part].name
    refused = one.passed is False
    if one.text is None:
        done = Text("the act could not be parsed", style="red")
    else:
        done = plain(one.text, "strike dim" if refused else "")
    line = Text.assemble((f"[{number}] ", "dim"), plain(f"{name} ", "bold"), done)
    indent = 2 if one.reacts_to is None else 6
    below = (Padding(text, (0, 0, 0, indent + 4)) for text in _verdicts(scene, one))
    return Group(Padding(line, (0, 0, 0, indent)), *below)


def _verdicts(scene: Scene, one: SceneAct) -> Iterator[Text]:
    if one.passed is False:
        yield plain(f"refused: {one.why or 'the reason could not be parsed'}", "red")
    elif one.passed is None and one.text is not None:
        yield Text("the verdict could not be parsed", style="red")
    if not one.passed:
        return
    others = [part for part in one.seen_by if part != one.part]
    names = ", ".join(scene.parts[part].name for part in others)
    seen = plain(f"seen by {names or 'nobody'}", "dim")
    if one.harm is False:
        seen = Text.assemble(seen, ("; no harm", "green"))
    yield seen
    if one.harm is None:
        yield Text("the critique could not be parsed", style="red")
    elif one.harm:
        yield plain(f"harm: {one.critique or 'some'}", "dark_orange3")
