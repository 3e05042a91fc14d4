"""Main memory that the host needs for rows that it streams and for rows that it maps, as the rows grow.

python benchmarks/streaming_memory.py [--rows 1000 50000]

Each row is a question about one clip; the host's own ``get_dataset`` tokenises it, and every row is read
once. No clip is decoded. Each figure is of a fresh process: the most memory of its own (RssAnon, MB) above what it held
before the data. Pages of mapped files, which the system takes back when it needs them, are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import json, sys
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

model, data, training, _, _ = get_train_args(json.loads(sys.argv[1]))
tokens = load_tokenizer(model)
template = get_template_and_fix_tokenizer(tokens["tokenizer"], data)
start, peak, count = resident("RssAnon"), 0, 0
for _ in get_dataset(template, model, data, training, stage="sft", **tokens)["train_dataset"]:
    count += 1
    if count % 500 == 0:
        peak = max(peak, resident("RssAnon"))
print("RESULT", count, peak - start)
"""


def measure(model: Path, rows: int, streaming: bool) -> tuple[float, float]:
    """Peak memory in MB above the start, and seconds, for one fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clip.mp4").touch()
        with (folder / "rows.jsonl").open("w") as file:
            for number in range(rows):
                turns = [
                    {"from": "human", "value": "<video>\nWhat moves?"},
                    {"from": "gpt", "value": f"Item {number}."},
                ]
                file.write(json.dumps({"id": str(number), "video": "clip.mp4", "conversations": turns}) + "\n")
        info = {"rows": {"file_name": "rows.jsonl", "formatting": "hound"}}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        values = {
            "model_name_or_path": str(model),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "template": "llava_hound",
            "dataset": "rows",
            "dataset_dir": str(folder),
            "media_dir": str(folder),
            "cutoff_len": 4096,
            "max_steps": 1,
            "output_dir": str(folder / "out"),
            "hound": {"check_media": "off"},
            **({"streaming": True, "buffer_size": 100} if streaming else {"preprocessing_num_workers": 1}),
        }
        begin = time.perf_counter()
        environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, json.dumps(values)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        count, megabytes = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
        if int(count) != rows:
            raise SystemExit(f"Expected {rows} rows, read {count}.")
        return float(megabytes), time.perf_counter() - begin


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("demo/model"), help="any checkpoint (default: demo/model)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 50000])
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'rows':>8}  {'streamed MB':>12}  {'seconds':>8}  {'mapped MB':>10}  {'seconds':>8}")
    for rows in arguments.rows:
        streamed, mapped = (measure(arguments.model, rows, streaming) for streaming in (True, False))
        print(
            f"{rows:>8}  {streamed[0]:>12.0f}  {streamed[1]:>8.0f}  {mapped[0]:>10.0f}  {mapped[1]:>8.0f}", flush=True
        )


if __name__ == "__main__":
    main()
