"""Coverage-guided fuzzing of everything that reads what strangers hand in: `python benchmarks/fuzz/run.py`."""
