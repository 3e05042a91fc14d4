"""The model: configuration, network, checkpoints in both layouts, and answers; imports torch, not the host."""
