"""The file of models: what comes with Pagemesh, and what is refused of an operator's own."""

import tomllib
from pathlib import Path

import pytest

from services.summarizer.adapters.model_registry import KNOWN, WrongModels, load_endpoints

PRICES = Path(__file__).parents[4] / "services" / "ledger" / "migrations" / "prices"
MINE = '[[provider]]\nname = "mine"\nurl = "http://localhost:8000/v1/"\n'
MODEL = 'model = [{ name = "m/x", context_tokens = 32_000, max_output_tokens = 64_000 }]\n'


def test_every_known_model_has_a_price() -> None:
    # Version 4 is version 3 and what it lists.
    lists = [tomllib.loads((PRICES / name).read_text())["price"] for name in ("0003.toml", "0004.toml")]
    priced = {price["model"] for prices in lists for price in prices}
    known = {f"{name}/{model}" for name, endpoint in load_endpoints(KNOWN).items() for model in endpoint.models}
    assert known
    assert known <= priced


def test_an_operators_own_file_adds_and_replaces(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE + MODEL + MINE.replace("mine", "openai") + MODEL)
    endpoints = load_endpoints(KNOWN, tmp_path / "mine.toml")
    assert {"mine", "openai", "groq"} <= set(endpoints)
    assert list(endpoints["openai"].models) == ["m/x"]
    assert endpoints["mine"].url == "http://localhost:8000/v1"
    assert endpoints["mine"].models["m/x"].abilities.max_output_tokens == 32_000
    assert endpoints["mine"].at("http://elsewhere/").url == "http://elsewhere"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "provider: Field required"),
        ("not toml", "cannot be read"),
        (MINE, "provider.0.model: Field required"),
        (MINE.replace("mine", "offline") + MODEL, "the name offline is taken"),
        (MINE.replace("http:", "file:") + MODEL, "provider.0.url"),
        (MINE + MODEL.replace("32_000", "-1"), "provider.0.model.0.context_tokens"),
        (MINE + 'key = "secret"\n' + MODEL, "provider.0.key: Extra inputs"),
    ],
    ids=["empty", "no toml", "no models", "taken", "no http", "negative", "unknown word"],
)
def test_what_cannot_be_used_is_refused_by_its_place(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(WrongModels, match=why):
        load_endpoints(tmp_path / "mine.toml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongModels, match=r"nowhere\.toml cannot be read"):
        load_endpoints(tmp_path / "nowhere.toml")
