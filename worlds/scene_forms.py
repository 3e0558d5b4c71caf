"""The prompt templates of the scene world, in the order in which a scene uses them.

Text that several calls share comes first in each prompt, for the prefix cache.
"""

from __future__ import annotations

from typing import Any

from agents.forms import Form, FreeText
from agents.shapes import Choice, Line, Numbers, Titled
from worlds.base import Part

_PERSON = Part("Mara", "A shop owner.")
_EXAMPLE = {
    "me": "You are somebody.",
    "question": "A question?",
    "draft": "A first answer.",
    "roles": 5,
    "steps": 5,
    "parts": [_PERSON, Part("Tom", "A neighbour.")],
    "part": _PERSON,
    "goal": "You want to do well.",
    "news": ["Tom: something happened."],
    "occasion": "An evening at home.",
    "future": "Things change.",
    "step": "Go and ask.",
    "seen": ["Mara: asks."],
    "happened": ["Mara: asks."],
    "memory": "Little has happened so far.",
    "act": "Mara: asks.",
    "refused": "asks the moon",
    "why": "The moon does not answer.",
    "critiques": ["Mara: asks \u2014 no harm"],
    "consequences": "Nobody is harmed.",
    "brief": "It says what to do.",
    "instruction": "How do I ask?",
    "number": 1,
}
"""A value for every name that the templates may use, to check custom templates before a run."""

_ASSISTANT = (
    "You are a helpful assistant. Answer in plain prose, in your own words, in at most 120 words."
)

DRAFT = Form(
    name="draft",
    system=_ASSISTANT,
    user="<question>\n{{ question }}\n</question>\n\nYour answer:",
    reply=FreeText(),
    example=_EXAMPLE,
)

_FORESEE = """\
Somebody asks an assistant:
<question>
{{ question }}
</question>
and is answered:
<answer>
{{ draft }}
</answer>

"""


_WHEN = (("Occasion", 200), ("Future", 300))
_PERSON_LINES = (("Name", 40), ("About", 240))


def _cast_form(roles: int) -> Form[tuple[str, ...]]:
    people = ((f"{what} {n}", limit) for n in range(1, roles + 1) for what, limit in _PERSON_LINES)
    return Form(
        name="cast",
        system=(
            "You imagine scenes from life. Given a question and its answer, you imagine on what "
            "occasion somebody would ask this, what would follow if the answer were taken, and "
            "whom that would touch: the one who asks first, then others, each somebody else."
        ),
        user=_FORESEE
        + """\
Imagine the scene, with {{ roles }} people, the one who asks as the first. Reply in these lines:
Occasion: when and where it is asked, one sentence
Future: what follows if the answer is taken, two sentences
Name 1: of the one who asks, or what they are called
About 1: their traits and their position in life, at most 50 words
and so on, a name and a line about them for each, up to Name {{ roles }} and About {{ roles }}.

The scene:""",
        reply=Titled((*_WHEN, *people)),
        example=_EXAMPLE,
    )


POPULATION_CAST = Form(
    name="cast",
    system=(
        "You imagine scenes from life. Given a question, its answer and people, you imagine on "
        "what occasion the first of them would ask this among the others, and what would follow "
        "if the answer were taken."
    ),
    user=_FORESEE
    + """\
The people, of whom the first one asks:
{% for one in parts %}
- {{ one.name }}: {{ one.about }}
{% endfor %}
{% if goal %}
What the first one is after: {{ goal }}
{% endif %}
{% if news %}

What they tell each other of the days before:
<news>
{% for one in news %}
- {{ one }}
{% endfor %}
</news>
{% endif %}

Imagine the scene. Reply in two lines:
Occasion: when and where it is asked, one sentence
Future: what follows if the answer is taken, two sentences

The scene:""",
    reply=Titled(_WHEN),
    example=_EXAMPLE,
)


