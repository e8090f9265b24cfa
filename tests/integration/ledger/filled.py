"""Requests that a contract takes, made out of its descriptors, with one text of theirs replaced by another."""

from collections.abc import Iterator
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_TEXTS = (
    "0189d9a0-1111-4111-8111-111111111111",
    "offline/lexrank",
    "tenants/acme",
    "projects/p",
    "users/0000000000000000",
    "apiKeys/0000000000000000",
    "budgets/b",
    "jobs/" + "0" * 32,
    "documents/" + "0" * 32,
    "sessions/" + "0" * 16 + "-" + "0" * 26,
    "0" * 32 + "-1",
    "webhooks/0000000000000000",
    "webhookDeliveries/0189d9a0-1111-4111-8111-111111111111",
    "identityProviders/0000000000000000",
    "clientCertificates/" + "0" * 64,
    "plans/standard",
    "USD",
    "a@example.com",
    "https://example.com/hook",
    "pagemesh.ledger.v1.LedgerService/GetBudget",
    "usage.read",
    "name",
    "",
)
_NUMBERS = (1, 5, 60, 400, 0)
_DEEPEST = 4
_BOUNDS = ("start_time", "end_time", "expire_time")
"""Times that have to be before or after something."""


def fill(message: Message, depth: int = 0) -> None:
    """Sets every field to something that its rules allow, as far as that is found; of a oneof, the first one."""
    oneofs = set()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None:
            if field.containing_oneof.name in oneofs:
                continue
            oneofs.add(field.containing_oneof.name)
        if field.message_type is None:
            _choose(message, field)
        elif field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["key"] = "value"
        elif field.message_type.full_name in _KNOWN:
            _KNOWN[field.message_type.full_name](message, field.name)
        elif depth < _DEEPEST:
            within = getattr(message, field.name)
            inner = within.add() if field.is_repeated else within
            inner.SetInParent()
            fill(inner, depth + 1)


def _set_now(message: Message, name: str) -> None:
    if name not in _BOUNDS:
        getattr(message, name).GetCurrentTime()


def _set_mask(message: Message, name: str) -> None:
    for path in ("display_name", "hard_limit"):
        getattr(message, name).paths[:] = [path]
        if not _violated(message, name):
            return


_KNOWN = {"google.protobuf.Timestamp": _set_now, "google.protobuf.FieldMask": _set_mask}


def _choose(message: Message, field: Any) -> None:
    values: tuple[Any, ...] = _TEXTS if field.type == field.TYPE_STRING else _NUMBERS
    if field.type in (field.TYPE_BOOL, field.TYPE_BYTES, field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return
    for value in values:
        _set(message, field, value)
        if not _violated(message, field.name):
            return
    message.ClearField(field.name)


def _set(message: Message, field: Any, value: Any) -> None:
    if field.is_repeated:
        message.ClearField(field.name)
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _violated(message: Message, name: str) -> bool:
    """Whether what is set there breaks a rule."""
    try:
        protovalidate.validate(message)
    except protovalidate.ValidationError as exc:
        paths = [violation.field.elements for violation in exc.to_proto().violations if violation.field]
        return any(path and path[0].field_name == name for path in paths)
    return False


def texts(message: Message, path: str = "") -> Iterator[tuple[str, Message, FieldDescriptor]]:
    """Where texts are set in it: path, the message they are in, and the field."""
    for field, value in message.ListFields():
        here = f"{path}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield here, message, field
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from texts(inner, f"{here}.")
        elif field.type == field.TYPE_STRING:
            yield here, message, field


def replaced(message: Message, path: str, text: str) -> Message:
    """A copy of it with that text there; of a map, as a value."""
    copy = type(message)()
    copy.CopyFrom(message)
    for here, inner, field in texts(copy):
        if here == path:
            if field.message_type is not None:
                getattr(inner, field.name)["key"] = text
            else:
                _set(inner, field, text)
            return copy
    raise LookupError(path)
