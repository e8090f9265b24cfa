"""The last look at what leaves for a provider: personal data that is still in a prompt is taken out for good."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from services.summarizer.domain.fields_values import AnyPrompt, FieldsPrompt
from services.summarizer.domain.personal_data import Finder
from services.summarizer.domain.personal_kinds import Kinds
from services.summarizer.domain.pictures import PagePrompt
from services.summarizer.domain.prompts import speakable
from services.summarizer.domain.values import Chunk

_Hide = Callable[[str], str]


def sealed(prompt: AnyPrompt) -> AnyPrompt:
    """The prompt as it may be sent. Where its makers did their work, nothing is found here: what is, comes into no
    answer. It depends on nothing but the prompt, and so its key stands for it. For threads."""
    if isinstance(prompt, PagePrompt):
        # A picture, in which nothing can be replaced: scans.py has none drawn where that was asked for.
        return prompt
    kinds = prompt.anonymise if isinstance(prompt, FieldsPrompt) else prompt.options.anonymise
    if not kinds:
        return prompt
    hide = _Sealing(kinds)
    if isinstance(prompt, FieldsPrompt):
        complaints = tuple(
            replace(one, pointer=hide(one.pointer), problem=hide(one.problem), value=hide(one.value))
            for one in prompt.complaints
        )
        schema = hidden_schema(prompt.schema, hide)
        return replace(prompt, schema=schema, complaints=complaints, chunk=_sealed_chunk(prompt.chunk, hide))
    return replace(
        prompt,
        options=replace(prompt.options, focus=hide(prompt.options.focus), audience=hide(prompt.options.audience)),
        question=hide(prompt.question),
        chunk=_sealed_chunk(prompt.chunk, hide) if prompt.chunk is not None else None,
        claims=tuple(replace(claim, text=hide(claim.text)) for claim in prompt.claims),
    )


class _Sealing:
    """Takes out what is found; a placeholder without a number is restored to nothing."""

    def __init__(self, kinds: Kinds) -> None:
        self._finder = Finder(kinds)

    def __call__(self, text: str) -> str:
        text = speakable(text)
        parts, end = list[str](), 0
        for found in self._finder.find(text):
            assert found.kind is not None
            parts += (text[end : found.start], f"[{found.kind.value}]")
            end = found.end
        return "".join((*parts, text[end:])) if parts else text


def _sealed_chunk(chunk: Chunk, hide: _Hide) -> Chunk:
    parts, spans, size = list[str](), list[tuple[int, int, int]](), 0
    for start, end, page in chunk.spans:
        text = hide(chunk.text[start:end])
        parts.append(text)
        spans.append((size, size + len(text), page))
        size += len(text)
    return Chunk(chunk.index, "".join(parts), tuple(spans))


def _hidden(value: object, hide: _Hide) -> object:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, list):
        return [_hidden(item, hide) for item in value]
    if isinstance(value, dict):
        return {hide(name): _hidden(item, hide) for name, item in value.items()}
    return value


def texts_of(value: object) -> Iterator[str]:
    """All texts and names of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts_of(item)


def hidden_schema(text: str, hide: _Hide) -> str:
    """The JSON with its texts and names hidden."""
    return json.dumps(_hidden(json.loads(text), hide), ensure_ascii=False, separators=(",", ":"))
