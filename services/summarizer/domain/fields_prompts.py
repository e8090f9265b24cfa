"""What a model is asked for fields, and in which form it has to answer.

Text of the document is fenced as in prompts.py. The schema is the caller's and stands outside. The form of the answer
is the same for every schema, so that no keyword of it can be more than a provider's structured output knows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.summarizer.domain.fields_values import FieldsPrompt, FieldsStage, Target
from services.summarizer.domain.prompts import (
    COPYING,
    FENCED,
    REMINDER,
    Messages,
    fence_for,
    pages_of,
    speakable,
    strict_object,
)

TOKENS_PER_FIELD = 120
"""Room for one value of the answer: a pointer, a value, a quote of 30 words, and the JSON around them."""
TOKENS_PER_ANSWER = 80
MAX_FIELDS = 300
"""Most values of one answer."""
_ITEMS = 40
"""So many items of a list are expected in one part of a document."""

_SYSTEM = f"""\
You find values in documents. You answer with one JSON object and nothing else.

{FENCED}{{copying}}
{{task}}
Use only what the material says. Leave out what it does not say; never guess, and never answer with an example.
"""
_TASK = """\
The material is a part of a document; a line `[{fence} page N]` says that page N begins. Answer with
{{"fields": [{{"pointer": "/…", "value": …, "quote": "…", "page": N}}]}}
with one entry for each single value that the material gives for the JSON Schema of the request. `pointer` is the JSON \
pointer of the value in an object of that schema; items of lists are counted from 0 in the order of the material. \
`value` is text, a number, true or false, as the schema has it: dates as YYYY-MM-DD, numbers without a currency. \
`quote` is the passage of 2 to 30 words in which the value stands, with its label where it has one, copied from the \
material letter by letter, without leaving anything out; `page` is the number of its page.
"""
_REPAIR_TASK = """\
{task}
An earlier answer holds values that the schema does not allow. A line `[{fence} earlier POINTER]` is followed by such \
a value. Answer with entries for these pointers alone, where the material gives a value that the schema allows.
"""


def most_fields(targets: Sequence[Target]) -> int:
    """How many values one answer may hold."""
    return min(MAX_FIELDS, sum(_ITEMS if target.in_list else 1 for target in targets))


def render(prompt: FieldsPrompt, new_fence: Callable[[], str]) -> Messages:
    """The messages for the prompt; as prompts.render."""
    earlier = "".join(complaint.value for complaint in prompt.complaints)
    fence = fence_for(prompt.chunk.text + earlier, new_fence)
    task = _TASK.format(fence=fence)
    material = pages_of(prompt.chunk, fence)
    wishes = [f"Find the values of this JSON Schema, at most {prompt.max_fields}:", prompt.schema]
    if prompt.stage is FieldsStage.REPAIR:
        task = _REPAIR_TASK.format(task=task, fence=fence)
        wishes += ["What is wrong with the earlier answer:"]
        wishes += [f"{complaint.pointer or 'the whole'}: {complaint.problem}" for complaint in prompt.complaints]
        said = (
            f"[{fence} earlier {complaint.pointer}]\n{speakable(complaint.value)}" for complaint in prompt.complaints
        )
        material = "\n".join((*said, material))
    return Messages(
        system=_SYSTEM.format(fence=fence, task=task, copying=COPYING if prompt.anonymise else ""),
        user="\n".join((*wishes, f"BEGIN {fence}", material, f"END {fence}", REMINDER, "")),
    )


def answer_schema() -> Mapping[str, Any]:
    """JSON Schema of the answer, in the subset that providers' structured output knows."""
    field = strict_object(
        {
            "pointer": {"type": "string"},
            "value": {"type": ["string", "number", "boolean", "null"]},
            "quote": {"type": "string"},
            "page": {"type": "integer"},
        }
    )
    return strict_object({"fields": {"type": "array", "items": field}})


def most_output_tokens(prompt: FieldsPrompt) -> int:
    """Where the answer is cut off."""
    return TOKENS_PER_ANSWER + TOKENS_PER_FIELD * prompt.max_fields
