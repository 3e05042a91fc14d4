"""The plugin must be active in every process that the host starts, and must do no harm anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hound_plugin.host.autoload import HOOKED_MODULES
from tests.sandbox import Sandbox

WriteScript = Callable[[str, str], Path]


# --- where it fires


@pytest.mark.e2e
@pytest.mark.parametrize(
    "first",
    [
        "llamafactory.extras.constants",
        pytest.param("llamafactory.extras.logging", marks=pytest.mark.long),
        pytest.param("llamafactory.extras.misc", marks=pytest.mark.long),
        "llamafactory.webui.common",
        pytest.param("llamafactory.data.template", marks=pytest.mark.long),
        "llamafactory.train.tuner",
        pytest.param("llamafactory.hparams", marks=pytest.mark.long),
        "llamafactory.chat",
    ],
)
def test_every_registry_is_reached_whatever_is_imported_first(sandbox: Sandbox, first: str) -> None:
    out = sandbox.python(
        f"""
        import {first}, sys
        from hound_plugin.host import autoload
        state = autoload.state()
        loaded = [name for name in autoload.HOOKED_MODULES if name in sys.modules]
        print(sorted(loaded) == sorted(state["registered"]), state["active"], state["pending"], len(loaded) > 0)
        """
    )
    assert out.split("\n")[0] == "True True [] True", sandbox.stderr
    names = sandbox.registered()
    assert "extras.constants" in names
    assert len(names) == len(set(names))


@pytest.mark.e2e
def test_the_hosts_own_command(sandbox: Sandbox) -> None:
    out = sandbox.run([sys.executable, "-P", "-m", "llamafactory.cli", "version"])
    assert "LLaMA Factory" in out
    assert "extras.constants" in sandbox.registered()


@pytest.mark.e2e
def test_torchrun_ranks(sandbox: Sandbox, write_script: WriteScript) -> None:
    script = write_script(
        "rank.py",
        """
        import torch.distributed as dist
        import llamafactory.data.template
        from hound_plugin.host import autoload
        dist.init_process_group("gloo")
        assert "llamafactory.data.template" in autoload.state()["registered"]
        dist.barrier()
        dist.destroy_process_group()
        """,
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    sandbox.run(command)
    assert sandbox.registered().count("data.template") == 2
    assert sandbox.processes() == 2


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(sandbox: Sandbox, write_script: WriteScript, method: str) -> None:
    script = write_script(
        "workers.py",
        f"""
        import multiprocessing
        import torch

        def in_worker(_):
            import llamafactory.extras.constants
            from hound_plugin.host import autoload
            return "llamafactory.extras.constants" in autoload.state()["registered"]

        if __name__ == "__main__":
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                print(pool.map(in_worker, [0]))
        """,
    )
    assert sandbox.run([sys.executable, str(script)]).strip() == "[True]", sandbox.stderr


def test_modules_loaded_before_activation_are_registered_at_once(sandbox: Sandbox) -> None:
    out = sandbox.python(
        """
        import llamafactory.extras.constants
        from hound_plugin.host import autoload
        autoload.activate()
        autoload.activate()
        print("llamafactory.extras.constants" in autoload.state()["registered"], autoload.state()["pending"])
        """,
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert out.strip() == "True []"
    assert sandbox.registered().count("extras.constants") == 1


# --- switches


def test_disabled_by_variable(sandbox: Sandbox) -> None:
    out = sandbox.python(
        """
        import sys, llamafactory.extras.constants
        from hound_plugin.host import autoload
        state = autoload.state()
        print(state["active"], state["disabled_by"], any("Hook" in type(f).__name__ for f in sys.meta_path))
        """,
        HOUND_PLUGIN_DISABLE="1",
    )
    assert out.strip() == "False HOUND_PLUGIN_DISABLE False"
    assert sandbox.registered() == []


def test_a_zero_does_not_disable(sandbox: Sandbox) -> None:
    out = sandbox.python(
        "import torch; from hound_plugin.host import autoload; print(autoload.state()['active'])",
        HOUND_PLUGIN_DISABLE="0",
    )
    assert out.strip() == "True"


# --- failures


def test_a_fault_in_registration_is_reported_once_and_kept(sandbox: Sandbox) -> None:
    out = sandbox.python(
        """
        import llamafactory.data.template
        from hound_plugin.host import autoload
        print(autoload.state()["active"], autoload.state()["error"], type(autoload.activation_error()).__name__)
        """,
        RECORD_RAISES="1",
    )
    assert out.strip() == "False RuntimeError: a fault in registration RuntimeError"
    assert sandbox.stderr.count("hound_plugin is not active") == 1
    assert sandbox.stderr.count("Traceback (most recent call last)") == 1
    assert len(sandbox.registered()) == 1, "no half a plugin: the first failure ends registration"


def test_an_unsupported_host_is_one_line_and_other_models_go_on(sandbox: Sandbox, write_script: WriteScript) -> None:
    other = write_script("other.yaml", "template: qwen\n")
    out = sandbox.python("import llamafactory.extras.constants; print('ok')", str(other), RECORD_RAISES="mismatch")
    assert out.strip() == "ok"
    ours = [line for line in sandbox.stderr.splitlines() if "hound_plugin" in line]
    assert ours == ["hound_plugin is not active: llamafactory 0.0.1 is not supported: install llamafactory 0.9.5"]
    assert "Traceback" not in sandbox.stderr


@pytest.mark.parametrize("text", ["template: llava_hound\n", "model: x\nhound:\n  num_frames: 8\n"])
def test_an_unsupported_host_stops_who_asks_for_llava_hound(
    sandbox: Sandbox, write_script: WriteScript, text: str
) -> None:
    settings = write_script("ours.yaml", text)
    out = sandbox.python(
        "import llamafactory.extras.constants; print('went on')", str(settings), check=False, RECORD_RAISES="mismatch"
    )
    assert "went on" not in out
    assert sandbox.stderr.splitlines()[-1].endswith("is not supported: install llamafactory 0.9.5")


def test_a_failing_import_of_the_hosts_own_is_not_hidden(sandbox: Sandbox) -> None:
    """The host's exception passes; a second, successful import is registered."""
    package = sandbox.folder / "path" / "llamafactory"
    (package / "extras").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "extras" / "__init__.py").touch()
    (package / "extras" / "constants.py").write_text("import os\nif 'BAD' in os.environ: raise KeyError('theirs')\n")
    out = sandbox.python(
        """
        import os
        from hound_plugin.host import autoload
        autoload.activate()
        try:
            import llamafactory.extras.constants
        except KeyError as error:
            print(error)
        del os.environ["BAD"]
        import llamafactory.extras.constants
        print(autoload.state()["registered"])
        """,
        BAD="1",
    )
    assert out.split("\n")[:2] == ["'theirs'", "['llamafactory.extras.constants']"]


