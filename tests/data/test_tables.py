"""Tables, AnnData files and image folders come in as they are, and results go back."""

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.testing import assert_close

from pyrovae import data
from pyrovae.data import rows as rows_module
from pyrovae.data.frames import from_frame, read_frame
from pyrovae.data.rows import Rows


@pytest.fixture
def frame():
    random = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "height": random.normal(size=30),
            "weight": random.normal(size=30).astype(np.float32),
            "count": random.integers(0, 9, 30),
            "kind": ["eel", *random.choice(["cat", "dog", "eel"], 29)],
            "site": random.choice(["north", "south"], 30),
        }
    )


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def rejoined(splits):
    """All data with their labels, in an order that does not depend on the split."""
    x = torch.cat([splits.train, splits.valid, splits.test])
    y = torch.cat(splits.labels)
    order = x[:, 0].argsort()
    return x[order], y[order]


@pytest.fixture(params=["polars", "pandas", "pyarrow"])
def library(request, monkeypatch):
    """The library of tables, as if no other was installed."""
    import importlib.util

    find = importlib.util.find_spec
    others = {"polars", "pandas", "pyarrow"} - {request.param}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in others else find(name)
    )
    return request.param


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_by_each_library(tmp_path, frame, suffix, library):
    path = tmp_path / f"animals{suffix}"
    write(frame, path)
    splits = data.load(path, labels="kind", columns=["height", "weight", "count"])
    assert (splits.name, splits.data_shape, splits.levels) == ("animals", (3,), None)
    assert splits.classes == ("cat", "dog", "eel")
    sorted_frame = frame.sort_values("height")
    x, y = rejoined(splits)
    np.testing.assert_allclose(x, sorted_frame[["height", "weight", "count"]], rtol=1e-6)
    assert [splits.classes[i] for i in y] == sorted_frame["kind"].tolist()
    given = data.load(path, covariates=["kind", "count"], columns=["height", "weight"])
    assert given.condition_dim == 4
    _, y = rejoined(given)
    expected = np.column_stack([pandas.get_dummies(sorted_frame["kind"]), sorted_frame["count"]])
    np.testing.assert_array_equal(y, expected.astype(np.float32))


@pytest.mark.parametrize(
    "make",
    [pandas.DataFrame, polars.from_pandas, pyarrow.Table.from_pandas],
    ids=["pandas", "polars", "pyarrow"],
)
def test_whole_numbers_beyond_double_precision_are_rounded(make):
    ids = pandas.array([2**60 + 1, None, 3], dtype="Int64")
    frame = make(pandas.DataFrame({"id": ids, "x": [0.5, 1.0, 1.5]}))
    expected = [[2.0**60, 0.5], [np.nan, 1.0], [3.0, 1.5]]
    np.testing.assert_array_equal(from_frame(frame, "data", missing=True), expected)


