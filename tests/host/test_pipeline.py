"""Records through the host's own loader, template and collator, in this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.data import (
    PairwiseDataCollatorWithPadding,
    SFTDataCollatorWith4DAttentionMask,
    get_dataset,
    get_template_and_fix_tokenizer,
)
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

from hound_plugin.errors import DataError, HoundError, MediaError, PlaceholderError, SettingsError
from hound_plugin.processing.processor import LlavaHoundProcessor
from tests.goldens import IMAGE_ID, SFT, VIDEO_ID, load_json, rows
from tests.host.hosting import media_folder, write_dataset
from tests.media.zoo import write
from tests.model.test_adapters import write_adapter


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


class Host:
    """The host's pipeline up to the collator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, stage: str, name: str, **changes: Any) -> Any:
        """The rows of a data set, tokenised."""
        module = self.split(stage, **{"dataset": name, **changes})
        return module["train_dataset" if "train_dataset" in module else "eval_dataset"]

    def split(self, stage: str, **changes: Any) -> dict[str, Any]:
        """What the host trains on and evaluates on."""
        arguments = {
            "model_name_or_path": str(SFT),
            "stage": stage,
            "do_train": True,
            "finetuning_type": "full",
            "dataset_dir": str(self.folder / "data"),
            "media_dir": str(media_folder(self.folder / "media")),
            "template": "llava_hound",
            "cutoff_len": 4096,
            "output_dir": str(self.folder / "out"),
            "report_to": "none",
            "overwrite_cache": True,
            **changes,
        }
        model, data, training, _, _ = get_train_args(arguments)
        tokens = load_tokenizer(model)
        self.template = get_template_and_fix_tokenizer(tokens["tokenizer"], data)
        self.tokenizer, self.processor = tokens["tokenizer"], tokens["processor"]
        stage = "rm" if stage == "dpo" else stage
        return get_dataset(self.template, model, data, training, stage=stage, **tokens)

    def unexpand(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        """Runs of placeholder ids as the original's single ones, and the labels at the places that are left."""
        short: list[int] = []
        kept: list[int] = []
        names = {self.processor.image_token_id: IMAGE_ID, self.processor.video_token_id: VIDEO_ID}
        for token, label in zip(ids, labels, strict=True):
            token = names.get(token, token)
            if token < 0 and short and short[-1] == token:
                assert label == -100
                continue
            short.append(token)
            kept.append(label)
        return short, kept


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def sft_record(case: dict[str, Any]) -> dict[str, Any]:
    media = {"video": {"video": "clip_long"}, "image": {"image": "img_wide.jpg"}}.get(case["has_X"] or "", {})
    return {"id": case["name"], **media, "conversations": case["conversations"]}


TRAINED = [case for case in load_json("b_sft_tokenization.json") if not case["printed"]]


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case["name"])
def test_every_conversation_has_the_recorded_tokens(case: dict[str, Any], host: Host) -> None:
    write_dataset(host.folder / "data", "one", [sft_record(case)])
    row = host.load("sft", "one")[0]
    assert host.unexpand(row["input_ids"], row["labels"]) == (case["input_ids"], case["labels"])
    visual = {"video": host.processor.tokens_per_video, "image": host.processor.tokens_per_image}.get(case["has_X"], 1)
    assert len(row["input_ids"]) == len(case["input_ids"]) - 1 + visual if case["has_X"] else len(case["input_ids"])


def test_the_host_s_own_sharegpt_format_gives_the_same(host: Host) -> None:
    cases = [case for case in TRAINED if case["has_X"] == "video" and case["conversations"][0]["from"] == "human"]
    ours = [sft_record(case) for case in cases]
    theirs = [{"conversations": record["conversations"], "videos": [record["video"]]} for record in ours]
    write_dataset(host.folder / "data", "hound", ours)
    write_dataset(
        host.folder / "data",
        "share",
        theirs,
        formatting="sharegpt",
        columns={"messages": "conversations", "videos": "videos"},
    )
    left, right = host.load("sft", "hound"), host.load("sft", "share")
    for name, a, b in zip((case["name"] for case in cases), left, right, strict=True):
        assert a["input_ids"] == b["input_ids"], name
        assert a["labels"] == b["labels"], name


