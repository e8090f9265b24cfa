"""File names for people: made harmless, or refused where they try to look like something else."""

import re
import unicodedata

from services.extractor.domain.media import MediaType
from services.runtime.errors import FieldViolation, InvalidArgument

MAX_NAME_CHARS = 255

_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9._-]")
_DOTS = re.compile(r"\.{2,}")
_MAX_EXTENSION_CHARS = 10
_EXTENSION = {MediaType.PDF: "pdf", MediaType.JPEG: "jpg", MediaType.PNG: "png"}
_DEVICE = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_RUNS_AT_THE_END = re.compile(
    r"^(apk|app|aspx?|bat|cgi|chm|cmd|com|cpl|dll|dmg|exe|hta|html?|iso|jar|jse?|jsp|lnk|mht|mhtml|msi|msp|php|phtml"
    r"|pif|ps1|reg|scr|sh|shtml|svg|sys|url|vb[es]?|ws[fh]|xhtml|xml)$",
    re.IGNORECASE,
)
"""Extensions that run or render code where such a name is opened."""
_RUNS_INSIDE = re.compile(
    r"^(aspx?|bat|cgi|cmd|dll|exe|hta|jar|jse|jsp|lnk|msi|php|phtml|pif|ps1|scr|shtml|vb[es]|wsf)$", re.IGNORECASE
)
"""Those that some servers act upon even before a last extension, as in `shell.php.pdf`."""


def clean_display_name(given: str, media_type: MediaType) -> str:
    """`given` in letters, digits, dot, underscore and hyphen, 1 to 255 of them; `document.<type>` where none is left.

    Accented letters lose their accent, dots at either end and all but one in a row go, everything else becomes an
    underscore. Raises InvalidArgument SUSPICIOUS_FILE_NAME for names that hide something: control or direction
    characters, steps up a path, device names, extensions that run code.
    """
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in given):
        raise _suspicious("it contains control or text-direction characters")
    plain = "".join(char for char in unicodedata.normalize("NFKD", given) if not unicodedata.combining(char))
    if any(step in (".", "..") for step in re.split(r"[/\\]", plain)):
        raise _suspicious("it leads somewhere else")
    name = _DOTS.sub(".", _NOT_ALLOWED.sub("_", plain)).strip(".")
    # What is kept is what is judged: cutting could bring an extension to the end.
    name = _cut(name) or f"document.{_EXTENSION[media_type]}"
    _refuse_disguises(name)
    return name


def _cut(name: str) -> str:
    """At most MAX_NAME_CHARS of the name, with its extension where it has one."""
    if len(name) <= MAX_NAME_CHARS:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > _MAX_EXTENSION_CHARS:
        return name[:MAX_NAME_CHARS].rstrip(".")
    return stem[: MAX_NAME_CHARS - len(extension) - 1].rstrip(".") + dot + extension


def _refuse_disguises(name: str) -> None:
    if _DEVICE.match(name):
        raise _suspicious("it is the name of a device")
    *inside, last = name.split(".")[1:] or [""]
    if _RUNS_AT_THE_END.match(last) or any(_RUNS_INSIDE.match(part) for part in inside):
        raise _suspicious("its extension belongs to a program or a web page")


def _suspicious(why: str) -> InvalidArgument:
    message = f"The file name is refused: {why}. Rename the file."
    return InvalidArgument("SUSPICIOUS_FILE_NAME", message, fields=[FieldViolation("display_name", message)])
