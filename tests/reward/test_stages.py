"""Stages from files to files: resumed, shared, honest about what is missing; with a real server where one is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import DataError, JudgeError, LedgerError, MediaNotFoundError
from hound_plugin.judge.lexical import SMOKE_TEST
from hound_plugin.records.files import append_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.reward import stages
from hound_plugin.reward.candidates import (
    add_candidates,
    answer_seed,
    count_alike,
    read_candidates,
    sample_candidates,
)
from hound_plugin.reward.run import dry_run, run_stages
from hound_plugin.reward.run_folder import excluded_ids
from hound_plugin.reward.run_setup import Run, open_run
from hound_plugin.reward.settings import RewardSettings, build_settings
from tests.llm.conftest import SECRET, FaultServer
from tests.llm.fault_server import grade
from tests.reward.conftest import Parrot, rows, write_rows


def start(settings: RewardSettings, said: list[str] | None = None, parrot: Parrot | None = None) -> Run:
    model = parrot or Parrot()
    return open_run(settings, (said if said is not None else []).append, lambda _: model)


def asking(values: dict[str, Any], server: FaultServer, **judge: Any) -> RewardSettings:
    block = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "timeout": 5, **judge}
    return build_settings({**values, "judge": block})


def test_the_whole_run_offline(settings: RewardSettings) -> None:
    said: list[str] = []
    counts = run_stages(start(settings, said))
    folder = Path(settings.folder)
    assert counts["sample"] == {"added": 48, "answers": 48, "missing": 0, "questions_alike": 0}
    assert not any("all alike" in line for line in said)
    assert counts["judge"]["scored"] == 48
    pairs = rows(folder / "pairs" / "hound_pairs.jsonl")
    assert counts["pairs"]["pairs"] == len(pairs) > 0
    assert {pair["smoke_test"] for pair in pairs} == {SMOKE_TEST}
    assert all(pair["chosen_score"] >= 3 > pair["rejected_score"] for pair in pairs)
    info = json.loads((folder / "pairs" / "dataset_info.json").read_text())
    assert info == {"hound_pairs": {"file_name": "hound_pairs.jsonl", "formatting": "hound", "ranking": True}}
    for name in ("pairs/README.md", "report/report.md", "report/report.html", "report/report.json", "run.json"):
        text = (folder / name).read_text()
        assert SMOKE_TEST in text or name == "run.json"
    page = (folder / "report" / "report.html").read_text()
    assert page.count('class="chart"') == 4
    assert "http://" not in page
    assert 'src="/' not in page
    assert (folder / "report" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert any(SMOKE_TEST in line for line in said)
    run = json.loads((folder / "run.json").read_text())
    assert run["settings"]["judge"]["backend"] == "lexical"
    assert run["counts"]["judge_usage"]["requests"] <= 4 * 8  # equal answers are one request


@pytest.mark.parametrize(
    ("sample", "advice"),
    [
        ({}, r"Check sample\.temperature \(1\.0\) and sample\.top_p \(0\.95\)"),
        ({"temperature": 0}, "sample.temperature is 0, which is greedy"),
        ({"backend": "given", "answers": "ANSWERS"}, "has several different answers"),
    ],
)
def test_a_sampler_that_always_says_the_same_is_told_of(
    values: dict[str, Any], sample: dict[str, Any], advice: str, tmp_path: Path
) -> None:
    """Capitals, spaces and a full stop make no difference."""
    given = [
        {"id": f"q{n}", "candidate": k, "answer": ("A ring.", "a  ring")[k % 2]} for n in range(8) for k in range(3)
    ]
    answers = str(write_rows(tmp_path / "answers.jsonl", given))
    block = {name: answers if value == "ANSWERS" else value for name, value in sample.items()}
    said: list[str] = []
    run = start(build_settings({**values, "sample": {**values["sample"], **block}}), said, Parrot(["up"]))
    counts = run_stages(run, ("sample",))
    (warning,) = [line for line in said if "all alike" in line]
    assert warning.startswith("warning: the answers to 8 of 8 questions")
    assert re.search(advice, warning)
    assert counts["sample"]["questions_alike"] == 8
    assert json.loads((run.folder / "run.json").read_text())["counts"]["sample"]["questions_alike"] == 8


def test_some_questions_with_equal_answers_are_counted_alone(values: dict[str, Any], tmp_path: Path) -> None:
    given = [{"id": f"q{n}", "candidate": k, "answer": f"{k if n < 2 else 0}"} for n in range(8) for k in range(3)]
    given += [{"id": "q0", "candidate": 3, "answer": "0"}]
    block = {"backend": "given", "answers": str(write_rows(tmp_path / "answers.jsonl", given))}
    said: list[str] = []
    counts = run_stages(start(build_settings({**values, "sample": block}), said), ("sample",))
    assert counts["sample"]["questions_alike"] == 6
    assert not any("all alike" in line for line in said)
    assert count_alike([["a"], ["b"], ["c", "C."], ["c", "d"]]) == (1, 2)


def test_a_second_run_does_nothing_again(settings: RewardSettings) -> None:
    parrot = Parrot()
    run_stages(start(settings, parrot=parrot), ("sample", "judge"))
    folder = Path(settings.folder)
    before = {name: (folder / name).read_bytes() for name in ("candidates.jsonl", "scores.jsonl")}
    parrot.calls.clear()
    counts = run_stages(start(settings, parrot=parrot), ("sample", "judge"))
    assert parrot.calls == []
    assert counts["judge_usage"]["this_run"]["sent"] == 0
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_sampling_goes_on_at_the_single_answer(settings: RewardSettings) -> None:
    folder = Path(settings.folder)
    run = start(settings)
    stages.sample(run)
    whole = (folder / "candidates.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (folder / "candidates.jsonl").write_bytes(b"".join(lines[:8]) + lines[8][:20])  # killed while writing the ninth
    parrot = Parrot()
    assert sample_candidates(run.questions, parrot, folder, 6, 0).added == 40
    assert parrot.calls[0][1] == 4
    assert (folder / "candidates.jsonl").read_bytes() == whole


def test_more_answers_later_leave_the_first_as_they_are(values: dict[str, Any]) -> None:
    few = build_settings({**values, "sample": {"model": "parrot", "n": 2}})
    stages.sample(start(few))
    first = read_candidates(Path(few.folder))
    stages.sample(start(build_settings(values)))
    more = read_candidates(Path(few.folder))
    assert all(more[name][number] == row for name, found in first.items() for number, row in found.items())
    assert {len(found) for found in more.values()} == {6}
    assert more["q0"][5]["seed"] == answer_seed(0, "q0", 5) != answer_seed(1, "q0", 5)


def test_duplicates_are_kept_and_marked(settings: RewardSettings) -> None:
    run = start(settings, parrot=Parrot(["left", "right"]))
    stages.sample(run)
    for found in read_candidates(run.folder).values():
        assert len(found) == 6
        firsts: dict[str, int] = {}
        for number, row in found.items():
            twin = firsts.setdefault(row["answer"], number)
            assert row["duplicate_of"] == (None if twin == number else twin)


def test_another_sampler_is_refused(settings: RewardSettings) -> None:
    stages.sample(start(settings))
    with pytest.raises(LedgerError, match="answers of sampler 'parrot' with other settings"):
        sample_candidates(start(settings).questions, Parrot(["up"]), Path(settings.folder), 9, 0)


def test_answers_from_a_file(values: dict[str, Any], tmp_path: Path) -> None:
    given = write_rows(tmp_path / "given.jsonl", [{"id": "q0", "candidate": 0, "answer": "It moves left."}])
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    assert stages.sample(start(settings))["added"] == 1
    assert stages.judge(start(settings))["scored"] == 1
    write_rows(given, [{"id": "nobody", "candidate": 0, "answer": "x"}])
    with pytest.raises(DataError, match=r"row 1: expected the id of a question.* got id 'nobody'"):
        stages.sample(start(settings))


def test_k_judgements_of_a_real_server(values: dict[str, Any], server: FaultServer) -> None:
    settings = asking(values, server, k=2, seed=5)
    run = start(settings)
    stages.sample(run)
    counts = stages.judge(run)
    found = rows(run.folder / "scores.jsonl")
    assert counts["scored"] == len(found) == 48
    for row in found:
        expected = grade(int(row["id"][1:]))
        assert (row["score"], row["scores"], row["spread"], row["k"]) == (expected, [expected] * 2, 0, 2)
        judge = row["judge"]
        assert (judge["model"], judge["reported_models"], judge["fingerprints"]) == ("tiny", ["tiny-0613"], ["fp_1"])
        assert judge["protocol"].startswith("caption/1/")
    bodies = [body["body"] for body in server.stats()["bodies"]]
    assert {body["response_format"]["type"] for body in bodies} == {"json_schema"}
    assert {body.get("seed") for body in bodies} == {5, 1005}
    distinct = len({(row["id"], row["answer"]) for row in rows(run.folder / "candidates.jsonl")})
    assert server.stats()["counts"]["requests"] == 2 * distinct + 1, (
        "equal answers are one request; one finds the format"
    )


def test_changed_k_pays_only_for_the_new(values: dict[str, Any], server: FaultServer) -> None:
    run = start(asking(values, server, k=1))
    stages.sample(run)
    stages.judge(run)
    before = server.stats()["counts"]["requests"]
    stages.judge(start(asking(values, server, k=2)))
    distinct = len({(row["id"], row["answer"]) for row in rows(run.folder / "candidates.jsonl")})
    assert server.stats()["counts"]["requests"] == before + distinct


def test_a_server_without_schemas_gets_the_text_protocol(values: dict[str, Any], server: FaultServer) -> None:
    server.control(script=["no-schema"])
    run = start(asking(values, server))
    stages.sample(run)
    assert stages.judge(run)["scored"] == 48
    bodies = [body["body"] for body in server.stats()["bodies"]][1:]
    assert not any("response_format" in body for body in bodies)
    before = server.stats()["counts"]["requests"]
    stages.judge(start(asking(values, server)))
    assert server.stats()["counts"]["requests"] == before, "what was found out is kept"


def test_missing_scores_are_listed_with_their_text(values: dict[str, Any], server: FaultServer) -> None:
    settings = asking(values, server, answer_format="json", attempts=1, concurrency=1)
    run = start(settings)
    stages.sample(run)
    server.control(script=["prose", "refusal"])
    counts = stages.judge(run)
    assert counts["missing"] >= 2
    lost = [row for row in rows(run.folder / "scores.jsonl") if row["score"] is None]
    assert {row["missing"][0]["status"] for row in lost} == {"unparsed", "refused"}
    assert {row["missing"][0]["raw"] for row in lost} == {
        "I would say the score is 4 out of 5, because it is good.", "I cannot help with that.",
    }  # fmt: skip
    stages.pairs(run)
    named = {(row["id"], str(row["candidate"])) for row in lost}
    for pair in rows(run.folder / "pairs" / "hound_pairs.jsonl"):
        assert not {(pair["question_id"], pair[f"{side}_candidate"]) for side in ("chosen", "rejected")} & named


def test_a_fatal_error_keeps_what_was_answered(values: dict[str, Any], server: FaultServer) -> None:
    run = start(asking(values, server, answer_format="json", concurrency=1))
    stages.sample(run)
    server.control(script=["ok"] * 3 + ["quota"] * 50)
    with pytest.raises(JudgeError, match="quota is used up"):
        run_stages(run, ("judge",))
    found = rows(run.folder / "scores.jsonl")
    assert sum(row["score"] is not None for row in found) >= 3
    assert "quota" in json.loads((run.folder / "run.json").read_text())["error"]
    for file in run.folder.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    server.control(script=[])
    assert stages.judge(start(asking(values, server, answer_format="json")))["missing"] == 0


def test_a_listed_shutdown_is_warned_about(values: dict[str, Any], server: FaultServer) -> None:
    server.control(models={"tiny": {"deprecation": 1798761600}})
    said: list[str] = []
    run = start(asking(values, server), said)
    stages.sample(run)
    stages.judge(run)
    assert any("warning" in line and "lists a shutdown of tiny: 2027-01-01" in line for line in said)


def test_the_dry_run_sends_nothing(values: dict[str, Any], server: FaultServer) -> None:
    prices = {"tiny": {"input": 2.0, "output": 8.0}}
    settings = asking(values, server, parameters={"max_tokens": 100}).changed(prices=prices)
    said: list[str] = []
    found = dry_run(start(settings, said))
    assert found["requests"] == 48
    assert found["output_tokens"] == 4800
    assert found["cost"] == pytest.approx((2 * found["prompt_tokens"] + 8 * 4800) / 1e6)
    assert "<<<ANSWER " in "\n".join(said)
    assert server.stats()["counts"].get("requests", 0) == 0
    run = start(settings)
    stages.sample(run)
    stages.judge(run)
    assert dry_run(start(settings))["requests"] == 0


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"max_new_tokens": 40}, 40),
        ({"max_new_tokens": 40, "parameters": {"max_tokens": 100}}, 100),
        ({"parameters": {"max_tokens": None, "max_completion_tokens": 900}}, 900),
    ],
)
def test_the_dry_run_counts_tokens_as_they_are_requested(
    values: dict[str, Any], server: FaultServer, changes: dict[str, Any], tokens: int
) -> None:
    """``parameters`` override ``max_new_tokens`` in a request, and so in its estimate."""
    sample = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "n": 1, "show": "none", **changes}
    settings = build_settings({**values, "sample": sample, "limit": 2})
    said: list[str] = []
    dry_run(start(settings, said))
    (line,) = [line for line in said if "for sampling: about" in line]
    assert f"at most {2 * tokens} output tokens" in line
    stages.sample(start(settings))
    body = server.stats()["bodies"][0]["body"]
    assert tokens in (body.get("max_tokens"), body.get("max_completion_tokens"))


def test_sampling_from_a_server(values: dict[str, Any], server: FaultServer) -> None:
    sample = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "n": 3, "show": "video_url"}
    settings = build_settings({**values, "sample": sample})
    server.control(script=["500", "ok", "empty", "empty", "empty"])
    counts = stages.sample(start(settings))
    assert (counts["answers"], counts["missing"]) in {(24, 0), (23, 1)}
    body = server.stats()["bodies"][0]["body"]
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["video_url", "text"]
    assert body["messages"][0]["content"][0]["video_url"]["url"].endswith("clips/0.mp4")
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1.0, 0.95, 512)
    before = server.stats()["counts"]["requests"]
    stages.sample(start(settings))
    assert server.stats()["counts"]["requests"] == before
    with pytest.raises(LedgerError, match="other settings"):
        stages.sample(start(settings.changed(sample=settings.sample.changed(temperature=0.5))))


def test_two_judges_are_not_mixed(settings: RewardSettings) -> None:
    run = start(settings)
    stages.sample(run)
    stages.judge(run)
    row = {**rows(run.folder / "scores.jsonl")[0], "judge": {"backend": "openai", "model": "other"}}
    append_rows(run.folder / "scores.jsonl", [row])
    with pytest.raises(DataError, match="scores of 2 judges"):
        stages.pairs(run)


def test_a_second_judge_in_the_report(settings: RewardSettings, tmp_path: Path) -> None:
    run = start(settings)
    run_stages(run, ("sample", "judge", "pairs"))
    found = rows(run.folder / "scores.jsonl")
    write_rows(tmp_path / "second.jsonl", [{**row, "score": 6 - row["score"]} for row in found])
    report = settings.report.changed(second=str(tmp_path / "second.jsonl"))
    run_stages(start(settings.changed(report=report)), ("report",))
    agreement = json.loads((run.folder / "report" / "report.json").read_text())["second"]
    assert agreement["spearman"] == -1
    assert agreement["weighted_kappa"] < 0


def test_excluded_pairs_stay_out(settings: RewardSettings) -> None:
    run = start(settings)
    run_stages(run, ("sample", "judge", "pairs"))
    name = rows(run.folder / "pairs" / "hound_pairs.jsonl")[0]["id"]
    write_rows(run.folder / "excluded.jsonl", [{"id": name}, {"id": "other"}, {"id": "other", "excluded": False}])
    assert excluded_ids(run.folder) == {name}
    result = stages.pairs(run)
    assert name not in {pair.id for pair in result.pairs}
    assert result.pairs_dropped["dropped by hand"] == 1


def test_a_damaged_file_is_named(settings: RewardSettings) -> None:
    run = start(settings)
    run_stages(run, ("sample",))
    file = run.folder / "candidates.jsonl"
    file.write_text("{broken\n" + file.read_text())
    with pytest.raises(DataError, match=r"candidates\.jsonl, line 1: expected a JSON object"):
        list(read_objects(file))


def test_half_a_surrogate_pair_breaks_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    given.write_text('{"id": "q0", "candidate": 0, "answer": "It moves \\ud83d left."}\n')
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    run_stages(start(settings))
    assert read_candidates(Path(settings.folder))["q0"][0]["answer"] == "It moves ? left."


def test_a_file_of_answers_that_was_cut_off_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    """What we write may end in the middle of a row; what is handed to us is not taken in part."""
    given = tmp_path / "given.jsonl"
    given.write_text('{"id": "q0", "candidate": 0, "answer": "It moves left."}\n{"id": "q1", "candi')
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    with pytest.raises(DataError, match=r"given\.jsonl, line 2: expected a JSON object"):
        run_stages(start(settings), ("sample",))


def test_added_answers_stay_as_they_are(settings: RewardSettings) -> None:
    run = start(settings)
    from hound_plugin.reward.candidates import SampledAnswer

    def add(*texts: str) -> int:
        answers = iter([(run.questions[0], 0, SampledAnswer(text)) for text in texts])
        return add_candidates(run.folder, {"model": "m"}, answers, 0)

    assert (add("first"), add("first", "first")) == (1, 0)
    with pytest.raises(DataError, match=r"'q0', candidate 0: expected one answer, got 'second' and 'first'"):
        add("second")
    assert read_candidates(run.folder)["q0"][0]["answer"] == "first"


def test_a_file_with_two_answers_of_one_number_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    given = [{"id": "q1", "candidate": 3, "answer": text} for text in ("It moves left.", "It moves up.")]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(tmp_path / "given.jsonl")}})
    with pytest.raises(DataError, match=r"'q1', candidate 3: expected one answer"):
        run_stages(start(settings), ("sample",))


@pytest.mark.parametrize("candidate", [True, False])
def test_true_is_no_number_of_an_answer(values: dict[str, Any], candidate: bool, tmp_path: Path) -> None:
    given = write_rows(tmp_path / "given.jsonl", [{"id": "q2", "candidate": candidate, "answer": "It moves up."}])
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    with pytest.raises(DataError, match=rf"row 1: expected .* candidate \(a number\).* candidate {candidate}"):
        run_stages(start(settings), ("sample",))
    (Path(settings.folder) / "candidates.jsonl").write_text(given.read_text())
    with pytest.raises(DataError, match=r"candidates\.jsonl, row 1: expected"):
        stages.judge(start(settings))


GIVEN = [{"id": f"q{n}", "candidate": k, "answer": f"{n} {k}"} for n in range(3) for k in range(2)]


@pytest.mark.parametrize("gone", [GIVEN[5:], GIVEN[2:4], GIVEN[:1]], ids=len)
def test_a_file_that_lost_answers_is_refused(
    gone: list[dict[str, Any]], values: dict[str, Any], tmp_path: Path
) -> None:
    given = write_rows(tmp_path / "given.jsonl", GIVEN)
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    assert [run_stages(start(settings), ("sample",))["sample"]["added"] for _ in range(2)] == [6, 0]
    before = (Path(settings.folder) / "candidates.jsonl").read_bytes()
    write_rows(given, [*(row for row in GIVEN if row not in gone), {"id": "q5", "candidate": 0, "answer": "5"}])
    what = rf"'{gone[0]['id']}', candidate {gone[0]['candidate']}: .* it is gone \({len(gone)} in all\)"
    with pytest.raises(DataError, match=what):
        run_stages(start(settings))
    assert (Path(settings.folder) / "candidates.jsonl").read_bytes() == before
    write_rows(given, GIVEN)
    assert run_stages(start(settings), ("sample",))["sample"]["added"] == 0


def test_a_file_may_gain_answers_and_change_their_order(values: dict[str, Any], tmp_path: Path) -> None:
    given = write_rows(tmp_path / "given.jsonl", GIVEN[:4])
    settings = build_settings({**values, "sample": {"backend": "given", "answers": str(given)}})
    assert run_stages(start(settings), ("sample",))["sample"]["added"] == 4
    write_rows(given, GIVEN[::-1])
    assert run_stages(start(settings), ("sample",))["sample"]["added"] == 2


# --- what was asked


def change(row: dict[str, Any], what: str, clips: Path, folder: Path) -> dict[str, Any]:
    """The third question in another way; the clip's file is replaced where the row stays as it is."""
    if what == "text":
        return {**row, "prompt": "<video>\nWho is seen?"}
    if what == "part":
        return {**row, "start": 1, "end": 2}
    if what == "another clip":
        (clips / "new.mp4").write_bytes(b"pilc")
        return {**row, "video": "new.mp4"}
    if what == "frames":
        (clips / "frames").mkdir()
        for number in range(3):
            (clips / "frames" / f"{number}.png").write_bytes(b"frame")
        return {**row, "video": "frames"}
    assert what == "the file"
    (clips / "2.mp4").write_bytes(b"pilc")
    return row