# --- no harm


def test_activation_imports_nothing_heavy(sandbox: Sandbox) -> None:
    out = sandbox.python(
        """
        import sys
        import hound_plugin.host.autoload as autoload
        autoload.activate()
        heavy = {"torch", "numpy", "transformers", "llamafactory", "PIL", "yaml", "asyncio", "inspect", "traceback"}
        print(sorted(heavy & set(sys.modules)), sorted(n for n in sys.modules if n.startswith("hound_plugin")))
        """
    )
    assert out.strip() == (
        "[] ['hound_plugin', 'hound_plugin.host', 'hound_plugin.host.autoload', 'hound_plugin.host.register', "
        "'hound_plugin.moved', 'hound_plugin.version']"
    )  # `register` is the recorder


IMPORTLIB_FEATURES = """
import importlib, importlib.util, inspect, pickle, sys, threading
from hound_plugin.host import autoload
autoload.activate()
NAME = "llamafactory.extras.constants"

spec = importlib.util.find_spec(NAME)
again = pickle.loads(pickle.dumps(spec))
assert again.origin == spec.origin and type(again.loader) is type(spec.loader), again
assert spec == importlib.util.find_spec(NAME)
assert hash(spec.loader) == hash(importlib.util.find_spec(NAME).loader)
assert type(spec.loader).__name__ == "SourceFileLoader"
assert autoload.state()["registered"] == []

threads = [threading.Thread(target=importlib.import_module, args=(NAME,)) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
module = sys.modules[NAME]
assert autoload.state()["registered"] == [NAME]
assert inspect.getsource(module).startswith("VALUE")
assert module.__loader__.get_data(module.__file__).startswith(b"VALUE")
pickle.dumps(module.__spec__)

importlib.invalidate_caches()
importlib.reload(module)
assert importlib.util.find_spec("llamafactory.data") is not None  # a namespace package
assert importlib.util.find_spec("llamafactory.data.template") is None
assert importlib.util.find_spec("no_such_module") is None

fresh = importlib.util.module_from_spec(importlib.util.find_spec(NAME))
import importlib.metadata
list(importlib.metadata.distributions())
print("fine")
"""


def test_importlib_features_survive(sandbox: Sandbox) -> None:
    package = sandbox.folder / "path" / "llamafactory"
    (package / "extras").mkdir(parents=True)
    (package / "data").mkdir()
    (package / "__init__.py").touch()
    (package / "extras" / "__init__.py").touch()
    (package / "extras" / "constants.py").write_text("VALUE = 1\nimport time\ntime.sleep(0.1)\n")
    assert sandbox.python(IMPORTLIB_FEATURES).strip() == "fine"
    assert sandbox.registered() == ["extras.constants"] * 2, "once for the import, once for the reload"


def test_a_second_delegating_finder_does_not_recurse(sandbox: Sandbox) -> None:
    package = sandbox.folder / "path" / "llamafactory" / "extras"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py", package / "constants.py"):
        file.touch()
    out = sandbox.python(
        """
        import sys
        from hound_plugin.host import autoload
        autoload.activate()
        class Other:
            def find_spec(self, name, path, target=None):
                for finder in sys.meta_path:
                    if finder is not self and (spec := finder.find_spec(name, path, target)):
                        return spec
        sys.meta_path.insert(0, Other())
        import llamafactory.extras.constants
        print(autoload.state()["registered"])
        """
    )
    assert out.strip() == "['llamafactory.extras.constants']"


def test_hooked_modules_exist_in_the_installed_host(sandbox: Sandbox) -> None:
    out = sandbox.python(
        """
        import importlib.util, pathlib
        from hound_plugin.host.autoload import HOOKED_MODULES
        root = pathlib.Path(importlib.util.find_spec("llamafactory").origin).parent.parent
        print([name for name in HOOKED_MODULES if not (root / (name.replace(".", "/") + ".py")).is_file()])
        """
    )
    assert out.strip() == "[]"
    assert len(set(HOOKED_MODULES)) == len(HOOKED_MODULES)


def test_the_hooks_are_those_of_the_catalogue() -> None:
    from hound_plugin.host import patches, register

    assert (*register.AUTO_CLASSES, *patches.MODULES) == HOOKED_MODULES
