"""The command line: `easyphoto`, also `python -m easyphoto`."""
