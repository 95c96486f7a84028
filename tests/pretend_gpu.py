"""Two accelerators that are not there: tensors that say they live on one, computed on the CPU.

What a real card refuses is refused here too: to compute with tensors of two devices, and to hand
contents to NumPy without a copy to the CPU. So whether everything is where it must be can be tested
on any machine; speed and numerics cannot.
"""

from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CPU = torch.device("cpu")
MATH = 0  # scaled dot product attention by the textbook: the other kernels are a device's own


class GpuTensor(torch.Tensor):
    """A tensor that says it is on `device`; `contents` are on the CPU."""

    @staticmethod
    def __new__(cls, contents: Tensor, device: torch.device) -> "GpuTensor":
        c = contents
        made = Tensor._make_wrapper_subclass(
            cls, c.size(), c.stride(), c.storage_offset(), dtype=c.dtype, device=device
        )
        made.contents = contents
        return made

    def __repr__(self) -> str:
        return f"{self.contents} on {self.device}"

    def tolist(self) -> list:
        return self.contents.tolist()

    def new_tensor(self, data) -> Tensor:
        return torch.tensor(data, dtype=self.dtype, device=self.device)  # the second card, too

    def numpy(self, **settings) -> None:
        raise TypeError(f"can't convert {self.device} tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args: tuple, kwargs: dict):
    """One operation, as far as a real card would do it."""
    if func is aten._fused_sdp_choice.default:
        return MATH
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    device = where(func, args, tensors)
    if kwargs.get("device") is not None:
        device = torch.device(kwargs["device"])
        kwargs = kwargs | {"device": CPU}
    known = {id(x.contents): x for x in tensors if isinstance(x, GpuTensor)}
    args, kwargs = tree_map_only(GpuTensor, lambda x: x.contents, (args, kwargs))

    def labelled(out: Tensor) -> Tensor:
        if id(out) in known:  # changed in place
            return known[id(out)]
        return out if device == CPU else GpuTensor(out, device)

    return tree_map_only(Tensor, labelled, func(*args, **kwargs))


def where(func, args: tuple, tensors: list[Tensor]) -> torch.device:
    """The device that computes; a RuntimeError if the tensors are on several."""
    if func in (aten.copy_.default, aten._to_copy.default):
        return args[0].device
    if func in (aten.index.Tensor, aten.index_put_.default):  # places may be known to the CPU
        tensors = [x for x in tensors if x.device != CPU or all(x is not i for i in args[1])]
    devices = {x.device for x in tensors if x.dim() or x.device != CPU}
    if len(devices) > 1:
        places = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} of {places}")
    return devices.pop() if devices else CPU


class WithoutGradients:
    """How `torch.inference_mode` is entered and left in the presence of pretended tensors."""

    def __enter__(self):
        self.mode = torch.no_grad()
        self.mode.__enter__()

    def __exit__(self, *error):
        self.mode.__exit__(*error)


class Gpus(TorchDispatchMode):
    """While it is entered, tensors can be made on `pretend:0` and `pretend:1`.

    They cannot be inference tensors: to `torch.inference_mode`, `torch.no_grad` is close enough.
    """

    def __enter__(self):
        self._patches = [
            patch.object(torch.inference_mode, name, getattr(WithoutGradients, name))
            for name in ("__enter__", "__exit__")
        ]
        for change in self._patches:
            change.start()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) asks this mode too
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        for change in self._patches:
            change.stop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def put(module: nn.Module, gpu: torch.device) -> None:
    """Move what a module has learned."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            moved = GpuTensor(getattr(weight, "contents", weight.data), gpu)
            setattr(part, name, nn.Parameter(moved, requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, GpuTensor(getattr(buffer, "contents", buffer), gpu))


backend_registration._setup_privateuseone_for_python_backend("pretend")
GPUS = torch.device("pretend", 0), torch.device("pretend", 1)
