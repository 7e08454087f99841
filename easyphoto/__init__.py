"""easyphoto: from a person's photos to a portrait of them in any picture."""

from easyphoto.__version__ import __version__

__all__ = ["__version__"]
