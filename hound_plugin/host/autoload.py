"""Activation: how LLaMA-Factory, which has no plugin entry point, finds this package in every process it starts.

``import torch`` calls the entry points of the group ``torch.backends``; ours is :func:`activate`. It imports nothing
beyond the standard library and puts one finder at the head of ``sys.meta_path``. When one of :data:`HOOKED_MODULES`
has been executed, the finder's hook calls
``hound_plugin.host.register.register_for(module_name)``.

Four cases need care:

* A hooked module may already be half imported when torch is (``llamafactory.extras.constants`` imports peft,
  which imports torch). No finder sees it again, so its spec is watched: the import system sets
  ``spec._initializing = False`` as its last act, and that assignment is the signal.
* transformers' modules import one another half-way (``modeling_layers`` imports ``modeling_auto``), and our model needs
  them whole; and our processors, whose import may be what brings them in, must be whole too: what belongs to
  transformers waits until none of its modules, and none of ours, is still being imported.
* A module of ours that was imported first may itself cause the import of the host, whose registration needs it whole:
  what needs modules of ours waits until none of them is still being imported. Patches do not wait: other modules of the
  host would take its functions by name before.
* ``register_for`` may fail. Users of other models must not suffer, so the import continues, and the failure is
  reported on stderr and kept for :func:`activation_error`. Only where the command line or the YAML file named there
  asks for LLaVA-Hound is the failure raised, because training would otherwise continue with half a plugin.

``HOUND_PLUGIN_DISABLE=1`` switches all of this off.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

HOOKED_MODULES: tuple[str, ...] = (
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.models.auto.processing_auto",
    "llamafactory.extras.constants",
    "llamafactory.model.model_utils.visual",
    "llamafactory.data.mm_plugin",
    "llamafactory.data.template",
    "llamafactory.data.converter",
    "llamafactory.hparams.parser",
    "llamafactory.model.loader",
    "llamafactory.data.loader",
    "llamafactory.data.processor.supervised",
    "llamafactory.data.processor.pairwise",
    "llamafactory.data.processor.feedback",
    "llamafactory.data.processor.unsupervised",
    "llamafactory.data.collator",
    "llamafactory.train.tuner",
    "llamafactory.train.callbacks",
    "llamafactory.train.sft.trainer",
    "llamafactory.train.dpo.trainer",
    "llamafactory.train.kto.trainer",
    "llamafactory.train.rm.trainer",
    "llamafactory.train.dpo.workflow",
    "llamafactory.train.kto.workflow",
    "deepspeed.runtime.zero.partition_parameters",
    "llamafactory.chat.hf_engine",
    "llamafactory.chat.chat_model",
    "llamafactory.api.app",
    "llamafactory.webui.common",
    "llamafactory.webui.chatter",
    "llamafactory.webui.components.export",
    "llamafactory.webui.engine",
    "llamafactory.webui.interface",
)
"""Those of :mod:`hound_plugin.host.patches`, which is imported when the first of them is; a test compares the two."""

DISABLE_VARIABLE = "HOUND_PLUGIN_DISABLE"

_REGISTER_MODULE = "hound_plugin.host.register"
_TRANSFORMERS, _OURS = "transformers.", "hound_plugin.host."
_OUR_MODEL_SIDE = ("hound_plugin.processing.", "hound_plugin.model.")
_TRUE = frozenset({"1", "true", "yes", "on", "y"})
_NAMES_US = r"(?im)llava[-_]hound|^\s*[\"']?hound[\"']?\s*:|^hound\.\w+="  # compiled on failure only: 1 ms
_MAX_SETTINGS_BYTES = 1 << 20

_lock = threading.Lock()
_finder: _HookFinder | None = None
_registered: list[str] = []
_pending: list[str] = []
_error: Exception | None = None
_reported = False


def activate() -> None:
    """Install the import hook; the ``torch.backends`` entry point.

    Calling it again is harmless. It raises nothing: an exception here would end ``import torch`` for everyone.
    """
    try:
        if not is_disabled():
            _install()
    except Exception as error:
        _fail(error)


def is_disabled() -> bool:
    """Whether ``HOUND_PLUGIN_DISABLE`` switches the plugin off."""
    return os.environ.get(DISABLE_VARIABLE, "").strip().lower() in _TRUE


def activation_error() -> Exception | None:
    """The exception that ended registration in this process, for code that is asked for LLaVA-Hound to raise."""
    return _error


def state() -> dict[str, Any]:
    """What became of activation in this process.

    Returns:
        ``active`` (the hook is installed and nothing failed), ``disabled_by`` (variable or None), ``registered`` and
        ``pending`` (module names) and ``error`` (``"Class: message"`` or None).
    """
    return {
        "active": _finder is not None and _finder in sys.meta_path and _error is None,
        "disabled_by": DISABLE_VARIABLE if is_disabled() else None,
        "registered": list(_registered),
        "pending": list(_pending),
        "error": None if _error is None else f"{type(_error).__name__}: {_error}",
    }


def _install() -> None:
    global _finder
    with _lock:
        if _finder is None:
            _finder = _HookFinder()
        if _finder in sys.meta_path:
            return
        sys.meta_path.insert(0, _finder)
        for name in HOOKED_MODULES:
            if name in sys.modules and name not in _registered:
                _defer(name)
    _register_pending()


# --- the finder and what it puts around a loader


class _HookFinder:
    """Finds hooked modules through the other finders and lets their loaders report when they have run."""

    def __init__(self) -> None:
        self._hooked = frozenset(HOOKED_MODULES)
        self._busy = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._hooked or getattr(self._busy, "name", None) == fullname:
            return None
        self._busy.name = fullname  # another delegating finder may come back to us
        try:
            spec = self._ask_others(fullname, path, target)
        finally:
            self._busy.name = None
        if spec is not None:
            _hook_loader(spec)
        return spec

    def _ask_others(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None


class _ExecThenRegister:
    """Takes the place of ``exec_module`` on one loader instance.

    The loader itself stays what it is, so that ``inspect``, ``pickle`` and ``importlib.resources`` see no difference.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.previous = vars(loader).get("exec_module")  # another package's hook of the same kind

    def __call__(self, module: ModuleType) -> None:
        if self.previous is not None:
            self.previous(module)
        else:
            type(self.loader).exec_module(self.loader, module)
        spec = getattr(module, "__spec__", None)
        name = module.__name__ if spec is None else spec.name
        if name in HOOKED_MODULES:  # a loader may be shared by many modules (zip files)
            _defer(name)
            _register_pending(executed=name)

    def __eq__(self, other: object) -> bool:  # loaders compare by their attributes
        return isinstance(other, _ExecThenRegister)

    def __hash__(self) -> int:
        return hash(_ExecThenRegister)