UNTIL_PAIRS = ("sample", "judge", "pairs")


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("text", "sample"), ("part", "sample"), ("another clip", "sample"), ("frames", "sample"),
        ("the file", "sample"), ("text", "judge"), ("the file", "judge"), ("part", "pairs"), ("the file", "report"),
    ],
)  # fmt: skip
def test_an_answer_is_about_the_question_and_clip_it_was_given_to(
    what: str, stage: str, values: dict[str, Any], questions_file: Path
) -> None:
    settings = build_settings(values)
    run_stages(start(settings), UNTIL_PAIRS)
    folder, asked = Path(settings.folder), rows(questions_file)
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    write_rows(questions_file, [*asked[:2], change(asked[2], what, Path(values["media_dir"]), folder), *asked[3:]])
    part = "question" if what == "text" else "clip"
    parrot = Parrot()
    with pytest.raises(LedgerError, match=rf"1 questions .*'q2' \(another {part}\).* choose another `folder`"):
        run_stages(start(settings, parrot=parrot), (stage,))
    assert not parrot.calls
    assert {path: path.read_bytes() for path in folder.rglob("*.jsonl")} == before
    if what in ("text", "part", "another clip"):  # the old row is the way back
        write_rows(questions_file, asked)
        assert run_stages(start(settings), UNTIL_PAIRS)["sample"]["added"] == 0


