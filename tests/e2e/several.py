"""Several trainings of the host in one process (or one torchrun), each from a YAML file: its own ``run_exp``.

Starting Python, torch and the host takes longer than a tiny training. ``python several.py FILE.yaml [key=value ...]
-- FILE.yaml ...``; a failure names the file.
"""

from __future__ import annotations

import gc
import sys
import traceback


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
    for run in runs:
        sys.argv = ["llamafactory-cli", *run]
        print(f"=== {run[0]}", flush=True)
        try:
            run_exp()
        except Exception:
            traceback.print_exc()
            print(f"=== FAILED {run[0]}", flush=True)
            return 1
        AcceleratorState._reset_state()
        gc.collect()
    if torch.distributed.is_initialized():
        leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
