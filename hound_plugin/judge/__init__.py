"""Language models as judges: protocols, clients, and a ledger that never pays twice and never invents a score."""
