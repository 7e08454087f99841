"""Where everything of a person lies, and how it goes."""
