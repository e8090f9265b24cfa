"""What the largest page becomes on its way to a caller."""

import pytest
from google.protobuf.json_format import MessageToJson

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters import page_bounds
from services.extractor.adapters.parser_protocol import MAX_PAGE_BYTES

EDGE_MESSAGE_BYTES = 32 * 1024 * 1024
BOX = page_pb2.BoundingBox(x0=-1.1754944e-38, y0=-1.1754944e-38, x1=-1.1754944e-38, y1=-1.1754944e-38)
CONTROL = "\x01"


@pytest.mark.parametrize(
    "page",
    [
        page_pb2.Page(text=CONTROL * page_bounds.MAX_TEXT_CHARS),
        page_pb2.Page(blocks=[page_pb2.Block(text=CONTROL * 12, box=BOX)] * page_bounds.MAX_BLOCKS),
        page_pb2.Page(words=[page_pb2.Word(text=CONTROL * 50, box=BOX, block=1, line=1)] * page_bounds.MAX_WORDS),
    ],
    ids=["text", "blocks", "words"],
)
def test_it_fits_into_one_message_of_json(page: page_pb2.Page) -> None:
    assert 0.8 * MAX_PAGE_BYTES < page.ByteSize() <= MAX_PAGE_BYTES
    assert len(MessageToJson(page, indent=None)) < EDGE_MESSAGE_BYTES - 1024
