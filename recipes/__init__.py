"""How the models in this repository were made."""
