"""Which language a text is in, and by whose rules Postgres stems it."""

import threading

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_ENOUGH_LETTERS = 16
_SAMPLE_CHARACTERS = 400

CONFIGURATIONS = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
"""Postgres' text search configurations by code of ISO 639-1; all other languages are not stemmed."""


def configuration(language: str) -> str:
    """The name of Postgres' text search configuration for a code of ISO 639-1."""
    return "pg_catalog." + CONFIGURATIONS.get(language, "simple")


class LanguageGuesser:
    """Tells languages. Its model takes half a second to load, once, in the thread that asks first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._identifier: LanguageIdentifier | None = None

    def guess(self, text: str) -> str:
        """ISO 639-1, or empty where there is too little text to tell. For threads; 50 µs."""
        sample = text[:_SAMPLE_CHARACTERS]
        if sum(map(str.isalpha, sample)) < _ENOUGH_LETTERS:
            return ""
        with self._lock:
            if self._identifier is None:
                self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        language, _ = self._identifier.classify(sample)
        return str(language) if len(language) == 2 else ""
