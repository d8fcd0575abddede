"""The ledger: every checkable claim of the seeds, and what this repository can say of it."""