def test_pairs_have_the_recorded_tokens(host: Host) -> None:
    recorded = {case["id"]: case for case in load_json("b_dpo_tokenization.json")}
    write_dataset(host.folder / "data", "pairs", rows("dpo.jsonl"), ranking=True)
    for row, record in zip(host.load("dpo", "pairs"), rows("dpo.jsonl"), strict=True):
        case = recorded[record["id"]]
        for side in ("chosen", "rejected"):
            short = host.unexpand(row[f"{side}_input_ids"], row[f"{side}_labels"])
            assert short == (case[f"{side}_input_ids"], case[f"{side}_labels"]), record["id"]


@pytest.mark.parametrize(
    "shape",
    [
        lambda r: {"prompt": r["prompt"], "chosen": r["chosen"], "rejected": r["rejected"]},
        lambda r: {
            "conversations": [{"from": "human", "value": r["prompt"]}],
            "chosen": {"from": "gpt", "value": r["chosen"]},
            "rejected": {"from": "gpt", "value": r["rejected"]},
        },
        lambda r: {
            "prompt": [{"role": "user", "content": r["prompt"]}],
            "chosen": [{"role": "assistant", "content": r["chosen"]}],
            "rejected": [{"role": "assistant", "content": r["rejected"]}],
        },
    ],
    ids=["texts", "conversations", "messages"],
)
def test_pairs_may_have_either_shape(shape: Any, host: Host) -> None:
    record = rows("dpo.jsonl")[0]
    write_dataset(host.folder / "data", "a", [record], ranking=True)
    write_dataset(host.folder / "data", "b", [{"id": "x", "video": record["video"], **shape(record)}], ranking=True)
    assert host.load("dpo", "a")[0]["rejected_input_ids"] == host.load("dpo", "b")[0]["rejected_input_ids"]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_first_image_may_come_after_a_thousand_clips(stage: str, host: Host) -> None:
    if stage == "sft":
        clip, image = video_record(), {"id": "i", "image": "img_wide.jpg", "conversations": turns("<image>\nQ?", "A.")}
    else:
        clip = rows("dpo.jsonl")[0]
        image = {
            "id": "i",
            "image": "img_wide.jpg",
            **{key: clip[key] for key in ("chosen", "rejected")},
            "prompt": "Q?",
        }
    write_dataset(host.folder / "data", "mixed", [clip] * 1100 + [image], ranking=stage == "dpo")
    dataset = host.load(stage, "mixed")
    assert dataset[0]["videos"]
    assert dataset[1100]["images"]
    assert not dataset[1100]["videos"]


def test_a_list_of_frames_is_one_clip_and_a_list_of_images_are_several(host: Host) -> None:
    frames = [f"clip_long/c01_00{number:02d}.jpeg" for number in (1, 8, 16)]
    images = ["img_wide.jpg", "img_tall.png"]
    write_dataset(host.folder / "data", "frames", [video_record(video=frames)])
    row = host.load("sft", "frames")[0]
    assert [len(clip) for clip in row["videos"]] == [3]
    record = {"id": "i", "image": images, "conversations": turns("<image>\nQ?", "A.", "<image>\nR?", "B.")}
    write_dataset(host.folder / "data", "images", [record])
    row = host.load("sft", "images")[0]
    assert len(row["images"]) == 2
    collate = SFTDataCollatorWith4DAttentionMask(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor, compute_dtype=torch.float32
    )
    assert collate([dict(row)])["pixel_values_images"].shape[0] == 2


def test_parts_of_one_clip_are_clips_of_their_own(host: Host) -> None:
    names = ["clip_long.mp4#t=1,2", "clip_long.mp4#t=8,9", "clip_long.mp4#t=1,2"]
    write_dataset(host.folder / "data", "parts", [video_record(id=str(n), video=name) for n, name in enumerate(names)])
    dataset = host.load("sft", "parts")
    collate = SFTDataCollatorWith4DAttentionMask(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor, compute_dtype=torch.float32
    )
    batch = collate([dict(row) for row in dataset])
    assert batch["video_index"].tolist() == [0, 1, 0]
    folder = media_folder(host.folder / "media")
    expected = torch.stack([host.processor.read_video(str(folder / name)) for name in names[:2]])
    assert torch.equal(batch["pixel_values_videos"], expected)
    assert not torch.equal(expected[0], expected[1])


