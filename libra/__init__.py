"""Visual-token compression in large vision-language models: see where every visual token goes.

```python
lvlm = libra.load("tiny-llava")
answer = lvlm.answer(images=["cat.png"], question="Is there a cat in the image?", method="libra")
answer.text, answer.trace
```
"""

from libra.errors import InputError
from libra.trace import Trace

__all__ = ["InputError", "Trace"]
