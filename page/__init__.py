"""The parts of the Gradio page; `app.py` puts them together."""
