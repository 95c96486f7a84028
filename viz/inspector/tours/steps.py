"""The steps of a guided tour."""

LOOKS = ("strip", "importance", "similarity", "card", "play", "answer", "layer", "whatif")


def step(
    text: str, overlay: str, stage: int = 0, patch: int | None = None, look: str | None = None
) -> dict:
    """A sentence or two, and what to show with it.

    Args:
        text: the sentences.
        overlay: what is painted on the picture.
        stage: the stage that is shown.
        patch: the patch in hand.
        look: what else the sentences speak of, one of `LOOKS`: it is brought into the window.
    """
    return {"text": text, "overlay": overlay, "stage": stage, "patch": patch, "look": look}


def enter(n: int) -> dict:
    """How every tour begins: `n` patches before anything happens to them."""
    return step(
        f"The picture enters as {n} visual tokens, one per patch. The strip below shows them in "
        "reading order. Point anywhere: picture, strip and histograms answer together.",
        overlay="fate",
        look="strip",
    )
