"""Versions of the interpreter and of packages, from their metadata alone."""

from __future__ import annotations

import platform
import re
from importlib import metadata

from .report import FAIL, OK, WARN, Check

DISTRIBUTION = "hound-plugin"
HOST = "llamafactory"

# Shown even if the plugin's own metadata is missing.
PACKAGES: tuple[str, ...] = (
    "llamafactory",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "deepspeed",
    "decord",
    "av",
    "openai",
)

# (package, specifier, what happens there)
KNOWN_BAD: tuple[tuple[str, str, str], ...] = (
    ("transformers", "==5.6.0", "transformers 5.6.0 is broken with the host"),
    ("torchaudio", ">2.11.0", "torchaudio 2.11.1 and later do not load with torch 2.11, and the host imports it"),
    ("torch", ">=2.12", "torch 2.12 and later have no matching torchaudio, which the host imports at start"),
    ("torch", "<2.6", "torch before 2.6 can run code while it loads a .bin checkpoint (CVE-2025-32434)"),
)


def check_versions() -> list[Check]:
    """Python, this package's own metadata, and every package that it needs."""
    checks = [_check_python(), _check_own_metadata()]
    try:
        import packaging.requirements  # noqa: F401
    except ImportError:
        fix = "pip install packaging"
        return [*checks, Check("packages", FAIL, "the package `packaging` is not installed", "packaging", fix)]
    bounds, elsewhere = _bounds()
    for name in PACKAGES:
        if name in elsewhere and name not in bounds and _version(name) is None:
            checks.append(Check(name, OK, "not needed on this platform"))
        else:
            checks.append(_check_package(name, bounds.get(name, "")))
    return checks


def _check_python() -> Check:
    from hound_plugin.version import __version__

    found = platform.python_version()
    expected = _own_python_bound()
    name = "Python"
    if not _within(found, expected):
        fix = "Make a new environment: `python3.11 -m venv .venv`, then install hound-plugin there."
        return Check(name, FAIL, found, expected, fix)
    return Check(name, OK, f"{found}, hound-plugin {__version__}", expected)


def _own_python_bound() -> str:
    try:
        return metadata.metadata(DISTRIBUTION)["Requires-Python"] or ">=3.11"
    except (metadata.PackageNotFoundError, KeyError):
        return ">=3.11"


def _check_own_metadata() -> Check:
    name = "installed"
    try:
        found = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        fix = "Copied files are not enough: run `pip install hound-plugin`, or `pip install -e .` in a checkout."
        return Check(name, FAIL, "no package metadata", DISTRIBUTION, fix)
    from hound_plugin.version import __version__

    if found != __version__:
        fix = (
            "An older copy hides this one: run `pip uninstall hound-plugin` until none is left, then install it again."
        )
        return Check(name, WARN, f"metadata says {found}, code says {__version__}", __version__, fix)
    return Check(name, OK, f"{DISTRIBUTION} {found}")


def _bounds() -> tuple[dict[str, str], set[str]]:
    """Package -> specifier (our own bounds with the host's), and packages that only other platforms need."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    bounds: dict[str, SpecifierSet] = {}
    elsewhere: set[str] = set()
    for owner in (DISTRIBUTION, HOST):
        try:
            lines = metadata.requires(owner) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            name = _normalised(requirement.name)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                bounds[name] = bounds.get(name, SpecifierSet()) & requirement.specifier
            elif "extra" not in str(requirement.marker):
                elsewhere.add(name)
    return {name: str(specifier) for name, specifier in bounds.items()}, elsewhere


def _check_package(name: str, expected: str) -> Check:
    found = _version(name)
    if found is None:
        fix = _install(name, expected)
        if name == HOST:
            fix += "  (needed for training, chat and API; loading a model and vLLM work without it)"
        return Check(name, FAIL, "not installed", expected or "any version", fix)
    if not found:
        return Check(name, FAIL, "its metadata has no version", expected, _install(name, expected, force=True))
    for package, specifier, reason in KNOWN_BAD:
        if package == name and _within(found, specifier):
            return Check(name, FAIL, f"{found}: {reason}", expected, _install(name, expected))
    if not _within(found, expected):
        return Check(name, FAIL, found, expected, _install(name, expected))
    return Check(name, OK, found, expected)


def _version(name: str) -> str | None:
    """The installed version, "" if the metadata is damaged, None if there is none."""
    try:
        return metadata.version(name) or ""
    except metadata.PackageNotFoundError:
        return None


def _install(name: str, expected: str, force: bool = False) -> str:
    fix = f'pip install {"--force-reinstall --no-deps " if force else ""}"{name}{expected}"'
    if name in {"torch", "torchvision", "torchaudio"}:
        fix += "  (torch, torchvision and torchaudio must be from one release, such as 2.11.0, 0.26.0 and 2.11.0)"
    return fix


def _within(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(specifier).contains(version, prereleases=True)
    except (ImportError, ValueError):  # InvalidVersion and InvalidSpecifier are ValueErrors
        return True


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
