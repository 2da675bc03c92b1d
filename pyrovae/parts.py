"""What priors, likelihoods and posteriors have in common: a declaration, and a network sized by the VAE."""

import inspect
import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyrovae.nets import Recipe


class Part(nn.Module):
    """A declared part of a VAE. Calling it gives a distribution; printing it gives its declaration."""

    _declaration: dict[str, Any]
    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # `__new__` takes anything: editors and documentation should show what `__init__` takes.
        own = cls.__init__ is not nn.Module.__init__
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:] if own else []
        cls.__signature__ = inspect.Signature(parameters)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        part = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(part, *args, **kwargs)
        except TypeError:  # let __init__ say so; copies and pickles come here without arguments
            declared = {}
        else:
            declared = dict(list(bound.arguments.items())[1:])
        object.__setattr__(part, "_declaration", declared)
        return part

    def __repr__(self) -> str:
        defaults = {n: p.default for n, p in inspect.signature(type(self).__init__).parameters.items()}
        changed = {n: v for n, v in self._declaration.items() if not _equal(v, defaults.get(n))}
        arguments = []
        for name, value in changed.items():
            short = _short(value)
            arguments.extend(
                map(_short, value) if name == "args" and isinstance(value, tuple) else [f"{name}={short}"]
            )
        return f"{type(self).__name__}({', '.join(arguments)})"


def _equal(left: Any, right: Any) -> bool:
    return left is right or (type(left) is type(right) and not isinstance(left, Tensor) and left == right)


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return repr(value.item()) if value.numel() == 1 else f"<tensor {tuple(value.shape)}>"
    return repr(value)


class Sized(nn.Module):
    """A network seen as a function of any number of leading batch dimensions, with checked sizes.

    Args:
        net: A recipe, built here for the two shapes, or a module, checked against them with two zero inputs.
        in_shape, out_shape: Event shapes; the module may also return them flattened.
        role: What to call it in errors.
    """

    def __init__(
        self, net: Recipe | nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...], role: str
    ):
        super().__init__()
        if isinstance(net, Recipe):
            net = net.build(in_shape, out_shape)
        elif not isinstance(net, nn.Module):
            raise TypeError(
                f"{role} must be a net recipe such as nets.MLP(300, 300) or an nn.Module, found {type(net).__name__}."
            )
        else:
            _check_sizes(net, in_shape, out_shape, role)
        self.net = net
        self.in_shape, self.out_shape = in_shape, out_shape

    def forward(self, inputs: Tensor) -> Tensor:
        batch = inputs.shape[: inputs.dim() - len(self.in_shape)]
        outputs = self.net(inputs.reshape(-1, *self.in_shape))
        return outputs.reshape(*batch, *self.out_shape)


def _check_sizes(net: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...], role: str) -> None:
    modes = [(module, module.training) for module in net.modules()]
    like = next(net.parameters(), torch.zeros(()))
    probe = torch.zeros(
        2, *in_shape, dtype=like.dtype if like.is_floating_point() else None, device=like.device
    )
    try:
        net.eval()
        with torch.no_grad():
            found = net(probe)
    except Exception as error:
        raise ValueError(
            f"{role} failed on a zero input of shape (2, {', '.join(map(str, in_shape))}): {error}. "
            f"It must map (N, *{in_shape}) to (N, *{out_shape}), flattened or not."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(found, Tensor) or found.shape[0] != 2 or found[0].numel() != math.prod(out_shape):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{role} gave {shape} for an input of shape {tuple(probe.shape)}, expected (2, {math.prod(out_shape)}) "
            f"or (2, *{out_shape}). Change its last layer."
        )
