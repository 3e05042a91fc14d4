"""``hound corpus convert``: every shape that is taken, what comes out, and the split by clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.corpus.dataset_conversion import CAPTION_PROMPT, clip_name, convert
from hound_plugin.corpus.records import check_record
from hound_plugin.corpus.shapes import convert_record
from hound_plugin.errors import DataError, SettingsError
from tests.corpus.conftest import PEAK, environment
from tests.corpus.hub import conversation, lines, preference


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


SFT = {"id": "1", "video": "c", "conversations": turns("<video>\nWhat?", "A.")}
PAIR = {"id": "1", "video": "c", "prompt": "<video>\nWhat?", "chosen": "A.", "rejected": "B."}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the original": (SFT, SFT),
    "LLaVA with a clip": ({"id": 1, "video": "c", "conversations": turns("<image>\nWhat?", "A.")}, SFT),
    "the placeholder behind": ({"id": 1, "video": "c", "conversations": turns("What?\n<video>", "A.")}, SFT),
    "no placeholder": ({"id": 1, "video": "c", "conversations": turns("What?", "A.")}, SFT),
    "an image": (
        {"id": 1, "image": "i.jpg", "conversations": turns("<image>\nWhat?", "A.", "And?", "B.")},
        {"id": "1", "image": "i.jpg", "conversations": turns("<image>\nWhat?", "A.", "And?", "B.")},
    ),
    "sharegpt messages": ({"id": 1, "messages": messages("<video>What?", "A."), "videos": ["c"]}, SFT),
    "content parts": (
        {
            "id": 1,
            "messages": [
                {"role": "user", "content": [{"type": "video", "video": "c"}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": "A."},
            ],
        },
        SFT,
    ),
    "image_url": (
        {
            "id": 1,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {"type": "image_url", "image_url": {"url": "i.jpg"}},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A."}]},
            ],
        },
        {"id": "1", "image": "i.jpg", "conversations": turns("<image>\nWhat?", "A.")},
    ),
    "a system turn": (
        {"id": 1, "video": "c", "conversations": [{"from": "system", "value": "Be kind."}, *turns("What?", "A.")]},
        {**SFT, "system": "Be kind."},
    ),
    "question and answer": ({"question_id": 1, "video_name": "c", "question": "What?", "answer": "A."}, SFT),
    "the same answer twice": ({"id": 1, "video": "c", "question": "What?", "answer": "A.", "output": "A."}, SFT),
    "an answer behind the question": (
        {"id": 1, "video": "c", "messages": messages("<video>\nWhat?"), "answer": "A."},
        SFT,
    ),
    "q and a": ({"id": 1, "video": "c", "q": "What?", "a": "A."}, SFT),
    "instruction": (
        {"id": 1, "video": "c", "instruction": "What?", "input": "Be short.", "output": "A."},
        {"id": "1", "video": "c", "conversations": turns("<video>\nWhat?\nBe short.", "A.")},
    ),
    "a caption": (
        {"video": "c", "caption": "A."},
        {"id": "row-7", "video": "c", "conversations": turns(f"<video>\n{CAPTION_PROMPT}", "A.")},
    ),
    "text only": ({"id": 1, "question": "What?", "answer": "A."}, {"id": "1", "conversations": turns("What?", "A.")}),
    "a list of frames": (
        {"id": 1, "video": ["c/1.jpg", "c/2.jpg"], "question": "What?", "answer": "A."},
        {"id": "1", "video": ["c/1.jpg", "c/2.jpg"], "conversations": turns("<video>\nWhat?", "A.")},
    ),
    "a greeting first": (
        {"id": 1, "video": "c", "conversations": [{"from": "gpt", "value": "Hi."}, *turns("What?", "A.")]},
        SFT,
    ),
    "our pairs": (PAIR, PAIR),
    "pairs with messages": (
        {
            "id": 1,
            "video": "c",
            "conversations": turns("<video>\nWhat?"),
            "chosen": {"from": "gpt", "value": "A."},
            "rejected": {"from": "gpt", "value": "B."},
        },
        PAIR,
    ),
    "trl's pairs": (
        {"id": 1, "videos": ["c"], "prompt": messages("What?"), "chosen": messages("", "A.")[1:], "rejected": [
            {"role": "assistant", "content": "B."}
        ]},
        PAIR,
    ),
    "trl's pairs with whole conversations": (
        {"id": 1, "video": "c", "chosen": messages("What?", "A."), "rejected": messages("What?", "B.")},
        PAIR,
    ),
    "pairs after several turns": (
        {"video": "c", "conversations": turns("A?", "A.", "B?"), "chosen": "A.", "rejected": "B."},
        {
            "id": "row-7",
            "video": "c",
            "conversations": turns("<video>\nA?", "A.", "B?"),
            "chosen": "A.",
            "rejected": "B.",
        },
    ),
    "pairs with a system prompt": ({**PAIR, "system": "Be kind."}, {**PAIR, "system": "Be kind."}),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: str) -> None:
    given, expected = SHAPES[shape]
    found = convert_record(given, 7, CAPTION_PROMPT)
    assert found == expected
    assert check_record(found).problems == []
    assert convert_record(found, 7, CAPTION_PROMPT) == found


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"id": 1, "video": "c"},
            r"no conversation \(`conversations`\): expected a question with its answer, found none$",
        ),
        (
            {"video": "c", "question": "What?"},
            r"no answer \(`conversations`\): expected an answer after the last question, found '<video>\\nWhat\?'$",
        ),
        (
            {"video": "c", "question": ["What?"], "answer": "A."},
            r"turn \(`question\[0\]`\): expected a message with a role and text, found 'What\?'$",
        ),
        (
            {"video": "c", "conversations": "What?", "q": "What?", "a": "A."},
            r"conversation \(`conversations`\): expected a list of messages, found 'What\?'$",
        ),
        (
            {"video": "c", "question": "What?", "answer": "A.", "output": "B."},
            r"field twice \(`output`\): expected the same as in `answer`, found 'B\.'$",
        ),
        (
            {"video": "c", "conversations": turns("What?", "A."), "response": "B."},
            r"two answers \(`response`\): expected an answer of the conversation, or no separate answer, found 'B\.'$",
        ),
        (
            {"video": "c", "conversations": [{"from": "system", "value": "Be kind."}], "q": "What?", "a": "A."},
            r"two questions \(`q`\): expected a question of the conversation, found 'What\?'",
        ),
        (
            {"video": "c", "chosen": "A.", "rejected": "B."},
            r"no question \(`prompt`\): expected a question before the answers, found none$",
        ),
        (
            {"video": "c", "prompt": "What?", "chosen": "A."},
            r"no rejected \(`rejected`\): expected two answers to compare, found only `chosen`$",
        ),
        (
            {"video": "c", "conversations": [{"from": "tool", "value": "x"}]},
            r"role \(`conversations\[0\]`\): expected one of the roles human, user, gpt, .*, found 'tool'$",
        ),
        (
            {"video": "c", "conversations": [*turns("A?", "A."), {"from": "gpt", "value": "B."}]},
            r"roles \(`conversations`\): expected alternating questions and answers, found user, assistant, assistant$",
        ),
        (
            {"video": "c", "messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            r"content part \(`messages\[0\].content\[0\]`\): expected a part of type text, .* found {'type': 'audio'}$",
        ),
    ],
)
def test_what_is_none_of_them(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        convert_record(record, 1, CAPTION_PROMPT)


def test_scores_and_provenance_are_kept_and_other_fields_counted(tmp_path: Path) -> None:
    given = {**PAIR, "chosen_score": 5, "raw": {"a": [1]}, "judge_model": "m", "seed": None, "note": "x"}
    kept = {**PAIR, "chosen_score": 5, "raw": {"a": [1]}, "judge_model": "m"}
    assert convert_record(given, 1, "") == kept
    assert convert_record(given, 1, "", ["note", "absent"]) == {**kept, "note": "x"}
    source = tmp_path / "rows.jsonl"
    source.write_bytes(lines([given, {**given, "note": "y"}, PAIR]))
    result = convert(source, tmp_path / "out.jsonl")
    assert result.remarks == [f"{source}: fields that nothing reads, by rows: `note` (2)"]
    assert convert(source, tmp_path / "kept.jsonl", keep=["note"]).remarks == []


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def found_in(report: Path) -> list[tuple[Any, ...]]:
    return [(row["row"], row["id"], row["problem"], row["field"]) for row in rows_of(report)]


def test_the_input_is_not_the_list_of_bad_rows(tmp_path: Path) -> None:
    source = tmp_path / "ours.bad.jsonl"
    source.write_bytes(lines([SFT]))
    with pytest.raises(SettingsError, match="is the input, and bad rows would be listed there"):
        convert(source, tmp_path / "ours.jsonl")
    assert rows_of(source) == [SFT]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, bad = tmp_path / "theirs.json", tmp_path / "ours.jsonl", tmp_path / "ours.bad.jsonl"
    good = [{"video": "c", "q": "What?", "a": f"{index}."} for index in range(3)]
    source.write_text(json.dumps([*good, {"id": 9}, "text", {"video": "c", "q": "What?", "a": ""}]))
    skipping = ["corpus", "convert", str(source), str(target), "--on-bad-rows", "skip"]
    assert cli.main(["corpus", "convert", str(source), str(target)]) == 2
    said = capsys.readouterr().err
    assert f"3 of 6 rows of {source} cannot be used:" in said
    assert "        1  no conversation  row 4, id '9': `conversations`: expected a question with its answer" in said
    assert f"leave them out with --on-bad-rows skip. All of them are listed in {bad}." in said
    assert found_in(bad) == [
        (4, "9", "no conversation", "conversations"),
        (5, None, "no object", ""),
        (6, None, "blank answer", "conversations"),
    ]
    assert {row["file"] for row in rows_of(bad)} == {str(source)}
    assert not target.exists(), "nothing is written but the list"
    assert cli.main(skipping) == 2  # half of the rows are more than 0.01
    assert "more than the share of 0.01 that may be left out (`max_bad_rows`)" in capsys.readouterr().err
    assert not target.exists()
    assert cli.main([*skipping, "--max-bad-rows", "0.5"]) == 0
    assert [row["id"] for row in rows_of(target)] == ["row-1", "row-2", "row-3"]
    assert len(rows_of(bad)) == 3
    said_all = capsys.readouterr()
    assert f"{target}: 3 rows" in said_all.out
    assert f"left out: 3 rows, with reasons in {bad}" in said_all.err
    assert cli.main(["corpus", "convert", str(source), str(target)]) == 2  # it exists
    source.write_text(json.dumps(good))
    assert cli.main(["corpus", "convert", str(source), str(target), "--force"]) == 0
    assert not bad.exists(), "the list of an earlier run"
    assert cli.main(["corpus", "convert", str(target), str(target), "--force"]) == 2  # the input
    assert len(rows_of(target)) == 3
    assert cli.main(["corpus", "convert", str(tmp_path / "none"), str(tmp_path / "x.jsonl")]) == 2


def split_of(source: Path, name: str, seed: int = 0, share: float = 0.2) -> tuple[list[Any], list[Any]]:
    target = source.with_name(name)
    convert(source, target, split=share, seed=seed)
    return rows_of(source.with_name(f"{target.stem}.train.jsonl")), rows_of(
        source.with_name(f"{target.stem}.heldout.jsonl")
    )


def test_no_clip_is_on_both_sides(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(lines([conversation(f"v_{index % 500}", index) for index in range(2_000)]))
    train, held = split_of(source, "a.jsonl")
    assert len(train) + len(held) == 2_000
    names = [{row["video"] for row in side} for side in (train, held)]
    assert not names[0] & names[1]
    assert 0.15 < len(names[1]) / 500 < 0.25
    assert split_of(source, "b.jsonl") == (train, held)
    assert {row["video"] for row in split_of(source, "c.jsonl", seed=1)[1]} != names[1]
    fewer = {row["video"] for row in split_of(source, "d.jsonl", share=0.1)[1]}
    assert fewer < names[1]  # a smaller share holds out fewer of the same
    pairs = tmp_path / "pairs.jsonl"  # another file, layout and order: each clip falls on the same side
    pairs.write_bytes(lines([preference(f"/disk/frames/v_{index}.mp4", index) for index in reversed(range(500))]))
    held_pairs = split_of(pairs, "e.jsonl")[1]
    assert {clip_name(row["video"]) for row in held_pairs} == names[1]


def test_clips_and_texts_that_cannot_be_told_apart(tmp_path: Path) -> None:
    assert clip_name("test/msvd/x.mp4") == clip_name("x") == clip_name(["x/1.jpg", "x/2.jpg"]) == "x"
    source = tmp_path / "rows.jsonl"
    several = [
        {"id": index, "video": [f"v_{index}", f"w_{index}"], "conversations": turns("<video>", "A.", "<video>", "B.")}
        for index in range(50)
    ]
    texts = [{"id": index, "conversations": turns("What?", "A.")} for index in range(50)]
    source.write_bytes(lines([*several, *texts]))
    result = convert(source, tmp_path / "out.jsonl", split=0.5)
    assert result.bad == 0
    assert 10 < result.straddling < 40
    assert sum(result.written.values()) == 100 - result.straddling
    train, held = (rows_of(path) for path in result.written)
    assert sum("video" not in row for row in train) + sum("video" not in row for row in held) == 50
    flat = [{name for row in side for name in row.get("video", [])} for side in (train, held)]
    assert not flat[0] & flat[1]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_bad_shares(share: float, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(lines([SFT]))
    with pytest.raises(SettingsError, match="above 0 and below 1"):
        convert(source, tmp_path / "out.jsonl", split=share)


def test_an_interrupted_conversion_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hound_plugin.corpus import dataset_conversion as module

    source, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines([SFT] * 10))
    target.write_text("older\n")
    calls = iter(range(100))

    def failing(*arguments: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return convert_record(*arguments)

    monkeypatch.setattr(module, "convert_record", failing)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, force=True)
    assert target.read_text() == "older\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from hound_plugin.corpus.dataset_conversion import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[1] + '.out'), split=0.1, on_bad_rows='skip', max_bad_rows=1)\n"
        f"print({PEAK})"
    )
    peaks = []
    for count in (500, 20_000):
        path = tmp_path / f"{count}.jsonl"
        rows = [conversation(f"v_{index}", index) | {"pad": "x" * 500} for index in range(count)]
        path.write_bytes(lines(rows + [{"id": index, "pad": "x" * 500} for index in range(count)]))  # half are bad
        command = [sys.executable, "-c", script, str(path)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 3_000, peaks


def test_pairs_become_labelled_answers(tmp_path: Path) -> None:
    pairs = [{"id": "a", "video": "v/1", "prompt": "<video>\nWhat?", "chosen": "a cat", "rejected": "a dog"}]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    result = convert(source, tmp_path / "kto.jsonl", labels=True)
    rows = [json.loads(line) for line in (tmp_path / "kto.jsonl").read_text().splitlines()]
    assert sum(result.written.values()) == 2
    assert [(row["id"], row["label"], row["conversations"][1]["value"], row["video"]) for row in rows] == [
        ("a-chosen", True, "a cat", "v/1"),
        ("a-rejected", False, "a dog", "v/1"),
    ]


def test_only_pairs_can_be_labelled(tmp_path: Path) -> None:
    source = tmp_path / "sft.jsonl"
    row = {"id": "a", "video": "v", "question": "What?", "answer": "a cat"}
    source.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 1 rows of [^\n]*\n.*expected a preference pair"):
        convert(source, tmp_path / "kto.jsonl", labels=True)
    assert found_in(tmp_path / "kto.bad.jsonl") == [(1, "a", "not convertible", "")]
    assert not (tmp_path / "kto.jsonl").exists()
    result = convert(source, tmp_path / "kto.jsonl", labels=True, on_bad_rows="skip", max_bad_rows=1)
    assert (result.bad, rows_of(tmp_path / "kto.jsonl")) == (1, [])


def converted(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[Any], list[tuple[Any, ...]]]:
    source, target = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines(rows))
    convert(source, target, on_bad_rows="skip", max_bad_rows=1.0, **options)
    bad = tmp_path / "out.bad.jsonl"
    return rows_of(target), found_in(bad) if bad.exists() else []


QUESTION = {"video": "c", "question": "What?", "answer": "A."}


@pytest.mark.parametrize(
    ("ids", "kept", "refused"),
    [
        ([None, "row-1"], ["row-1"], [2]),
        (["row-2", None], ["row-2"], [2]),
        (["row-3", None, None, None], ["row-3", "row-2", "row-4"], [3]),
        (["row-9", None, "row-01", "row-2x", 7, None], ["row-9", "row-2", "row-01", "row-2x", "7", "row-6"], []),
        ([None, "x", "x", "row-3"], ["row-1", "x", "x", "row-3"], []),
    ],
)
def test_a_made_id_is_never_another_row_s(ids: list[Any], kept: list[str], refused: list[int], tmp_path: Path) -> None:
    rows, bad = converted(tmp_path, [QUESTION if given is None else {"id": given, **QUESTION} for given in ids])
    assert [row["id"] for row in rows] == kept
    assert [(entry[0], entry[2]) for entry in bad] == [(number, "id twice") for number in refused]


def test_captions_ask_about_what_they_describe(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": "x/one.png", "caption": "A barn."},
        {"id": "2", "video": ["f/1.png", "f/2.png"], "text": "A barn burns."},
        {"id": "3", "description": "Nothing is shown."},
    ]
    found, bad = converted(tmp_path, rows)
    asked = [row["conversations"][0]["value"] for row in found]
    assert asked == ["<image>\nDescribe the image in detail.", "<video>\nDescribe the video in detail."]
    assert bad == [(3, "3", "no media", "caption")]
    found, _ = converted(tmp_path, rows, caption_prompt="What is there?", force=True)
    assert {row["conversations"][0]["value"].split("\n")[1] for row in found} == {"What is there?"}


@pytest.mark.parametrize(
    ("media", "texts"),
    [
        ({"video": ["a", "b"]}, ("First <video>, then <video>: what changed?", "All.")),
        ({"image": ["a", "b", "c"]}, ("<image> or <image> or\n<image>", "The last.")),
        ({"video": ["a", "b", "c"]}, ("Is <video> like <video>?", "No.", "<video>\nAnd this?", "Yes.")),
    ],
)
def test_several_clips_of_a_question_stay_in_their_places(
    media: dict[str, Any], texts: tuple[str, ...], tmp_path: Path
) -> None:
    (row,), bad = converted(tmp_path, [{"id": "1", **media, "conversations": turns(*texts)}])
    assert row["conversations"] == turns(*texts)
    assert bad == []
