"""Evaluation: suites of questions, predictions, judgements, tables, comparison of runs. No model, no torch."""
