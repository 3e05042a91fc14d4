"""``make fuzz``: every target under libFuzzer for a number of executions; prints executions and coverage.

``python -m tests.fuzz.run [--runs N] [TARGET ...]``. A crash is written to ``tests/fuzz/crashes/<target>/``; the
exit code is then 1. The corpus is kept in ``.fuzz/<target>``, from which the next run goes on.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REPO = HERE.parents[1]
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)")
_START = re.compile(r"#\d+\s+INITED\s+cov: (\d+)")
_PACKAGES = ("hound_plugin.corpus", "hound_plugin.judge", "hound_plugin.media", "hound_plugin.records")


def fuzz(target: str, arguments: list[str]) -> None:
    """In a process of its own: libFuzzer never returns."""
    import atheris

    with atheris.instrument_imports(include=[*_PACKAGES, "hound_plugin.llm", "tarfile", "zipfile"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def run(target: str, runs: int) -> bool:
    """One target; returns whether it survived."""
    from tests.fuzz.targets import seeds

    corpus, crashes = REPO / ".fuzz" / target, HERE / "crashes" / target
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-runs={runs}", "-max_len=30000", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={crashes}/"]
    command = [sys.executable, "-m", "tests.fuzz.run", "--one", target, *options, str(corpus)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), *filter(None, sys.path)])}
    done = subprocess.run(
        command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode("utf-8", "replace")
    end, begun = _DONE.search(output), _START.search(output)
    if done.returncode or end is None:
        print(f"{target}: FAILED\n{output[-6000:]}", flush=True)
        return False
    print(
        f"{target}: {int(end[1]):,} executions, coverage {begun[1] if begun else '?'} -> {end[2]} edges, "
        f"{end[3]} features, {end[4]} inputs kept; no crash",
        flush=True,
    )
    if not any(crashes.iterdir()):
        crashes.rmdir()
    return True


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description="fuzz what comes from others")
    parser.add_argument("--runs", type=int, default=100_000, help="executions a target (default: 100,000)")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)} (default: all)")
    arguments = parser.parse_args()
    survived = [run(target, arguments.runs) for target in arguments.targets]
    return 0 if all(survived) else 1


if __name__ == "__main__":
    sys.exit(main())
