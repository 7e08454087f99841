"""The tabs Train, Inference, People and History: inside a WebUI, or by themselves. Gradio is imported in this room alone."""
