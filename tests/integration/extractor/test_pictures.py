"""Pictures through the whole extractor: how they look, what is kept of them, and what bad files cost."""

import asyncio
import io
from typing import Any

import grpc
import psutil
import pymupdf
import pytest
from PIL import Image, ImageOps

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.runtime import status
from services.runtime.errors import FailedPrecondition, NotFound, OutOfRange
from tests.integration.extractor import made_pdfs, made_pictures
from tests.integration.extractor.conftest import Client, Service, Start, eventually
from tests.integration.extractor.made_pictures import BLUE, RED, WHITE, near, pixmap_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

PNG = pb.RenderPageRequest.FORMAT_PNG
PIECE_BYTES = 256 * 1024


async def joined(call: Any, content_type: str) -> bytes:
    data, types = b"", []
    try:
        async for response in call:
            assert len(response.content.data) <= PIECE_BYTES
            types.append(response.content.content_type)
            data += response.content.data
    except grpc.aio.AioRpcError as exc:
        raise status.from_rpc_error(exc, service="extractor") from exc
    assert types == [content_type] + [""] * (len(types) - 1)
    return data


def asking(client: Client, name: str, timeout_s: float = 60, **request: Any) -> Any:
    return client.stub.RenderPage(
        pb.RenderPageRequest(name=name, **request), timeout=timeout_s, metadata=client.metadata
    )


async def render(client: Client, name: str, **request: Any) -> Any:
    """The page as pixels."""
    content_type = "image/png" if request.get("format") == PNG else "image/jpeg"
    return pixmap_of(await joined(asking(client, name, **request), content_type))


async def take_out(client: Client, name: str, content_type: str, **request: Any) -> bytes:
    message = pb.ExtractImageRequest(name=name, **request)
    return await joined(client.stub.ExtractImage(message, timeout=60, metadata=client.metadata), content_type)


async def upload(client: Client, data: bytes) -> str:
    return str((await client.upload(data)).document.name)


async def test_a_page_is_drawn_at_its_dots_per_inch_as_jpeg_by_default(client: Client) -> None:
    name = await upload(client, made_pdfs.book(2))
    drawn = await render(client, name)
    assert (drawn.width, drawn.height) == (1700, 2200)
    assert near(drawn.pixel(5, 5), WHITE)
    assert min(drawn.samples) < 60
    small = await render(client, name, page=2, dpi=36, jpeg_quality=10)
    assert (small.width, small.height) == (306, 396)


async def test_what_is_drawn_is_what_mupdf_draws(client: Client) -> None:
    data = made_pdfs.book(1)
    drawn = await render(client, await upload(client, data), dpi=100, format=PNG)
    with pymupdf.open(stream=data, filetype="pdf") as document:
        assert drawn.samples == document[0].get_pixmap(dpi=100).samples


async def test_no_side_is_longer_than_4096_pixels(client: Client) -> None:
    drawn = await render(client, await upload(client, made_pdfs.book(1)), dpi=1200)
    assert (drawn.width, drawn.height) == (3166, 4096)


async def test_a_turned_page_is_drawn_as_it_is_shown(client: Client) -> None:
    drawn = await render(client, await upload(client, made_pictures.turned()), dpi=72, format=PNG)
    assert (drawn.width, drawn.height) == (200, 100)
    assert (drawn.pixel(100, 25), drawn.pixel(100, 75)) == (RED, WHITE)


async def test_annotations_are_drawn(client: Client) -> None:
    drawn = await render(client, await upload(client, made_pictures.annotated()), dpi=72, format=PNG)
    assert (drawn.pixel(50, 50), drawn.pixel(10, 10)) == (RED, WHITE)


