"""Pure picture arithmetic on numpy arrays: reading, geometry, masks, colour, blending, control maps."""
