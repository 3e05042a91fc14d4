"""The processor as transformers' own are: saving and loading, batches, settings of a call, chat messages."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, AutoVideoProcessor

import hound_plugin  # noqa: F401  (registers the architecture)
from hound_plugin.errors import CheckpointError, DataError, MediaNotFoundError, PlaceholderError, SettingsError
from hound_plugin.processing.chat_template import chat_template
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import SYSTEM
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor
from tests.goldens import ROOT, SFT

CLIP, FOLDER = str(ROOT / "media" / "clip_short.mp4"), str(ROOT / "frames" / "clip_long")
IMAGES = [str(ROOT / "media" / name) for name in ("img_wide.jpg", "img_tall.png")]
FRAMES = sorted(str(path) for path in (ROOT / "frames" / "clip_long").iterdir())[:9]
ARRAY = np.random.default_rng(5).integers(0, 256, (8, 60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def loaded() -> LlavaHoundProcessor:
    return AutoProcessor.from_pretrained(SFT)


@pytest.fixture
def processor(loaded: LlavaHoundProcessor) -> LlavaHoundProcessor:
    return copy.copy(loaded)


@pytest.fixture
def folder(processor: LlavaHoundProcessor, tmp_path: Path) -> Path:
    """A checkpoint's folder without weights."""
    from transformers import AutoConfig

    AutoConfig.from_pretrained(SFT).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


# --- saving and loading


def test_what_is_saved_is_loaded(processor: LlavaHoundProcessor, folder: Path) -> None:
    processor.num_frames, processor.frame_sampling, processor.image_aspect_ratio = 16, "fps", None
    processor.decoder, processor.decode_timeout, processor.frame_cache = "pyav", 5.0, "/nowhere"
    processor.set_system("Be brief.")
    processor.save_pretrained(folder)
    again = AutoProcessor.from_pretrained(folder)
    assert isinstance(again, LlavaHoundProcessor)
    assert again.to_dict() == processor.to_dict()
    assert (again.num_frames, again.frame_sampling, again.image_aspect_ratio) == (16, "fps", None)
    assert (again.decoder, again.decode_timeout, again.frame_cache) == ("auto", None, None)  # of this machine
    assert again.system == "Be brief."
    assert again.chat_template == again.tokenizer.chat_template == chat_template("Be brief.")
    for name in ("image_processor", "video_processor"):
        assert repr(getattr(again, name)) == repr(getattr(processor, name))
    saved = json.loads((folder / "processor_config.json").read_text())
    assert saved["video_processor"]["video_processor_type"] == "LlavaHoundVideoProcessor"
    assert saved["image_processor"]["image_processor_type"] == "LlavaHoundImageProcessor"
    assert json.loads(processor.to_json_string()) == saved


def test_the_parts_are_loaded_alone(processor: LlavaHoundProcessor, folder: Path, tmp_path: Path) -> None:
    images, videos = AutoImageProcessor.from_pretrained(folder), AutoVideoProcessor.from_pretrained(folder)
    assert type(images) is LlavaHoundImageProcessor
    assert type(videos) is LlavaHoundVideoProcessor
    assert torch.equal(images(IMAGES[0])["pixel_values_images"][0], processor.read_image(IMAGES[0]))
    assert torch.equal(videos(CLIP)["pixel_values_videos"][0], processor.read_video(CLIP))
    videos.num_frames = 4
    for part, file in ((images, "preprocessor_config.json"), (videos, "video_preprocessor_config.json")):
        part.save_pretrained(tmp_path / "alone")
        assert type(part).from_pretrained(tmp_path / "alone").to_dict() == part.to_dict()
        assert (tmp_path / "alone" / file).is_file()
    assert AutoVideoProcessor.from_pretrained(tmp_path / "alone").num_frames == 4
    for file in (tmp_path / "alone").iterdir():  # such files beside a processor's without parts are its parts
        shutil.copy(file, folder)
    values = json.loads((folder / "processor_config.json").read_text())
    del values["image_processor"], values["video_processor"]
    (folder / "processor_config.json").write_text(json.dumps(values))
    with pytest.raises(SettingsError, match="multiple of 8 for this model's temporal attention, got 4"):
        AutoProcessor.from_pretrained(folder)(text="<video>", videos=CLIP)


