"""Leaving early for real: early exit, latency, export."""