def test_both_are_named_and_others_counted(values: dict[str, Any], questions_file: Path) -> None:
    settings = build_settings(values)
    run_stages(start(settings), ("sample",))
    other = {"prompt": "Why?", "video": "0.mp4", "start": 1}
    write_rows(questions_file, [{**row, **other} for row in rows(questions_file)])
    with pytest.raises(LedgerError, match=r"8 questions .*'q0' \(another question and another clip\).* and 5 more\."):
        run_stages(start(settings), ("sample",))


def test_the_same_clip_elsewhere_is_the_same(values: dict[str, Any], questions_file: Path) -> None:
    """Moved, copied at another time, named by another path: the answers stay, and every file has its bytes."""
    run_stages(start(build_settings(values)), ("sample",))
    folder = Path(values["folder"])
    before = {path: path.read_bytes() for path in folder.glob("*.jsonl")}
    clips = Path(values["media_dir"]).rename(questions_file.parent / "moved")
    for clip in clips.iterdir():
        clip.write_bytes(clip.read_bytes())
    write_rows(questions_file, [{**row, "video": f"./{row['video']}"} for row in rows(questions_file)])
    assert run_stages(start(build_settings({**values, "media_dir": str(clips)})), ("sample",))["sample"]["added"] == 0
    assert {path: path.read_bytes() for path in folder.glob("*.jsonl")} == before