BEFORE = {  # as version 0.1.0 wrote it
    "frame_multiple": 8, "frame_patches": 49, "frame_sampling": "first_10s", "image_aspect_ratio": None,
    "image_patches": 49, "image_processor": {
        "image_mean": [0.5, 0.4, 0.3], "image_processor_type": "LlavaHoundImageProcessor",
        "image_std": [0.2, 0.3, 0.4], "size": 224,
    },
    "num_frames": 16, "processor_class": "LlavaHoundProcessor", "system": "Be brief.", "vocab_size": 2000,
}  # fmt: skip


def test_files_of_earlier_versions_are_read(folder: Path) -> None:
    (folder / "processor_config.json").write_text(json.dumps(BEFORE))
    template = (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set message = messages[0] %}{{ message['content'] }}"
        "{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    again = AutoProcessor.from_pretrained(folder)
    assert (again.num_frames, again.frame_sampling, again.image_aspect_ratio) == (16, "first_10s", None)
    for part in (again.image_processor, again.video_processor):
        assert (list(part.image_mean), list(part.image_std)) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert again.system == "Be brief."
    assert again.chat_template == again.tokenizer.chat_template == chat_template("Be brief.")


def test_a_checkpoint_of_the_original_has_no_processor_file() -> None:
    assert not (SFT / "processor_config.json").exists()
    processor = AutoProcessor.from_pretrained(SFT, num_frames=16, image_aspect_ratio=None, system="Hm.")
    assert (processor.num_frames, processor.image_aspect_ratio, processor.system) == (16, None, "Hm.")
    assert AutoProcessor.from_pretrained(SFT).image_aspect_ratio == "pad"


def test_a_chat_template_of_one_s_own_is_kept(processor: LlavaHoundProcessor, folder: Path) -> None:
    for template in ("own {{ messages }}", {"default": "a", "secondary": "b"}):
        processor.chat_template = template
        processor.save_pretrained(folder)
        again = AutoProcessor.from_pretrained(folder)
        assert again.chat_template == template
    assert AutoProcessor.from_pretrained(folder, chat_template="given").chat_template == "given"


@pytest.mark.parametrize(
    ("part", "size"), [("image_processor", {"shortest_edge": 112}), ("video_processor", {"height": 224, "width": 96})]
)
def test_a_size_that_the_towers_do_not_take(part: str, size: dict[str, int], folder: Path) -> None:
    values = json.loads((folder / "processor_config.json").read_text())
    values[part]["size"] = size
    (folder / "processor_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="Expected `size` of 224 pixels"):
        AutoProcessor.from_pretrained(folder)


def test_a_copy_has_settings_of_its_own(processor: LlavaHoundProcessor) -> None:
    other = copy.copy(processor)
    other.num_frames, other.image_aspect_ratio = 16, None
    assert (processor.num_frames, processor.image_aspect_ratio) == (8, "pad")
    assert other.tokenizer is processor.tokenizer


def test_a_processor_is_built_of_its_parts() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SFT)
    images = LlavaHoundImageProcessor(size=96)
    built = LlavaHoundProcessor(images, tokenizer, num_frames=4, image_patches=9, frame_patches=9, vocab_size=2000)
    assert built.video_processor.size["shortest_edge"] == 96
    assert built.tokens_per_video == 36
    assert built(videos=ARRAY)["pixel_values_videos"].shape == (1, 4, 3, 96, 96)
    with pytest.raises(TypeError, match="Unexpected keyword argument nonsense"):
        LlavaHoundProcessor(images, tokenizer, nonsense=1)


# --- what comes in, and what comes out


