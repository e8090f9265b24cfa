"""The text and the words in a page as it is stored."""

from pagemesh.common.v1 import page_pb2
from services.extractor.domain.pages import Page
from services.extractor.domain.search_marks import Box, PageText


def page_text(page: Page) -> PageText:
    """Opens a page's content. Takes milliseconds where there are thousands of words: for threads."""
    content = page_pb2.Page.FromString(page.content)
    boxes = [Box(word.box.x0, word.box.y0, word.box.x1, word.box.y1) for word in content.words]
    return PageText(
        text=content.text,
        words=[word.text for word in content.words],
        boxes=boxes,
        has_text=page_pb2.PAGE_FLAG_NO_TEXT not in content.flags,
    )
