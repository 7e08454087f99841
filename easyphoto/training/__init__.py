"""From photos to a LoRA: preprocess, dataset, trainer, validation, merging; the worker process and its parent."""
