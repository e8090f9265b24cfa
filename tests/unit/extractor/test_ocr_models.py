"""How a picture is turned before it is read. In a process of its own: this one is to stay without the models."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json
import cv2, numpy as np
from services.extractor.adapters.ocr_models import Models, _turned_back
models = Models()
page = np.full((900, 700, 3), 255, np.uint8)
for row in range(8):
    cv2.putText(page, "Lines of prose that lie", (60, 120 + 90 * row), cv2.FONT_HERSHEY_DUPLEX, 1.2, (0, 0, 0), 2)
turns = []
for quarter in range(4):
    laid = np.ascontiguousarray(np.rot90(page, -quarter))
    turns.append(models._upright(laid)[3])
corner = ((1.0, 2.0), (3.0, 2.0), (3.0, 4.0), (1.0, 4.0))
back = [_turned_back(corner, quarter, 30, 20) for quarter in range(4)]
print(json.dumps({"turns": turns, "back": back}))
"""


def test_a_picture_is_turned_until_its_text_is_upright_and_corners_are_turned_back() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=root)
    told = json.loads(done.stdout)
    assert told["turns"] == [0, 1, 2, 3]
    assert told["back"] == [
        [[1, 2], [3, 2], [3, 4], [1, 4]],
        [[18, 1], [18, 3], [16, 3], [16, 1]],
        [[29, 18], [27, 18], [27, 16], [29, 16]],
        [[2, 29], [2, 27], [4, 27], [4, 29]],
    ]
