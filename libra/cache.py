"""A layer of the KV cache that takes in new tokens without copying those that it holds."""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens


class RoomyLayer(DynamicLayer):
    """Keys and values [1, Hk, n, d] with room behind them, into which new ones are written.

    The layer that this one replaces copies all it holds for every token. Here that happens when the
    room is used up, once in `ROOM` tokens, and never to those of the prefill before the first word.
    """

    _room: list[Tensor] | None = None  # keys and values, [1, Hk, n + room, d]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Hold nothing of what comes in; without making a tensor for that."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Take in the keys and values of new tokens, and give back all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new, n = (key_states, value_states), self.get_seq_length()
        if n == 0:
            self._room = None
            self.keys, self.values = new
            return new
        end = n + key_states.shape[-2]
        if self._room is None or end > self._room[0].shape[-2]:
            self._room = [_with_room(held, end + ROOM) for held in (self.keys, self.values)]
        for room, tokens in zip(self._room, new, strict=True):
            room[..., n:end, :] = tokens
        self.keys, self.values = (room[..., :end, :] for room in self._room)
        return self.keys, self.values


def _with_room(held: Tensor, length: int) -> Tensor:
    """[..., n, d] -> [..., length, d], of which the first n are filled."""
    room = held.new_empty(*held.shape[:-2], length, held.shape[-1])
    room[..., : held.shape[-2], :] = held
    return room