def test_a_question_without_answers_may_change(values: dict[str, Any], questions_file: Path) -> None:
    settings = build_settings({**values, "limit": 5})
    start(settings)
    stages.bind_run(start(settings))  # killed before the first answer
    (Path(values["media_dir"]) / "3.mp4").write_bytes(b"another")
    assert run_stages(start(settings), ("sample",))["sample"]["added"] == 30
    (Path(values["media_dir"]) / "6.mp4").write_bytes(b"another")
    assert run_stages(start(build_settings(values)), ("sample",))["sample"]["added"] == 18


def test_a_run_of_an_earlier_version_stays_usable(values: dict[str, Any]) -> None:
    settings = build_settings(values)
    run_stages(start(settings), ("sample",))
    (Path(settings.folder) / "asked.jsonl").unlink()
    said: list[str] = []
    assert [run_stages(start(settings, said), ("sample",))["sample"]["added"] for _ in range(2)] == [0, 0]
    assert sum("has answers to 8 questions, such as 'q0'" in line for line in said) == 1
    (Path(values["media_dir"]) / "3.mp4").write_bytes(b"another")
    with pytest.raises(LedgerError, match=r"'q3' \(another clip\)"):
        run_stages(start(settings), ("sample",))


def test_replies_in_the_ledger_alone_are_bound_too(values: dict[str, Any], server: FaultServer) -> None:
    """Killed after the server answered and before its answers were written; then the clip is replaced."""
    server.control(script=["say"] * 16, text="It moves left.")
    sample = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "show": "none", "n": 2}
    settings = build_settings({**values, "sample": sample})
    stages.sample(start(settings))
    (Path(settings.folder) / "candidates.jsonl").unlink()
    (Path(values["media_dir"]) / "7.mp4").write_bytes(b"another")
    with pytest.raises(LedgerError, match=r"1 questions .*'q7' \(another clip\)"):
        stages.sample(start(settings))
    with pytest.raises(LedgerError, match=r"'q7' \(another clip\)"):
        dry_run(start(settings))
    with pytest.raises(LedgerError, match=r"'q7'"):
        run_stages(start(settings), ("judge",))
    assert server.stats()["counts"]["requests"] == 16


