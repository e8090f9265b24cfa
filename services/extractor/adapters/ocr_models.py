"""The models that read pictures: rapidocr's steps, one after the other, with the files that lie in its wheel.

A page that was scanned sideways or upside down is turned first. Lines are read one at a time: batches would pad all of
them to the longest one, which takes more time and more memory than it saves in one thread.
"""

import os
import time
from pathlib import Path
from typing import Any

# Before numpy is imported, which reads it: threads do not survive a fork.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
import numpy as np
import numpy.typing as npt
import rapidocr
from rapidocr.main import RapidOCR, RapidOCRError

from services.extractor.domain.recognised import Corners, LineWord, Reading, TextLine

_MODELS = Path(rapidocr.__file__).parent / "models"
_PARAMS = {
    "Global.log_level": "critical",
    "Global.return_word_box": True,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    # Named, so that nothing is ever looked for elsewhere: without a path the library asks the network.
    "Det.model_path": str(_MODELS / "PP-OCRv6_det_small.onnx"),
    "Rec.model_path": str(_MODELS / "PP-OCRv6_rec_small.onnx"),
    "Cls.model_path": str(_MODELS / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
    # The side to which the picture is reduced for finding lines; they are read in full size. bench_ocr measures it.
    "Det.limit_type": "max",
    "Det.limit_side_len": 1280,
}
_UPRIGHT_SAMPLES = 8
_TURN_ASPECT = 6
_SIDEWAYS = 1.5
"""A box that is so many times higher than wide holds a line that goes up or down; the library turns it likewise."""
_MAX_STRETCH = 100
"""A line that is so many times wider than high is squeezed: memory grows with the width."""
_READ_HEIGHT_PX = 48
_SEEN_AT = 0.2
"""Where in a column of the recogniser the middle of its character is on the average. Half of all words begin and end
within 0.8 points of where they are drawn, and 95 of 100 within 2.8."""

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]


