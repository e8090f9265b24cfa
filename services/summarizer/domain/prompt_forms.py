"""What a chat model is told and has to answer, for whatever it is asked."""

from collections.abc import Callable, Mapping
from typing import Any

from services.summarizer.domain import fields_prompts, prompts
from services.summarizer.domain.answers import read_answer
from services.summarizer.domain.fields_answers import read_fields
from services.summarizer.domain.fields_values import ChatPrompt, FieldsPrompt
from services.summarizer.domain.prompts import Messages
from services.summarizer.domain.values import Answer, TokenCount


def render(prompt: ChatPrompt, new_fence: Callable[[], str]) -> Messages:
    """The messages. Raises ValueError as prompts.render."""
    if isinstance(prompt, FieldsPrompt):
        return fields_prompts.render(prompt, new_fence)
    return prompts.render(prompt, new_fence)


def answer_schema(prompt: ChatPrompt) -> Mapping[str, Any]:
    """JSON Schema of the answer."""
    if isinstance(prompt, FieldsPrompt):
        return fields_prompts.answer_schema()
    return prompts.answer_schema(prompt.stage)


def name_of(prompt: ChatPrompt) -> str:
    """What the schema is called, for providers that want a name."""
    return "fields" if isinstance(prompt, FieldsPrompt) else "summary"


def most_output_tokens(prompt: ChatPrompt) -> int:
    """Where the answer is cut off."""
    if isinstance(prompt, FieldsPrompt):
        return fields_prompts.most_output_tokens(prompt)
    return prompts.most_output_tokens(prompt)


def read(prompt: ChatPrompt, content: str, tokens: TokenCount) -> Answer:
    """The answer. Raises UnreadableAnswer."""
    if isinstance(prompt, FieldsPrompt):
        return Answer((), tokens, read_fields(prompt, content))
    return Answer(read_answer(prompt, content), tokens)
