"""``hound doctor --serve FILE.yaml``: can this chat, API or web chat answer questions about clips?

Nothing is loaded onto a device: a child process checks settings, template, checkpoint, adapters and decoder; weights by
the names and shapes in their files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hound_plugin.host.presence import HOW_TO_INSTALL, is_installed

from .activation import TEMPLATE
from .child import Outcome, run_script
from .report import FAIL, OK, WARN, Check

FOLDER_VARIABLE = "SAFE_MEDIA_PATH"
LOCAL_VARIABLE = "ALLOW_LOCAL_FILES"
_FALSE = frozenset({"0", "false", "n", "no"})

_SCRIPT = """
sys.argv[1:] = ARGUMENTS
facts = {}

def settings():
    from llamafactory.hparams import get_infer_args
    from hound_plugin.host import settings_state
    model, data, finetuning, _ = get_infer_args()
    chosen = settings_state.settings()
    facts.update(
        model=model.model_name_or_path, template=data.template, backend=str(getattr(model.infer_backend, "value",
        model.infer_backend)), adapters=list(model.adapter_name_or_path or []), tuning=finetuning.finetuning_type,
        decoder=chosen.decoder, timeout=chosen.decode_timeout, frames=chosen.num_frames,
        sampling=chosen.frame_sampling,
    )
    return facts

def checkpoint():
    import os
    from pathlib import Path
    from safetensors import safe_open
    from transformers import AutoConfig
    from hound_plugin.model.configuration import LlavaHoundConfig
    from hound_plugin.model.checkpoint_files import weight_files
    from hound_plugin.processing.processor import LlavaHoundProcessor
    name = facts["model"]
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if not isinstance(config, LlavaHoundConfig):
        raise ValueError(f"model_type {config.model_type!r} is not LLaVA-Hound's")
    processor = LlavaHoundProcessor.from_pretrained(name)
    for adapter in facts["adapters"]:
        processor.take_settings_of(adapter)
    processor.num_frames = facts["frames"] or processor.num_frames
    files = weight_files(Path(name)) if os.path.isdir(name) else None
    for path in files or ():
        if str(path).endswith(".safetensors"):
            with safe_open(path, "pt") as file:  # refuses an incomplete file
                file.keys()
    context = config.get_text_config().max_position_embeddings
    return {"tokens": processor.tokens_per_video, "context": context, "files": files and len(files)}

def adapters():
    import os
    import torch
    from peft import PeftConfig
    from safetensors import safe_open
    from transformers import AutoConfig
    from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
    with torch.device("meta"):
        model = LlavaHoundForConditionalGeneration(AutoConfig.from_pretrained(facts["model"], trust_remote_code=False))
    shapes = {name: tuple(module.weight.shape) for name, module in model.named_modules()
              if isinstance(module, torch.nn.Linear)}
    descriptions = []
    for folder in facts["adapters"]:
        config = PeftConfig.from_pretrained(folder)
        path = os.path.join(folder, "adapter_model.safetensors")
        count = 0
        if os.path.isfile(path):
            with safe_open(path, "pt") as file:
                for key in file.keys():
                    module, _, kind = key.removeprefix("base_model.model.").partition(".lora_")
                    if kind not in ("A.weight", "B.weight"):
                        continue
                    if module not in shapes:
                        raise ValueError(f"{folder}: the model has no layer {module}")
                    shape = tuple(file.get_slice(key).get_shape())
                    wanted = shapes[module][1] if kind == "A.weight" else shapes[module][0]
                    if shape[1 if kind == "A.weight" else 0] != wanted:
                        raise ValueError(f"{folder}: {key} is {shape}, which does not fit {shapes[module]}")
                    count += 1
        elif not os.path.isfile(os.path.join(folder, "adapter_model.bin")) and os.path.isdir(folder):
            raise ValueError(f"{folder}: no adapter_model.safetensors")
        descriptions.append(f"{folder} ({config.peft_type.value}, {count // 2 or 'unread'} layers)")
    return descriptions

