"""The catalogue of patches, the probes of its places, and what becomes of a run on a host in which some have moved."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hound_plugin.host import patches, patching
from hound_plugin.host.patches import ENTRIES, EVERY_RUN, Patch, Setup
from tests.goldens import SFT
from tests.host.hosting import cli, environment, media_folder, write_dataset, write_yaml
from tests.host.other_host import variables

WRAPS = [entry for entry in ENTRIES if isinstance(entry, Patch)]


# --- the catalogue


def test_each_place_is_patched_once() -> None:
    places = [(entry.module, entry.target) for entry in WRAPS]
    assert len(set(places)) == len(places)


def test_every_entry_says_why_and_when_it_can_go() -> None:
    for entry in WRAPS:
        assert entry.why.endswith("."), entry
        assert entry.removable, entry
        assert not entry.removable.endswith("."), entry
    for entry in ENTRIES:
        assert entry.without, entry
        assert not entry.without.endswith("."), entry
        assert entry.essential_for in ("", EVERY_RUN, "dpo", "kto"), entry


def body_parameters(entry: Patch) -> tuple[list[str], bool]:
    """Names of a body's own parameters behind ``original`` and ``self``, and whether it passes more on."""
    body = patching._body(entry.body)
    parameters = list(inspect.signature(body).parameters.values())
    assert parameters[0].name == "original", entry.body
    names = [item.name for item in parameters[1:] if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return [name for name in names if name != "self"], any(
        item.kind is inspect.Parameter.VAR_KEYWORD or item.kind is inspect.Parameter.VAR_POSITIONAL
        for item in parameters
    )


@pytest.mark.parametrize("entry", WRAPS, ids=lambda entry: f"{entry.module}.{entry.target}")
def test_the_arguments_of_an_entry_are_those_of_its_body(entry: Patch) -> None:
    """What a body names must be probed: the host may call by name, and a new argument must not get lost."""
    import llamafactory.train.tuner  # noqa: F401  (first, as the host's own command does)

    expected = [part.strip() for part in entry.takes.split(",") if part.strip()]
    names, is_open = body_parameters(entry)
    assert names == [part for part in expected if part.isidentifier()][: len(names)]
    if not is_open:
        assert expected == names, "a body that passes nothing else on must be given nothing else"


def test_every_place_is_as_expected_in_the_installed_host() -> None:
    import llamafactory.train.tuner  # noqa: F401

    assert {entry.names: problem for entry in ENTRIES if (problem := patching.probe(entry)) is not None} == {}


# --- probes


def module_of(source: str) -> ModuleType:
    module = ModuleType("a_host")
    exec(source, vars(module))
    return module


def probed(monkeypatch: pytest.MonkeyPatch, source: str, target: str, takes: str) -> str | None:
    monkeypatch.setitem(sys.modules, "a_host", module_of(source))
    return patching.probe(replace(WRAPS[0], module="a_host", target=target, takes=takes, needs=()))


@pytest.mark.parametrize(
    ("source", "target", "takes", "problem"),
    [
        ("def f(a, b): ...", "f", "a, b", None),
        ("def f(a, b): ...", "f", "a, ...", None),
        ("def f(a, b, c=1): ...", "f", "a, b", "takes (a, b, c), expected (a, b)"),
        ("def f(b, a): ...", "f", "a, b", "takes (b, a), expected (a, b)"),
        ("def f(a, tokens): ...", "f", "a, b", "takes (a, tokens), expected (a, b)"),
        ("def f(a, *, b, c): ...", "f", "a, b=, ...", None),
        ("def f(a, *, c): ...", "f", "a, b=, ...", "takes (a, c), expected (a, b=, ...)"),
        ("def f(a, **more): ...", "f", "a, b=, ...", None),
        ("def f(*args, **kwargs): ...", "f", "a, b", None),
        ("def f(): ...", "f", "", None),
        ("def f(a): ...", "f", "", "takes (a), expected ()"),
        ("def g(): ...", "f", "", "`a_host.f` is not there"),
        ("f = 3", "f", "", "`a_host.f` is not a function"),
        ("class C:\n def m(self, a): ...", "C.m", "a", None),
        ("class C:\n def m(this, a, b): ...", "C.m", "a", "takes (a, b), expected (a)"),
        ("class C:\n @staticmethod\n def m(a): ...", "C.m", "a", None),
        ("class B:\n def m(self, a): ...\nclass C(B): ...", "C.m", "a", None),
        ("class C: ...", "C.m", "a", "`a_host.C.m` is not there"),
        ("class D: ...", "C.m", "a", "`a_host.C.m` is not there"),
    ],
)
def test_a_probe(monkeypatch: pytest.MonkeyPatch, source: str, target: str, takes: str, problem: str | None) -> None:
    found = probed(monkeypatch, source, target, takes)
    assert found is None if problem is None else problem in str(found)


def test_what_a_body_needs_besides_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "a_host", module_of("TABLE = {}\ndef add(name, value): ..."))
    good = Setup("a_host", "models:register_names", ("a_host:TABLE", "a_host:add(name, value)"), "x")
    assert patching.probe(good) is None
    assert "`a_host.LIST` is not there" in str(patching.probe(replace(good, needs=("a_host:LIST",))))
    assert "expected (key, ...)" in str(patching.probe(replace(good, needs=("a_host:add(key, ...)",))))
    assert "cannot be imported" in str(patching.probe(replace(good, needs=("no_such_host:add",))))