def test_what_stands_for_missing_numbers(tmp_path, library):
    """NA, ? and an empty cell among numbers are missing; among texts they are left alone, as far
    as the library leaves them.
    """
    lines = ["age,income,kind,code", *["31,1.5,cat,a-1"] * 9]
    lines += ["NA,?,dog,b", "40, nan,cat,-", ",3,dog,c"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    frame = read_frame(tmp_path / "a.csv")
    ages, incomes = (
        np.array([np.nan if v is None else float(v) for v in frame[name].to_list()])
        for name in ("age", "income")
    )
    np.testing.assert_array_equal(ages, [31] * 9 + [np.nan, 40, np.nan])
    np.testing.assert_array_equal(incomes, [1.5] * 9 + [np.nan, np.nan, 3])
    assert frame["kind"].to_list() == ["cat"] * 9 + ["dog", "cat", "dog"]
    assert frame["code"].to_list()[-3:] == ["b", "-", "c"]
    with pytest.raises(ValueError, match=r"missing cells: 2 in 'age', 2 in 'income'"):
        data.load(tmp_path / "a.csv", columns=["age", "income"])


def test_codes_with_underscores_are_no_numbers(tmp_path, library):
    (tmp_path / "a.csv").write_text("a_1,code\n" + "1.5,1_2\n2,3_4\n" * 9)
    assert read_frame(tmp_path / "a.csv")["code"].to_list() == ["1_2", "3_4"] * 9
    assert data.load(tmp_path / "a.csv", labels="code").classes == ("1_2", "3_4")
    with pytest.raises(TypeError, match="without numbers: 'code'"):
        data.load(tmp_path / "a.csv")


def test_whole_numbers_beyond_64_bits(tmp_path, library):
    """Each library has a type of its own for them."""
    (tmp_path / "a.csv").write_text("a,b\n" + "12345678901234567890123,2\n3,4\n" * 6)
    splits = data.load(tmp_path / "a.csv")
    found = torch.cat([splits.train, splits.valid, splits.test])[:, 0].double()
    assert_close(
        found.sort().values, torch.tensor([3.0] * 6 + [1.2345678901234568e22] * 6).double()
    )


def test_columns_that_are_separated_otherwise(tmp_path, library):
    (tmp_path / "a.csv").write_text("a;b\n1,5;2\n")
    with pytest.raises(ValueError, match=r"has semicolons .* commas as \.csv"):
        data.load(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match=r"has tabs .* tabs as \.tsv"):
        data.load(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("only\n" + "1\n2\n" * 20)
    assert data.load(tmp_path / "c.csv").data_shape == (1,)


def test_images_of_several_sizes(tmp_path):
    for i, shape in enumerate([(8, 8), (6, 6)]):
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"one size: 0\.png is 8 x 8, 1\.png .* shrink these sq"):
        data.load(tmp_path)
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match="Crop or resize them to one size first"):
        data.load(tmp_path)


def test_no_library_that_reads_tables(tmp_path, monkeypatch, frame):
    import importlib.util

    write(frame, tmp_path / "a.csv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pyrovae\[tables\]"):
        data.load(tmp_path / "a.csv")


