"""The recipe of `models/base-256`: from a folder of portraits to a small Stable Diffusion with ControlNets."""
