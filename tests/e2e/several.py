"""Several commands of the host in one process (or one torchrun), each from a YAML file: its own ``run_exp`` and others.

Starting Python, torch and the host takes longer than a tiny training. ``python several.py FILE.yaml [key=value ...]
-- FILE.yaml ...``; ``command=export`` and ``command=chat`` (with ``ask=JSON``, see :func:`answer`) are for this file,
the other pairs for the host. A run that fails does not stop the next ones; lines beginning with ``===`` say which is
which, and hold answers. See :mod:`tests.e2e.together`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any


def mark(line: str) -> None:
    """One write, so that no other rank's output comes between the line and its end."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def answer(questions: list[dict[str, Any]]) -> None:
    """``llamafactory-cli chat`` without its terminal: ask the engine that its arguments make.

    Args:
        questions: keyword arguments of the host's ``ChatModel.chat``, one dict each.
    """
    from llamafactory.chat import ChatModel

    model = ChatModel()
    weights = {str(parameter.dtype) for parameter in model.engine.model.parameters()}
    mark(f"=== LOADED {json.dumps(sorted(weights))}")
    for question in questions:
        for response in model.chat(**question):
            mark(f"=== ANSWER {json.dumps([response.response_text, response.response_length])}")


def run(arguments: list[str]) -> None:
    """One command of the host."""
    from llamafactory.train.tuner import export_model, run_exp

    ours = dict(item.split("=", 1) for item in arguments if item.startswith(("command=", "ask=")))
    sys.argv = ["llamafactory-cli", *(item for item in arguments if not item.startswith(("command=", "ask=")))]
    if ours.get("command") == "chat":
        answer(json.loads(ours["ask"]))
    elif ours.get("command") == "export":
        export_model()
    else:
        run_exp()


def main(arguments: list[str]) -> int:
    import torch.distributed
    from accelerate.state import AcceleratorState

    leave = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda: None  # the host leaves the group after each training
    runs: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "--":
            runs.append([])
        else:
            runs[-1].append(argument)
    failed = False
    for one in runs:
        if os.environ.get("RANK", "0") == "0":
            mark(f"=== RUN {one[0]}")
        try:
            run(one)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            mark(f"=== FAILED {one[0]}")
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
