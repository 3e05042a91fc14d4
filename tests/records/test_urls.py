"""Rows behind real URLs: servers with ranges and without, S3, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records import row_sources
from hound_plugin.records.files import whole_file, write_json, write_rows
from hound_plugin.records.jsonl import read_objects, read_rows
from hound_plugin.records.parquet import write_parquet
from hound_plugin.records.row_sources import is_file, open_rows, size_of
from hound_plugin.records.run_folders import open_folder
from tests.records.servers import PASSWORD, USER, buckets, ranges, whole_files

# More than the 5 MiB that fsspec reads ahead over HTTP, in lines that end anywhere.
ROWS: list[dict[str, Any]] = [{"id": f"row {number}", "text": chr(97 + number % 26) * 60_001} for number in range(150)]
KINDS = ("jsonl", "json", "parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "rows.json").write_text(json.dumps(ROWS))
    write_parquet(folder / "rows.parquet", ROWS)
    (folder / "empty.jsonl").touch()
    (folder / "page.jsonl").write_text("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Iterator[str]:
    with whole_files(folder) as address:
        yield address


def values(url: str) -> list[Any]:
    return [row.value for row in read_rows(url)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_with_ranges(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sources, "_copied", None)  # read as it is needed
    with ranges(folder) as address:
        url = f"{address}/rows.{kind}"
        assert (is_file(url), size_of(url)) == (True, (folder / f"rows.{kind}").stat().st_size)
        assert values(url) == ROWS
        assert list(read_objects(url)) == ROWS


@pytest.mark.parametrize("way", ["plain", "chunked", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_gives_only_whole_files(whole: str, folder: Path, kind: str, way: str) -> None:
    url = f"{whole}/{way}/rows.{kind}"
    assert is_file(url)
    assert size_of(url) in (None, (folder / f"rows.{kind}").stat().st_size)
    assert values(url) == ROWS


def test_any_place_of_a_file_can_be_read(whole: str, folder: Path) -> None:
    content = (folder / "rows.jsonl").read_bytes()
    with ranges(folder) as address:
        for url in (f"{address}/rows.jsonl", f"{whole}/plain/rows.jsonl"):
            with open_rows(url) as file:
                for start in (len(content) - 7, 0, 5_300_000, 12):
                    file.seek(start)
                    assert file.read(9_000) == content[start : start + 9_000]
                assert file.seek(0, 2) == len(content)
                assert file.read(5) == b""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("plain/none.jsonl", "none.jsonl is not a file"),
        ("status/410/rows.jsonl", "rows.jsonl is not a file"),
        ("status/403/rows.jsonl", "rows.jsonl: ClientResponseError: 403"),
        ("status/500/rows.jsonl", "rows.jsonl: ClientResponseError: 500"),
        ("private/rows.jsonl", "rows.jsonl: ClientResponseError: 401"),
        ("broken/rows.jsonl", "rows.jsonl: ClientPayloadError"),
        ("broken/rows.parquet", "rows.parquet: ClientPayloadError"),
        ("plain/empty.jsonl", "empty.jsonl; the file is empty"),
        ("chunked/empty.jsonl", "empty.jsonl; the file is empty"),
        ("plain/page.jsonl", "page.jsonl is a web page .*raw"),
    ],
)
def test_what_a_server_does_not_give_is_named(whole: str, place: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(f"{whole}/{place}")


def test_a_server_that_does_not_answer_is_not_taken_for_a_file_that_is_absent() -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/rows\.jsonl: ClientConnectorError.*Check the address"):
        is_file("http://127.0.0.1:9/rows.jsonl")


def test_credentials_come_from_netrc(whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert values(f"{whole}/private/rows.jsonl") == ROWS


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/rows.jsonl",
        "https://hunter2@host/rows.jsonl",
        "sftp://me:hunter2@host/rows.jsonl",
        "s3://AKIA:hunter2@bucket/rows.parquet",
        "https://bucket.s3.amazonaws.com/rows.jsonl?X-Amz-Signature=hunter2&X-Amz-Expires=9",
        "https://account.blob.core.windows.net/rows.jsonl?sv=2024&sig=hunter2",
        "https://host/rows.jsonl?download=true&access_token=hunter2",
        "zip://rows.jsonl::https://me:hunter2@host/rows.zip",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    for use in (is_file, size_of, values):
        with pytest.raises(DataError, match=r"without secrets.*curl") as caught:
            use(url)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["abfs://box@account.dfs.core.windows.net/x.jsonl", "sftp://me@127.0.0.1:9/x.jsonl"])
def test_a_container_or_a_user_is_no_secret(url: str) -> None:
    with pytest.raises(DataError, match="Check the address"):
        is_file(url)


def test_a_query_without_a_secret_is_part_of_the_address(whole: str) -> None:
    assert values(f"{whole}/plain/rows.jsonl?download=true&versionId=3") == ROWS


def test_where_a_server_sends_us_is_shown_without_its_signature(whole: str) -> None:
    with pytest.raises(DataError, match=r"403.*/status/403/rows\.jsonl'") as caught:
        values(f"{whole}/redirect/rows.jsonl")
    assert "0123abcd" not in str(caught.value)


# --- S3


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    """The endpoint of a server with the files in ``s3://clips``."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    pytest.importorskip("moto.server", reason="needs moto[server]")
    with buckets() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(endpoint).items():
            patch.setenv(name, value)
        files = s3fs.S3FileSystem()
        files.mkdir("clips")
        for file in folder.iterdir():
            files.put(str(file), f"clips/{file.name}")
        yield endpoint
        s3fs.S3FileSystem.clear_instance_cache()


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket(bucket: str, kind: str) -> None:
    assert values(f"s3://clips/rows.{kind}") == ROWS
    assert values(f"simplecache::s3://clips/rows.{kind}") == ROWS


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://clips/none.jsonl", "s3://clips/none.jsonl is not a file"),
        ("s3://clips", "s3://clips is not a file"),
        ("s3://no-such-bucket/rows.jsonl", "s3://no-such-bucket/rows.jsonl: NoSuchBucket"),
        ("s3://clips/empty.jsonl", "empty.jsonl; the file is empty"),
    ],
)
def test_what_a_bucket_does_not_have_is_named(bucket: str, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(url)


# --- what is written


@pytest.mark.parametrize("url", ["s3://bucket/run/pairs.jsonl", "gs://bucket/x", "file:///tmp/x", "memory://x"])
def test_results_are_not_written_to_a_folder_called_s3(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (url, Path(url)):
        with pytest.raises(SettingsError, match=r"to write to; .* is a URL.*local disk"):
            open_folder(path)
        with pytest.raises(SettingsError, match="is a URL"), whole_file(path):
            pass
    assert not list(tmp_path.iterdir())


# --- commands


def test_commands_read_rows_and_answers_behind_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each input of a command may be at a URL; what it writes is on this machine, and names the URL."""
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    monkeypatch.chdir(tmp_path)
    asked = [
        {"id": f"q{n}", "video": "clip.mp4", "prompt": f"<video>\nWhat is {n}?", "reference": f"It is {n}."}
        for n in range(8)
    ]
    write_rows(served / "questions.jsonl", asked)
    write_parquet(served / "questions.parquet", asked)
    write_rows(served / "captions.jsonl", [{"id": "c", "video": "clip.mp4", "caption": "Numbers."}])
    given = [{"id": f"q{n}", "candidate": k, "answer": f"It is {n + k}."} for n in range(8) for k in range(2)]
    write_rows(served / "answers.jsonl", given)
    write_rows(served / "predictions.jsonl", [{"id": row["id"], "text": row["answer"]} for row in given[::2]])
    with whole_files(served) as address:
        at = f"{address}/plain"
        assert cli.main(["corpus", "validate", f"{at}/questions.parquet", "--kind", "questions"]) == 0
        assert cli.main(["corpus", "convert", f"{at}/captions.jsonl", "ours.jsonl"]) == 0
        assert len(list(read_objects("ours.jsonl"))) == 1
        sampling = {"backend": "given", "answers": f"{at}/answers.jsonl", "n": 2}
        recipe = {"questions": f"{at}/questions.jsonl", "captions": f"{at}/captions.jsonl", "folder": "reward"}
        write_json("reward.yaml", {**recipe, "media_dir": ".", "sample": sampling, "judge": {"backend": "lexical"}})
        assert cli.main(["reward", "sample", "reward.yaml"]) == 0
        assert len(list(read_objects("reward/candidates.jsonl"))) == 16
        predict = {"backend": "given", "answers": f"{at}/predictions.jsonl"}
        evaluation = {"suite": f"{at}/questions.parquet", "media_dir": ".", "folder": "eval", "name": "run"}
        write_json("eval.yaml", {**evaluation, "predict": predict, "judge": {"backend": "lexical"}})
        assert cli.main(["eval", "run", "eval.yaml"]) == 0
        assert len(list(read_objects("eval/run/questions/predictions.jsonl"))) == 8
        assert json.loads(Path("eval/run/questions/run.json").read_text())["settings"]["suite"] == evaluation["suite"]


@pytest.mark.parametrize(
    "command",
    [
        ["caption", "rows.jsonl", "--model", "m", "--out", "s3://bucket/captions.jsonl"],
        ["corpus", "convert", "rows.jsonl", "s3://bucket/ours.jsonl"],
        ["corpus", "validate", "rows.jsonl", "--media", "none", "--report", "s3://bucket/bad.jsonl"],
        ["reward", "sample", "reward.yaml", "folder=s3://bucket/run"],
        ["eval", "run", "eval.yaml", "folder=gs://bucket/runs"],
    ],
)
def test_commands_do_not_write_to_urls(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    write_rows("rows.jsonl", [{"id": "q", "video": "clip.mp4", "prompt": "<video>\nWhat?", "reference": "A dog."}])
    sampling = {"backend": "given", "answers": "rows.jsonl"}
    write_json(
        "reward.yaml", {"questions": "rows.jsonl", "folder": "x", "sample": sampling, "judge": {"backend": "lexical"}}
    )
    write_json("eval.yaml", {"suite": "rows.jsonl", "name": "n", "predict": sampling, "judge": {"backend": "lexical"}})
    before = sorted(tmp_path.iterdir())
    assert cli.main(command) == 2
    assert "to write to;" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("scheme", ["s3", "https"])
def test_a_clip_at_a_url_is_refused_by_name(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{scheme}://bucket/a.mp4"
    write_rows(tmp_path / "rows.jsonl", [{"id": "q", "video": url, "prompt": "<video>\nWhat?"}])
    command = ["--model", "m", "--out", str(tmp_path / "out.jsonl")]
    assert cli.main(["caption", url, *command]) == 2
    assert f"{url} is at a URL" in capsys.readouterr().err
    assert cli.main(["caption", str(tmp_path / "rows.jsonl"), *command]) == 2
    assert url in capsys.readouterr().err
