"""How it is said that the documents hold no answer."""

from services.summarizer.domain.questions import question_language

_TEXTS = {
    "en": "The documents do not hold an answer to this question.",
    "de": "Die Dokumente enthalten keine Antwort auf diese Frage.",
    "fr": "Les documents ne contiennent pas de réponse à cette question.",
    "es": "Los documentos no contienen una respuesta a esta pregunta.",
    "it": "I documenti non contengono una risposta a questa domanda.",
    "pt": "Os documentos não contêm uma resposta a esta pergunta.",
    "nl": "De documenten bevatten geen antwoord op deze vraag.",
}


def nothing_found(language: str, question: str) -> str:
    """In the language of the BCP 47 tag, or in that of the question where none is given; in English where it is none of
    those known here."""
    primary = language.split("-", 1)[0].lower() or question_language(question)
    return _TEXTS.get(primary, _TEXTS["en"])