@pytest.mark.parametrize(
    ("orientation", "size", "red", "blue"),
    [
        (1, (40, 20), (20, 4), (20, 15)),
        (3, (40, 20), (20, 15), (20, 4)),
        (6, (20, 40), (15, 20), (4, 20)),
        (8, (20, 40), (4, 20), (15, 20)),
    ],
)
async def test_a_photograph_is_drawn_upright(
    client: Client, orientation: int, size: tuple[int, int], red: tuple[int, int], blue: tuple[int, int]
) -> None:
    name = await upload(client, made_pictures.jpeg(exif_orientation=orientation))
    with pymupdf.open(stream=made_pictures.jpeg(), filetype="jpeg") as document:
        dpi = round(72 * 40 / document[0].rect.width)
    drawn = await render(client, name, dpi=dpi, format=PNG)
    assert (drawn.width, drawn.height) == size
    assert near(drawn.pixel(*red), RED)
    assert near(drawn.pixel(*blue), BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_photograph_that_is_mirrored_too_is_drawn_as_it_was_seen(client: Client, orientation: int) -> None:
    """Of four colours, as Pillow shows them: turned and mirrored in each of the eight ways that EXIF knows."""
    photo = made_pictures.four_colours(orientation)
    wanted: Any = ImageOps.exif_transpose(Image.open(io.BytesIO(photo))).convert("RGB")
    drawn = await render(client, await upload(client, photo), dpi=96, format=PNG)
    assert (drawn.width, drawn.height) == wanted.size
    for x in (drawn.width // 4, drawn.width * 3 // 4):
        for y in (drawn.height // 4, drawn.height * 3 // 4):
            assert near(drawn.pixel(x, y), wanted.getpixel((x, y)))


async def test_what_is_transparent_is_white(client: Client) -> None:
    drawn = await render(client, await upload(client, made_pictures.half_transparent_png()), dpi=96, format=PNG)
    left, right = drawn.width // 4, drawn.width * 3 // 4
    assert near(drawn.pixel(left, 2), WHITE)
    assert near(drawn.pixel(right, 2), RED)
    assert drawn.alpha == 0


async def test_ink_becomes_light(client: Client) -> None:
    drawn = await render(client, await upload(client, made_pictures.inked()), dpi=72, format=PNG)
    assert near(drawn.pixel(100, 300), (0, 174, 239))
    assert near(drawn.pixel(500, 300), (255, 242, 0))


async def test_a_plain_jpeg_comes_out_as_it_went_in(client: Client) -> None:
    first, second = made_pictures.jpeg(), made_pictures.jpeg(exif_orientation=6)
    name = await upload(client, made_pictures.placing(first, second))
    assert await take_out(client, name, "image/jpeg") == first
    assert await take_out(client, name, "image/jpeg", index=1) == second


async def test_a_picture_that_was_uploaded_comes_back(client: Client) -> None:
    for data, content_type in (
        (made_pictures.jpeg(), "image/jpeg"),
        (made_pictures.half_transparent_png(), "image/png"),
    ):
        assert await take_out(client, await upload(client, data), content_type) == data


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (made_pictures.placing(made_pictures.half_transparent_png()), {(5, 2): (None, 0), (30, 2): (RED, 255)}),
        (made_pictures.stencil(), {(3, 0): ((0,), 255), (3, 1): (None, 0)}),
        (made_pictures.keyed(), {(0, 0): (None, 0), (1, 0): ((0x80,), 255)}),
        (made_pictures.masked(), {(0, 0): (None, 0), (7, 1): ((0x40,), 255)}),
    ],
    ids=["soft mask", "stencil", "colour key", "larger mask"],
)
async def test_a_mask_is_transparency(client: Client, data: bytes, pixels: dict[Any, Any]) -> None:
    taken: Any = pymupdf.Pixmap(await take_out(client, await upload(client, data), "image/png"))
    assert taken.alpha
    for at, (colour, alpha) in pixels.items():
        *colours, opacity = taken.pixel(*at)
        assert opacity == alpha
        assert colour is None or near(tuple(colours), colour)


async def test_an_image_in_ink_is_a_png_in_light(client: Client) -> None:
    name = await upload(client, made_pictures.inked())
    taken: Any = pymupdf.Pixmap(await take_out(client, name, "image/png"))
    assert (taken.n, taken.width, taken.height) == (3, 2, 1)


async def test_what_is_past_the_end_is_out_of_range(client: Client) -> None:
    name = await upload(client, made_pictures.placing(made_pictures.jpeg()))
    with pytest.raises(OutOfRange) as no_page:
        await render(client, name, page=2)
    assert (no_page.value.reason, no_page.value.fields[0].field) == ("PAGE_OUT_OF_RANGE", "page")
    with pytest.raises(OutOfRange) as no_image:
        await take_out(client, name, "", index=1)
    assert (no_image.value.reason, no_image.value.fields[0].field) == ("IMAGE_OUT_OF_RANGE", "index")
    with pytest.raises(NotFound):
        await render(client.of("somebody-else"), name)


async def test_a_password_opens_a_file_and_what_it_opened_is_not_kept(client: Client) -> None:
    name = await upload(client, made_pdfs.encrypted("secret"))
    for password, reason in (("", "DOCUMENT_ENCRYPTED"), ("wrong", "DOCUMENT_WRONG_PASSWORD")):
        with pytest.raises(FailedPrecondition) as told:
            await render(client, name, password=password)
        assert told.value.reason == reason
    assert (await render(client, name, dpi=72, password="secret")).width == 612
    with pytest.raises(FailedPrecondition):
        await render(client, name, dpi=72)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (made_pdfs.without_pages(), "DOCUMENT_HAS_NO_PAGES"),
        (b"%PDF-1.7\n", "DOCUMENT_CORRUPT"),
        (made_pictures.with_too_many_pixels(), "PAGE_MEMORY"),
        (made_pictures.png_that_says(65_000, 65_000), "DOCUMENT_TOO_MANY_PIXELS"),
    ],
    ids=["no pages", "no document", "too many pixels", "too large a picture"],
)
async def test_a_bad_file_is_told_of_and_kills_nobody(client: Client, data: bytes, reason: str) -> None:
    name = await upload(client, data)
    with pytest.raises(FailedPrecondition) as told:
        await render(client, name)
    assert told.value.reason == reason