def test_the_command(values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        {"id": f"q{n}", "candidate": c, "answer": t} for n in range(8) for c, t in enumerate(["It moves left.", "x"])
    ]
    sample = {"backend": "given", "answers": str(write_rows(tmp_path / "given.jsonl", given))}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({**values, "sample": sample}))
    assert cli.main(["reward", "run", str(recipe), "--dry-run"]) == 0
    assert cli.main(["reward", "run", str(recipe)]) == 0
    assert cli.main(["reward", "pairs", str(recipe), "pairs.policy=all", "--limit", "4"]) == 0
    assert cli.main(["reward", "report", str(recipe)]) == 0
    assert cli.main(["reward", "judge", str(recipe), "judge.kk=1"]) == 2
    assert "judge.kk: unknown key" in capsys.readouterr().err
    for stage in ("run", "sample", "judge", "pairs", "report", "rank", "browse", "iterate"):
        assert cli.main(["reward", stage, "--help"]) == 0
        assert "examples:" in capsys.readouterr().out


def test_max_cost_is_for_the_whole_folder(values: dict[str, Any], server: FaultServer) -> None:
    block = {"backend": "openai", "model": "tiny", "base_url": server.base_url}
    changes = {
        "sample": {**block, "n": 2, "max_new_tokens": 20},
        "judge": {**block, "answer_format": "json"},
        "prices": {"tiny": {"input": 1000, "output": 1000}},  # 0.22 an answer
        "max_cost": 5.0,
    }
    run = start(build_settings({**values, **changes}))
    stages.sample(run)
    assert run.counts["sample_usage"]["cost"] == pytest.approx(16 * 0.22)
    stages.judge(run)
    assert "max_cost" in run.counts["judge_usage"]["stopped"]
    assert run.counts["sample_usage"]["cost"] + run.counts["judge_usage"]["cost"] <= 5.0


