"""Our suites as tasks of lmms-eval: one YAML file each, which names a class of :mod:`suite_task`."""
