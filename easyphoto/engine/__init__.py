"""Engines that run diffusion; one contract in `base`."""