BAD = {
    "text": ("a,b\n1,x\n2,y\n", {}, "without numbers: 'b' .*columns= .*labels="),
    "gap": ("a,b\n1,\n2,3\n", {}, "missing cells: 1 in 'b'"),
    "no names": ("1.5,2.5\n3,4\n", {}, "first line .* holds numbers"),
    "index": (",a\n0,5\n1,6\n", {}, "counts the rows.*index=False"),
    "no column": ("a,b\n1,2\n", {"labels": "c"}, "no column 'c': found 'a', 'b'"),
    "nothing left": ("a\n1\n", {"labels": "a"}, "no column of data"),
    "real labels": ("a,b\n1,2.5\n", {"labels": "b"}, "found real numbers.*covariates"),
    "no label": ("a,b\n1,x\n2,\n", {"labels": "b"}, "1 labels are missing"),
    "two conditions": ("a,b,c\n1,2,3\n", {"labels": "b", "covariates": ["c"]}, "one of them"),
    "layer": ("a\n1\n", {"layer": "counts"}, "layer= does not go with"),
    "empty": ("", {}, "Cannot read|empty"),
    "no rows": ("a,b\n", {}, "has no rows, only the names of 2 columns"),
    "one row": ("a,b\n1,2\n", {}, "test_size=1 of 1 data leaves a part empty"),
    "bytes": ("\x00\x01PAR\x02,\n\x03", {}, "Cannot read|first line|without numbers"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_tables(tmp_path, kind):
    text, options, message = BAD[kind]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises((TypeError, ValueError), match=message):
        data.load(tmp_path / "bad.csv", **options)


def test_bad_parquet_and_bad_h5ad(tmp_path):
    for name in ("bad.parquet", "bad.h5ad"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=f"Cannot read .*{name}"):
            data.load(tmp_path / name)


@pytest.fixture
def cells():
    anndata = pytest.importorskip("anndata")
    random = np.random.default_rng(0)
    counts = scipy.sparse.csr_matrix(random.poisson(0.5, (40, 12)).astype(np.float32))
    obs = pandas.DataFrame(
        {"kind": pandas.Categorical(random.choice(["B", "A"], 40)), "age": np.arange(40.0)},
        index=[f"cell{i}" for i in range(40)],
    )
    found = anndata.AnnData(counts.copy(), obs=obs, layers={"raw": counts})
    found.X = scipy.sparse.csr_matrix(found.X.multiply(0.5))
    return found


@pytest.mark.parametrize("backed", [False, True])
def test_an_annotated_file(tmp_path, monkeypatch, cells, backed):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    if backed:
        monkeypatch.setattr(rows_module, "IN_MEMORY", -1)
    found = {
        layer: data.load(tmp_path / "cells.h5ad", layer=layer, covariates=["age"])
        for layer in (None, "raw")
    }
    for layer, factor in ((None, 0.5), ("raw", 1.0)):
        splits = found[layer]
        assert isinstance(splits.train, Rows) == backed
        for part, age in zip((splits.train, splits.test), splits.labels[::2], strict=True):
            rows = cells.layers["raw"][age[:, 0].int().numpy()].toarray()
            np.testing.assert_allclose(part[:], factor * rows)
    splits = data.load(tmp_path / "cells.h5ad", labels="kind")
    assert splits.classes == ("A", "B")
    with pytest.raises(ValueError, match="no layer 'spliced': found raw"):
        data.load(tmp_path / "cells.h5ad", layer="spliced")
    with pytest.raises(ValueError, match="columns= does not go with"):
        data.load(tmp_path / "cells.h5ad", columns=["g"])


def test_annotated_data_and_frames_are_split(cells, frame):
    dense = cells.X.toarray()
    splits = data.split(cells, cells.obs["age"].to_numpy().astype(int))
    for part, y in zip((splits.train, splits.valid), splits.labels, strict=False):
        np.testing.assert_allclose(part, dense[y])
    numeric = frame[["height", "weight"]]
    splits = data.split(numeric, frame["count"])
    assert splits.data_shape == (2,)
    assert splits.labels[0].dtype == torch.int64


def test_results_go_back_in_the_form_of_the_data(cells, frame):
    codes = torch.arange(80.0).reshape(40, 2)
    assert data.as_given(codes, cells) is cells
    np.testing.assert_array_equal(cells.obsm["X_z"], codes)
    data.as_given(codes[:, 0], cells, "log_marginal")
    np.testing.assert_array_equal(cells.obs["log_marginal"], codes[:, 0])
    indexed = frame.set_index(pandas.Index(np.arange(30) + 100))
    found = data.as_given(codes[:30], indexed)
    assert isinstance(found, pandas.DataFrame)
    assert found.columns.tolist() == ["z0", "z1"]
    assert found.index.tolist() == indexed.index.tolist()
    np.testing.assert_array_equal(found, codes[:30])
    assert data.as_given(codes[:30, 0], indexed["height"], "score").columns.tolist() == ["score"]
    found = data.as_given(codes[:30].numpy(), (polars.DataFrame(frame), np.zeros(30)))
    assert isinstance(found, polars.DataFrame)
    assert found.columns == ["z0", "z1"]
    assert isinstance(data.as_given(codes, np.zeros((40, 1))), np.ndarray)
    assert isinstance(data.as_given(codes, cells.X), np.ndarray)
    assert isinstance(data.as_given(codes, codes.requires_grad_()), torch.Tensor)
    for given in (cells, indexed):
        with pytest.raises(ValueError, match="There are 3 results for"):
            data.as_given(codes[:3], given)


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_folders_of_classes_give_labels(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 5, 4), dtype=np.uint8)
    for i, image in enumerate(pixels):
        save(image, tmp_path / "all" / "bca"[i % 3] / f"{i}.png")
        part = "train" if i < 12 else "test"
        save(image, tmp_path / "parts" / part / "bca"[i % 3] / f"{i}.png")
    class_of = {x.tobytes(): "bca"[i % 3] for i, x in enumerate(pixels)}
    for folder in ("all", "parts"):
        splits = data.load(tmp_path / folder)
        assert splits.classes == ("a", "b", "c")
        for part, y in zip((splits.train, splits.valid, splits.test), splits.labels, strict=True):
            images = (part * 255).round().to(torch.uint8).numpy()
            assert [class_of[x.tobytes()] for x in images] == [splits.classes[i] for i in y]
    save(pixels[0], tmp_path / "all" / "beside.png")
    assert data.load(tmp_path / "all").labels is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_images_of_every_mode(tmp_path, mode):
    random = np.random.default_rng(0)
    suffix = {"CMYK": "tif", "YCbCr": "tif", "HSV": "tif"}.get(mode, "png")
    for i in range(6):
        image = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8)).convert(mode)
        if mode == "HSV":
            image = image.convert("RGB")
        image.save(tmp_path / f"{i}.{suffix}")
    splits = data.load(tmp_path)
    grey = mode in ("1", "L", "LA")
    assert splits.data_shape == ((6, 5) if grey else (3, 6, 5))
    with Image.open(tmp_path / f"0.{suffix}") as first:
        expected = np.array(first.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    together = torch.cat([splits.train, splits.valid, splits.test])
    wanted = torch.from_numpy(expected if grey else expected.transpose(2, 0, 1).copy())
    assert any(torch.allclose(image, wanted) for image in together)


def test_floating_images_are_scaled_by_their_range(tmp_path):
    values = np.random.default_rng(0).normal(3, 2, (8, 4, 4)).astype(np.float32)
    for i, image in enumerate(values):
        save(image, tmp_path / "real" / f"{i}.tif")
        save((image - image.min()) / 100, tmp_path / "unit" / f"{i}.tif")
        save((values[i] * 1e6).astype(np.int32), tmp_path / "wide" / f"{i}.tif")
    low, high = values.min(), values.max()
    for folder, expected in (
        ("real", (values - low) / (high - low)),
        ("unit", np.stack([(image - image.min()) / 100 for image in values])),
        ("wide", (values - low) / (high - low)),
    ):
        splits = data.load(tmp_path / folder)
        found = torch.cat([splits.train, splits.valid, splits.test]).flatten().sort().values
        np.testing.assert_allclose(found, np.sort(expected.flatten()), atol=2e-6)
        assert splits.levels is None


@pytest.mark.parametrize("kinds", ["uint8 uint16", "uint16 uint8", "float32 uint8"])
def test_parts_of_different_depths_are_refused(tmp_path, kinds):
    """One part would be scaled by another number than the other, or not at all."""
    for part, kind in zip(("train", "test"), kinds.split(), strict=True):
        for i in range(4):
            image = np.full((4, 4), 40 * (i + 1)).astype(kind)
            save(image, tmp_path / part / f"{i}.{'tif' if kind == 'float32' else 'png'}")
    wanted = " and ".join(sorted(kinds.split()))
    with pytest.raises(ValueError, match=f"different kinds: {wanted}.*Convert all parts"):
        data.load(tmp_path)
    images = {
        f"x_{p}": np.full((9, 4, 4), 40, k)
        for p, k in zip(("train", "test"), kinds.split(), strict=True)
    }
    np.savez(tmp_path / "a.npz", **images)
    with pytest.raises(ValueError, match="different kinds"):
        data.load(tmp_path / "a.npz")


def test_images_that_are_too_many_for_memory_are_read_in_batches(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        save(image, tmp_path / f"{i:02}.png")
    small = data.load(tmp_path, size=3)
    together = data.load(tmp_path)
    monkeypatch.setattr(rows_module, "IN_MEMORY", -1)
    for whole, options in ((together, {}), (small, {"size": 3})):
        splits = data.load(tmp_path, **options)
        assert isinstance(splits.train, Rows)
        assert splits.levels == 256
        for part in ("train", "valid", "test"):
            assert_close(getattr(splits, part)[:], getattr(whole, part))


def test_images_with_several_frames_are_refused(tmp_path):
    frames = [Image.new("L", (4, 4), 50 * i) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.gif holds 3 frames"):
        data.load(tmp_path)


def test_no_advice_to_load_a_file_unsafely(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    torch.save({"x": np.dtype}, tmp_path / "t.pt")
    for name in ("o.npy", "t.pt"):
        with pytest.raises(ValueError, match="plain arrays") as found:
            data.load(tmp_path / name)
        assert "allow_pickle" not in str(found.value)
        assert "weights_only" not in str(found.value)
