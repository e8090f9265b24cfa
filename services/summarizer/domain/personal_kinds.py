"""Kinds of personal data that may be replaced before text leaves for a provider, and who decides which."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

VERSION = "1"
"""Changes whenever the same text would be told a model otherwise: what is found, how placeholders look, what is said of
them."""


class Kind(Enum):
    """What is found, by the word that stands in its placeholders. docs/anonymising.md says how."""

    EMAIL = "EMAIL"
    PHONE = "PHONE"
    IBAN = "IBAN"
    CARD = "CARD"
    IP_ADDRESS = "IP"
    NATIONAL_ID = "ID"
    BIRTH_DATE = "DATE"
    PERSON = "PERSON"


Kinds = tuple[Kind, ...]
"""In the order of the enum, each once."""

Counts = Mapping[Kind, int]
"""How many different items of each kind were replaced."""

ALL: Kinds = tuple(Kind)


def in_order(kinds: Iterable[Kind]) -> Kinds:
    """The kinds in the order of the enum, each once."""
    chosen = set(kinds)
    return tuple(kind for kind in Kind if kind in chosen)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a deployment replaces: `default` where a request says nothing of it, `always` whatever it says."""

    default: Kinds = ()
    always: Kinds = ()

    def kinds(self, asked: Kinds | None) -> Kinds:
        """What is replaced for a request; `asked` is None where it says nothing."""
        return in_order((*(self.default if asked is None else asked), *self.always))

    def settled(self, asked: Kinds | None) -> Kinds | None:
        """The same for work that is done later, maybe under another policy; None where nobody says anything."""
        return self.kinds(asked) if asked is not None or self.default or self.always else None


REPLACING_NOTHING = Policy()