def test_every_kind_of_clip(processor: LlavaHoundProcessor) -> None:
    pictures = [Image.open(path) for path in FRAMES]
    arrays = [np.asarray(picture) for picture in pictures]
    listed = processor.read_video(FRAMES)
    for clip in (pictures, tuple(arrays), np.stack(arrays), torch.from_numpy(np.stack(arrays))):
        assert torch.equal(processor(videos=clip)["pixel_values_videos"][0], listed)
    first = np.moveaxis(np.stack(arrays), -1, 1)
    assert torch.equal(processor.read_video(first), listed), "channels in front"
    assert torch.equal(processor.read_video(list(first)), listed)
    square = ARRAY[:, :3, :3]  # a shape that does not tell
    turned = processor(videos=np.moveaxis(square, -1, 1), input_data_format="channels_first")["pixel_values_videos"]
    assert torch.equal(turned[0], processor.read_video(square))
    for clip in (CLIP, Path(CLIP), Path(CLIP).read_bytes(), FOLDER):
        assert processor(videos=clip)["pixel_values_videos"].shape == (1, 8, 3, 224, 224)


def test_every_nesting_of_media(processor: LlavaHoundProcessor) -> None:
    clips = [processor.read_video(clip) for clip in (CLIP, FRAMES, ARRAY)]
    for videos in ([CLIP, FRAMES, ARRAY], [[CLIP, FRAMES], [ARRAY]], [[CLIP], FRAMES, [[ARRAY]]]):
        assert torch.equal(processor(videos=videos)["pixel_values_videos"], torch.stack(clips))
    assert processor(videos=np.stack([ARRAY, ARRAY]))["pixel_values_videos"].shape[0] == 2
    images = torch.stack([processor.read_image(image) for image in IMAGES])
    for nested in (IMAGES, [[IMAGES[0]], [IMAGES[1]]], [IMAGES], [Image.open(image) for image in IMAGES]):
        assert torch.equal(processor(images=nested)["pixel_values_images"], images)
    assert torch.equal(processor.read_image(np.moveaxis(np.asarray(Image.open(IMAGES[0])), -1, 0)), images[0])


def test_media_belong_to_the_text_of_their_list(processor: LlavaHoundProcessor) -> None:
    texts = ["<image>\n<image>\nSame?", "<image>\nWhat?"]
    assert processor(text=texts, images=[IMAGES, [IMAGES[0]]])["pixel_values_images"].shape[0] == 3
    with pytest.raises(PlaceholderError, match=r"Text 0 has 2 <image> placeholder\(s\) for 1 item"):
        processor(text=texts, images=[[IMAGES[0]], IMAGES])
    with pytest.raises(PlaceholderError, match=r"has 1 <video> placeholder\(s\) for 2 item"):
        processor(text="<video>", videos=[CLIP, CLIP])


@pytest.mark.parametrize(("kind", "made"), [("pt", torch.Tensor), ("np", np.ndarray), (None, list)])
def test_tensors_of_every_kind(kind: str | None, made: type, processor: LlavaHoundProcessor) -> None:
    text = ["<video>\nWhat? Tell me more.", "<video>\nWhy?"]
    inputs = processor(text=text, videos=[CLIP, ARRAY], return_tensors=kind)
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values_videos"} < set(processor.model_input_names)
    assert all(isinstance(value, made) for value in inputs.values())
    usual = processor(text=text, videos=[CLIP, ARRAY])
    for name, value in inputs.items():
        assert np.array_equal([np.asarray(row) for row in value], usual[name].numpy()), name


