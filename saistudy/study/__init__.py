"""Conclusions: runs, records, forecasts, tables and figures."""
