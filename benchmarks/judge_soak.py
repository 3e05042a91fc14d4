"""Soak of the judge: many judgements against a faulty, rate-limited server, with kill -9 on the way.

    python benchmarks/judge_soak.py --items 20000 --kills 3 --out benchmarks/results/judge_soak.txt

Starts the fault server of the tests as one process and the judge as another, kills the judge, starts it again, and
checks: every item scored exactly once or listed as missing, requests sent at most 1.1 times the items, memory flat,
throughput at least 90% of what the server's rate limit allows (restarts included). Exit code 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

KINDS = ["500", "429", "429-after", "cut", "truncated", "slow", "hang", "prose", "range", "schema", "empty", "refusal"]


def work(folder: Path, port: int, items: int) -> None:
    """The judge's process: all requests, one after another out of a generator."""
    from hound_plugin.judge.prompts import JudgePrompt, read_template
    from hound_plugin.llm.ledger import Ledger
    from hound_plugin.llm.limits import Limits
    from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
    from hound_plugin.llm.requests import Request, request_key
    from hound_plugin.llm.runner import run_requests

    protocol = read_template("caption")
    with Ledger(folder / "ledger.sqlite", protocol.id) as ledger:
        endpoint = Endpoint("soak", base_url=f"http://127.0.0.1:{port}/v1", timeout=5.0, parameters={"temperature": 0})
        requests = (
            Request(
                request_key({"item": number}),
                f"q{number}",
                0,
                0,
                {"caption": "A dog runs.", "question": "What runs?", "answer": f"A dog. [item-{number}]"},
            )
            for number in range(items)
        )
        client = OpenAIClient(endpoint, JudgePrompt(protocol, ledger.salt))
        outcome = run_requests(requests, client, ledger, Limits(attempts=3, backoff=0.2, concurrency=64))
    print(json.dumps(vars(outcome)))


def ask(port: int, path: str, body: Any = None) -> Any:
    """One request to the server's own pages."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def memory(pid: int) -> float:
    """Resident memory of a process in MiB; 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def drive(arguments: argparse.Namespace, folder: Path, port: int) -> dict[str, Any]:
    """Start, kill, start again until the judge is through; gives what was measured."""
    command = [sys.executable, __file__, "--work", str(folder), "--port", str(port), "--items", str(arguments.items)]
    environment = {**os.environ, "OPENAI_API_KEY": "soak-key", "PYTHONPATH": str(REPO)}
    kill_at = [arguments.items * (place + 1) // (arguments.kills + 1) for place in range(arguments.kills)]
    started, samples, killed = time.monotonic(), [], 0
    while True:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        mine: list[float] = []
        while process.poll() is None:
            time.sleep(0.5)
            mine.append(memory(process.pid))
            if kill_at and ask(port, "/brief")["requests"] >= kill_at[0]:
                kill_at.pop(0)
                process.send_signal(signal.SIGKILL)
                killed += 1
        samples.append([value for value in mine if value])
        output = process.communicate()[0]
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the judge ended with {process.returncode}: {output}")
    return {"seconds": time.monotonic() - started, "memory": samples, "killed": killed, "last": json.loads(output)}


def check(arguments: argparse.Namespace, folder: Path, port: int, found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What was promised, what came, and whether it holds."""
    import sqlite3

    stats = ask(port, "/stats")
    database = sqlite3.connect(folder / "ledger.sqlite")
    one = lambda query: int(database.execute(query).fetchone()[0])  # noqa: E731
    scored = one("SELECT COUNT(DISTINCT key) FROM answers WHERE status = 'ok'")
    twice = one("SELECT COUNT(*) FROM (SELECT key FROM answers WHERE status = 'ok' GROUP BY key HAVING COUNT(*) > 1)")
    missing = one(
        "SELECT COUNT(*) FROM (SELECT key FROM answers GROUP BY key HAVING SUM(status = 'ok') = 0 AND COUNT(*) >= 3)"
    )
    lost = one("SELECT COUNT(*) FROM sent") - one("SELECT COUNT(*) FROM answers") - one("SELECT COUNT(*) FROM failures")
    wrong = one("SELECT COUNT(*) FROM answers WHERE status = 'ok' AND value NOT IN ('1', '2', '3', '4', '5')")
    counts = stats["counts"]
    accepted = counts["requests"] - counts.get("limited", 0)
    rate = accepted / found["seconds"]
    long = [run for run in found["memory"] if len(run) >= 20]
    growth = max((run[-1] - run[len(run) // 4] for run in long), default=0.0)
    peak = max(max(run) for run in found["memory"] if run)
    items = arguments.items
    paid_twice = sum(number - 1 for number in stats["scored"].values() if number > 1)
    return [
        ("items scored or listed as missing", f"{scored} + {missing} of {items}", scored + missing == items),
        ("items with two scores", str(twice), twice == 0),
        ("scores outside 1..5", str(wrong), wrong == 0),
        ("good answers that a kill lost", f"{paid_twice} (at most 64 a kill)", paid_twice <= 64 * found["killed"]),
        ("sent without an answer (faults on the way, kills)", str(lost), True),
        ("requests sent / items", f"{counts['requests'] / items:.4f}", counts["requests"] <= 1.1 * items),
        ("429 by the rate limit", str(counts.get("limited", 0)), True),
        ("accepted requests a second", f"{rate:.1f} of {arguments.rate} allowed", rate >= 0.9 * arguments.rate),
        ("memory: peak and growth in MiB", f"{peak:.0f}, {growth:+.1f}", growth < 15),
        ("kills", str(found["killed"]), found["killed"] == arguments.kills),
    ]


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second that the server allows")
    parser.add_argument("--share", type=float, default=0.05, help="share of faults")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.port, arguments.items)
        return 0
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.llm.fault_server"],
        cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline())
    try:
        with tempfile.TemporaryDirectory() as name:
            settings = {"share": arguments.share, "kinds": KINDS, "rate": arguments.rate, "burst": arguments.rate}
            ask(port, "/control", {**settings, "latency": 0.1})
            found = drive(arguments, Path(name), port)
            rows = check(arguments, Path(name), port, found)
    finally:
        server.kill()
        server.communicate()
    lines = [f"{'ok' if holds else 'NOT':4} {what:52} {value}" for what, value, holds in rows]
    head = (
        f"judge soak: {arguments.items} items, {arguments.share:.0%} faults of {len(KINDS)} kinds, {arguments.kills} "
        f"SIGKILLs, limit {arguments.rate:g} requests a second, latency 0.1 s; {found['seconds']:.0f} s\n"
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n"
    )
    text = head + "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    return 0 if all(holds for _, _, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