def _hook_loader(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    if loader is None or isinstance(loader, type) or not hasattr(loader, "exec_module"):
        return
    if isinstance(getattr(loader, "exec_module", None), _ExecThenRegister):
        return
    try:
        loader.exec_module = _ExecThenRegister(loader)
    except (AttributeError, TypeError):  # a loader without a __dict__: later hooks and the end of torch catch up
        _defer(spec.name)


# --- modules that are still being imported


class _WatchedSpec(ModuleSpec):
    """A spec that notices when the import system is done with its module."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            _register_pending()


def _watch(spec: ModuleSpec | None) -> None:
    if type(spec) is ModuleSpec:
        spec.__class__ = _WatchedSpec


def _initialising_spec(name: str) -> ModuleSpec | None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec if getattr(spec, "_initializing", False) else None


def _under_way(name: str, executed: str | None) -> ModuleSpec | None:
    """What has to be complete before ``name`` can be registered, and is not."""
    prefixes = (_TRANSFORMERS, *_OUR_MODEL_SIDE) if name.startswith(_TRANSFORMERS) else (_OURS,)
    names = [name, *(other for other in list(sys.modules) if other.startswith(prefixes))]
    specs = (_initialising_spec(other) for other in names if other != executed)
    return next((spec for spec in specs if spec is not None), None)


# --- registration


def _defer(name: str) -> None:
    if name not in _pending:
        _pending.append(name)


def _register_pending(executed: str | None = None) -> None:
    """Register what is complete; ``executed`` has just run, although its import is not quite over."""
    torch_spec = _initialising_spec("torch")
    if torch_spec is not None and executed is None:
        _watch(torch_spec)  # nothing heavy inside `import torch`; called again when it is through
        return
    for name in list(_pending):
        if name not in sys.modules:
            continue
        under_way = _under_way(name, executed)
        if under_way is not None:
            if name == executed and not name.startswith(_TRANSFORMERS):
                _register(name, patches_only=True)  # before the rest of the host takes its functions by name
            _watch(under_way)
            continue
        try:
            _pending.remove(name)
        except ValueError:  # another thread was faster
            continue
        _register(name)


def _register(name: str, patches_only: bool = False) -> None:
    if _error is not None:
        _raise_if_wanted(_error)
        return
    try:
        register_for = _load_register_for()
        if register_for is None:
            _defer(name)
            return
        register_for(name, patches_only=True) if patches_only else register_for(name)
    except Exception as error:
        _fail(error)
        _raise_if_wanted(error)
    else:
        if name not in _registered and not patches_only:
            _registered.append(name)


def _load_register_for() -> Any:
    """``register_for``, or None while its module is itself being imported (and caused the import of the host)."""
    import importlib

    spec = _initialising_spec(_REGISTER_MODULE)
    if spec is not None and not hasattr(sys.modules[_REGISTER_MODULE], "register_for"):
        _watch(spec)
        return None
    return importlib.import_module(_REGISTER_MODULE).register_for


def _fail(error: Exception) -> None:
    global _error, _reported
    if _error is None:
        _error = error
    if _reported:
        return
    _reported = True
    try:
        _report(error)
    except Exception:  # a closed stderr must not end `import torch`
        return


def _report(error: Exception) -> None:
    from hound_plugin.errors import HoundError

    if isinstance(error, HoundError):
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"hound_plugin is not active: {error}", file=sys.stderr, flush=True)
        return
    import traceback

    lines = "".join(traceback.format_exception(error))
    print(
        f"hound_plugin is not active, because its registration failed ({type(error).__name__}: {error}). Other models "
        f"are not affected. `hound doctor` looks for the cause; {DISABLE_VARIABLE}=1 switches the plugin off.\n{lines}",
        file=sys.stderr,
        flush=True,
    )


def _raise_if_wanted(error: Exception) -> None:
    """Raise if this process was asked for LLaVA-Hound: the host would continue without a part of it."""
    if _wanted():
        raise error


def _wanted() -> bool:
    for argument in sys.argv[1:]:
        if re.search(_NAMES_US, argument):
            return True
        if argument.endswith((".yaml", ".yml", ".json")):
            try:
                with open(argument, encoding="utf-8", errors="replace") as file:
                    if re.search(_NAMES_US, file.read(_MAX_SETTINGS_BYTES)):
                        return True
            except OSError:
                continue
    return False
