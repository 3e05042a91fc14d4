"""Running the host as its users do, on the recorded checkpoint and rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.goldens import HUB, ROOT

REPO = Path(__file__).resolve().parents[2]
# Under xdist each worker has a core to itself; threads that wait for one another there only get in the way.
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"


def write_dataset(folder: Path, name: str, records: list[dict[str, Any]], **info: Any) -> Path:
    """Write a data set and register it in the folder's ``dataset_info.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    registry = folder / "dataset_info.json"
    entries = json.loads(registry.read_text()) if registry.exists() else {}
    entries[name] = {"file_name": f"{name}.jsonl", "formatting": "hound", **info}
    registry.write_text(json.dumps(entries), encoding="utf-8")
    return folder


def media_folder(folder: Path) -> Path:
    """The recorded frame folders and images in one place, as ``media_dir`` wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / "frames", ROOT / "media"):
        for item in source.iterdir():
            link = folder / item.name
            if not link.exists():
                link.symlink_to(item)
    return folder


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """Offline, with the recorded hub cache and a data cache of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HOUND_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",  # the host starts `torchrun`
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(HUB),
        "HF_DATASETS_CACHE": str(folder / "datasets_cache"),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": THREADS,
        **extra,
    }


def cli(
    folder: Path, *arguments: str, check: bool = True, timeout: float = 600, text: str | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """``llamafactory-cli ARGUMENTS`` in the repository's root; the whole output is in ``stdout``."""
    program = str(Path(sys.executable).with_name("llamafactory-cli"))
    result = subprocess.run(
        [program, *arguments],
        cwd=REPO,
        env=environment(folder, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        input=text,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if check and result.returncode:
        raise AssertionError(f"{' '.join(arguments)} ended with {result.returncode}:\n{result.stdout[-6000:]}")
    return result


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def history(output: Path) -> list[dict[str, Any]]:
    """The trainer's log lines with full precision."""
    return json.loads((output / "trainer_state.json").read_text())["log_history"]
