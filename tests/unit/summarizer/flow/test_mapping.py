"""Between messages and values: nothing is lost, and every message keeps its contract."""

import protovalidate
import pytest

from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import summary_pb2
from services.summarizer.api.mapping import from_event, from_summary, to_options
from services.summarizer.domain.events import Event, Finished, Progress, SentenceReady, TextDelta
from services.summarizer.domain.values import (
    Box,
    Citation,
    Consumption,
    Length,
    Money,
    Options,
    Sentence,
    Style,
    Summary,
    TokenCount,
)

SENTENCE = Sentence("It is so.", (Citation(3, "so it is", (Box(1, 2, 3, 4),)),))
EVENT_ID = "00000000-0000-4000-8000-000000000001"
SUMMARY = Summary(
    document="documents/" + "a" * 32,
    text="It is so. It is not.",
    sentences=(SENTENCE, Sentence("It is not.", ())),
    model="mistral/mistral-small-latest",
    extractive=True,
    cached=True,
    failed_pages=(2, 5),
    consumption=Consumption(TokenCount(10, 2), 1, Money("USD", 42), settled=True, usage_event_ids=(EVENT_ID,)),
)


def test_a_summary_is_told_whole() -> None:
    message = from_summary(SUMMARY)
    protovalidate.validate(message)
    assert message.grounded_share == 0.5
    assert [sentence.grounded for sentence in message.sentences] == [True, False]
    citation = message.sentences[0].citations[0]
    assert (citation.page, citation.quote) == (3, "so it is")
    assert (citation.boxes[0].x0, citation.boxes[0].y1) == (1, 4)
    assert (message.extractive, message.cached, list(message.failed_pages)) == (True, True, [2, 5])
    used = message.consumption
    assert (used.input_tokens, used.output_tokens, used.provider_calls) == (10, 2, 1)
    assert (used.cost.currency, used.cost.micros, used.settled) == ("USD", 42, True)
    assert list(used.usage_event_ids) == [EVENT_ID]


def test_every_kind_of_event_is_told_as_itself() -> None:
    told: dict[str, Event] = {
        "progress": Progress(1, 2, 3, 4),
        "text_delta": TextDelta("It is"),
        "sentence": SentenceReady(SENTENCE),
        "summary": Finished(SUMMARY),
    }
    for kind, event in told.items():
        message = from_event(event)
        protovalidate.validate(message)
        assert message.WhichOneof("event") == kind


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (service_pb2.SummaryOptions(), Options(Length.MEDIUM, Style.PARAGRAPH, "", "", "")),
        (
            service_pb2.SummaryOptions(
                length=summary_pb2.SUMMARY_LENGTH_LONG,
                style=summary_pb2.SUMMARY_STYLE_BULLETS,
                language="pt-BR",
                focus="bees",
                audience="bears",
                model="offline/lexrank",
            ),
            Options(Length.LONG, Style.BULLETS, "pt-BR", "bees", "offline/lexrank", "bears"),
        ),
    ],
    ids=["nothing said", "everything said"],
)
def test_options_are_read(message: service_pb2.SummaryOptions, wanted: Options) -> None:
    assert to_options(message) == wanted


def test_every_length_and_style_of_the_contract_is_known() -> None:
    for length in summary_pb2.SummaryLength.values():
        to_options(service_pb2.SummaryOptions(length=length))
    for style in summary_pb2.SummaryStyle.values():
        to_options(service_pb2.SummaryOptions(style=style))