def test_a_batch_of_pairs_decodes_each_clip_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(host.folder / "data", "pairs", rows("dpo.jsonl")[:4], ranking=True)
    opened: list[str] = []
    read = LlavaHoundProcessor.read_video
    monkeypatch.setattr(
        LlavaHoundProcessor, "read_video", lambda self, video: (opened.append(video), read(self, video))[1]
    )
    dataset = host.load("dpo", "pairs")
    assert opened == []  # tokenising opens nothing
    collate = PairwiseDataCollatorWithPadding(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor
    )
    batch = collate([dict(dataset[number]) for number in range(4)])
    assert len(opened) == len(set(opened)) == 3  # rows 0 and 3 show the same clip
    assert batch["pixel_values_videos"].shape[:2] == (3, 8)
    assert batch["video_index"].tolist() == [0, 1, 2, 0] * 2


def test_text_alone_needs_no_picture(host: Host) -> None:
    write_dataset(host.folder / "data", "text", [sft_record(c) for c in TRAINED if not c["has_X"]])
    dataset = host.load("sft", "text")
    collate = SFTDataCollatorWith4DAttentionMask(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor, compute_dtype=torch.float32
    )
    batch = collate([dict(row) for row in dataset])
    assert not [name for name in batch if name.startswith("pixel")]


def test_multi_turn_encoding_message_by_message_would_differ(host: Host) -> None:
    """The reason for a template class of our own: the host's base class gets the second turn wrong."""
    from llamafactory.data.template import Template

    case = next(case for case in TRAINED if case["name"] == "video_multi_turn")
    write_dataset(host.folder / "data", "one", [sft_record(case)])
    host.load("sft", "one")
    messages = [
        {"role": {"human": "user", "gpt": "assistant"}[t["from"]], "content": t["value"]} for t in case["normalized"]
    ]
    theirs = [
        token
        for pair in Template.encode_multiturn(host.template, host.tokenizer, messages)
        for side in pair
        for token in side
    ]
    assert host.unexpand(theirs, [-100] * len(theirs))[0] != case["input_ids"]


# --- bad input


def video_record(**changes: Any) -> dict[str, Any]:
    record = {
        "id": "r",
        "video": "clip_short",
        "conversations": [{"from": "human", "value": "<video>\nQ?"}, {"from": "gpt", "value": "A."}],
    }
    return {**record, **changes}


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        (video_record(video="nowhere"), MediaError, r"(?s)'bad.jsonl'.*row 2, id 'r'.*'nowhere' under media_dir"),
        (video_record(conversations=None), DataError, r"row 2.*`conversations`: expected a question with its answer"),
        (
            video_record(conversations=turns("Q?", "A.")),
            PlaceholderError,
            r"expected <video> in a question.*`hound corpus convert` adds it",
        ),
        (video_record(conversations=turns("<video>Q", "A", "<video>R", "B")), PlaceholderError, r"found 2"),
        (
            video_record(conversations=turns("<video>\nQ?", "")),
            DataError,
            "`conversations`: expected a text in every answer",
        ),
        (video_record(conversations=turns("<video>\nQ?")), DataError, "an answer after the last question"),
        (
            video_record(conversations=[{"from": "system", "value": "x"}]),
            DataError,
            "expected a question with its answer",
        ),
        (video_record(image="img_wide.jpg"), DataError, "clips or images in one row"),
        ({"id": "r", "conversations": turns("<image>\nQ?", "A")}, PlaceholderError, "1 and no media"),
    ],
)
def test_bad_records_are_named(record: dict[str, Any], error: type[Exception], message: str, host: Host) -> None:
    write_dataset(host.folder / "data", "bad", [video_record(id="good"), record])
    with pytest.raises(error, match=message):
        host.load("sft", "bad")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": ""}, "`chosen`: expected an answer that has text, found ''"),
        ({"rejected": None}, "`rejected`"),
        ({"prompt": None}, "`prompt`"),
    ],
)
def test_bad_pairs_are_named(change: dict[str, Any], message: str, host: Host) -> None:
    write_dataset(host.folder / "data", "bad", [{**rows("dpo.jsonl")[0], **change}], ranking=True)
    with pytest.raises(DataError, match=message):
        host.load("dpo", "bad")


