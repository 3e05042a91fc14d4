"""Equivalences that need no recording: batching, padding, sharing, attention implementations, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from hound_plugin.errors import CheckpointError, MediaError, PlaceholderError, SettingsError
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.inference import HoundModel
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.model.projector import build_projector
from hound_plugin.model.vision import LlavaHoundTower
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import Turn, encode_conversation
from tests.goldens import SFT, assert_close
from tests.model.batches import media_path, pad, sft_batch

MIXED: list[int | str] = [0, "text_only_multi", 2, 3]


def test_batched_rows_equal_single_rows(reference: Any, processor: LlavaHoundProcessor) -> None:
    together = reference(**sft_batch(processor, MIXED)).logits
    for number, row in enumerate(MIXED):
        alone = reference(**sft_batch(processor, [row])).logits[0]
        assert_close(together[number, : alone.shape[0]], alone, 1e-4, str(row))


def test_padding_on_either_side_gives_the_same(reference: Any, processor: LlavaHoundProcessor) -> None:
    tokens = processor.tokens_per_video
    encoded = [
        encode_conversation(processor.tokenizer, [Turn("<video>" * tokens + "\nWhat moves?", "A disc.")]),
        encode_conversation(processor.tokenizer, [Turn("<video>" * tokens + "\nIs it short? Say yes or no.", "Yes.")]),
    ]
    pixels = torch.stack([processor.read_video(media_path(name)) for name in ("clip_long", "clip_short")])
    outputs = {}
    for side in ("left", "right"):
        batch = pad(encoded, side)
        output = reference(**batch, pixel_values_videos=pixels)
        outputs[side] = (output.logits[batch["attention_mask"].bool()], output.loss)
    assert_close(outputs["left"][0], outputs["right"][0], 1e-4)
    assert_close(outputs["left"][1], outputs["right"][1], 1e-5)


def test_a_shared_clip_equals_two_copies(reference: Any, processor: LlavaHoundProcessor) -> None:
    batch = sft_batch(processor, [0, 4])  # two rows about the same clip
    pixels = batch.pop("pixel_values_videos")
    apart = reference(**batch, pixel_values_videos=pixels).logits
    shared = reference(**batch, pixel_values_videos=pixels[:1], video_index=torch.tensor([0, 0])).logits
    assert_close(shared, apart, 1e-6)


def test_attention_implementations_agree(reference: Any, processor: LlavaHoundProcessor) -> None:
    other = AutoModelForImageTextToText.from_pretrained(SFT, attn_implementation="sdpa")
    batch = sft_batch(processor, MIXED)
    attended = batch["attention_mask"].bool()
    assert_close(other(**batch).logits[attended], reference(**batch).logits[attended], 1e-4)


def test_frames_in_another_order_give_other_features(reference: Any, processor: LlavaHoundProcessor) -> None:
    """Temporal attention is on: reversing time is more than reversing the features."""
    pixels = processor.read_video(media_path("clip_long"))[None]
    forward = reference.model.video_tower.features(pixels).unflatten(1, (8, -1))
    backward = reference.model.video_tower.features(pixels.flip(1)).unflatten(1, (8, -1)).flip(1)
    assert (forward - backward).abs().max() > 0.1


def test_gradient_checkpointing_changes_nothing(processor: LlavaHoundProcessor) -> None:
    batch = sft_batch(processor, [0, 2])
    gradients = []
    for checkpointing in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(SFT)
        model.model.set_towers_trainable(True)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        model(**batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, 1e-5, name)


def test_towers_are_frozen_and_unused_blocks_never_train(reference: Any) -> None:
    names = [name for name, p in reference.named_parameters() if p.requires_grad]
    assert not [name for name in names if "tower" in name]
    model = AutoModelForImageTextToText.from_pretrained(SFT)
    model.model.set_towers_trainable(True)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    last = len(model.model.video_tower.encoder.layers) - 1
    assert any(f"video_tower.encoder.layers.{last - 1}." in name for name in trained)
    assert not [name for name in trained if f"tower.encoder.layers.{last}." in name or "post_layernorm" in name]


def test_saved_and_loaded_again(tmp_path: Path, reference: Any, processor: LlavaHoundProcessor) -> None:
    reference.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager")
    assert isinstance(again, LlavaHoundForConditionalGeneration)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.tokens_per_video == processor.tokens_per_video
    assert loaded.image_aspect_ratio == "pad"
    assert (loaded.image_token_id, loaded.video_token_id) == (again.config.image_token_id, again.config.video_token_id)
    batch = sft_batch(loaded, MIXED)
    assert torch.equal(again(**batch).logits, reference(**batch).logits)
    state, before = again.state_dict(), reference.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_the_processor_makes_ready_inputs(reference: Any, processor: LlavaHoundProcessor) -> None:
    prompts = [
        "USER: <video>\nWhat moves? ASSISTANT:",
        "USER: Hello! ASSISTANT:",
        "USER: <image>\nWhat is it? ASSISTANT:",
    ]
    inputs = processor(text=prompts, images=[media_path("img_wide.jpg")], videos=[media_path("clip_short")])
    assert inputs["pixel_values_videos"].shape == (1, 8, 3, 224, 224)
    assert inputs["pixel_values_images"].shape == (1, 3, 224, 224)
    assert (inputs["input_ids"] == processor.video_token_id).sum() == processor.tokens_per_video
    inputs = processor(
        text=prompts, images=[media_path("img_wide.jpg")], videos=[media_path("clip_short")], padding_side="left"
    )
    together = reference.generate(**inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
    for number, (prompt, media) in enumerate(
        zip(prompts, ({"videos": media_path("clip_short")}, {}, {"images": media_path("img_wide.jpg")}), strict=True)
    ):
        alone = processor(text=prompt, **media)
        answer = reference.generate(**alone, max_new_tokens=6, do_sample=False, pad_token_id=0)
        expected = answer[0, alone["input_ids"].shape[1] :].tolist()
        actual = together[number, inputs["input_ids"].shape[1] :].tolist()
        assert actual[: len(expected)] == expected


def test_several_samples_of_one_prompt_encode_the_clip_once(
    reference: Any, processor: LlavaHoundProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = ["USER: <video>\n<video>\nSame? ASSISTANT:", "USER: <video>\nWhat? ASSISTANT:"]
    clips = [media_path(name) for name in ("clip_short", "clip_long", "clip_portrait")]
    inputs = processor(text=prompt, videos=clips, padding_side="left")
    single = reference.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
    seen: list[int] = []
    features = LlavaHoundTower.features
    monkeypatch.setattr(
        LlavaHoundTower,
        "features",
        lambda self, pixels, layer=-2: (seen.append(len(pixels)), features(self, pixels, layer))[1],
    )
    beams = reference.generate(
        **inputs, max_new_tokens=4, num_beams=2, num_return_sequences=2, do_sample=False, pad_token_id=0
    )
    assert beams.shape[0] == 4
    assert seen == [3]
    assert single.shape[0] == 2


def test_labels_may_repeat_the_placeholders(reference: Any, processor: LlavaHoundProcessor) -> None:
    batch = sft_batch(processor, [0])
    whole = reference(**{**batch, "labels": batch["input_ids"]}).loss
    masked = batch["input_ids"].masked_fill(batch["input_ids"] >= 2000, -100)
    assert_close(whole, reference(**{**batch, "labels": masked}).loss, 0.0)


def test_what_the_processor_refuses_and_takes(processor: LlavaHoundProcessor) -> None:
    with pytest.raises(SettingsError, match="at most 2 tokens, visual ones included, got one of 4"):
        processor(text="Hi there", truncation=True, max_length=2)
    assert processor(text="Hi", truncation=True, max_length=64)["input_ids"].shape[1] < 64
    assert processor(text="Hi", padding="max_length", max_length=64)["input_ids"].shape == (1, 64)
    nested = processor(
        text="<image>\n<video>\nQ", images=[[media_path("img_wide.jpg")]], videos=[[media_path("clip_short")]]
    )
    assert nested["pixel_values_images"].shape[0] == 1
    assert AutoProcessor.from_pretrained(SFT, num_frames=16).tokens_per_video == 784


def test_repetition_penalty_survives_placeholders(reference: Any, processor: LlavaHoundProcessor) -> None:
    inputs = processor(text="USER: <video>\nWhat? ASSISTANT:", videos=media_path("clip_short"))
    output = reference.generate(**inputs, max_new_tokens=4, repetition_penalty=1.3, do_sample=False, pad_token_id=0)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 4


def test_a_batch_without_labels_has_loss_zero_and_finite_gradients(processor: LlavaHoundProcessor) -> None:
    model = AutoModelForImageTextToText.from_pretrained(SFT)
    batch = sft_batch(processor, [0])
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_answers_in_python_match_answers_in_batches(reference: Any, processor: LlavaHoundProcessor) -> None:
    hound = HoundModel(reference, processor)
    clip, image = media_path("clip_portrait"), media_path("img_tall.png")
    many = hound.chat_many(["What colour?", "What is it?"], [clip, image], do_sample=False, max_new_tokens=5)
    assert many[0] == hound.chat("What colour?", video=clip, temperature=0, max_new_tokens=5)
    assert many[1] == hound.chat("What is it?", image=image, temperature=0, max_new_tokens=5)


# --- errors


def test_too_few_placeholders_are_refused(reference: Any, processor: LlavaHoundProcessor) -> None:
    batch = sft_batch(processor, [0])
    batch["input_ids"] = batch["input_ids"].clone()
    first = (batch["input_ids"] == processor.video_token_id).nonzero()[0]
    batch["input_ids"][tuple(first)] = 5
    with pytest.raises(PlaceholderError, match="has 391 <video> placeholder tokens, but the videos give 392"):
        reference(**batch)
    batch.pop("pixel_values_videos")
    with pytest.raises(PlaceholderError, match="391 <video> placeholder tokens, but the videos give 0"):
        reference(**batch)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 224, 224), "time comes before the colour channels"),
        ((1, 8, 3, 96, 96), r"got \[1, 8, 3, 96, 96\]"),
        ((1, 7, 3, 224, 224), "multiple of 8 frames .* got 7 frames"),
    ],
)
def test_pixel_values_of_a_wrong_shape_are_refused(shape: tuple[int, ...], message: str, reference: Any) -> None:
    with pytest.raises(MediaError, match=message):
        reference.get_video_features(torch.zeros(shape))


def test_other_projectors() -> None:
    assert build_projector("linear", 4, 6)(torch.zeros(1, 4)).shape == (1, 6)
    assert len(build_projector("mlp3x_gelu", 4, 6)) == 5
    with pytest.raises(CheckpointError, match=r"mlp<N>x_gelu' with N .*, found 'resampler'"):
        build_projector("resampler", 4, 6)


def test_tower_config_is_read_from_the_file() -> None:
    config = LlavaHoundConfig.from_pretrained(SFT)
    assert config.video_tower_config.add_time_attn
    assert config.video_tower_config.patch_size == 32
    assert config.image_tower_config.num_frames == 1
    assert config.original_config["mm_video_tower"] == "LanguageBind/LanguageBind_Video_merge"
    with pytest.raises(CheckpointError, match="`hidden_size` and `patch_size`"):
        LlavaHoundTowerConfig.from_languagebind({"text_config": {}})


@pytest.mark.parametrize(
    ("patch", "width", "activation"), [(56, 32, "quick_gelu"), (32, 48, "gelu"), (28, 64, "gelu_new")]
)
def test_nothing_depends_on_one_set_of_sizes(patch: int, width: int, activation: str, tmp_path: Path) -> None:
    """Other patch sizes, tower widths, activations and vocabularies, through both layouts."""
    from hound_plugin.model.checkpoint_conversion import convert

    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "patch_size": patch,
        "hidden_act": activation,
    }
    values = LlavaHoundConfig.from_pretrained(SFT).to_dict()
    values["text_config"].update(vocab_size=2008, num_hidden_layers=2)
    values.update(image_token_id=-1, video_token_id=-1, original_config=None, mm_image_tower=None, mm_video_tower=None)
    values["image_tower_config"] = tower
    values["video_tower_config"] = {**tower, "add_time_attn": True, "num_frames": 8}
    model = LlavaHoundForConditionalGeneration(LlavaHoundConfig(**values)).eval()
    processor = LlavaHoundProcessor.from_config(model.config, AutoTokenizer.from_pretrained(SFT))
    assert processor.tokens_per_video == 8 * (224 // patch) ** 2
    batch = sft_batch(processor, MIXED)
    expected = model(**batch).logits
    model.save_pretrained(tmp_path / "ours")
    processor.save_pretrained(tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "original", to="original", tokenizer=str(SFT), progress=False)
    for kind in ("image", "video"):  # the original layout names its towers; here they lie in the file
        folder = tmp_path / "original" / kind
        folder.mkdir()
        (folder / "config.json").write_text(
            getattr(model.config, f"{kind}_tower_config")
            .to_json_string()
            .replace("llava_hound_tower", "clip_vision_model")
        )
    import json

    config = json.loads((tmp_path / "original" / "config.json").read_text())
    config.update(mm_image_tower="image", mm_video_tower="video")
    (tmp_path / "original" / "config.json").write_text(json.dumps(config))
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "original")
    assert_close(again(**batch).logits, expected, 1e-5)
