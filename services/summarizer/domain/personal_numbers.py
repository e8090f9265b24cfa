"""Numbers that belong to one person or account and can be told by their check digits.

Each rule is the public definition of the number: IBAN ISO 13616 with its registry of lengths, cards ISO/IEC 7812 with
Luhn's digit, the others as their states publish them. Every expression is of bounded length, so that the work is linear
in the text.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

Span = tuple[int, int]

_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD FK",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ TL OM SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}[ ]?\d{2}(?=[ \n-]?[A-Za-z0-9])")
_GAP = re.compile(r"[ \n-]?[A-Za-z0-9]")

# Every start is looked at, also within an earlier match: a year before a card number must not hide it.
_CARD = re.compile(
    r"(?<!\d)(?=([2-6]\d{3}(?:[ \n-]?\d{4}[ \n-]?\d{4}[ \n-]?\d{1,7}|[ \n-]?\d{6}[ \n-]?\d{4,5}|\d{8,15}))(?!\d))"
)
# First and last beginning of a network's numbers, and how long these are.
_NETWORKS = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14, 16)),
    ("6011", "6011", (16, 19)),
    ("644", "659", (16, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("3528", "3589", (16, 19)),
    ("50", "50", (13, 14, 15, 16, 17, 18, 19)),
    ("56", "58", (13, 14, 15, 16, 17, 18, 19)),
    ("60", "61", (13, 14, 15, 16, 17, 18, 19)),
    ("63", "69", (13, 14, 15, 16, 17, 18, 19)),
)

_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9A-Fa-f:]*\d)[0-9A-Fa-f]{0,4}+(?::[0-9A-Fa-f]{0,4}+){2,7}+(?:\.\d{1,3}){0,3}+(?![\w:])"
)


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers, whose remainder by 97 is 1."""
    for found in _IBAN.finditer(text):
        head = "".join(found.group().split()).upper()
        length = _IBAN_LENGTHS.get(head[:2])
        if length is None:
            continue
        end, number = found.end(), head
        while len(number) < length and (step := _GAP.match(text, end)):
            number += step.group()[-1].upper()
            end = step.end()
        if len(number) == length and not text[end : end + 1].isalnum() and _mod_97(number[4:] + number[:4]) == 1:
            yield found.start(), end


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards."""
    for found in _CARD.finditer(text):
        digits = _digits(found[1])
        if _is_of_network(digits) and _luhn(digits):
            yield found.span(1)


def addresses(text: str) -> Iterator[Span]:
    """Addresses of the Internet protocol, of both versions."""
    for form in (_IPV4, _IPV6):
        for found in form.finditer(text):
            try:
                ipaddress.ip_address(found.group())
            except ValueError:
                continue
            yield found.span()


def national_ids(text: str) -> Iterator[Span]:
    """Numbers that states give to people."""
    for form, check in _IDS:
        for found in form.finditer(text):
            if check("".join(char for char in found[1] if char.isalnum()).upper()):
                yield found.span(1)


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _mod_97(number: str) -> int:
    return int("".join(str(int(char, 36)) for char in number)) % 97


def _is_of_network(digits: str) -> bool:
    return any(first <= digits[: len(first)] <= last and len(digits) in lengths for first, last, lengths in _NETWORKS)


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0 and len(set(digits)) > 1


def _date(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _germany(number: str) -> bool:
    """Steueridentifikationsnummer: ISO 7064 MOD 11,10; one digit of the first ten is there two or three times."""
    most = sorted(number[:10].count(digit) for digit in set(number[:10]))
    if number[0] == "0" or most[-1] not in (2, 3) or most[:-1] != [1] * (len(most) - 1):
        return False
    product = 10
    for digit in number[:10]:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    return (11 - product) % 10 == int(number[10])


def _france(number: str) -> bool:
    """Numéro de sécurité sociale: 97 less the remainder of the first thirteen characters."""
    department = number[5:7].replace("2A", "19").replace("2B", "18")
    plain = number[:5] + department + number[7:]
    return plain.isdigit() and 97 - int(plain[:13]) % 97 == int(plain[13:])


def _spain(number: str) -> bool:
    """DNI and NIE: a letter for the remainder by 23."""
    digits = number[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return digits.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == number[-1]


_ITALIAN_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _italy(number: str) -> bool:
    """Codice fiscale: a letter for the sum of what each place counts."""
    values = [int(char) if char.isdigit() else ord(char) - ord("A") for char in number]
    total = sum(_ITALIAN_ODD[value] if place % 2 == 0 else value for place, value in enumerate(values[:15]))
    return total % 26 == values[15]


def _poland(number: str) -> bool:
    """PESEL: a date whose month also tells the century, and a weighted sum."""
    weighted = sum(int(digit) * weight for digit, weight in zip(number, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True))
    return weighted % 10 == 0 and _date(str(int(number[2:4]) % 20), number[4:6])


def _belgium(number: str) -> bool:
    """Rijksregisternummer: 97 less the remainder, with a 2 in front for those born since 2000."""
    if not _date(number[2:4], number[4:6]):
        return False
    return int(number[9:]) in (97 - int(number[:9]) % 97, 97 - int("2" + number[:9]) % 97)


def _switzerland(number: str) -> bool:
    """AHV-Nummer: the check digit of EAN-13."""
    return sum(int(digit) * (1 + 2 * (place % 2)) for place, digit in enumerate(number)) % 10 == 0


def _finland(number: str) -> bool:
    """Henkilötunnus: a date, and a sign for the remainder by 31."""
    if not number.isalnum() or not _date(number[2:4], number[:2]):
        return False
    # The sign of the century is no letter for most people and was taken out.
    digits = number[:6] + number[-4:-1]
    return digits.isdigit() and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == number[-1]


def _sweden(number: str) -> bool:
    """Personnummer: a date and Luhn's digit, over ten digits."""
    last = number[-10:]
    day = int(last[4:6])
    return _date(last[2:4], str(day - 60 if day > 60 else day)) and _luhn(last)