def test_a_cutoff_that_cuts_the_clip_names_the_needed_value(host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record()])
    needed = len(host.load("sft", "one")[0]["input_ids"])
    with pytest.raises(DataError, match=f"`cutoff_len: 300` cuts visual tokens.*Set `cutoff_len` to at least {needed}"):
        host.load("sft", "one", cutoff_len=300)
    assert len(host.load("sft", "one", cutoff_len=needed)[0]["input_ids"]) == needed
    write_dataset(host.folder / "data", "pair", [rows("dpo.jsonl")[3]], ranking=True)
    with pytest.raises(DataError, match="cuts visual tokens"):
        host.load("dpo", "pair", cutoff_len=400)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"no video at all", "text.mp4"),
        ("empty.mp4", b"", "empty.mp4"),
        ("stray", None, "stray"),
        ("half.mkv", "half", "cut short: its header says 2.4 s, the data ends at"),
        ("clip_short.mp4#t=3,2", None, "START < END"),  # a bad row, if bad media stop
        ("clip_short.mp4#t=60,70", None, "no frame from 60 s to 70 s"),
        ("clip_long#t=1,2", None, "a folder of frames"),
    ],
)
def test_bad_media_are_found_before_training(name: str, content: bytes | str | None, message: str, host: Host) -> None:
    target = media_folder(host.folder / "media") / name
    if "#" in name:
        pass
    elif content == "half":
        write(target)
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    elif content is None:
        target.mkdir()
        (target / "notes.txt").write_text("no image")
    else:
        target.write_bytes(content)
    write_dataset(host.folder / "data", "bad", [video_record(id="good"), video_record(video=name)])
    with pytest.raises((MediaError, DataError), match=rf"row 2(: |, id 'r': `start`: ).*{message}"):
        host.load("sft", "bad")
    kept = host.load("sft", "bad", hound={"on_bad_media": "skip"})
    assert len(kept) == 1


def test_media_that_go_bad_later_are_masked_when_asked_for(host: Host) -> None:
    folder = media_folder(host.folder / "media")
    (folder / "late.mp4").write_bytes((folder / "clip_short.mp4").read_bytes())
    write_dataset(host.folder / "data", "late", [video_record(), video_record(video="late.mp4")])
    dataset = host.load("sft", "late", hound={"on_bad_media": "skip"})
    (folder / "late.mp4").write_bytes(b"gone")
    collate = SFTDataCollatorWith4DAttentionMask(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor, compute_dtype=torch.float32
    )
    # the host gives a model for training and none for prediction
    collate.model = type("Model", (), {"config": type("Config", (), {"model_type": "llava_hound"})})()
    batch = collate([dict(row) for row in dataset])
    assert (batch["labels"][0] != -100).any()
    assert not (batch["labels"][1] != -100).any()
    host.processor.on_bad_media = "error"
    with pytest.raises(MediaError, match=r"late\.mp4"):
        collate([dict(row) for row in dataset])


def test_stale_tokens_on_disk_are_refused(host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record(), video_record()])
    host.load("sft", "one", tokenized_path=str(host.folder / "tokens"))
    assert len(host.load("sft", "one", tokenized_path=str(host.folder / "tokens"))) == 2
    (host.folder / "tokens" / "hound_tokens.json").unlink()  # as an earlier version left it
    with pytest.raises(DataError, match=r"Expected 784 visual tokens .* found 392"):
        host.load("sft", "one", tokenized_path=str(host.folder / "tokens"), hound={"num_frames": 16})


def test_missing_files_are_skipped_when_asked_for(host: Host) -> None:
    write_dataset(host.folder / "data", "gaps", [video_record(), video_record(video="nowhere.mp4")])
    assert len(host.load("sft", "gaps", hound={"on_bad_media": "skip"})) == 1


def test_bad_pairs_are_left_out_of_a_batch(host: Host) -> None:
    folder = media_folder(host.folder / "media")
    (folder / "late.mp4").write_bytes((folder / "clip_short.mp4").read_bytes())
    pairs = [rows("dpo.jsonl")[0], {**rows("dpo.jsonl")[1], "video": "late.mp4"}]
    write_dataset(host.folder / "data", "pairs", pairs, ranking=True)
    dataset = host.load("dpo", "pairs", hound={"on_bad_media": "skip"})
    (folder / "late.mp4").write_bytes(b"gone")
    collate = PairwiseDataCollatorWithPadding(
        template=host.template, tokenizer=host.tokenizer, processor=host.processor
    )
    batch = collate([dict(row) for row in dataset])
    assert batch["input_ids"].shape[0] == 2
    assert batch["video_index"].tolist() == [0, 0]
    with pytest.raises(MediaError, match="no row is left of a batch of 1"):
        collate([dict(dataset[1])])


