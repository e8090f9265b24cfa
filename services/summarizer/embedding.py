"""Wires what makes vectors; part of `__main__`."""

import contextlib
from collections.abc import AsyncIterator

from services.runtime.clients import MeshClient
from services.runtime.config import WrongSettingError
from services.summarizer.adapters.acting import rank, remaining_s, tenant
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_vectors import ExtractorVectors
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.model_registry import Endpoint
from services.summarizer.adapters.tolls import Tolls
from services.summarizer.api.embeddings import Embeddings
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.embedding import EmbedDocument, EmbedQuery, Vectors
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.paid_calls import Calls
from services.summarizer.domain.ports import Results


@contextlib.asynccontextmanager
async def open_model(
    settings: SummarizerSettings, endpoints: list[Endpoint], tolls: Tolls
) -> AsyncIterator[Model | None]:
    """The deployment's model that makes vectors, None where there is none. Raises WrongSettingError."""
    provider_name, _, model = settings.embedding_model.partition("/")
    if not model:
        yield None
        return
    if settings.anonymise or settings.anonymise_always:
        # Vectors are made of the text as it is, which may then not leave.
        raise WrongSettingError(
            "PAGEMESH_EMBEDDING_MODEL: leave it out where PAGEMESH_ANONYMISE or PAGEMESH_ANONYMISE_ALWAYS is set"
        )
    found = {endpoint.name: (endpoint.url, settings.provider_keys[endpoint.name]) for endpoint in endpoints}
    if settings.mistral_api_key is not None:
        found["mistral"] = (f"{str(settings.mistral_url).rstrip('/')}/v1", settings.mistral_api_key)
    if provider_name not in found:
        known = ", ".join(found) or "nobody"
        raise WrongSettingError(f"PAGEMESH_EMBEDDING_MODEL: {provider_name} needs its key; there are those of {known}")
    # Its library takes longer to load than all of the rest.
    from services.summarizer.adapters.embeddings import EmbeddingsProvider  # noqa: PLC0415

    url, key = found[provider_name]
    provider = EmbeddingsProvider(name=provider_name, model=model, url=url, api_key=key)
    guarded = GuardedProvider(provider, remaining_s=remaining_s, tenant=tenant, rank=rank, tolls=tolls)
    try:
        yield Model(settings.embedding_model, model, guarded, guarded.abilities(model))
    finally:
        await provider.close()


def compose(
    *, model: Model | None, models: Models, extractor: MeshClient, results: Results, paid: Calls, keeper: Keeper
) -> Embeddings:
    """What makes vectors, over the same money and results as summaries."""
    vectors = Vectors(model=model, models=models, results=results, calls=paid)
    document = EmbedDocument(
        vectors=vectors, pages=ExtractorPages(extractor), shelf=ExtractorVectors(extractor), keeper=keeper
    )
    return Embeddings(document, EmbedQuery(vectors))
