"""Which models there are, and what is told of those that are not."""

import pytest

from services.runtime.errors import InvalidArgument
from services.summarizer.domain.models import Models
from tests.unit.summarizer.flow.parts import MODEL, ScriptedProvider

MISSING = {"mistral": "PAGEMESH_MISTRAL_API_KEY"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mistral/mistral-small-latest", "mistral models need PAGEMESH_MISTRAL_API_KEY when the service starts"),
        ("mistral", "mistral models need PAGEMESH_MISTRAL_API_KEY when the service starts"),
        ("openai/gpt", "Choose one of: scripted/writer"),
    ],
)
def test_a_model_that_is_not_served_is_refused_with_what_it_needs(name: str, told: str) -> None:
    models = Models({"scripted": ScriptedProvider()}, default=MODEL, missing=MISSING)
    with pytest.raises(InvalidArgument) as refused:
        models.resolve(name)
    assert refused.value.reason == "MODEL_UNKNOWN"
    assert told in refused.value.message
    assert ("need" in refused.value.message) == name.startswith("mistral")


def test_a_provider_that_is_configured_needs_nothing() -> None:
    models = Models({"mistral": ScriptedProvider()}, default="mistral/writer", missing=MISSING)
    with pytest.raises(InvalidArgument) as refused:
        models.resolve("mistral/reader")
    assert "need" not in refused.value.message
