"""The page's logic, and the page itself over HTTP."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from hound_plugin.errors import DataError, MediaDecodeError
from hound_plugin.reward import stages
from hound_plugin.reward.browse import Browser, Filter, make_page
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.settings import RewardSettings
from tests.reward.test_stages import start


@pytest.fixture
def browser(settings: RewardSettings) -> Browser:
    run_stages(start(settings), ("sample", "judge", "pairs"))
    return Browser(settings)


def test_dropping_writes_a_list_and_nothing_else(browser: Browser, settings: RewardSettings) -> None:
    file = browser.folder / "pairs" / "hound_pairs.jsonl"
    before = file.read_bytes()
    name = browser.shown(Filter())[0]["id"]
    total = len(browser.shown(Filter()))
    browser.mark(name, True)
    assert file.read_bytes() == before
    assert len(browser.shown(Filter())) == total - 1
    assert [pair["id"] for pair in browser.shown(Filter(dropped=True))] == [name]
    assert name not in {pair.id for pair in stages.pairs(start(settings)).pairs}
    browser.mark(name, False)
    assert name in {pair.id for pair in stages.pairs(start(settings)).pairs}


def test_filters(browser: Browser) -> None:
    pair = browser.pairs[0]
    assert Filter().keeps(pair)
    assert not Filter(low=pair["chosen_score"] + 0.5).keeps(pair)
    assert not Filter(gap=pair["chosen_score"] - pair["rejected_score"] + 0.5).keeps(pair)
    assert not Filter(words=1).keeps(pair)
    assert Filter(low=5, gap=4).keeps({**pair, "chosen_score": None}), "a reference has no score"


def test_clips(browser: Browser, tmp_path: Path) -> None:
    pair = browser.pairs[0]
    assert browser.clip(pair) == (browser.clips[pair["question_id"]][0], [])
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(2):
        (frames / f"{number}.png").write_bytes(b"png")
    browser.clips[pair["question_id"]] = [str(frames)]
    assert browser.clip(pair) == (None, [str(frames / "0.png"), str(frames / "1.png")])
    (frames / "10.png").write_bytes(b"png")
    (frames / "2.png").write_bytes(b"png")
    assert [Path(file).stem for file in browser.clip(pair)[1]] == ["0", "1", "2", "10"]
    (frames / "cover.png").write_bytes(b"png")
    with pytest.raises(MediaDecodeError, match="Cannot tell the order"):
        browser.clip(pair)
    browser.clips[pair["question_id"]] = [f"{frames}.mp4#t=1,2"]
    assert browser.clip(pair) == (f"{frames}.mp4", [])


def test_the_page(browser: Browser) -> None:
    from gradio_client import Client

    page = make_page(browser)
    _, url, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, allowed_paths=browser.folders()
    )
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert "hound: pairs" in answer.read().decode()
        client = Client(url, verbose=False)
        values = (1, 5, 0, 10_000, False)
        first = client.predict(0, *values, api_name="/show")
        pair = browser.pairs[0]
        assert first[1].startswith(f"1 of {len(browser.pairs)}: {pair['id']}")
        assert list(first[4:]) == [pair["prompt"], pair["chosen"], pair["rejected"], pair["id"]]
        assert Path(first[2]["video"]).read_bytes() == b"clip"
        after = client.predict(0, pair["id"], *values, api_name="/drop")
        assert after[7] != pair["id"]
        assert client.predict(0, *values[:4], True, api_name="/show")[7] == pair["id"]
    finally:
        page.close()


def test_no_pairs_to_read(settings: RewardSettings) -> None:
    with pytest.raises(DataError, match="there are no pairs to show"):
        Browser(settings)
