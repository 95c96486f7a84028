"""The models in memory, shared by all visitors."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from libra.errors import InputError, ShortageError
from libra.lvlm import LVLM
from libra.models.room import release


class Shelf:
    """As many models as fit at a time; where room is wanted, the one unused for longest goes first.

    Whoever wants a model that does not fit beside those at work waits until these are done: a
    request keeps its model to its end. What does not say how much it needs gets all the room.

    Args:
        open: loads a model by its name.
        need: bytes that a model of this name will need, or None; raises InputError if it cannot be
            had at all, before any other gives way.
        capacity: bytes in all.
    """

    def __init__(
        self,
        open: Callable[[str], LVLM],
        need: Callable[[str], float | None],
        capacity: Callable[[], float],
    ):
        self._open, self._need, self._capacity = open, need, capacity
        self._models: dict[str, LVLM] = {}  # the one unused for longest first
        self._sizes: dict[str, float] = {}  # of these, and of what is being loaded
        self._loading: set[str] = set()
        self._users: Counter[str] = Counter()
        self._changed = Condition()
        self._opening = Lock()  # loading sets a default type, which is the whole program's

    def __contains__(self, name: str) -> bool:
        return name in self._models

    @contextmanager
    def use(self, name: str) -> Iterator[LVLM]:
        """The model of that name, which stays while this is open.

        Raises:
            InputError: a model that cannot be loaded, or that has run out of memory at work.
        """
        lvlm = self._take(name)
        try:
            yield lvlm
        except ShortageError as error:
            raise InputError(f"{error}{self._yield_room(name)}") from None
        finally:
            with self._changed:
                self._users[name] -= 1
                self._changed.notify_all()

    def clear(self) -> None:
        """Free every model, once nobody uses it."""
        with self._changed:
            self._make_room(None)

    def _take(self, name: str) -> LVLM:
        """The model, with one user more; of two who want it at once, one loads it for both.

        Nothing is held up while a model is loaded, which may take minutes.
        """
        with self._changed:
            self._changed.wait_for(lambda: name not in self._loading)
            if name in self._models:
                return self._taken(name)
            self._loading.add(name)
        try:
            needed = self._need(name)
            with self._changed:
                self._make_room(needed)
                self._sizes[name] = self._capacity() if needed is None else needed
            with self._opening:
                lvlm = self._open(name)
            with self._changed:
                self._models[name] = lvlm
                return self._taken(name)
        except BaseException:
            with self._changed:
                self._sizes.pop(name, None)
            raise
        finally:
            with self._changed:
                self._loading.remove(name)
                self._changed.notify_all()

    def _taken(self, name: str) -> LVLM:
        """A model that is there, as the one used last, with one user more."""
        lvlm = self._models[name] = self._models.pop(name)
        self._users[name] += 1
        return lvlm

    def _make_room(self, needed: float | None) -> None:
        """Free models until so many bytes are free; all of them if it is None."""
        while self._sizes and not self._fits(needed):
            idle = next((name for name in self._models if not self._users[name]), None)
            if idle is None:
                self._changed.wait()
                continue
            self._free(idle)

    def _yield_room(self, name: str) -> str:
        """Free what nobody uses beside a model that has run out of memory, and say so."""
        with self._changed:
            idle = [other for other in self._models if not self._users[other] and other != name]
            for other in idle:
                self._free(other)
        return f" {', '.join(idle)} made room meanwhile: asking again may do, too." if idle else ""

    def _free(self, name: str) -> None:
        self._models.pop(name).close()
        del self._sizes[name]
        release()

    def _fits(self, needed: float | None) -> bool:
        return needed is not None and sum(self._sizes.values()) + needed <= self._capacity()
