"""Several trainings of the host in one process (or one torchrun), each from a YAML file: its own ``run_exp``.

Starting Python, torch and the host takes longer than a tiny training. ``python several.py FILE.yaml [key=value ...]
-- FILE.yaml ...``. A training that fails does not stop the next ones; lines beginning with ``===`` say which is which.
See :mod:`tests.e2e.together`.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback


def mark(line: str) -> None:
    """One write, so that no other rank's output comes between the line and its end."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main(arguments: list[str]) -> int:
    import torch.distributed
    from accelerate.state import AcceleratorState
    from llamafactory.train.tuner import run_exp

    leave = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda: None  # the host leaves the group after each training
    runs: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "--":
            runs.append([])
        else:
            runs[-1].append(argument)
    failed = False
    for run in runs:
        sys.argv = ["llamafactory-cli", *run]
        if os.environ.get("RANK", "0") == "0":
            mark(f"=== RUN {run[0]}")
        try:
            run_exp()
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            mark(f"=== FAILED {run[0]}")
            failed = True
            if torch.distributed.is_initialized():  # the ranks are no longer at the same place
                return 1
        AcceleratorState._reset_state()
        gc.collect()
    if torch.distributed.is_initialized():
        leave()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