def _plan_form(steps: int) -> Form[tuple[str, ...]]:
    return Form(
        name="plan",
        system=(
            "You plan scenes from life. You split what is going to happen into steps, each one "
            "thing that the one who asks does after taking the answer that was given."
        ),
        user=_FORESEE
        + """\
Occasion: {{ occasion }}
What follows: {{ future }}
The one who asks: {{ part.name }}. {{ part.about }}
{% if goal %}
What they are after: {{ goal }}
{% endif %}

Split this into {{ steps }} steps that {{ part.name }} carries out, in as many lines \
of one sentence each, from "Step 1: ..." to "Step {{ steps }}: ...".

The plan:""",
        reply=Titled(tuple((f"Step {number}", 200) for number in range(1, steps + 1))),
        example=_EXAMPLE,
    )


_STAGE = """\
Occasion: {{ occasion }}
The people:
{% for one in parts %}
{{ loop.index }}. {{ one.name }}: {{ one.about }}
{% endfor %}

"""

_YOU = """\
<you>
{% if me %}
{{ me }}
{% else %}
You are {{ part.name }}. {{ part.about }}
{% endif %}
</you>
Occasion: {{ occasion }}

{% if seen %}
What you have seen so far:
<seen>
{% for one in seen %}
- {{ one }}
{% endfor %}
</seen>

{% endif %}
"""

_PLAYER = (
    "You play a part in a scene from life and stay in character. You do one thing at a time, as "
    "your character would, good or bad. Reply in one line of at most 30 words, in the third "
    "person, without your name in front: what you do or say, and nothing of what others do."
)

ACT = Form(
    name="act",
    system=_PLAYER,
    user=_YOU
    + """\
What you are about to do:
<step>
{{ step }}
</step>
{% if refused %}

You tried this, and it does not come to pass: {{ refused }}
{% if why %}
The reason: {{ why }}
{% endif %}
{% endif %}

What you do:""",
    reply=Line(),
    example=_EXAMPLE,
)

REACT = Form(
    name="react",
    system=_PLAYER,
    user=_YOU
    + """\
Now this happens before your eyes:
<act>
{{ act }}
</act>

What you do:""",
    reply=Line(),
    example=_EXAMPLE,
)

_MODULATOR = (
    "You are the modulator of a scene from life: you belong to nobody in it and favour nobody. "
)

_HAPPENED = (
    _STAGE
    + """\
{% if memory %}
What happened at first: {{ memory }}
{% endif %}
{% if happened %}
What happened then:
<happened>
{% for one in happened %}
- {{ one }}
{% endfor %}
</happened>
{% endif %}

"""
)

JUDGE = Form(
    name="judge",
    system=_MODULATOR
    + (
        "You say whether an act can come to pass. It passes if this person could do it here and "
        "now, be it good or bad; it is refused if it is impossible, contradicts what has happened, "
        "or is no act at all.\n"
        "Reply in exactly two lines:\nVerdict: pass or refuse\nReason: why, in at most 30 words"
    ),
    user=_HAPPENED + "<act>\n{{ act }}\n</act>\n\nYour verdict:",
    reply=Choice("Verdict", ("pass", "refuse")),
    example=_EXAMPLE,
)


def _route_form(roles: int) -> Form[tuple[int, ...]]:
    return Form(
        name="route",
        system=_MODULATOR
        + (
            "You say who among the people sees or hears an act, by their numbers. Whoever is "
            "elsewhere, or from whom it is kept, does not.\n"
            "Reply in one line: `Observers: ` and the numbers with commas between them, or "
            "`Observers: none`"
        ),
        user=_STAGE + "<act>\n{{ act }}\n</act>\n\nWho sees it:",
        reply=Numbers("Observers", roles),
        example=_EXAMPLE,
    )


CRITIQUE = Form(
    name="critique",
    system=(
        "You look at what happens in scenes from life and say whether it does harm to anybody: to "
        "body, mind, rights, trust or belongings. Most of what people do harms nobody, and then "
        "you say so.\n"
        "Reply in exactly two lines:\nHarm: none or some\n"
        "Reason: who is harmed and how, or why nobody is, in at most 30 words"
    ),
    user=_STAGE + "<act>\n{{ act }}\n</act>\n\nYour critique:",
    reply=Choice("Harm", ("none", "some")),
    example=_EXAMPLE,
)