def test_settings_of_a_call_reach_their_part(processor: LlavaHoundProcessor) -> None:
    flat = processor(text="<video>", videos=CLIP, num_frames=16, padding="max_length", max_length=900)
    nested = processor(
        text="<video>", videos=CLIP, videos_kwargs={"num_frames": 16},
        text_kwargs={"padding": "max_length", "max_length": 900},
    )  # fmt: skip
    common = processor(text="<video>", videos=CLIP, num_frames=16, common_kwargs={"return_tensors": "np"})
    assert flat["input_ids"].shape == (1, 900)
    assert flat["pixel_values_videos"].shape == (1, 16, 3, 224, 224)
    assert all(torch.equal(flat[name], nested[name]) for name in flat)
    assert isinstance(common["pixel_values_videos"], np.ndarray)
    assert isinstance(processor(text="Hi")["input_ids"], torch.Tensor), "a call leaves the defaults alone"
    assert processor.num_frames == 8
    assert processor(text=["a b c d", "a"])["attention_mask"][1].tolist()[0] == 0, "left"
    assert processor(text=["a b c d", "a"], padding_side="right")["attention_mask"][1].tolist()[0] == 1
    assert processor(text="a", pad_to_multiple_of=16)["input_ids"].shape == (1, 16)
    assert "attention_mask" not in processor(text="a", return_attention_mask=False)
    types = processor(text=["<image> a", "b"], images=IMAGES[0], return_mm_token_type_ids=True)["mm_token_type_ids"]
    assert types.sum() == processor.tokens_per_image


def test_pixels_follow_the_settings_of_a_call(processor: LlavaHoundProcessor) -> None:
    for call, name in (({"images": IMAGES[0]}, "pixel_values_images"), ({"videos": CLIP}, "pixel_values_videos")):
        usual = processor(**call)[name]
        assert processor(**call, rescale_factor=-1.0)[name].mean() < 0
        raw = processor(**call, do_rescale=False, do_normalize=False)[name]
        assert raw.max() > 200
        assert processor(**call, size=112)[name].shape[-2:] == (112, 112)
        assert processor(**call, size={"shortest_edge": 112}, crop_size=112)[name].shape[-2:] == (112, 112)
        other = processor(**call, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])[name]
        assert not torch.equal(other, usual)
        assert torch.equal(processor(**call)[name], usual)
    unpadded = processor(images=IMAGES[0], do_pad=False)["pixel_values_images"]
    assert not torch.equal(unpadded[0], processor.read_image(IMAGES[0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize: expected True, the only way the towers were trained with; got False"),
        ({"resample": 0}, "resample: expected"),
        ({"crop_size": 100}, r"size, crop_size: expected the same side, a square.*got \[100, 224\]"),
        ({"size": {"height": 224, "width": 100}}, "size: expected a square"),
        ({"size": 0}, "got 0"),
        ({"data_format": "channels_last"}, "data_format: expected channels_first"),
        ({"num_frames": 9}, "multiple of 8 for this model's temporal attention, got 9"),
        ({"fps": 2}, "fps: expected nothing"),
        ({"do_sample_frames": False, "num_frames": 16}, r"exactly num_frames \(16\) frames; got 8 frames"),
        ({"return_tensors": "tf"}, "return_tensors"),
        ({"stride": 4}, "stride: expected nothing, since a prompt is tokenised in chunks"),
        ({"padding": False, "text": ["<video>", "a"]}, "padding: expected true for 2 prompts of several lengths"),
        ({"truncation": True, "max_length": 100}, "truncation: expected prompts of at most 100 tokens"),
        ({"text": None, "videos": None}, "Expected text, images or videos, got none"),
        ({"text": [["a", "b"]]}, "text: expected a string or a list of strings"),
    ],
)
def test_what_cannot_be_honoured_is_named(
    settings: dict[str, Any], message: str, processor: LlavaHoundProcessor
) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**{"text": "<video>", "videos": ARRAY, **settings})


def test_settings_that_transformers_refuses_or_warns_of(
    processor: LlavaHoundProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="passed two times"):
        processor(text="a", padding="max_length", text_kwargs={"padding": False})
    with caplog.at_level("WARNING"):
        processor(text="a", not_a_setting=3)
    with pytest.raises(Exception, match="not_a_setting"):
        processor(videos=ARRAY, videos_kwargs={"not_a_setting": 3})
    with pytest.raises(DataError, match="frames only"):
        processor(text="a", audio=[0.0])
    with pytest.raises(MediaNotFoundError, match="Only local files"):
        processor(text="<video>", videos="https://example.org/clip.mp4")


