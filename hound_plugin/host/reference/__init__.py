"""The reference of preference training, once: its log-probabilities in a file, or its frozen weights shared."""