def _brazil(number: str) -> bool:
    """CPF: two check digits, each a weighted sum by 11."""
    for length in (9, 10):
        total = sum(int(digit) * (length + 1 - place) for place, digit in enumerate(number[:length]))
        if total * 10 % 11 % 10 != int(number[length]):
            return False
    return len(set(number)) > 1


def _netherlands(number: str) -> bool:
    """Burgerservicenummer: a weighted sum by 11."""
    total = sum(int(digit) * weight for digit, weight in zip(number, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True))
    return total % 11 == 0 and len(set(number)) > 1


def _england(number: str) -> bool:
    """NHS number: a weighted sum by 11."""
    total = 11 - sum(int(digit) * weight for digit, weight in zip(number, range(10, 1, -1), strict=False)) % 11
    return total % 11 == int(number[9])


_Check = Callable[[str], bool]
_IDS: tuple[tuple[re.Pattern[str], _Check], ...] = (
    (re.compile(r"(?<![\w.,+])(\d{2} ?\d{3} ?\d{3} ?\d{3})(?!\w|[.,]\d)"), _germany),
    (
        re.compile(
            r"(?<![\w.,])([12] ?\d\d ?\d\d ?(?:\d\d|2[ABab]) ?\d{3} ?\d{3} ?\d{2})(?!\w|[.,]\d)",
        ),
        _france,
    ),
    (re.compile(r"(?<!\w)((?:\d{8}|[XYZxyz][ -]?\d{7})[ -]?[A-Za-z])(?!\w)"), _spain),
    (
        re.compile(
            r"(?<!\w)([A-Za-z]{3} ?[A-Za-z]{3} ?[\dL-NP-Vl-np-v]{2}[A-EHLMPR-Ta-ehlmpr-t][\dL-NP-Vl-np-v]{2} ?"
            r"[A-Za-z][\dL-NP-Vl-np-v]{3}[A-Za-z])(?!\w)"
        ),
        _italy,
    ),
    (re.compile(r"(?<![\w.,+])(\d{11})(?!\w|[.,]\d)"), _poland),
    (re.compile(r"(?<![\w.,+])(\d{2}\.?\d{2}\.?\d{2}[ -]?\d{3}[. ]?\d{2})(?!\w|[.,]\d)"), _belgium),
    (re.compile(r"(?<![\w.,+])(756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2})(?!\w|[.,]\d)"), _switzerland),
    (re.compile(r"(?<!\w)(\d{6}[-+A-FU-Ya-fu-y]\d{3}[0-9A-Ya-y])(?!\w)"), _finland),
    (re.compile(r"(?<![\w.,+-])((?:\d{2})?\d{6}[-+]\d{4})(?![\w-])"), _sweden),
    (re.compile(r"(?<![\w.])(\d{3}\.\d{3}\.\d{3}-\d{2})(?!\w)"), _brazil),
    # One number of eleven would pass by chance: these two only after their names.
    (
        re.compile(
            r"(?<!\w)(?:BSN|[Bb]urgerservicenummer)[ :.-]{1,6}+(?:nr[ :.]{1,3}+)?(\d{4}[. ]?\d{2}[. ]?\d{3})(?!\w)"
        ),
        _netherlands,
    ),
    (re.compile(r"(?<!\w)NHS[ -](?:[Nn]umber|[Nn]o)[ :.]{1,6}+(\d{3}[ -]?\d{3}[ -]?\d{4})(?!\w)"), _england),
)
