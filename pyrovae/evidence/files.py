"""Evidence in ArviZ's schema, and in netCDF files."""

import hashlib
import io
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pyrovae
from pyrovae import files

if TYPE_CHECKING:
    import xarray

__all__ = ["read", "to_datatree", "write"]

_SEAL = b"\npyrovae sha256 "  # and 64 digits, at the end, where readers of netCDF look no more


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


def write(dataset: "xarray.Dataset", path: "str | PathLike[str]") -> None:
    """Write :func:`to_datatree` to a file, with a checksum at its end; whole or not at all."""
    # In memory first: the library that writes the format does not outlive a full disk.
    content = bytes(to_datatree(dataset).to_netcdf(engine="h5netcdf"))  # type: ignore[arg-type]
    files.write(Path(path), content + _SEAL + hashlib.sha256(content).hexdigest().encode())


def read(path: "str | PathLike[str]") -> "xarray.Dataset":
    """The group ``evidence`` of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        PermissionError: If it may not be read.
        ValueError: If it is damaged, or holds something else.
    """
    import xarray

    content, seal, digest = Path(path).read_bytes().rpartition(_SEAL)
    if seal and hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged: its checksum does not match its content.")
    try:
        with xarray.open_datatree(io.BytesIO(content or digest), engine="h5netcdf") as tree:
            groups = list(tree.children)
            found = tree["evidence"].to_dataset().load() if "evidence" in groups else None
    except Exception as error:  # of many kinds: the library trusts what a file says of itself
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a netCDF file that can be read ({said}).") from error
    if found is None:
        raise ValueError(f"{path} holds the groups {groups}, expected 'evidence'.")
    missing = [name for name in ("data", "method", "num_dims") if name not in found.attrs]
    if missing or "log_marginal" not in found:
        raise ValueError(
            f"{path} lacks {', '.join(missing) or 'log_marginal'}, which evidence has."
        )
    return found