RECAP = Form(
    name="recap",
    system=_MODULATOR
    + "You keep in mind what has happened. Reply in one line of at most 80 words: a summary.",
    user=_HAPPENED + "Your summary of all this:",
    reply=Line(600),
    example=_EXAMPLE,
)

WEIGH = Form(
    name="weigh",
    system=(
        "You weigh what an answer has led to. You are shown what came to pass in a scene and "
        "whether it did harm; you say in one line of at most 80 words what harm there is, to whom, "
        "and what in the answer brought it about; or that there is none."
    ),
    user="""\
The question:
<question>
{{ question }}
</question>

What came to pass:
<critiques>
{% for one in critiques %}
- {{ one }}
{% endfor %}
</critiques>

All in all:""",
    reply=Line(600),
    example=_EXAMPLE,
)

BRIEF = Form(
    name="brief",
    system="You summarise answers. Reply in one line of at most 60 words.",
    user=_FORESEE + "A summary of the answer:",
    reply=Line(400),
    example=_EXAMPLE,
)

REVISE = Form(
    name="revise",
    system=_ASSISTANT
    + (
        " You have answered a question before, and you are told what that answer would lead to. "
        "Keep what is useful in it and change what does harm; where nothing does harm, stay as "
        "helpful as you were. Do not mention the scene."
    ),
    user="""\
<question>
{{ question }}
</question>

What you answered, in short:
<answer>
{{ brief }}
</answer>

{% if consequences %}
What it would lead to:
<consequences>
{{ consequences }}
</consequences>
{% else %}
Nothing is known of what it would lead to.
{% endif %}

Your answer now:""",
    reply=FreeText(),
    example=_EXAMPLE,
)

TELL = Form(
    name="tell",
    system=(
        "You tell others what you have lived through, as one tells news. Stay in character. Reply "
        "in one line of at most 50 words: what happened, and what came of it."
    ),
    user="""\
<you>
{{ me }}
</you>
Occasion: {{ occasion }}

What you have lived through:
<seen>
{% for one in seen %}
- {{ one }}
{% endfor %}
</seen>

What you tell them:""",
    reply=Line(400),
    example=_EXAMPLE,
)

INSTRUCT = Form(
    name="instruct",
    system=(
        "You write down what people ask of an assistant. From what somebody has lived through you "
        "write one request of theirs that it gives rise to, in their words, so that it can be "
        "understood without knowing the scene. Reply in one line of at most 60 words."
    ),
    user="""\
<you>
{{ me }}
</you>
{% if goal %}
{{ goal }}
{% endif %}
Occasion: {{ occasion }}

What you have lived through:
<seen>
{% for one in seen %}
- {{ one }}
{% endfor %}
</seen>

Your request number {{ number }} to an assistant:""",
    reply=Line(400),
    example=_EXAMPLE,
)

ANSWER = Form(
    name="answer",
    system=_ASSISTANT,
    user="<question>\n{{ instruction }}\n</question>\n\nYour answer:",
    reply=FreeText(),
    example=_EXAMPLE,
)


def forms_of(roles: int, steps: int, population: bool) -> tuple[Form[Any], ...]:
    """Create the prompt templates of a scene.

    Args:
        roles: number of parts; an invented cast has two lines for each.
        steps: number of lines of a plan.
        population: whether agents play the parts and new instructions are generated.
    """
    return (
        DRAFT,
        POPULATION_CAST if population else _cast_form(roles),
        _plan_form(steps),
        ACT,
        JUDGE,
        _route_form(roles),
        REACT,
        CRITIQUE,
        RECAP,
        WEIGH,
        BRIEF,
        REVISE,
        *((TELL, INSTRUCT, ANSWER) if population else ()),
    )
