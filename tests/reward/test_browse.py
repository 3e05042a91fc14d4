"""The pair browser: its data, its site, and who may ask for what. The page in a browser is in tests/browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hound_plugin.errors import DataError, LedgerError
from hound_plugin.pages.frames import FrameReader
from hound_plugin.pages.local_site import OwnPageOnly
from hound_plugin.reward import stages
from hound_plugin.reward.browse import Browser, make_site, open_page
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.run_folder import EXCLUDED
from hound_plugin.reward.settings import RewardSettings, build_settings
from tests.media.clips import encode
from tests.reward.conftest import rows
from tests.reward.test_stages import start

HERE = "http://127.0.0.1:7860"


@pytest.fixture
def browser(settings: RewardSettings) -> Browser:
    run_stages(start(settings), ("sample", "judge", "pairs"))
    return Browser(settings, FrameReader(2, size=64))


@pytest.fixture
def client(browser: Browser) -> TestClient:
    return TestClient(OwnPageOnly(make_site(browser)), base_url=HERE, headers={"origin": HERE})


def test_dropping_writes_a_list_and_nothing_else(browser: Browser, settings: RewardSettings) -> None:
    file = browser.folder / "pairs" / "hound_pairs.jsonl"
    before = file.read_bytes()
    name = browser.pairs[0]["id"]
    browser.mark(0, True)
    assert file.read_bytes() == before
    assert [row["id"] for row in browser.index() if row["values"]["verdict"] == "dropped"] == [name]
    assert browser.dropped() == 1
    assert name not in {pair.id for pair in stages.pairs(start(settings)).pairs}
    browser.mark(0, False)
    assert name in {pair.id for pair in stages.pairs(start(settings)).pairs}


def test_a_dropped_pair_is_not_replaced_unless_asked_for(values: dict[str, Any]) -> None:
    settings = build_settings({**values, "pairs": {"policy": "all", "near_duplicate": None}})
    run_stages(start(settings), ("sample", "judge", "pairs"))
    browser = Browser(settings, FrameReader(2))
    first = browser.pairs[0]
    browser.mark(0, True)
    result = stages.pairs(start(settings))
    assert first["question_id"] not in {pair.question.id for pair in result.pairs}
    assert len(result.pairs) == len(browser.pairs) - 1
    assert result.pairs_dropped["dropped by hand"] == 1
    assert result.questions_dropped["every pair dropped by hand"] == 1
    asked = settings.changed(pairs={"policy": "all", "near_duplicate": None, "replace_dropped": True})
    replaced = stages.pairs(start(asked))
    assert len(replaced.pairs) == len(browser.pairs)
    assert first["id"] not in {pair.id for pair in replaced.pairs}
    assert {pair.question.id for pair in replaced.pairs} >= {first["question_id"]}


def test_the_site(client: TestClient, browser: Browser) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in page.text.replace("&#39;", "'")
    index = client.get("/api/pairs").json()
    assert [row["id"] for row in index] == [pair["id"] for pair in browser.pairs]
    pair = browser.pairs[1]
    part = client.get("/api/pair/1").text
    assert pair["id"] in part
    assert pair["rejected"] in part.replace('<mark title="only in this answer">', "").replace("</mark>", "")
    assert "A ring moves left." in part, "the caption"
    assert client.post("/api/mark", json={"number": 1, "dropped": True}).json() == {"dropped": 1}
    assert client.get("/api/pairs").json()[1]["values"]["verdict"] == "dropped"
    assert rows(browser.folder / EXCLUDED)[0]["id"] == pair["id"]


def test_only_clips_of_the_run_are_readable(client: TestClient, browser: Browser, settings: RewardSettings) -> None:
    folder = Path(str(settings.media_dir))
    (folder / "secret.mp4").write_bytes(b"secret")
    (folder / "notes.txt").write_bytes(b"secret")
    assert client.get("/clip/0").content == b"clip"
    assert client.get("/clip/0").headers["content-type"] == "video/mp4"
    last = len(browser.pairs)
    for path in (
        f"/clip/{last}", "/clip/-1", "/clip/secret.mp4", "/clip/0/../secret.mp4", "/clip/..%2fsecret.mp4",
        "/clip/%2e%2e/x", f"/file={folder}/secret.mp4",
        f"/gradio_api/file={folder}/secret.mp4", f"/clip/0?path={folder}/secret.mp4",
        "/static/page.js", f"/api/pair/{last}", "/api/pair/9999999999999999999999",
    ):  # fmt: skip
        answer = client.get(path)
        assert b"secret" not in answer.content
        assert answer.status_code in (404, 422) or path.startswith("/clip/0?")


def test_a_clip_that_becomes_a_link_to_another_file_is_not_handed_out(
    client: TestClient, browser: Browser, settings: RewardSettings, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    clip = Path(str(browser.clip(0)))
    content = clip.read_bytes()
    clip.unlink()
    clip.symlink_to(tmp_path / "secret")
    assert client.get("/clip/0").status_code == 404
    clip.unlink()
    clip.write_bytes(content)
    assert client.get("/clip/0").content == content
    (tmp_path / "elsewhere.mp4").write_bytes(b"other")
    clip.unlink()
    clip.symlink_to(tmp_path / "elsewhere.mp4")
    linked = Browser(settings, FrameReader(2))  # a link that was there from the beginning is the user's own
    assert linked.clip(0) == str(clip)


def test_answers_are_not_shown_beside_another_clip(browser: Browser, settings: RewardSettings) -> None:
    clip = Path(str(browser.clip(0)))
    clip.write_bytes(clip.read_bytes() + b"x")
    with pytest.raises(LedgerError, match=r"\(another clip\)"):
        open_page(settings, 0, FrameReader(2), lambda _: None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"number": 0}', b'{"number": -1, "dropped": true}', b'{"number": 99999, "dropped": true}',
        b'{"number": true, "dropped": true}', b'{"number": 0, "dropped": "yes"}', b"\xff", b"[" * 5000,
        b'{"number": "0", "dropped": true}', b'{"number": 1e999, "dropped": true}',
    ],
)  # fmt: skip
def test_bad_marks_change_nothing(client: TestClient, browser: Browser, body: bytes) -> None:
    assert client.post("/api/mark", content=body).status_code == 400
    assert not (browser.folder / EXCLUDED).exists()


def test_other_hosts_and_pages_are_refused(client: TestClient, browser: Browser) -> None:
    for path in ("/", "/api/pairs", "/api/pair/0", "/clip/0"):
        assert client.get(path, headers={"host": "evil.example:7860"}).status_code == 403
    body = json.dumps({"number": 0, "dropped": True})
    assert client.post("/api/mark", content=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert not (browser.folder / EXCLUDED).exists()


def test_what_is_shown_of_a_clip(browser: Browser, tmp_path: Path) -> None:
    name = browser.pairs[0]["question_id"]
    question = browser.questions[name]

    def with_paths(paths: Any) -> tuple[str | None, str]:
        browser.questions[name] = type(question)(**{**question.__dict__, "paths": paths})
        return browser.clip(0), browser.pair_html(0)

    encode(str(tmp_path / "good.mp4"), 4, 64, 48)
    clip, part = with_paths(str(tmp_path / "good.mp4"))
    assert clip == str(tmp_path / "good.mp4")
    assert part.count("<img ") == 2
    assert with_paths(f"{tmp_path}/good.mp4#t=0,0.1")[0] == str(tmp_path / "good.mp4")
    frames = tmp_path / "frames"
    frames.mkdir()
    clip, part = with_paths(str(frames))
    assert clip is None
    assert "cannot be shown" in part
    assert with_paths([f"{frames}/0.png", f"{frames}/1.png"])[0] is None
    assert with_paths(str(tmp_path / "page.html"))[0] is None
    del browser.questions[name]
    assert "no longer in the file of questions" in browser.pair_html(0)
    assert browser.clip(0) is None


def test_filters_keep_everything_at_first(browser: Browser) -> None:
    values = [row["values"] for row in browser.index()]
    assert {value["source"] for value in values} == {"even"}
    for pair, value in zip(browser.pairs, values, strict=True):
        assert value["gap"] == pair["chosen_score"] - pair["rejected_score"]
        assert value["words"] == max(len(pair["chosen"].split()), len(pair["rejected"].split()))
    page = browser.page()
    lowest, highest = min(v["score"] for v in values), max(v["score"] for v in values)
    assert f'data-filter="score" data-side="from" value="{lowest:g}"' in page
    assert f'data-filter="score" data-side="to" value="{highest:g}"' in page


def test_no_pairs_to_read(settings: RewardSettings) -> None:
    with pytest.raises(DataError, match="there are no pairs to show"):
        Browser(settings, FrameReader())
