"""The code of docs/transformers.md runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.goldens import ROOT, SFT

PAGE = Path(__file__).parents[2] / "docs" / "transformers.md"


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, here in (("ShareGPTVideo/LLaVA-Hound-DPO", SFT), ("clip.mp4", ROOT / "media" / "clip_short.mp4")):
        assert name in code
        code = code.replace(name, str(here))
    names: dict[str, Any] = {}
    exec(compile(code.replace("max_new_tokens=128", "max_new_tokens=4"), str(PAGE), "exec"), names)
    (answer,) = names["answers"]
    assert isinstance(answer, str)
