"""Is the plugin active in the host, and which switches prevent it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hound_plugin.host.autoload import DISABLE_VARIABLE, is_disabled

from .child import Outcome, run_script
from .host_patches import SCRIPT, check_patches
from .report import FAIL, OK, WARN, Check
from .saved_work import check_saved_work
from .versions import DISTRIBUTION

ENTRY_POINT_GROUP = "torch.backends"
AUTOLOAD_VARIABLE = "TORCH_DEVICE_BACKEND_AUTOLOAD"
TEMPLATE = "llava_hound"
FORMATTING = "hound"
MODEL_NAMES = (
    "LLaVA-Hound-7B-Pretrain",
    "LLaVA-Hound-7B-SFT",
    "LLaVA-Hound-7B-DPO",
    "LLaVA-Hound-7B-SFT-Image_only",
)

# In a child, because the current folder may be on our own path, with the metadata of a checkout in it.
_ENTRY_POINT_SCRIPT = f"""
def owners():
    from importlib import metadata
    found = set()
    for distribution in metadata.distributions():
        try:
            owner = f"{{distribution.metadata['Name'].replace('_', '-')}} {{distribution.version}}"
            points = distribution.entry_points
        except Exception:  # another package's damaged metadata
            continue
        if any(point.group == "{ENTRY_POINT_GROUP}" and point.value.startswith("hound_plugin.") for point in points):
            found.add(owner)
    return sorted(found)

attempt("entry points", owners)
"""

_HOST_SCRIPT = f"""
def host():
    import llamafactory.data.template
    import llamafactory.data.mm_plugin
    import llamafactory.data.converter
    import llamafactory.extras.constants
    return llamafactory.__version__

def look():
    from llamafactory.data.template import TEMPLATES
    from llamafactory.data.mm_plugin import PLUGINS
    from llamafactory.data.converter import DATASET_CONVERTERS
    from llamafactory.extras.constants import SUPPORTED_MODELS
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS
    return {{
        "template": "{TEMPLATE}" in TEMPLATES,
        "mm plugin": "{TEMPLATE}" in PLUGINS,
        "dataset format": "{FORMATTING}" in DATASET_CONVERTERS,
        "model names": all(name in SUPPORTED_MODELS for name in {MODEL_NAMES!r}),
        "composite model": "{TEMPLATE}" in COMPOSITE_MODELS,
    }}

def state():
    module = sys.modules.get("hound_plugin.host.autoload")
    return None if module is None else module.state()

attempt("host", host)
attempt("registries", look)
attempt("state", state)
"""


def check_switches() -> Iterator[Check]:
    """Environment variables that switch activation off, and the entry point that it depends on."""
    if is_disabled():
        value = os.environ[DISABLE_VARIABLE]
        fix = f"unset {DISABLE_VARIABLE}"
        yield Check(DISABLE_VARIABLE, FAIL, f"set to {value}: the plugin is switched off", "not set", fix)
    value = os.environ.get(AUTOLOAD_VARIABLE, "1")
    if value != "1":
        found = f"set to {value}: torch loads no plugins, including this one"
        yield Check(AUTOLOAD_VARIABLE, FAIL, found, "not set, or 1", f"unset {AUTOLOAD_VARIABLE}")
    yield _check_entry_point()


def _check_entry_point() -> Check:
    name = "entry point"
    expected = f"one distribution with a {ENTRY_POINT_GROUP} entry point"
    outcome = run_script(_ENTRY_POINT_SCRIPT, timeout=60)
    stage = outcome.stage("entry points")
    if not stage.ok:
        return Check(name, FAIL, stage.error, expected, "Damaged package metadata: reinstall the package named here.")
    owners: list[str] = stage.facts
    if not owners:
        fix = "pip install hound-plugin (in a checkout: pip install -e .); the files alone are not enough"
        return Check(name, FAIL, "none: the host cannot find the plugin", expected, fix)
    if len(owners) > 1:
        fix = "Keep one: `pip uninstall` the others, and delete stale *.egg-info and *.dist-info folders."
        return Check(name, WARN, "more than one: " + ", ".join(owners), expected, fix)
    return Check(name, OK, owners[0], expected)


def check_activation() -> Iterator[Check]:
    """Import the host in a child, as its own command does; look into its registries, and at what is patched."""
    outcome = run_script(_HOST_SCRIPT + SCRIPT)
    try:
        yield from _check_host(outcome)
    finally:
        outcome.stop()  # for a caller that has seen enough


def _check_host(outcome: Outcome) -> Iterator[Check]:
    host = outcome.stage("host")
    if not host.ok:
        fix = f"Solve the version problems first; otherwise reinstall it: pip install --upgrade {DISTRIBUTION}"
        yield Check("host import", FAIL, host.error, "llamafactory can be imported", fix)
        yield Check("plugin in the host", FAIL, "unknown: the host cannot be imported", "registered")
        return
    yield Check("host import", OK, f"llamafactory {host.facts}")
    yield _check_registries(outcome)
    yield from check_patches(outcome)
    yield from check_saved_work(outcome)


def _check_registries(outcome: Outcome) -> Check:
    name = "plugin in the host"
    expected = "template, mm plugin, dataset format, model names, composite model"
    registries = outcome.stage("registries")
    state = outcome.stage("state").facts or {}
    if not registries.ok:
        fix = "This release of the host is laid out differently: install the one named under llamafactory."
        return Check(name, FAIL, registries.error, expected, fix)
    missing = [registry for registry, there in registries.facts.items() if not there]
    if state.get("error"):
        fix = "Run `python -c 'import llamafactory.data.template'` to see where it fails."
        return Check(name, FAIL, f"registration failed: {state['error']}", expected, fix)
    if not missing:
        return Check(name, OK, f"registered: {expected}", expected)
    if state.get("disabled_by"):
        return Check(name, FAIL, f"switched off by {state['disabled_by']}", expected, f"unset {state['disabled_by']}")
    if not state:
        fix = "See the lines about the entry point and the switches."
        return Check(name, FAIL, "not activated: torch did not call the plugin", expected, fix)
    fix = "Reinstall hound-plugin and llamafactory in the versions named above."
    return Check(name, FAIL, "missing: " + ", ".join(missing), expected, fix)
