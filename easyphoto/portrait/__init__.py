"""From a template and a person to a portrait, in two diffusion passes."""