class Models:
    """Loaded once, before the fork."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._engine = RapidOCR(params=_PARAMS)
        # The three models are loaded when they are first used.
        sample = np.full((64, 320), 255, np.uint8)
        cv2.putText(sample, "Hello world", (20, 44), cv2.FONT_HERSHEY_SIMPLEX, 1, 0, 2)
        if not self.read(sample, budget_s=60).lines:
            raise RuntimeError("the models do not read")

    def read(self, gray: Pixels, *, budget_s: float) -> Reading:
        """The lines of a picture, one byte a pixel. After `budget_s` of computing the rest is left out."""
        begun_s = time.process_time()
        image, boxes, crops, turns = self._upright(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
        lines: list[TextLine] = []
        for box, crop in zip(boxes, crops, strict=True):
            if time.process_time() - begun_s > budget_s:
                return Reading(tuple(lines), complete=False)
            line = self._line(box, crop)
            if line is not None:
                height, width = image.shape[:2]
                lines.append(TextLine(line.words, _turned_back(line.corners, turns, width, height), line.confidence))
        return Reading(tuple(lines))

    def _upright(self, image: Pixels) -> tuple[Pixels, Boxes, list[Pixels], int]:
        """The picture as its text is read, what was found in it, and by how many quarter turns to the left that is."""
        turns = 0
        boxes, crops = self._find(image)
        if _is_sideways(boxes):
            turns, image = 1, np.ascontiguousarray(np.rot90(image))
            boxes, crops = self._find(image)
        if self._is_upside_down(boxes, crops):
            turns, image = turns + 2, np.ascontiguousarray(np.rot90(image, 2))
            boxes, crops = self._find(image)
        return image, boxes, crops, turns

    def _find(self, image: Pixels) -> tuple[Boxes, list[Pixels]]:
        record: dict[str, Any] = {}
        try:
            crops, found = self._engine.detect_and_crop(image, record)
        except RapidOCRError:  # how it says that there is no text
            return np.zeros((0, 4, 2), np.float32), []
        padding = record["padding_1"]
        return found.boxes - np.array([padding["left"], padding["top"]], np.float32), crops

    def _is_upside_down(self, boxes: Boxes, crops: list[Pixels]) -> bool:
        """By a vote of the longest lines across: a single one is told wrong now and then."""
        across = [crop for box, crop in zip(boxes, crops, strict=True) if _aspect(box) < _SIDEWAYS]
        longest = sorted(across, key=lambda crop: -crop.shape[1] / crop.shape[0])[:_UPRIGHT_SAMPLES]
        return 2 * sum(map(self._is_turned, longest)) > len(longest)

    def _is_turned(self, crop: Pixels) -> bool:
        # Its model sees four times its height: of a whole long line it makes no sense. Six is where it errs least.
        height, width = crop.shape[:2]
        kept = min(width, _TURN_ASPECT * height)
        begin = (width - kept) // 2
        _, told = self._engine.cls_and_rotate([np.ascontiguousarray(crop[:, begin : begin + kept])])
        return bool(told.cls_res[0][0] == "180")

    def _line(self, box: Boxes, crop: Pixels) -> TextLine | None:
        top_left, top_right, bottom_right, bottom_left = ((float(x), float(y)) for x, y in box)
        corners: Corners = (top_left, top_right, bottom_right, bottom_left)
        if _aspect(box) >= _SIDEWAYS:
            # The library has turned it to the left, as if it were read downwards.
            corners = (top_right, bottom_right, bottom_left, top_left)
            if self._is_turned(crop):
                crop = np.ascontiguousarray(np.rot90(crop, 2))
                corners = (bottom_left, top_left, top_right, bottom_right)
        if crop.shape[1] > crop.shape[0] * _MAX_STRETCH:
            crop = cv2.resize(crop, (_READ_HEIGHT_PX * _MAX_STRETCH, _READ_HEIGHT_PX))
        read = self._engine.recognize_txt([crop])
        text, score = read.txts[0], read.scores[0]
        if not text.strip():
            return None
        return TextLine(_words(text, read.word_results[0]), corners, min(max(float(score), 0.0), 1.0))


def _is_sideways(boxes: Boxes) -> bool:
    """Whether most of the text, by its length, goes up or down."""
    upwards = sum(_long_side(box) for box in boxes if _aspect(box) >= _SIDEWAYS)
    across = sum(_long_side(box) for box in boxes if _aspect(box) * _SIDEWAYS <= 1)
    return upwards > across


def _aspect(box: Boxes) -> float:
    """Height by width, as the library measures them."""
    width = max(_distance(box[0], box[1]), _distance(box[2], box[3]))
    height = max(_distance(box[0], box[3]), _distance(box[1], box[2]))
    return int(height) / max(int(width), 1)


def _long_side(box: Boxes) -> float:
    return max(_distance(box[0], box[1]), _distance(box[1], box[2]))


def _distance(a: Boxes, b: Boxes) -> float:
    return float(np.linalg.norm(a - b))


def _turned_back(corners: Corners, turns: int, width: int, height: int) -> Corners:
    """Corners in the picture as it came, of which this is what `turns` quarters to the left made of it."""
    for _ in range(turns % 4):
        # A quarter to the right: what was on the left is on top.
        a, b, c, d = ((height - y, x) for x, y in corners)
        corners, width, height = (a, b, c, d), height, width
    return corners


def _words(text: str, info: Any) -> tuple[LineWord, ...]:
    """Words with their places: the recogniser tells in which of its columns it saw each character."""
    columns = [column for word in info.word_cols for column in word]
    seen = [char for char in text if not char.isspace()]
    if len(columns) == len(seen) and info.line_txt_len:
        centres = [(column + _SEEN_AT) / info.line_txt_len for column in columns]
    else:
        centres = [(number + 0.5) / len(seen) for number in range(len(seen))]
    words, first = [], 0
    # Half of a character's width is taken on both sides: that of this line on the average.
    half = 0.5 / max(len(text), 1)
    for part in text.split():
        last = first + len(part) - 1
        begin = centres[first] - half if first == 0 else max(centres[first] - half, centres[first - 1])
        end = centres[last] + half if last + 1 == len(centres) else min(centres[last] + half, centres[last + 1])
        begin, end = min(max(begin, 0.0), 1.0), min(max(end, 0.0), 1.0)
        words.append(LineWord(part, begin, max(begin, end)))
        first = last + 1
    return tuple(words)