def test_questions_about_parts_of_a_clip(settings: RewardSettings) -> None:
    file = Path(settings.questions)
    values = rows(file)
    for number, value in enumerate(values):
        value["video"] = f"0.mp4#t={number},{number + 1}"
    write_rows(file, values)
    run = start(settings)
    run_stages(run, ("sample", "judge", "pairs"))
    folder = Path(str(settings.media_dir))
    assert [q.paths for q in run.questions] == [f"{folder / '0.mp4'}#t={n},{n + 1}" for n in range(8)]
    write_rows(file, [{**values[0], "video": "gone.mp4#t=1"}])
    with pytest.raises(MediaNotFoundError, match=r"1 of 1 rows of .*\n +1  media missing  row 1, id 'q0': `video`: "):
        start(settings)


@pytest.mark.parametrize("counts", [[1, 1], [9, 2], [2, 0]])
def test_the_dry_run_counts_the_answers_that_are_given(
    values: dict[str, Any], server: FaultServer, tmp_path: Path, counts: list[int]
) -> None:
    answers = [
        {"id": f"q{question}", "candidate": number, "answer": f"Perhaps {number}?"}
        for question, most in enumerate(counts)
        for number in range(most)
    ]
    given = {"backend": "given", "answers": str(write_rows(tmp_path / "given.jsonl", answers))}
    settings = asking({**values, "sample": given}, server, k=2, seed=3)
    assert dry_run(start(settings))["requests"] == 2 * len(answers)
    run_stages(start(settings), ("sample", "judge"))
    assert server.stats()["counts"]["ok"] in (2 * len(answers), 2 * len(answers) + 1)  # with the probe
    assert dry_run(start(settings))["requests"] == 0
