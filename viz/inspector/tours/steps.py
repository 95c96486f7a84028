"""The steps of a guided tour."""


def step(text: str, overlay: str, stage: int = 0, patch: int | None = None) -> dict:
    """A sentence or two, and what to show with it."""
    return {"text": text, "overlay": overlay, "stage": stage, "patch": patch}


def enter(n: int) -> dict:
    """How every tour begins: `n` patches before anything happens to them."""
    return step(
        f"The picture enters as {n} visual tokens, one per patch. The strip below shows them in "
        "reading order. Point anywhere: picture, strip and histogram answer together.",
        overlay="fate",
    )
