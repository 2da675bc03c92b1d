"""What priors, likelihoods and posteriors have in common: a declaration, and a network sized by the VAE."""

import inspect
from typing import Any, ClassVar, Self

from torch import Tensor, nn


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
        defaults = {
            n: p.default for n, p in inspect.signature(type(self).__init__).parameters.items()
        }
        changed = {n: v for n, v in self._declaration.items() if not _equal(v, defaults.get(n))}
        arguments = []
        for name, value in changed.items():
            short = _short(value)
            arguments.extend(
                map(_short, value)
                if name == "args" and isinstance(value, tuple)
                else [f"{name}={short}"]
            )
        return f"{type(self).__name__}({', '.join(arguments)})"


def _equal(left: Any, right: Any) -> bool:
    return left is right or (
        type(left) is type(right) and not isinstance(left, Tensor) and left == right
    )


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return repr(value.item()) if value.numel() == 1 else f"<tensor {tuple(value.shape)}>"
    return repr(value)
