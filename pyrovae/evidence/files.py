"""Evidence in ArviZ's schema, and in netCDF files."""

from os import PathLike
from typing import TYPE_CHECKING

import pyrovae

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "to_datatree"]


def to_datatree(dataset: "xarray.Dataset") -> "xarray.DataTree":
    """``log_likelihood`` with one chain and draw, and a group ``evidence`` with everything."""
    import arviz_base
    import xarray

    tree = arviz_base.from_dict(
        {"log_likelihood": {"x": dataset["log_marginal"].values[None, None]}},
        dims={"x": ["datum"]},
        coords={"datum": dataset["datum"].values},
    )
    tree["evidence"] = xarray.DataTree(dataset)
    tree.attrs.update(creation_library="pyrovae", creation_library_version=pyrovae.__version__)
    return tree


def read(path: "str | PathLike[str]") -> "xarray.Dataset":
    """The group ``evidence`` of a file."""
    import xarray

    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            if "evidence" not in tree.children:
                raise ValueError(
                    f"{path} holds the groups {list(tree.children)}, expected 'evidence'."
                )
            return tree["evidence"].to_dataset().load()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is not a netCDF file that can be read ({error}).") from error
