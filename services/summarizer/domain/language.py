"""Which language a text is in, as far as its commonest words and its script tell."""

import re
from collections import Counter
from collections.abc import Iterable


def _words(line: str) -> frozenset[str]:
    return frozenset(line.split())


FUNCTION_WORDS: dict[str, frozenset[str]] = {
    "en": _words(
        "the of and to in a is that for it as was with be by on not this are or from at which but have an has had were "
        "we can their its been will would they these than there also our such may between when more other into only "
        "one if all no so i you he she his her who what how do does did over about"
    ),
    "de": _words(
        "der die das und in den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat "
        "dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis "
        "mehr durch man wurde sei kann dann wenn diese dieser unter wir sein ich ihre alle kein keine"
    ),
    "fr": _words(
        "de la le et les des en un une du que est pour qui dans a par plus pas au sur ne se ce il sont la avec son aux "
        "d l cette ou être comme nous mais sa ont été ces leur on elle ses fait deux peut entre aussi dont sans même "
        "était tout si où lui ils je très"
    ),
    "es": _words(
        "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin "
        "sobre este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque "
        "qué sólo han yo hay"
    ),
    "it": _words(
        "di e il la che in a per un è del non una i si da le con dei della al come più ma sono alla nel gli anche ha "
        "lo o delle su se suo questo dal nella tra cui stato essere ed fra sua loro questa due degli era o dalla "
        "perché hanno ai quando"
    ),
    "pt": _words(
        "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua "
        "ou ser quando muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos são "
        "pode"
    ),
    "nl": _words(
        "de van een het en in is dat op te zijn met voor niet aan er om ook als dan maar bij of uit nog worden door "
        "naar heeft tot ze wordt over deze hij werd meer hebben die kan geen wat zich zo was ik je we"
    ),
}
"""The commonest words of the languages whose prose is recognised: in running text about every second word is one."""

NEGATIONS = _words(
    "not no never none nor neither without cannot nicht nie kein keine keinen keiner keinem keines ohne weder ne pas "
    "jamais sans aucun aucune nunca sin ningun ninguna nao sem nenhum nenhuma non mai senza nessun nessuna niet nooit "
    "geen zonder isnt arent wasnt werent dont doesnt didnt wont cant couldnt wouldnt shouldnt hasnt havent hadnt"
)
"""Words, folded, whose presence turns a sentence round."""

# Languages that share a script: a text in it is in one of these.
_SCRIPTS: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = (
    (re.compile(r"[\u3040-\u30ff]"), frozenset({"ja"})),
    (re.compile(r"[\uac00-\ud7af\u1100-\u11ff]"), frozenset({"ko"})),
    (re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]"), frozenset({"zh", "ja", "yue"})),
    (re.compile(r"[\u0400-\u04ff]"), frozenset({"ru", "uk", "bg", "sr", "mk", "be", "kk", "mn", "ky", "tg"})),
    (re.compile(r"[\u0370-\u03ff]"), frozenset({"el"})),
    (re.compile(r"[\u0590-\u05ff]"), frozenset({"he", "yi"})),
    (re.compile(r"[\u0600-\u06ff]"), frozenset({"ar", "fa", "ur", "ps", "ku"})),
    (re.compile(r"[\u0900-\u097f]"), frozenset({"hi", "mr", "ne", "sa"})),
    (re.compile(r"[\u0e00-\u0e7f]"), frozenset({"th"})),
)
_THREE_LETTERS = {
    "eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "ita": "it", "por": "pt",
    "nld": "nl", "dut": "nl", "jpn": "ja", "kor": "ko", "zho": "zh", "chi": "zh", "rus": "ru", "ell": "el",
}  # fmt: skip

_WORD = re.compile(r"[^\W\d_]+")
_READ_CHARS = 20_000
_MIN_WORDS = 20
_MIN_SHARE = 0.18
_LEAD = 1.15


def possible_languages(text: str) -> frozenset[str]:
    """ISO 639-1 codes of the languages that the text may be in; empty where it cannot be told.

    Reads the first 20,000 characters. Latin script is told apart by function words, which have to make up a share
    of the words that formulas, tables and name lists do not reach.
    """
    sample = text[:_READ_CHARS]
    words = [word.lower() for word in _WORD.findall(sample)]
    letters = sum(map(len, words))
    for pattern, languages in _SCRIPTS:
        # Kana make up a part of Japanese; the other scripts stand alone.
        wanted = 0.1 if "ja" in languages and len(languages) == 1 else 0.4
        if letters and len(pattern.findall(sample)) >= wanted * letters:
            return languages
    if len(words) < _MIN_WORDS:
        return frozenset()
    counts = Counter(words)
    shares = {
        language: sum(counts[word] for word in common) / len(words) for language, common in FUNCTION_WORDS.items()
    }
    best = max(shares.values())
    if best < _MIN_SHARE:
        return frozenset()
    return frozenset(language for language, share in shares.items() if share * _LEAD >= best)


def speaks(text: str, tag: str) -> bool:
    """False only where the text is certainly in another language than the BCP 47 tag names."""
    languages = possible_languages(text)
    primary = tag.split("-", 1)[0].lower()
    return not languages or _THREE_LETTERS.get(primary, primary) in languages


def function_words(languages: Iterable[str]) -> frozenset[str]:
    """Function words of these languages; empty where none of them is known."""
    return frozenset().union(*(FUNCTION_WORDS.get(language, frozenset()) for language in languages))
