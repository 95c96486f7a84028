"""Visual-token compression in large vision-language models: see where every visual token goes.

```python
lvlm = libra.load("tiny-llava")
answer = lvlm.answer(images=["cat.png"], question="Is there a cat in the image?", method="libra")
answer.text, answer.trace
```
"""

from typing import TYPE_CHECKING

from libra import cost
from libra.errors import InputError
from libra.trace import Trace

if TYPE_CHECKING:
    from libra.lvlm import LVLM, Answer, Step, compare, load

__all__ = ["LVLM", "Answer", "InputError", "Step", "Trace", "compare", "cost", "load"]


def __getattr__(name: str) -> object:
    """Import the engine, and transformers with it, only when it is used: traces need neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from libra import lvlm

    return getattr(lvlm, name)
