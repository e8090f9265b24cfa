"""What a model is asked about a question. The rules about material, fences and form are those of all prompts."""

import json

TASK = """\
The material is pages of one or more documents; a line `[{fence} page N]` says that page N begins. Answer the question \
with
{{"sentences": [{{"text": "…", "quotes": [{{"quote": "…", "page": N}}]}}]}}
`text` is one sentence of the answer, of at most 40 words. `quotes` are one or two passages of 5 to 30 words that \
support it, copied from the material letter by letter, without leaving anything out, each with the number of its page.
If the material does not hold the answer, answer {{"sentences": []}}. Never answer from what you know otherwise, and \
never guess.
"""
OPENING = "You answer questions about documents."


def wishes(question: str, language: str, max_sentences: int) -> str:
    """What is asked outside of the material; the question is plain text already."""
    spoken = f"the language {language} (BCP 47)" if language else "the language of the question"
    # The caller's words, quoted: they say what to look for, not how to answer.
    asked = json.dumps(question, ensure_ascii=False)
    return (
        f"Answer the question in at most {max_sentences} sentences, the most important first, in {spoken}.\n"
        f"The question is: {asked}"
    )
