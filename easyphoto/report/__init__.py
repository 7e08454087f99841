"""Pages a person enjoys reading, each one self-contained file."""
