"""The catalog, read from source, says what Python says of the same classes."""

import importlib
import inspect

import pytest

from pyrovae import catalog

KINDS = list(catalog.KINDS)


def concrete(kind):
    """The classes that the package itself offers, by import."""
    spec = catalog.KINDS[kind]
    modules = [importlib.import_module(name) for name in (spec.module, *spec.more)]
    exported = {name: getattr(module, name) for module in modules for name in module.__all__}
    mro = [cls for thing in exported.values() if inspect.isclass(thing) for cls in thing.__mro__]
    base = next(cls for cls in mro if cls.__name__ == spec.base)
    return {
        name: cls
        for name, cls in exported.items()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and cls is not base
        and not inspect.isabstract(cls)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_exported_part_is_found(kind):
    assert {entry.qualname for entry in catalog.everything(kind).values()} == set(concrete(kind))
    assert catalog.KINDS[kind].default in catalog.choices(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_those_of_the_class(kind):
    for entry in catalog.choices(kind).values():
        signature = inspect.signature(concrete(kind)[entry.qualname].__init__).parameters
        for argument in entry.arguments:
            parameter = signature[argument.name]
            assert argument.variadic == (parameter.kind is parameter.VAR_POSITIONAL), entry.name
            if not argument.variadic:
                expected = (
                    catalog.REQUIRED if parameter.default is parameter.empty else parameter.default
                )
                assert argument.default == expected, (entry.name, argument.name)
        known = {a.name for a in entry.arguments} | set(entry.unwritable)
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        # All of them, so that no option is missing from the command line.
        assert {n for n, p in signature.items() if p.kind not in variadic} - {"self"} <= known, (
            entry.name
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_and_argument_is_described(kind):
    for entry in catalog.choices(kind).values():
        assert entry.summary, entry.name
        silent = [a.name for a in entry.arguments if not a.help]
        assert not silent, f"{entry.qualname} does not describe {silent} under Args"


@pytest.mark.parametrize("kind", KINDS)
def test_parts_build_with_their_defaults(kind):
    for entry in catalog.choices(kind).values():
        widths = {a.name: (4,) for a in entry.arguments if a.variadic}
        if any(a.default is catalog.REQUIRED for a in entry.arguments):
            continue
        assert type(entry.build(**widths)).__name__ == entry.qualname


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GaussianMixture", "gaussian-mixture"),
        ("AnalyticKL", "analytic-kl"),
        ("DReG", "dreg"),
        ("IWAE", "iwae"),
        ("GatedMLP", "gated-mlp"),
        ("StudentT", "student-t"),
        ("ZeroInflatedNegativeBinomial", "zero-inflated-negative-binomial"),
    ],
)
def test_names(name, expected):
    assert catalog.kebab(name) == expected


def test_names_are_distinct():
    for kind in KINDS:
        plain = [name.replace("-", "") for name in catalog.choices(kind)]
        assert len(set(plain)) == len(plain)


@pytest.mark.parametrize(
    "spelling", ["StandardNormal", "standard_normal", "standard-normal", "STANDARDNORMAL"]
)
def test_spelling_does_not_matter(spelling):
    assert catalog.find("prior", spelling).qualname == "StandardNormal"


def test_unknown_part_names_the_choices():
    with pytest.raises(
        ValueError, match=r"Unknown prior 'vmap'.*standard-normal.*Did you mean vamp"
    ):
        catalog.find("prior", "vmap")


USER = '''
import torch
import pyro.distributions as dist
from pyrovae.priors import Prior
from pyrovae import priors


class Wide(Prior):
    """A wide prior.

    Args:
        scale, unused: How wide,
            in all directions.
        names: Some words.
    """

    def __init__(self, scale: float = 3.0, unused: "int | None" = None, *, names: tuple[str, ...] = ("a",)):
        super().__init__()
        self.scale = scale

    def build(self):
        self.register_buffer("zeros", torch.zeros(self.latent_dim))

    def forward(self):
        return dist.Normal(self.zeros, self.scale).to_event(1)


class Same(priors.StandardNormal):
    """Inherits."""


class Of(Prior):
    """Takes what no text can say."""

    def __init__(self, parts: list[Prior], scale=2.0):
        super().__init__()
'''


def test_a_users_own_part(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(USER)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_parts:Wide", f"{tmp_path / 'own_parts.py'}:Wide"):
        entry = catalog.find("prior", name)
        described = {a.name: (a.type, a.default, a.help) for a in entry.arguments}
        assert described == {
            "scale": (float, 3.0, "How wide, in all directions."),
            "unused": (int | None, None, "How wide, in all directions."),
            "names": (tuple[str, ...], ("a",), "Some words."),
        }
        assert entry.build(scale=1.5).scale == 1.5
    assert catalog.find("prior", "own_parts:Same").arguments == ()
    only_python = catalog.find("prior", "own_parts:Of")
    assert only_python.unwritable == ("parts",)
    with pytest.raises(ValueError, match="parts, which only Python can give"):
        only_python.build()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Wide", "no such module"),
        ("nowhere/own.py:Wide", "no such file"),
        ("json:Wide", "defines no class 'Wide'"),
    ],
)
def test_a_users_part_that_is_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        catalog.find("prior", name)
