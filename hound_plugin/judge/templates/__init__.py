"""Prompt templates as YAML files; see :mod:`hound_plugin.judge.prompts`."""