# --- applying


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> list[Patch]:
    """A catalogue of its own for a module `a_host`, nothing missing, and no run parsed yet."""
    entries: list[Patch] = []
    monkeypatch.setattr(patching.settings_state, "_template", None)
    monkeypatch.setattr(patching.settings_state, "_stage", None)
    monkeypatch.setattr(patching, "entries_of", lambda name: tuple(entries))
    monkeypatch.setattr(patching, "_missing", {})
    monkeypatch.setattr(patching, "_warned", set())
    return entries


HOST = """
def plain(a): return [a]
def pieces(a):
    yield a
    return "end"
class Engine:
    @staticmethod
    def static(a): return [a]
    def method(self, a): return [a]
"""


def test_wrapping_once_and_keeping_the_kind(monkeypatch: pytest.MonkeyPatch, catalogue: list[Patch]) -> None:
    bodies = {
        "plain": lambda original, *args: ["ours", *original(*args)],
        "pieces": lambda original, *args: (yield from (x + x for x in original(*args))),
    }
    monkeypatch.setattr(patching, "_body", lambda path: bodies[path])
    host = module_of(HOST)
    monkeypatch.setitem(sys.modules, "a_host", host)
    for target in ("plain", "pieces", "Engine.static", "Engine.method"):
        body = "pieces" if target == "pieces" else "plain"
        catalogue.append(replace(WRAPS[0], module="a_host", target=target, takes="a", body=body, needs=()))
    for _ in range(3):
        patching.apply_to(host)
    assert host.plain(1) == ["ours", 1]
    assert inspect.isgeneratorfunction(host.pieces), "gradio asks whether it is one"
    assert list(host.pieces("x")) == ["xx"]
    assert host.Engine.static(1) == host.Engine().static(1) == host.Engine().method(1) == ["ours", 1]
    assert patching.missing() == []


def test_a_patch_for_our_template_leaves_other_runs_alone(
    monkeypatch: pytest.MonkeyPatch, catalogue: list[Patch]
) -> None:
    monkeypatch.setattr(patching, "_body", lambda path: lambda original, a: "ours")
    host = module_of(HOST)
    monkeypatch.setitem(sys.modules, "a_host", host)
    catalogue.append(replace(WRAPS[0], module="a_host", target="plain", takes="a", ours_only=True, needs=()))
    patching.apply_to(host)
    monkeypatch.setattr(patching.settings_state, "_template", "qwen2_vl")
    assert host.plain(1) == [1]
    monkeypatch.setattr(patching.settings_state, "_template", "llava_hound")
    assert host.plain(1) == "ours"


@pytest.mark.parametrize(
    ("essential_for", "stage", "refused"),
    [(EVERY_RUN, None, True), ("kto", "kto", True), ("kto", "dpo", False), ("", "sft", False)],
)
def test_a_missing_place_stops_the_runs_that_depend_on_it(
    monkeypatch: pytest.MonkeyPatch,
    catalogue: list[Patch],
    caplog: pytest.LogCaptureFixture,
    essential_for: str,
    stage: str | None,
    refused: bool,
) -> None:
    host = module_of("def plain(a, b): return [a]")
    monkeypatch.setitem(sys.modules, "a_host", host)
    entry = replace(WRAPS[0], module="a_host", target="plain", takes="a", needs=(), essential_for=essential_for)
    catalogue.append(replace(entry, without="clips are upside down"))
    patching.apply_to(host)
    assert host.plain(1, 2) == [1], "left alone"
    monkeypatch.setattr(patching.settings_state, "_stage", stage)
    message = r"`a_host.plain` takes \(a, b\), expected \(a\); without it, clips are upside down\. Run: pip install"
    if refused:
        with pytest.raises(patching.EnvironmentMismatchError, match=message):
            patching.check_missing()
        return
    warned: list[str] = []
    from llamafactory.extras import logging

    monkeypatch.setattr(logging.get_logger(patching.__name__), "warning_rank0", warned.append)
    patching.check_missing()
    patching.check_missing()
    assert len(warned) == 1
    assert "clips are upside down" in warned[0]


def test_steps_cannot_be_skipped_where_gradients_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from hound_plugin.errors import SettingsError
    from hound_plugin.host import finite_steps
    from hound_plugin.settings import HoundSettings

    entry = next(entry for entry in WRAPS if entry.target.endswith("._get_grad_norm"))
    trainer = SimpleNamespace(is_deepspeed_enabled=False)
    monkeypatch.setattr(finite_steps, "settings", lambda: HoundSettings(max_skipped_steps=2))
    finite_steps._StepWatch(trainer)
    monkeypatch.setattr(patching, "_missing", {entry: patching.Missing(entry, "it is not there")})
    with pytest.raises(SettingsError, match="max_skipped_steps: expected 0 with this release of the host"):
        finite_steps._StepWatch(trainer)