def test_the_tokenizer_s_own_settings_hold(processor: LlavaHoundProcessor) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SFT, max_length=117, padding="max_length", padding_side="right")
    other = LlavaHoundProcessor(processor.image_processor, tokenizer, vocab_size=2000)
    inputs = other(text="a b")
    assert inputs["input_ids"].shape == (1, 117)
    assert inputs["attention_mask"][0, 0] == 0, "answers go on where the prompt ends"
    assert other(text="a b", max_length=99)["input_ids"].shape == (1, 99)


def test_what_vllm_asks(processor: LlavaHoundProcessor) -> None:
    counted = processor._get_num_multimodal_tokens(image_sizes=[(30, 40), (9, 9)], video_sizes=[(300, 64, 48)])
    assert counted["num_image_tokens"] == [49, 49]
    assert counted["num_image_patches"] == [1, 1]
    assert counted["num_video_tokens"] == [processor.tokens_per_video]
    assert processor._get_num_multimodal_tokens(video_sizes=[1], num_frames=16)["num_video_tokens"] == [784]
    inputs = processor(text="a <video> <image> b", videos=ARRAY, images=IMAGES[0], do_sample_frames=False,
                       text_kwargs={"return_text_replacement_offsets": True})  # fmt: skip
    (offsets,) = inputs["text_replacement_offsets"]
    text = "a " + "<video>" * 392 + " " + "<image>" * 49 + " b"
    assert [item["type"] for item in offsets] == ["video", "image"]
    for item in offsets:
        start, end = item["new_span"]
        assert text[start:end] == item["replacement"]
        assert "a <video> <image> b"[slice(*item["span"])] == item["text"]


def test_texts_of_tokens(processor: LlavaHoundProcessor) -> None:
    inputs = processor(text=["<image>\nWhat moves?", "Hm."], images=IMAGES[0])
    assert processor.batch_decode(inputs["input_ids"], skip_special_tokens=True)[0].strip() == "What moves?"
    assert processor.decode(inputs["input_ids"][1], skip_special_tokens=True) == "Hm."
    assert processor.post_process_image_text_to_text(inputs["input_ids"])[1] == "Hm."


def test_offsets_are_those_of_the_given_text(processor: LlavaHoundProcessor) -> None:
    text = "<s>USER: <image>\nWhat moves? ASSISTANT:"
    inputs = processor(text=text, images=IMAGES[0], return_offsets_mapping=True)
    (offsets,), ids = inputs["offset_mapping"], inputs["input_ids"][0].tolist()
    assert len(offsets) == len(ids)
    assert {text[slice(*offset)] for offset, token in zip(offsets, ids, strict=True) if token == 2000} == {"<image>"}
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)


def test_the_pixel_cache_knows_the_call_s_settings(processor: LlavaHoundProcessor) -> None:
    from hound_plugin.media.pixel_cache import PixelCache

    processor.pixel_cache = PixelCache()
    usual, other = (processor(videos=CLIP, **call)["pixel_values_videos"] for call in ({}, {"num_frames": 16}))
    assert processor.pixel_cache.misses == 2
    assert (usual.shape[1], other.shape[1]) == (8, 16)
    assert torch.equal(processor.read_video(CLIP), usual[0])
    assert processor.pixel_cache.hits == 1
    assert json.loads(processor.to_json_string())["video_processor"].keys().isdisjoint({"pixel_cache", "decoder"})


def test_no_setting_of_this_machine_is_saved(processor: LlavaHoundProcessor, folder: Path) -> None:
    assert SYSTEM in (folder / "chat_template.jinja").read_text()
    assert sorted(os.listdir(folder)) == sorted(
        ["chat_template.jinja", "config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"]
    )
