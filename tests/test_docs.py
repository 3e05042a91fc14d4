"""README and pages: links lead somewhere, code blocks parse and name what exists, and pictures equal the imports."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml

import hound_plugin
from hound_plugin.host.serve.api_messages import read_conversation
from hound_plugin.host.serve.api_schema import read_request
from hound_plugin.records.consumers import check
from hound_plugin.records.parse import parse
from hound_plugin.reward.settings import RewardSettings, build_settings
from hound_plugin.settings import HoundSettings
from tests import goldens
from tests.test_commands import host_keys
from tests.test_layering import import_graph

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NEWEST = [page for page in PAGES if page.name != "CHANGELOG.md"]
NOT_OURS = ("in place of", "cannot be had", "is no YAML", "without a word", "anew", "goes over the", "go over the")


def blocks(path: Path, language: str) -> list[str]:
    """Fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def every(*languages: str) -> list[Any]:
    """All blocks in these languages, as parameters."""
    found = [(page, text) for page in PAGES for language in languages for text in blocks(page, language)]
    return [pytest.param(text, id=f"{page.name}-{number}") for number, (page, text) in enumerate(found)]


def anchors(path: Path) -> set[str]:
    """Names that a link to a page may end in, as GitHub and the site make them of headings."""
    outside = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    names = set()
    for title in re.findall(r"^#+ (.+)$", outside, flags=re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        names.add(re.sub(r"[^\w\- ]", "", plain).strip().lower().replace(" ", "-"))
    return names


def links(path: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))


