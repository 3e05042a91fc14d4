"""Requests to language models: a ledger that never pays twice, one client, throttle, back-off, batches, runner."""
