"""What lies on disk: people, templates, LoRA files; every write is atomic."""
