"""Language models as judges: versioned prompts, a strict parser that never invents a score, back ends."""
