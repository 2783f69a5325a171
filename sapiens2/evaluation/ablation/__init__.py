"""Ablations: arms that differ in one thing, at equal data and compute, over several seeds, judged by frozen probes."""
