"""The figures that compare runs, each drawn from its frame alone (`frames`) as a matplotlib Figure."""