def test_a_wrong_template_is_refused(host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record()])
    with pytest.raises(SettingsError, match=r"Expected `template: llava_hound`.*got 'vicuna'"):
        host.load("sft", "one", template="vicuna")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"num_frame": 8}, "hound.num_frame: unknown key. Did you mean 'num_frames'"),
        ({"decoder": "ffmpeg"}, "hound.decoder: expected one of auto, decord"),
        ({"num_frames": 0}, "hound.num_frames: expected a whole number of at least 1"),
        ("fast", "expected a block"),
    ],
)
def test_bad_settings_are_refused_by_name(block: Any, message: str, host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record()])
    with pytest.raises(HoundError, match=message):
        host.load("sft", "one", hound=block)


def test_a_number_of_frames_that_the_tower_cannot_take_is_refused(host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record()])
    with pytest.raises(SettingsError, match=r"hound\.num_frames: expected a multiple of 8 .* got 4"):
        host.load("sft", "one", hound={"num_frames": 4})
    ids = host.load("sft", "one", hound={"num_frames": 16})[0]["input_ids"]
    assert ids.count(host.processor.video_token_id) == 2 * 8 * 49


@pytest.mark.parametrize("as_adapter", [False, True], ids=["model", "adapter"])
def test_frames_are_those_that_the_model_or_the_adapter_was_trained_with(
    as_adapter: bool, host: Host, tmp_path: Path
) -> None:
    trained = LlavaHoundProcessor.from_pretrained(str(SFT))
    trained.num_frames, trained.frame_sampling = 16, "fps"
    write_dataset(host.folder / "data", "one", [video_record()])
    if as_adapter:
        folder = write_adapter(tmp_path / "adapter", 0)
        chosen: dict[str, Any] = {"adapter_name_or_path": str(folder), "finetuning_type": "lora"}
    else:
        folder = Path(shutil.copytree(SFT, tmp_path / "model"))
        chosen = {"model_name_or_path": str(folder)}
    trained.save_pretrained(folder)
    host.load("sft", "one", **chosen)
    assert (host.processor.num_frames, host.processor.frame_sampling) == (16, "fps")
    host.load("sft", "one", **chosen, hound={"num_frames": 8, "frame_sampling": "uniform"})
    assert (host.processor.num_frames, host.processor.frame_sampling) == (8, "uniform")


def test_settings_reach_the_processor(host: Host) -> None:
    write_dataset(host.folder / "data", "one", [video_record()])
    host.load("sft", "one", **{"hound.frame_sampling": "first_10s"}, hound={"decoder": "pyav", "decode_timeout": 5})
    assert (host.processor.frame_sampling, host.processor.decoder, host.processor.decode_timeout) == (
        "first_10s",
        "pyav",
        5,
    )


@pytest.mark.parametrize("system", ["Look at <video> only.", "<image>", "No <image>, no <video>, <video>!"])
@pytest.mark.parametrize("formatting", ["hound", "sharegpt"])
def test_a_system_prompt_that_names_placeholders_is_text(system: str, formatting: str, host: Host) -> None:
    """In a row, as in a chat. Before, such a row was refused: "its answer is empty"."""
    talk = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A dog."}]
    columns = {"messages": "conversations", "videos": "videos", "system": "system"}
    more = {} if formatting == "hound" else {"columns": columns}
    row = {"conversations": talk, "videos": ["clip_short"], "system": system}
    write_dataset(host.folder / "data", "mine", [row], formatting=formatting, **more)
    (loaded,) = host.load("sft", "mine")
    visual = {host.processor.video_token_id, host.processor.image_token_id}
    assert sum(token in visual for token in loaded["input_ids"]) == host.processor.tokens_per_video
    written = host.tokenizer.decode([token for token in loaded["input_ids"] if token not in visual])
    assert system in written
