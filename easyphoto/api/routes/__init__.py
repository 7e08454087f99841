"""The routes, one file for each thing they are about; each file has a `router`."""
