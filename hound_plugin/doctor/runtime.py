"""Whether torch and its companions, the GPU, flash-attn and the video decoders actually work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .child import Outcome, Stage, run_script
from .report import FAIL, OK, WARN, Check

_TORCH_SCRIPT = """
def torch_():
    import torch
    return {"version": torch.__version__, "cuda": torch.version.cuda}

def vision():
    import torch, torchvision
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torchvision.ops.nms(boxes, torch.tensor([1.0]), 0.5)
    return torchvision.__version__

def audio():
    import torchaudio
    return torchaudio.__version__

def gpu():
    import torch
    devices = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        devices.append({"name": facts.name, "memory": facts.total_memory, "major": facts.major})
    if devices:
        x = torch.ones(64, 64, device="cuda")
        assert float((x @ x).sum()) == 64.0**3
    return {"devices": devices, "bf16": bool(devices) and torch.cuda.is_bf16_supported()}

def flash():
    import importlib.util
    if importlib.util.find_spec("flash_attn") is None:
        return None
    import torch, flash_attn
    if torch.cuda.is_available():
        q = torch.ones(1, 16, 2, 64, device="cuda", dtype=torch.float16)
        flash_attn.flash_attn_func(q, q, q)
    return flash_attn.__version__

attempt("torch", torch_)
attempt("torchvision", vision)
attempt("torchaudio", audio)
attempt("gpu", gpu)
attempt("flash-attn", flash)
"""

_TOKENIZER_SCRIPT = """
def tokenizer():
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2  # as transformers does for a tokenizer.model
    return sentencepiece.__version__

attempt("sentencepiece", tokenizer)
"""

# The clip: 12 frames, each of one grey level, H.264 in mp4, as nearly all clips in the wild are.
_DECODER_SCRIPT = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
clip = os.path.join(folder.name, "clip.mp4")

def write():
    import av, numpy
    with av.open(clip, "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(12):
            image = numpy.full((64, 64, 3), 20 * index, dtype=numpy.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return av.__version__

def same(version, count, value):
    if count != 12 or abs(value - 100) > 8:
        raise RuntimeError(f"decoded {count} frames and grey {value:.0f} where 12 and 100 were written")
    return version

def pyav():
    import av
    with av.open(clip) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return same(av.__version__, len(frames), float(frames[5].mean()))

def decord_():
    import decord
    reader = decord.VideoReader(clip, num_threads=1)
    return same(decord.__version__, len(reader), float(reader[5].asnumpy().mean()))

def torchcodec_():
    import importlib.util
    if importlib.util.find_spec("torchcodec") is None:
        return None
    import torchcodec
    from torchcodec.decoders import VideoDecoder
    decoder = VideoDecoder(clip)
    return same(getattr(torchcodec, "__version__", "?"), len(decoder), float(decoder[5].float().mean()))

attempt("clip", write)
attempt("av", pyav)
attempt("decord", decord_)
attempt("torchcodec", torchcodec_)
"""

_SAME_RELEASE = (
    "Install one release of all three, such as: pip install torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0"
)


def check_torch() -> Iterator[Check]:
    """torch and its companions match; GPU and flash-attn compute."""
    outcome = run_script(_TORCH_SCRIPT)
    torch = outcome.stage("torch")
    if not torch.ok:
        fix = "If another package's plugin is named, uninstall it; otherwise reinstall: pip install torch==2.11.0"
        yield Check("torch import", FAIL, torch.error, "torch can be imported", fix)
        return
    yield Check("torch import", OK, f"{torch.facts['version']} (CUDA {torch.facts['cuda'] or 'none'})")
    for name in ("torchvision", "torchaudio"):
        stage = outcome.stage(name)
        if stage.ok:
            yield Check(f"{name} import", OK, str(stage.facts))
        else:
            expected = f"the release that belongs to torch {torch.facts['version']}"
            yield Check(f"{name} import", FAIL, stage.error, expected, _SAME_RELEASE)
    yield _check_gpu(outcome, torch.facts["cuda"])
    yield _check_flash(outcome)


