"""LLaVA-Hound and our suites in lmms-eval: the only place that imports it.

``python -m lmms_eval --model llava_hound --model_args pretrained=... --tasks ...`` finds the model by an entry point.
With ``--include_path $(hound eval list --tasks)`` our suites are tasks too, such as ``hound_demo``.
"""
