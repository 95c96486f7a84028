"""The embedded model: scenes, questions, training and evaluation of tiny-llava."""
