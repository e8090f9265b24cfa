"""The models behind APIs in the form of OpenAI's: those that are known, and those that an operator adds."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.rates import NO_LIMIT, Rate

KNOWN = Path(__file__).parent.parent / "models.toml"
"""The file that comes with Pagemesh."""
_MAX_FILE_BYTES = 1_000_000
_TAKEN = ("offline", "mistral")
"""Providers with an adapter of their own."""


class WrongModels(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class ChatModel:
    """What is known of a model. `takes_schema` says whether it answers in the form of a JSON Schema or only in JSON;
    `reasoning_effort` is sent where it is not empty."""

    abilities: Abilities
    takes_schema: bool
    reasoning_effort: str = ""
    rate: Rate = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider: `/chat/completions` is added to `url`, and `output_limit` is the parameter that bounds an answer."""

    name: str
    url: str
    output_limit: Literal["max_tokens", "max_completion_tokens"]
    models: Mapping[str, ChatModel]

    def at(self, url: str) -> "Endpoint":
        """The same behind another address."""
        return replace(self, url=url.rstrip("/"))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Model(_Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,180}$")]
    context_tokens: Annotated[int, Field(ge=4_000, le=10_000_000)]
    max_output_tokens: Annotated[int, Field(ge=500, le=1_000_000)]
    takes_schema: bool = True
    reasoning_effort: Annotated[str, Field(pattern=r"^[a-z]{0,20}$")] = ""
    tokens_per_minute: Annotated[int, Field(ge=0, le=10**12)] = 0
    requests_per_minute: Annotated[int, Field(ge=0, le=10**12)] = 0


class _Provider(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    url: HttpUrl
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    model: Annotated[list[_Model], Field(min_length=1, max_length=200)]


class _File(_Strict):
    provider: Annotated[list[_Provider], Field(min_length=1, max_length=50)]


def load_endpoints(*files: Path) -> dict[str, Endpoint]:
    """The providers of all files by name; a later file takes the place of an earlier one's provider. Raises
    WrongModels."""
    return {endpoint.name: endpoint for file in files for endpoint in _load(file)}


def _load(file: Path) -> list[Endpoint]:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise WrongModels(f"{file} has more than {_MAX_FILE_BYTES} bytes")
        parsed = _File.model_validate(tomllib.loads(data.decode()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise WrongModels(f"{file} cannot be read: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise WrongModels(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from exc
    for provider in parsed.provider:
        if provider.name in _TAKEN:
            raise WrongModels(f"{file}: the name {provider.name} is taken")
    return [_endpoint(provider) for provider in parsed.provider]


def _endpoint(provider: _Provider) -> Endpoint:
    models = {
        model.name: ChatModel(
            Abilities(
                context_tokens=model.context_tokens,
                max_output_tokens=min(model.max_output_tokens, model.context_tokens),
                writes=True,
                bills_unanswered=True,
            ),
            model.takes_schema,
            model.reasoning_effort,
            Rate(model.tokens_per_minute, model.requests_per_minute),
        )
        for model in provider.model
    }
    return Endpoint(provider.name, re.sub(r"/+$", "", str(provider.url)), provider.output_limit, models)
