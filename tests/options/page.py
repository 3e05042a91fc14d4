"""What the host's web UI hands to a training for the fields of its page; without a browser."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from hound_plugin.host.models import MODELS, TEMPLATE
from hound_plugin.host.serve.web_pages import room_for_a_clip
from tests.goldens import SFT


@functools.cache
def _page() -> Any:
    import gradio
    from llamafactory.webui.components import create_eval_tab, create_top, create_train_tab
    from llamafactory.webui.engine import Engine

    engine = Engine(pure_chat=False)
    with gradio.Blocks():
        engine.manager.add_elems("top", create_top())
        engine.manager.add_elems("train", create_train_tab(engine))
        engine.manager.add_elems("eval", create_eval_tab(engine))
    return engine


def page_arguments(fields: dict[str, Any], work: Path, name: str) -> dict[str, Any]:
    """The arguments of ``Runner.run_train`` or ``run_eval`` for a LLaVA-Hound model.

    Args:
        fields: by the host's name of a field (``train.packing``); ``eval.dataset`` chooses the other tab. The other
            fields are as the page has them when it is opened and the model and a compute type for a CPU are chosen.
        work: holds the data sets.
        name: of the output folder.
    """
    import gradio

    engine = _page()
    tab = "eval" if "eval.dataset" in fields else "train"
    cutoff = engine.manager.get_elem_by_id(f"{tab}.cutoff_len").value
    extra = {
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "preprocessing_num_workers": 1,
        "media_dir": str(work / "media"),
    }
    settled = {
        "top.model_name": next(iter(MODELS)),
        "top.model_path": str(SFT),
        "top.template": TEMPLATE,
        "train.dataset": ["sft"],
        "train.compute_type": "fp32",
        "train.extra_args": json.dumps({"optim": "adamw_torch", **extra}),
        f"{tab}.cutoff_len": room_for_a_clip(TEMPLATE, cutoff),
        f"{tab}.dataset_dir": str(work / "data"),
        f"{tab}.output_dir": str(work / "runs" / name),
        **fields,
    }
    empty = {gradio.Checkbox: False, gradio.Textbox: "", gradio.Dropdown: []}
    data = {}
    for identifier, element in engine.manager._id_to_elem.items():
        value = getattr(element, "value", None)
        data[element] = settled.get(identifier, empty.get(type(element)) if value is None else value)
    runner = engine.runner
    arguments: dict[str, Any] = runner._parse_eval_args(data) if tab == "eval" else runner._parse_train_args(data)
    return {**arguments, "media_dir": str(work / "media")} if tab == "eval" else arguments