def decoder():
    import os, tempfile, time
    import av, numpy
    from hound_plugin.media.decode import read_clip
    with tempfile.TemporaryDirectory() as folder:
        clip = os.path.join(folder, "clip.mp4")
        with av.open(clip, "w") as file:
            stream = file.add_stream("libx264", rate=12)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for index in range(24):
                image = numpy.full((64, 64, 3), 10 * index, dtype=numpy.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                    file.mux(packet)
            for packet in stream.encode():
                file.mux(packet)
        frames = facts["frames"] or 8
        read = read_clip(clip, num_frames=frames, sampling=facts["sampling"] or "uniform", decoder=facts["decoder"],
                         timeout=facts["timeout"])
    grey = [float(frame.mean()) for frame in read.frames]
    if len(grey) != frames or grey != sorted(grey) or grey[-1] < grey[0] + 50:
        raise RuntimeError(f"the frames of a clip that grows brighter came out as {grey}")
    return read.decoder

attempt("settings", settings)
if facts:
    attempt("checkpoint", checkpoint)
    attempt("decoder", decoder)
    if facts["adapters"]:
        attempt("adapters", adapters)
"""


def check_serving(arguments: Sequence[str]) -> Iterator[Check]:
    """Settings, template, checkpoint, adapters, decoder, allowed folder and access.

    Args:
        arguments: as for ``llamafactory-cli api``: a YAML file, and ``key=value`` overrides.
    """
    outcome = run_script(f"ARGUMENTS = {list(arguments)!r}\n{_SCRIPT}")
    stage = outcome.stage("settings")
    if not stage.ok:
        fix = "Correct the file; `llamafactory-cli api FILE.yaml` would stop with the same message."
        if not is_installed():
            fix = f"Chat, API and web chat are LLaMA-Factory's, which is not installed. Run: {HOW_TO_INSTALL}"
        yield Check("serving: settings", FAIL, stage.error, "the host can read them", fix)
    else:
        yield _check_template(stage.facts)
        yield _check_checkpoint(outcome)
        yield _check_decoder(outcome, stage.facts["decoder"])
        if stage.facts["adapters"]:
            yield _check_adapters(outcome, stage.facts["tuning"])
    yield check_media_folder()
    yield check_access()


def _check_template(facts: dict[str, str]) -> Check:
    name = "serving: template"
    if facts["template"] != TEMPLATE:
        return Check(name, FAIL, repr(facts["template"]), TEMPLATE, f"Set `template: {TEMPLATE}`.")
    if facts["backend"] != "huggingface":
        fix = "Set `infer_backend: huggingface`; vLLM and SGLang do not know this architecture."
        return Check(name, FAIL, f"infer_backend {facts['backend']}", "huggingface", fix)
    return Check(name, OK, f"{TEMPLATE}, infer_backend huggingface")


def _check_checkpoint(outcome: Outcome) -> Check:
    name, stage = "serving: model", outcome.stage("checkpoint")
    if not stage.ok:
        fix = "Set `model_name_or_path` to a LLaVA-Hound checkpoint: a folder (of either layout) or a hub id."
        return Check(name, FAIL, stage.error, "a LLaVA-Hound checkpoint", fix)
    tokens, context = stage.facts["tokens"], stage.facts["context"]
    found = f"one clip takes {tokens} of {context} tokens"
    if tokens >= context:
        fix = "Lower `hound: {num_frames: ...}`."
        return Check(name, FAIL, found, "room for a question and an answer", fix)
    return Check(name, OK, found + ("" if stage.facts["files"] else "; weights come from the hub"))


def _check_decoder(outcome: Outcome, decoder: str) -> Check:
    name, stage = "serving: decoder", outcome.stage("decoder")
    if not stage.ok:
        fix = "Set `hound: {decoder: auto}`; the lines on decoders say what works here."
        return Check(name, FAIL, stage.error, f"decoder {decoder} reads an H.264 clip", fix)
    return Check(name, OK, f"{decoder} reads an H.264 clip (by {stage.facts})")


def _check_adapters(outcome: Outcome, tuning: str) -> Check:
    name, stage = "serving: adapter", outcome.stage("adapters")
    if not stage.ok:
        fix = "Check `adapter_name_or_path`, and that it was trained on this model."
        return Check(name, FAIL, stage.error, "adapters of this model", fix)
    if tuning not in ("lora", "oft"):
        fix = "Set `finetuning_type: lora`."
        return Check(name, FAIL, f"finetuning_type {tuning} with adapters", "lora", fix)
    return Check(name, OK, "; ".join(stage.facts))


def check_media_folder() -> Check:
    """The folder from which the API may read local media."""
    name, given = "serving: media folder", os.environ.get(FOLDER_VARIABLE, "")
    if os.environ.get(LOCAL_VARIABLE, "1").strip().lower() in _FALSE:
        return Check(name, OK, f"local paths are refused ({LOCAL_VARIABLE}=0)")
    expected = "a folder with nothing but media in it"
    if not given:
        fix = f"For the API, set {FOLDER_VARIABLE} to your folder of clips; chat and web chat do not need it."
        return Check(
            name, WARN, f"{FOLDER_VARIABLE} is not set: only the host's own empty folder is allowed", expected, fix
        )
    folder = Path(os.path.realpath(given))
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        fix = f"Create the folder, or correct {FOLDER_VARIABLE}."
        return Check(name, FAIL, f"{given} is not a readable folder", expected, fix)
    if folder in (Path("/"), Path.home().resolve()) or folder in Path.home().resolve().parents:
        fix = f"Set {FOLDER_VARIABLE} to the folder of clips itself: anything below it can be asked about."
        return Check(name, FAIL, f"{given} has far more than media in it", expected, fix)
    count = sum(1 for _ in folder.iterdir())
    found = f"{folder} ({count} entries)"
    return Check(name, OK, found) if count else Check(name, WARN, f"{folder} is empty", expected, "Put clips there.")


def check_access() -> Check:
    """Whether the API asks for a key."""
    name = "serving: access"
    host = os.environ.get("API_HOST", "0.0.0.0")
    if os.environ.get("API_KEY"):
        return Check(name, OK, f"API_KEY is set, API_HOST {host}")
    if host in ("127.0.0.1", "localhost", "::1"):
        return Check(name, OK, f"this machine only (API_HOST={host})")
    fix = "Set API_KEY, or API_HOST=127.0.0.1."
    return Check(name, WARN, f"anyone who can reach {host} can use the API", "a key, or this machine only", fix)
