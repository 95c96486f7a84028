"""The cache with room against the one of transformers, which copies."""

import torch
from transformers.cache_utils import DynamicLayer

from libra.cache import ROOM, RoomyLayer


def states(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, 3, n, 4, generator=generator)


def test_it_holds_what_the_cache_of_transformers_holds():
    roomy, plain = RoomyLayer(), DynamicLayer()
    for step, n in enumerate([9, 1, 1, ROOM - 3, 1, 1, 5, 2 * ROOM, 1]):
        for ours, theirs in zip(
            roomy.update(*states(n, step)), plain.update(*states(n, step)), strict=True
        ):
            assert torch.equal(ours, theirs)
        assert roomy.get_seq_length() == plain.get_seq_length()
        assert roomy.keys.nbytes == plain.keys.nbytes
        if step == 5:
            for layer in (roomy, plain):
                layer.crop(-7)


def test_a_new_token_moves_none_of_the_others():
    layer = RoomyLayer()
    prompt = states(9, 0).unbind()
    assert layer.update(*prompt)[0] is prompt[0]
    places = set()
    for step in range(ROOM):
        keys, values = layer.update(*states(1, step))
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1
    layer.update(*states(1, 99))
    layer.update(*states(1, 99))
    assert (layer.keys.data_ptr(), layer.values.data_ptr()) not in places


def test_one_that_is_reset_forgets():
    layer = RoomyLayer()
    for n in (5, 1):
        layer.update(*states(n, 0))
    layer.reset()
    layer.update(*states(2, 1))
    keys, _ = layer.update(*states(1, 2))
    assert torch.equal(keys, torch.cat([states(2, 1)[0], states(1, 2)[0]], -2))
