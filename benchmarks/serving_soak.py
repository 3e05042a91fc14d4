"""Soak of the API: 200 requests about clips at a time, bad ones and clients that hang up among them, and text beside.

    python benchmarks/serving_soak.py --requests 200 --rounds 3 --out benchmarks/results/serving_soak.txt

Starts ``llamafactory-cli api`` on the recorded tiny checkpoint in a process of its own and sends all requests of a
round at once: clips by path and in the request, 10% of them bad media, 10% from clients that hang up. Meanwhile one
client asks short questions without media, one after another. Checks: every good answer equals that of an idle server,
every bad request is a 400 with a reason, 95 of 100 short questions are answered within a second, and the memory of the
server with its decoding processes is back within 10%. Exit code 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import platform
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

MEBIBYTE = 1 << 20
BAD = ("nowhere.mp4", "cut.mp4", "notes.txt", "../allowed-evil/clip.mp4")
QUESTIONS = ("What moves?", "Where?", "Why?", "What comes first?", "How many are there?")


@dataclass
class Counts:
    """What came of the requests."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    hung_up: int = 0
    text: list[float] = field(default_factory=list)  # seconds


@dataclass(frozen=True)
class Job:
    """One request: ``good``, ``bad`` or ``gone``."""

    kind: str
    body: dict[str, Any]
    patience: float = 600.0  # seconds


def question(text: str, url: str | None = None) -> dict[str, Any]:
    """The body of a request; its answer is greedy and short."""
    clip = [] if url is None else [{"type": "video_url", "video_url": {"url": url}}]
    messages = [{"role": "user", "content": [*clip, {"type": "text", "text": text}]}]
    return {"model": "hound", "messages": messages, "max_tokens": 8, "temperature": 0}


def make_jobs(count: int, media: Path, draw: random.Random) -> list[Job]:
    """Four fifths good requests, a tenth bad media and a tenth clients that hang up, in random order."""
    clips = [media / "clip_long.mp4", media / "clip_short.mp4", media / "frames", media / "clip_long.mp4#t=8,9"]
    urls = [str(clip) for clip in clips]
    urls += [f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}" for clip in clips[:2]]
    jobs = []
    for number in range(count):
        kind = "bad" if number % 10 == 0 else "gone" if number % 10 == 5 else "good"
        url = str(media / draw.choice(BAD)) if kind == "bad" else draw.choice(urls)
        patience = draw.uniform(0.05, 3) if kind == "gone" else 600.0
        jobs.append(Job(kind, question(draw.choice(QUESTIONS), url), patience))
    draw.shuffle(jobs)
    return jobs


async def send(client: Any, body: dict[str, Any], patience: float = 600.0) -> tuple[int, str]:
    """Status and answer; 0 if the client hung up first."""
    import httpx

    try:
        async with asyncio.timeout(patience):
            reply = await client.post("chat/completions", json=body)
    except (TimeoutError, httpx.TimeoutException):
        return 0, ""
    value = reply.json()
    text = value["choices"][0]["message"]["content"] if reply.status_code == 200 else value["error"]["message"]
    return reply.status_code, text


async def ask(client: Any, job: Job, known: dict[str, str], counts: Counts) -> None:
    """Send a request and judge its reply."""
    status, text = await send(client, job.body, job.patience)
    if job.kind == "gone" and status == 0:
        counts.hung_up += 1
    elif job.kind == "bad" and status == 400 and text:
        counts.refused += 1
    elif job.kind != "bad" and status == 200 and text == known[str(job.body)]:
        counts.right += 1
    else:
        counts.wrong.append(f"{job.kind}: {status} {text[:200]}")


async def ask_beside(client: Any, others: asyncio.Task[Any], counts: Counts, known: str) -> None:
    """Short questions, one after another, while the others run."""
    while not others.done():
        began = time.monotonic()
        status, text = await send(client, question("And now?"))
        counts.text.append(time.monotonic() - began)
        if (status, text) != (200, known):
            counts.wrong.append(f"text: {status} {text[:200]}")
        await asyncio.sleep(0.1)


async def soak(url: str, rounds: list[list[Job]], server: Any) -> tuple[Counts, float, float, float]:
    """All rounds; what came of them, memory before and after in MiB, and seconds."""
    import httpx

    counts, headers = Counts(), {"Authorization": "Bearer secret"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=None, limits=limits) as client:
        distinct = {str(job.body): job.body for jobs in rounds for job in jobs if job.kind != "bad"}
        known = {name: (await send(client, body))[1] for name, body in distinct.items()}
        alone = (await send(client, question("And now?")))[1]
        await asyncio.gather(*(send(client, job.body) for job in rounds[0][:16]))  # all decoders have started
        before, began = memory(server), time.monotonic()
        for jobs in rounds:
            others = asyncio.create_task(_all(client, jobs, known, counts))
            await ask_beside(client, others, counts, alone)
            await others
        seconds = time.monotonic() - began
        await asyncio.sleep(5)
    return counts, before, memory(server), seconds


async def _all(client: Any, jobs: list[Job], known: dict[str, str], counts: Counts) -> None:
    await asyncio.gather(*(ask(client, job, known, counts) for job in jobs))


def memory(process: Any) -> float:
    """Resident memory of the server and its decoding processes in MiB."""
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / MEBIBYTE


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def check(jobs: int, result: tuple[Counts, float, float, float]) -> list[tuple[str, str, bool]]:
    """What was promised, what came, and whether it holds."""
    counts, before, after, seconds = result
    bad = jobs // 10
    p50, p95 = percentile(counts.text, 0.5), percentile(counts.text, 0.95)
    done = counts.right + counts.refused + counts.hung_up
    return [
        ("requests about clips", f"{jobs} in {seconds:.0f} s", True),
        ("good answers, as an idle server gives them", str(counts.right), done == jobs),
        ("bad media refused with a reason", f"{counts.refused} of {bad}", counts.refused == bad),
        ("clients that hung up", str(counts.hung_up), counts.hung_up > 0),
        ("wrong or lost", str(len(counts.wrong)), not counts.wrong),
        ("short questions beside them: p50 and p95 in s", f"{p50:.2f}, {p95:.2f} of {len(counts.text)}", p95 < 1),
        ("memory before and after in MiB", f"{before:.0f}, {after:.0f}", abs(after - before) <= 0.1 * before),
    ]


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="at a time; a multiple of 10")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    import psutil

    from tests.host.serve.api_server import make_media, serving

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        media, draw = make_media(folder), random.Random(arguments.seed)
        rounds = [make_jobs(arguments.requests, media, draw) for _ in range(arguments.rounds)]
        (folder / "server").mkdir()
        with serving(folder / "server", media) as client:
            (server,) = (each for each in psutil.Process().children() if "api" in each.cmdline())
            result = asyncio.run(soak(str(client.base_url), rounds, server))
    lines = [f"{platform.platform()}, {os.cpu_count()} cores, {arguments.requests} requests at a time"]
    rows = check(arguments.requests * arguments.rounds, result)
    lines += [f"{'ok  ' if holds else 'FAIL'} {what}: {came}" for what, came, holds in rows]
    lines += [f"     {text}" for text in sorted(set(result[0].wrong))[:10]]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