def dead_links(path: Path) -> list[str]:
    """Links of a page to files or headings that do not exist."""
    dead = []
    for link in links(path):
        name, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = (path.parent / name).resolve() if name else path
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One thing\n[x](gone.md) [y](#one-thing) [z](#two) `[w](v.md)`\n```\n[in](code.md)\n```\n")
    assert dead_links(page) == ["gone.md", "#two"]


def test_the_readme_names_every_page() -> None:
    named = set(links(ROOT / "README.md"))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - named == {"docs/index.md"}


def test_the_site_shows_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown = re.findall(r": (\w+\.md)$", text, flags=re.M)
    assert sorted(shown) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", NEWEST, ids=lambda page: page.name)
def test_pages_are_in_plain_words(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [words for words in NOT_OURS if re.search(rf"\b{words}\b", text)] == []


# --- code in pages


@pytest.mark.parametrize("text", every("yaml"))
def test_yaml_is_of_the_host_or_of_the_reward_module(text: str) -> None:
    values = yaml.safe_load(text)
    if "folder" in values or set(values) <= set(RewardSettings.model_fields):
        build_settings(values)
        return
    HoundSettings.build(values.pop("hound", {}), {})
    assert set(values) <= host_keys()


@pytest.mark.parametrize("text", every("json"))
def test_json_is_rows_or_values(text: str) -> None:
    try:
        values = [json.loads(text)]
    except ValueError:
        values = [json.loads(line) for line in text.splitlines()]
    for value in values:
        if "conversations" in value or "prompt" in value:
            if {"images", "videos"} <= value.keys():  # of the host's own format
                continue
            parsed = parse(value)
            assert parsed.record is not None, parsed.problems
            assert check(parsed.record, "pairs" if parsed.record.is_pair else "sft") == ()


@pytest.mark.parametrize("text", every("python"))
def test_python_calls_what_exists(text: str) -> None:
    tree = ast.parse(text)
    owners = {"hound_plugin": hound_plugin, "hound": hound_plugin.HoundModel}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = owners.get(ast.unparse(node.func.value))
            if owner is not None:
                call = getattr(owner, node.func.attr)
                skipped = [None] if inspect.isclass(owner) else []
                keywords = {str(keyword.arg): None for keyword in node.keywords}
                inspect.signature(call).bind(*skipped, *node.args, **keywords)
        elif isinstance(node, ast.ImportFrom):
            module = __import__(str(node.module), fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.fixture(scope="module")
def things_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the models and clips are that the pages name: the recorded tiny ones, and an adapter of one."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("named")
    for name in ("clip.mp4", "a.mp4", "b.mp4"):
        (folder / name).symlink_to(next((goldens.ROOT / "media").glob("clip*.mp4")))
    for name, target in (("frames/clip_1", goldens.ROOT / "frames" / "clip_long"), ("demo/model", goldens.SFT)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    network = hound_plugin.load(str(goldens.SFT)).model
    adapted = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(folder / "saves" / "llava-hound-7b" / "dpo-lora")
    return folder


@pytest.mark.parametrize("text", [block for block in every("python") if "openai" not in block.values[0]])
def test_python_runs(text: str, things_named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(things_named)
    monkeypatch.setattr("hound_plugin.model.inference.NEW_TOKENS", 2)
    text = re.sub(r'"ShareGPTVideo/[^"]*"(, device="cuda", dtype="bfloat16")?', '"demo/model"', text)
    exec(compile(text, "page", "exec"), {})


def requests() -> list[Any]:
    """Bodies of requests in shell blocks: behind ``-d``, or written to a file."""
    found = []
    for page in PAGES:
        for text in blocks(page, "bash"):
            bodies = re.findall(r"(?:-d|echo) '(\{.*?\})'(?:$|\s)", text, flags=re.M | re.S)
            found += [pytest.param(re.sub(r"'\$\(.*?\)'", "QUJD", body), id=page.name) for body in bodies]
    return found


@pytest.mark.parametrize("body", requests())
def test_requests_are_taken_by_the_server(body: str) -> None:
    conversation = read_conversation(read_request(body.encode()).messages)
    assert [kind for _, kind, _ in conversation.media] == ["video"]


def test_requests_are_found() -> None:
    assert len(requests()) >= 2


def test_the_arithmetic_of_memory() -> None:
    """Sizes in the page on training are those of the full model."""
    config = hound_plugin.LlavaHoundConfig()
    with torch.device("meta"):
        model = hound_plugin.LlavaHoundForConditionalGeneration(config)
    every_one = sum(parameter.numel() for parameter in model.parameters())
    language = sum(p.numel() for part in (model.model.language_model, model.lm_head) for p in part.parameters())
    rank = 64
    linear = [part for part in model.model.language_model.modules() if isinstance(part, torch.nn.Linear)]
    adapters = sum(rank * (part.in_features + part.out_features) for part in linear)
    row, layers, width, heads = 2170, 32, 4096, 32
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    for said in (
        f"{every_one / 1e9:.2f} billion parameters",
        f"| {every_one * 2 / 1e9:.1f} GB |",
        f"{language / 1e9:.2f} billion trained parameters x 2 bytes | {language * 2 / 1e9:.1f} GB",
        f"12 bytes (fp32 weights and two moments) | {language * 12 / 1e9:.1f} GB",
        f"x {layers} layers | {row * width * 2 * layers / 1e9:.2f} GB",
        f"logits of one row in fp32: 2,170 x 32,000 x 4 bytes | {row * config.text_config.vocab_size * 4 / 1e9:.2f} GB",
        f"{language * 14 / 1e9:.0f} GB become {language * 14 / 8e9:.1f} GB on 8",
        f"{every_one * 4 / 1e9:.1f} GB become {every_one * 4 / 8e9:.1f} GB on 8",
        f"{adapters / 1e6:.0f} million parameters of rank 64 need {adapters * 16 / 1e9:.1f} GB",
        f"a quarter of that: {adapters * 4 / 1e9:.1f} GB",
        f"= {heads * row * row * 2 / 1e9:.1f} GB for the layer at work",
        f"= {row * width * 34 * layers / 1e9:.1f} GB a row",
        f"| 8 | {config.tokens_per_video(8):,} |",
        f"| 16 | {config.tokens_per_video(16):,} |",
    ):
        assert said in text, said


# --- messages


def messages() -> list[str]:
    """Parts of messages in the first column of the page on troubleshooting, as long as the code must have them."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|$", text, flags=re.M)
    quoted = [match[0] or match[1] for row in rows for match in re.findall(r"``(.+?)``|`([^`]+)`", row)]
    parts = [part.strip() for message in quoted for part in re.split(r"\.\.\.|\b[NM]\b|\d+", message)]
    return [part for part in parts if len(part) > 12 and " " in part]


@pytest.fixture(scope="module")
def sources() -> str:
    """The code of this package, of the host's parser and of transformers' loggers, string literals joined."""
    spec = find_spec("llamafactory.hparams.parser"), find_spec("transformers.integrations.integration_utils")
    files = [*(ROOT / "hound_plugin").rglob("*.py"), *(Path(str(found.origin)) for found in spec if found)]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("part", messages())
def test_a_message_that_is_explained_exists(part: str, sources: str) -> None:
    assert part in sources


def test_messages_are_found() -> None:
    assert len(messages()) >= 8


# --- pictures


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    return _writer("write_pictures")


def _writer(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_layers_equal_the_imports(pictures: ModuleType) -> None:
    graph = pictures.import_graph()
    assert pictures.LAYERS.read_text(encoding="utf-8") == pictures.layers_svg(graph), pictures.__doc__
    text = pictures.PAGE.read_text(encoding="utf-8")
    assert text == pictures.page(graph, text), pictures.__doc__


@pytest.fixture(scope="module")
def performance() -> ModuleType:
    return _writer("write_performance")


def test_figures_on_pages_are_those_of_the_benchmarks(performance: ModuleType) -> None:
    found = performance.results()
    for path in performance.PAGES:
        text = path.read_text(encoding="utf-8")
        assert "<!-- results: " in text
        assert text == performance.page(text, found), performance.__doc__
    for path, content in performance.pictures(found).items():
        assert path.read_text(encoding="utf-8") == content, performance.__doc__


def measured() -> dict[str, Any]:
    """What benchmarks write, of made-up figures."""
    machine = {"processor": "A", "cores": 2, "memory_gib": 8, "torch": "2", "transformers": "5"}
    common = {"machine": machine, "size": "a toy", "goals": [], "tables": []}
    points = {str(size): {"seconds": size / 100, "mebibytes": size} for size in (64, 512, 2100)}
    ways = {"host's own step": points, "answers only, shared prompts": points}
    names = [f"tokens {number}" for number in range(4)]
    kinds = dict.fromkeys(("attention", "products of matrices", "softmax and loss", "copies and gathers", "rest"), 1.5)
    goal = {"name": "faster", "value": 3.456, "limit": "at least 3", "is_met": True}
    return {
        "preference_step": {**common, "command": "python x.py", "goals": [goal]},
        "sweep": {
            **common, "command": "python y.py", "raw": dict.fromkeys(names, ways),
            "tables": [{"title": name, "columns": [name, "s"], "rows": [["64", "0.64"]]} for name in names],
        },
        "profile_step": {
            **common, "command": "python z.py", "raw": {"host's own step": {"seconds": 9.0, "kinds": kinds}},
        },
    }  # fmt: skip


def test_tables_on_performance_follow_the_benchmarks(performance: ModuleType) -> None:
    text = "".join(f"# {name}\n<!-- results: {name} -->\nold\n<!-- end -->\n" for name in ("goals", "sweep", "media"))
    page = performance.page(text, measured())
    assert "| faster | at least 3 | 3.46 | yes |" in page
    assert "tokens 3:\n\n| tokens 3 | s |\n|---|---|\n| 64 | 0.64 |\n" in page
    assert "`python benchmarks/media.py` has not been run." in page
    assert "old" not in page
    assert performance.page(page, measured()) == page
    assert "Nothing has been measured yet." in performance.page(text, {})


def test_pictures_on_performance_are_whole_and_within_their_frame(performance: ModuleType) -> None:
    pictures = performance.pictures(measured())
    assert [path.name for path in pictures] == ["performance_cost.svg", "performance_profile.svg"]
    for content in pictures.values():
        root = ElementTree.fromstring(content)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for part in root.iter():
            for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                assert 0 <= float(part.attrib.get(name, 0)) <= most, part.attrib
    circles = pictures[performance.COST].count("<circle")
    assert circles == 4 * 2 * 2 * 3, "series, quantities, ways, points"


@pytest.mark.parametrize(("most", "end"), [(0.5, 0.8), (3.2, 4.0), (35.0, 40.0), (41.0, 80.0), (4100.0, 8000.0)])
def test_axes_end_at_round_numbers(performance: ModuleType, most: float, end: float) -> None:
    assert performance.nice(most) == pytest.approx(end)


def test_the_graph_is_the_one_of_the_layering_test(pictures: ModuleType) -> None:
    folders: dict[str, set[str]] = {}
    for name, imported in import_graph(ROOT).items():
        for other in imported:
            if "." in name and "." in other:
                here, there = name.split(".")[1], other.split(".")[1]
                folders.setdefault(here, set()).update({there} - {here})
    assert {name: imported for name, imported in pictures.import_graph().items() if imported} == {
        name: imported for name, imported in folders.items() if imported
    }


def test_an_arrow_that_follows_from_others_is_left_out(pictures: ModuleType) -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert pictures.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert pictures.rows_of(graph) == [["d"], ["c"], ["b"], ["a"]]
    assert pictures.layers_svg(graph) != pictures.layers_svg({**graph, "b": {"d"}})


def test_the_data_flow_names_folders_that_exist(pictures: ModuleType) -> None:
    assert pictures.FLOW.read_text(encoding="utf-8") == pictures.flow_svg(), pictures.__doc__
    folders = re.findall(r">(\w+)/<", pictures.flow_svg())
    assert len(folders) >= 8
    assert all((ROOT / "hound_plugin" / name).is_dir() for name in folders)