def check_tokenizer() -> list[Check]:
    """sentencepiece and protobuf match: what 0.2.3 imports needs a newer protobuf than wandb and others allow."""
    name, stage = "sentencepiece import", run_script(_TOKENIZER_SCRIPT, timeout=60).stage("sentencepiece")
    if stage.ok:
        return [Check(name, OK, str(stage.facts))]
    fix = 'pip install "sentencepiece<0.2.3", which works with older releases of protobuf too'
    return [Check(name, WARN, stage.error, "reads the tokenizer.model of original checkpoints", fix)]


def _check_gpu(outcome: Outcome, cuda: str | None) -> Check:
    name, stage = "GPU", outcome.stage("gpu")
    if not stage.ok:
        fix = "Run `nvidia-smi`: another process may be using the whole GPU, or this torch may not support it."
        return Check(name, FAIL, stage.error, "a GPU that computes", fix)
    devices: list[dict[str, Any]] = stage.facts["devices"]
    if not devices:
        return _no_gpu(cuda)
    found = ", ".join(f"{device['name']} {device['memory'] / 2**30:.0f} GiB" for device in devices)
    if not stage.facts["bf16"]:
        fix = "Set `fp16: true` instead of `bf16: true` in the YAML files."
        return Check(name, WARN, f"{found}, without bfloat16", "bfloat16", fix)
    return Check(name, OK, f"{found}, bfloat16")


def _no_gpu(cuda: str | None) -> Check:
    driver = nvidia_driver()
    if driver:
        fix = (
            f"torch is built for CUDA {cuda}: update the NVIDIA driver, or check CUDA_VISIBLE_DEVICES."
            if cuda
            else "This torch is a CPU-only build; install the default one: pip install --force-reinstall torch==2.11.0"
        )
        return Check("GPU", WARN, f"none visible to torch, although NVIDIA driver {driver} is loaded", "a GPU", fix)
    fix = (
        "The demo runs on CPU. The 7B model needs a GPU with 24 GB or more (LoRA). On CPU leave out `bf16` and `fp16`, "
        "and set NPROC_PER_NODE with FORCE_TORCHRUN=1."
    )
    return Check("GPU", WARN, "none: everything runs on CPU", "an NVIDIA GPU", fix)


def nvidia_driver() -> str:
    """Version of the loaded NVIDIA kernel driver, or ""."""
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _check_flash(outcome: Outcome) -> Check:
    name, stage = "flash-attn", outcome.stage("flash-attn")
    if not stage.ok:
        fix = "Rebuild it for this torch (pip install --force-reinstall --no-build-isolation flash-attn) or uninstall."
        return Check(name, WARN, stage.error, "works, or is not installed", fix)
    if stage.facts is None:
        return Check(name, OK, "not installed; optional, torch's own attention is used")
    return Check(name, OK, str(stage.facts))


def check_decoders() -> list[Check]:
    """Decode a small H.264 clip with each decoder; one that works is enough."""
    outcome = run_script(_DECODER_SCRIPT, timeout=60)
    clip = outcome.stage("clip")
    if not clip.ok:
        return [Check("decoders", FAIL, clip.error, "av can write a clip", 'pip install --force-reinstall "av<=16"')]
    stages = {name: outcome.stage(name) for name in ("decord", "av", "torchcodec")}
    working = [name for name, stage in stages.items() if stage.ok and stage.facts is not None]
    checks = [_check_decoder(name, stage, working) for name, stage in stages.items()]
    return [*checks, Check("ffmpeg program", OK, "not needed; decord and av carry their own libraries")]


def _check_decoder(name: str, stage: Stage, working: list[str]) -> Check:
    shown = f"decoder {name}"
    if stage.ok and stage.facts is None:
        return Check(shown, OK, "not installed; optional, needs the system's FFmpeg libraries")
    if stage.ok:
        return Check(shown, OK, str(stage.facts))
    if name == "torchcodec":
        fix = "Install FFmpeg libraries (apt-get install ffmpeg), or do nothing: the other decoders are used."
    else:
        fix = f"pip install --force-reinstall --no-deps {name}"
    return Check(shown, WARN if working else FAIL, stage.error, "decodes an H.264 clip", fix)
