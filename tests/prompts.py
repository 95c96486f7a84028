"""Prompts of the micro models, as the tests put them together."""

import torch

from libra.media import Media


def prepare(lvlm, images, question, places=None):
    """Prepared pictures, and the prompt about them once only the visual tokens `places` are left.

    Args:
        lvlm: the model.
        images: PIL images.
        question: what is asked.
        places: [n], or None for all visual tokens.
    """
    prepared = lvlm.family.prepare(Media(images))
    places = torch.arange(len(prepared.layout)) if places is None else torch.as_tensor(places)
    return prepared, lvlm.family.prompt(question, prepared).reduced(places)