@pytest.mark.parametrize("size", ["1000000000 1000000000", "1000000000 1", "0.001 0.001"])
async def test_a_page_of_any_size_is_at_most_4096_pixels_wide(client: Client, size: str) -> None:
    data = made_pdfs.book(1).replace(b"/MediaBox[0 0 612 792]", f"/MediaBox[0 0 {size}]".encode())
    drawn = await render(client, await upload(client, data), dpi=1200)
    assert 1 <= min(drawn.width, drawn.height) <= max(drawn.width, drawn.height) <= 4096


async def test_noise_is_too_large_as_png_and_not_as_jpeg(client: Client) -> None:
    name = await upload(client, made_pictures.noise(3000))
    with pytest.raises(FailedPrecondition) as told:
        await render(client, name, dpi=480, format=PNG)
    assert told.value.reason == "PICTURE_TOO_LARGE"
    assert (await render(client, name, dpi=480, jpeg_quality=50)).height == 4096


@pytest.mark.usefixtures("no_clock")
async def test_a_page_that_hangs_ends_its_parsers_and_is_told_of(start: Start) -> None:
    service = await start(page_timeout_s=0.3)
    name = await upload(service.client, made_pdfs.with_laughing_page(1, 0))
    with pytest.raises(FailedPrecondition) as told:
        await render(service.client, name, page=2)
    assert told.value.reason == "PAGE_TIMEOUT"
    assert (await render(service.client, name, page=1, dpi=72)).width == 612


async def test_cancelling_ends_the_parser_that_draws(start: Start) -> None:
    service = await start(page_timeout_s=60)
    name = await upload(service.client, made_pdfs.with_laughing_page(0, 0))
    call = asking(service.client, name)
    reading = asyncio.ensure_future(call.read())
    await eventually(lambda: any(busy(process) for process in service.parsers()), "a parser is at work")
    working = {process.pid for process in service.parsers() if busy(process)}
    call.cancel()
    await asyncio.wait([reading])
    await eventually(
        lambda: not working & {process.pid for process in service.parsers()}, "the parser is gone", timeout_s=1
    )


def busy(process: psutil.Process) -> bool:
    try:
        return float(process.cpu_times().user) > 0.3
    except psutil.NoSuchProcess:
        return False


def kept(service: Service, tenant: str) -> list[tuple[int, int]]:
    """Page and size of what is kept for a tenant."""
    import psycopg

    with psycopg.connect(service.database_url) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (tenant,))
        return connection.execute(
            "SELECT page, size_bytes FROM extractor.drawn_pages WHERE tenant = %s ORDER BY page", (tenant,)
        ).fetchall()


async def test_a_page_is_drawn_once_and_forgotten_with_its_document(service: Service) -> None:
    name = await upload(service.client, made_pdfs.book(3))
    first = await joined(asking(service.client, name, page=2, dpi=72), "image/jpeg")
    assert kept(service, "acme") == [(2, len(first))]
    for parser in service.parsers():
        parser.suspend()
    try:
        again = await joined(asking(service.client, name, page=2, dpi=72, timeout_s=5), "image/jpeg")
    finally:
        for parser in service.parsers():
            parser.resume()
    assert again == first
    await service.client.delete(name)
    assert kept(service, "acme") == []


async def test_drawing_against_deleting_leaves_nothing_behind(service: Service) -> None:
    for number in range(5):
        name = await upload(service.client, made_pdfs.book(number + 1))
        drawing = [asyncio.ensure_future(render(service.client, name, dpi=dpi)) for dpi in range(30, 60, 5)]
        done, _ = await asyncio.wait(drawing, return_when=asyncio.FIRST_COMPLETED)
        assert done
        await service.client.delete(name)
        await asyncio.wait(drawing)
        assert kept(service, "acme") == []