# --- another host, in real processes


def training(tmp_path: Path, edits: dict[str, dict[str, str]], **values: Any) -> subprocess.CompletedProcess[str]:
    """``llamafactory-cli train`` for one step on a changed host."""
    rows = [{"video": "clip_long", "conversations": turns("<video>\nWhat?", "A cat.")}] * 2
    recipe = {
        "model_name_or_path": str(SFT),
        "template": "llava_hound",
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset": "rows",
        "dataset_dir": str(write_dataset(tmp_path / "data", "rows", rows)),
        "media_dir": str(media_folder(tmp_path / "media")),
        "cutoff_len": 1024,
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 1,
        "save_strategy": "no",
        "report_to": "none",
        **values,
    }
    file = write_yaml(tmp_path / "sft.yaml", recipe)
    return cli(tmp_path, "train", str(file), check=False, **variables(tmp_path / "path", edits))


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


MOVED = {  # essential: a function renamed where it is used, and an argument added in front of the others
    "llamafactory.data.loader": {
        "align_dataset": "align_rows",
        "import align_rows": "import align_dataset as align_rows",
    },
    "llamafactory.model.loader": {
        "import init_adapter": "import init_adapter as _init_adapter",
        "\ndef load_model(": "\ndef init_adapter(stage, *args):\n    return _init_adapter(*args)\n\n\ndef load_model(",
        "= init_adapter(config,": "= init_adapter('sft', config,",
    },
}
LESS = {  # not essential: a function under another name, and an argument under another name
    "llamafactory.hparams.parser": {
        "get_last_checkpoint": "newest_checkpoint",
        "import newest_checkpoint": "import get_last_checkpoint as newest_checkpoint",
    },
    "llamafactory.data.processor.supervised": {
        "infer_seqlen": "cut_turn",
        ", cut_turn\n": ", infer_seqlen as cut_turn\n",
    },
}


@pytest.mark.e2e
def test_a_run_that_depends_on_what_has_moved_ends_before_any_work(tmp_path: Path) -> None:
    done = training(tmp_path, MOVED)
    assert done.returncode == 1
    assert (
        "`llamafactory.data.loader.align_dataset` is not there; without it, bad rows are not collected" in done.stdout
    )
    assert "`llamafactory.model.loader.init_adapter` takes (stage, *args), expected (config, model," in done.stdout
    assert "llamafactory 0.9.5 does not fit hound_plugin" in done.stdout
    assert "pip install 'llamafactory==0.9.5'" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_a_run_that_does_not_depend_on_it_goes_on_with_one_warning(tmp_path: Path) -> None:
    done = training(tmp_path, LESS)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    (line,) = [line for line in done.stdout.splitlines() if "does not fit hound_plugin" in line]
    assert "`llamafactory.hparams.parser.get_last_checkpoint` is not there; without it, a training does not" in line
    assert "`llamafactory.data.processor.supervised.infer_seqlen` is not there" in line


@pytest.mark.e2e
def test_a_host_whose_parser_has_moved_is_left_alone(tmp_path: Path) -> None:
    """Nothing would learn there what is trained; users of other models see one line."""
    edits = {"llamafactory.hparams.parser": {"_parse_args": "_read_arguments"}}
    done = subprocess.run(
        [sys.executable, "-c", "import torch, llamafactory.hparams.parser; print('goes on')"],
        env=environment(tmp_path, **variables(tmp_path / "path", edits)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "goes on", done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "hound" in line]
    assert line.startswith("hound_plugin is not active: The installed llamafactory 0.9.5 does not fit hound_plugin: ")
    assert "`llamafactory.hparams.parser._parse_args` is not there" in line


@pytest.mark.e2e
def test_the_doctor_names_what_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hound_plugin.doctor import activation

    for name, value in variables(tmp_path / "path", {**MOVED, **LESS}).items():
        monkeypatch.setenv(name, value)
    checks = [check for check in activation.check_activation() if check.name.startswith("host: ")]
    moved = {check.found.split("` ")[0].rpartition(".")[2]: check for check in checks if check.status != "ok"}
    assert {name: check.status for name, check in moved.items()} == {
        "align_dataset": "fail", "init_adapter": "fail", "get_last_checkpoint": "warn", "infer_seqlen": "warn",
    }  # fmt: skip
    assert "Training and serving are refused" in moved["align_dataset"].fix
    assert moved["infer_seqlen"].fix.startswith("Without it, a long row loses its prompt instead of its answer.")
    present = [check for check in checks if check.status == "ok"]
    assert "split_dataset" in next(check.found for check in present if check.name == "host: data")
    assert {check.name.removeprefix("host: ") for check in present} == set(patches.AREAS)
