"""The package stands alone: it works without the detector's package and its libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from pathlib import Path
from synthetic_nuscenes import SyntheticConfig, generate

generate(SyntheticConfig(1, 1, 2, image_width=64, image_height=36), Path(sys.argv[1]), workers=1)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_generating_a_set_imports_neither_the_detector_nor_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert {"synthetic_nuscenes", "numpy", "cv2"} <= imported
    assert not imported & {"streampetr_vit", "torch", "detectron2"}
