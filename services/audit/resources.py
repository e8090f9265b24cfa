"""Which thing a message is about: the name in it that the contract knows as a resource name."""

import functools
import re
from collections.abc import Callable

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_NAMED = ("name", "document", "job", "schema", "budget", "project", "user", "tenant")
"""Fields that hold one resource name, the likeliest first."""
_RESOURCE = re.compile(r"^[a-zA-Z]{1,40}/[A-Za-z0-9_.~@-]{1,128}(/[a-zA-Z]{1,40}/[A-Za-z0-9_.~-]{1,128})?$")


def resource_of(message: object) -> str:
    """The resource name in the message itself or in a message within it; empty where there is none."""
    if not isinstance(message, Message):
        return ""
    for read in _readers(message.DESCRIPTOR):
        name = read(message)
        if name and _RESOURCE.match(name):
            return name
    return ""


@functools.lru_cache(maxsize=1000)
def _readers(descriptor: Descriptor) -> tuple[Callable[[Message], str], ...]:
    own = [_reader(name) for name in _NAMED if _is_text(descriptor.fields_by_name.get(name))]
    inner = [
        _inner_reader(field.name, name)
        for field in descriptor.fields
        if field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated
        for name in _NAMED
        if field.message_type is not None and _is_text(field.message_type.fields_by_name.get(name))
    ]
    return (*own, *inner)


def _is_text(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _reader(name: str) -> Callable[[Message], str]:
    return lambda message: getattr(message, name)


def _inner_reader(outer: str, name: str) -> Callable[[Message], str]:
    return lambda message: getattr(getattr(message, outer), name)
