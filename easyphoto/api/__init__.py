"""The routes under /easyphoto/v1: by themselves (`easyphoto serve`) or inside a WebUI; one queue behind both."""
