"""Protocol files; see :mod:`hound_plugin.judge.prompts`."""
