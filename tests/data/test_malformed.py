"""Each malformed input is used rightly, or refused with what was found and what to do."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas
import polars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyrovae as pv
from pyrovae.data.arguments import as_tensors
from pyrovae.data.batches import as_batches

X = np.arange(12, dtype=np.float32).reshape(4, 3)
HOW = {"device": torch.device("cpu"), "dtype": torch.float32}


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def inference():
    with torch.inference_mode():
        return torch.tensor(X)


def read_only():
    x = X.copy()
    x.flags.writeable = False
    return x


def strided():
    return np.repeat(np.repeat(X, 2, 0), 3, 1)[::-2, ::-3][::-1, ::-1]


USED = {
    "nested lists": lambda: X.tolist(),
    "list of arrays as rows": lambda: [[float(v) for v in row] for row in X],
    "half": lambda: X.astype(np.float16),
    "bfloat16": lambda: torch.tensor(X).bfloat16(),
    "long double": lambda: X.astype(np.longdouble),
    "big-endian": lambda: X.astype(">f8"),
    "negative strides": lambda: X[::-1][::-1],
    "strided": strided,
    "read-only": read_only,
    "non-leaf": lambda: torch.tensor(X, requires_grad=True) * 1,
    "needs gradients": lambda: torch.tensor(X, requires_grad=True),
    "of inference mode": inference,
    "negated view": lambda: torch._neg_view(torch.tensor(-X)),
    "expanded": lambda: torch.tensor(X)[None].expand(1, 4, 3)[0],
    "masked, all seen": lambda: np.ma.masked_array(X, mask=False),
    "numpy matrix": lambda: X.view(np.matrix),
    "has __array__": lambda: SimpleNamespace(__array__=None) and pandas.Index([0.0, 1.0]),
    "pandas": lambda: pandas.DataFrame(X),
    "pandas, nullable": lambda: pandas.DataFrame(X).convert_dtypes(),
    "polars": lambda: polars.DataFrame(X),
    "pyarrow": lambda: polars.DataFrame(X).to_arrow(),
}


@pytest.mark.parametrize("name", USED)
def test_what_is_used(name):
    data = USED[name]()
    (found,) = as_tensors(data, dtype=torch.float32)
    assert not found.requires_grad
    assert not found.is_inference()
    assert (found + 1).dtype == torch.float32
    expected = X if name != "has __array__" else np.array([0.0, 1.0], np.float32)
    np.testing.assert_array_equal(found.numpy(), expected)


SERIES = {
    "pandas integers": (lambda: pandas.Series([2, 0, 1]), torch.int64),
    "pandas nullable integers": (lambda: pandas.Series([2, 0, 1], dtype="Int64"), torch.int64),
    "pandas nullable floats": (lambda: pandas.Series([2, 0, 1], dtype="Float32"), torch.float64),
    "polars integers": (lambda: polars.Series([2, 0, 1]), torch.int64),
    "polars floats": (lambda: polars.Series([2.0, 0, 1]), torch.float64),
    "pyarrow": (lambda: polars.Series([2, 0, 1]).to_arrow(), None),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_of_integers_stay_labels(name):
    make, dtype = SERIES[name]
    if dtype is None:
        pytest.importorskip("pyarrow")
        import pyarrow

        data, dtype = pyarrow.chunked_array([[2, 0, 1]]), torch.int64
    else:
        data = make()
    (found,) = as_tensors(data)
    assert found.tolist() == [2, 0, 1]
    assert found.is_floating_point() == dtype.is_floating_point


REFUSED = {
    "masked": (lambda: np.ma.masked_array(X, mask=X > 9), r"2 values are masked.*\.filled"),
    "complex": (lambda: X.astype(complex), "complex128.*real and the imaginary"),
    "meta": (lambda: torch.empty(3, 2, device="meta"), "meta tensor.*Load the values"),
    "nested": (nested, "nested tensor.*to_padded_tensor"),
    "ragged": (lambda: [[1.0], [1.0, 2.0]], "lists of unequal lengths. Pad"),
    "empty": (lambda: np.zeros((0, 3)), r"empty: shapes \[\(0, 3\)\]"),
    "empty list": (list, "are empty: shapes"),
    "empty tuple": (tuple, "are empty: shapes"),
    "no elements": (lambda: np.zeros((3, 0)), r"hold no numbers: shape \(3, 0\)"),
    "a number": (lambda: 3.0, "must be an array.*found float"),
    "zero-dimensional": (lambda: np.array(3.0), r"empty: shapes \[\(\)\].*counts the data"),
    "absurd": (lambda: np.broadcast_to(np.float32(0), (2**40, 784)), "GiB.*mmap_mode"),
    "absurd tensor": (lambda: torch.zeros(1).expand(2**40, 784), "GiB.*mmap_mode"),
    "objects": (lambda: np.array([[1], [1, 2]], dtype=object), r"dtype object.*astype\(float\)"),
    "text": (lambda: np.array([["a", "b"]]), r"hold text.*astype\(float\)"),
    "lists of text": (lambda: [["a", "b"]], "hold text"),
    "a word": (lambda: "digits", r"must be an array.*found str\. Read .* by pv\.data\.load"),
    "all its parts": (lambda: pv.data.split(X), r"found Splits\. .* such as \.train"),
    "nothing": (lambda: None, "must be an array.*found NoneType"),
    "a dictionary": (lambda: {"x": X}, "keys 'x'. Give a tuple"),
    "a generator": (lambda: (x for x in X), "once only, found generator.*IterableDataset"),
    "a lazy frame": (lambda: polars.DataFrame(X).lazy(), r"lazy frame.*\.collect\(\)"),
    "dates": (lambda: np.array(["2020"], dtype="datetime64[Y]"), "datetime64.*dates to numbers"),
    "records": (lambda: np.zeros(3, dtype=[("a", "f4")]), "no numeric dtype.*records as columns"),
    "huge integers": (lambda: np.array([[2**63]], dtype=np.uint64), "do not fit.*float64"),
    "NaN": (lambda: np.array([[1.0], [np.nan]]), "NaN or infinite values, in 1 of 2.*index 1"),
    "infinite": (lambda: np.array([[1.0], [-np.inf]]), "NaN or infinite values, in 1 of 2"),
    "lengths": (lambda: (X, X[:3]), r"different lengths: \[4, 3\]"),
    "words in a frame": (
        lambda: pandas.DataFrame({"a": [1], "b": ["x"]}), r"without numbers: 'b' \(String\)"),
    "gaps in a frame": (
        lambda: polars.DataFrame({"a": [1, None], "b": [1.0, 2.0]}), "missing cells: 1 in 'a'"),
    "NaN in a frame": (lambda: pandas.DataFrame({"a": [np.nan, 1.0]}), "missing cells: 1 in 'a'"),
    "names twice": (
        lambda: pandas.DataFrame(X, columns=["a", "a", "b"]), "two columns of one name"),
    "categories": (lambda: pandas.Series(["a", "b"], dtype="category"), "labels or one column"),
    "no columns": (pandas.DataFrame, "are empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        as_tensors(make(), name="train")


def test_missing_cells_come_through_where_they_are_asked_for():
    frame = polars.DataFrame({"a": [1, None], "b": [None, 2.0]})
    (found,) = as_tensors(frame, missing=True)
    np.testing.assert_array_equal(found.numpy(), [[1, np.nan], [np.nan, 2]])
    with pytest.raises(ValueError, match="infinite values, in 1 of 2"):
        as_tensors(np.array([[np.nan], [np.inf]]), missing=True)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    def __init__(self, items, once=False):
        self.items = iter(items) if once else items

    def __iter__(self):
        return iter(self.items)


class NoLength(Dataset):
    def __getitem__(self, index):
        return torch.ones(3)


ROWS = [torch.ones(3) for _ in range(6)]
LOADERS = {
    "empty dataset": (lambda: Items([]), "empty: a dataset of length 0"),
    "empty loader": (lambda: DataLoader(Items([])), "empty: the loader's dataset has length 0"),
    "drop_last": (
        lambda: DataLoader(Items(ROWS), 10, drop_last=True), "6 data, fewer than its batch_size"),
    "empty stream": (lambda: Stream([]), "gave no batch.*start anew"),
    "dictionaries": (lambda: Items([{"x": r, "y": r} for r in ROWS]), "keys 'x', 'y'.*a tuple"),
    "shapes in a batch": (lambda: Items([torch.ones(2), torch.ones(3)]), "different shapes.*pad"),
    "shapes over batches": (
        lambda: DataLoader([torch.ones(3)] * 8 + [torch.ones(2)] * 2, 4),
        r"Batch 2 .* has data of shape \(2,\), and those before had \(3,\)"),
    "objects": (lambda: Items([object()] * 3), "items that make no batch: found.*collate_fn"),
    "words": (lambda: Items(["a", "b"]), "hold text|must be"),
    "no batches": (lambda: DataLoader(Items(ROWS), batch_size=None), "single number|VAE|shape"),
    "numbers": (lambda: DataLoader([1.0, 2.0], batch_size=None), "must be an array|single number"),
    "lengths": (
        lambda: DataLoader(ROWS, 2, collate_fn=lambda b: (torch.ones(2, 3), torch.ones(1))),
        r"different lengths: \[2, 1\]"),
    "empty batches": (
        lambda: DataLoader(ROWS, 2, collate_fn=lambda b: torch.ones(0, 3)), "Batch 0.*no data"),
    "empty tuples": (lambda: DataLoader(ROWS, 2, collate_fn=lambda b: ()), "holds nothing"),
    "NaN": (lambda: Items([torch.ones(3), torch.full((3,), torch.nan)]), "Batch 0.*NaN"),
    "complex": (lambda: Items([torch.ones(3) * 1j] * 2), "Batch 0.*complex"),
    "no length": (NoLength, "NoLength without a length. Define __len__"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_that_are_refused(name):
    make, message = LOADERS[name]
    vae = pv.VAE(3, 2, likelihood=pv.likelihoods.Gaussian(), encoder=pv.nets.MLP(4))
    with pytest.raises((TypeError, ValueError), match=message):
        pv.fit(
            lambda *x: vae.model(*x),
            lambda *x: vae.guide(*x),
            make(),
            epochs=1,
            batch_size=4,
            capture=False,
        )


def test_a_stream_without_a_length_trains_and_one_that_is_used_up_is_named():
    vae = pv.VAE(3, 2, likelihood=pv.likelihoods.Gaussian(), encoder=pv.nets.MLP(4))
    history = vae.fit(Stream(ROWS), valid=Stream(ROWS), epochs=2, batch_size=4, capture=False)
    assert len(history) == 2
    with pytest.raises(ValueError, match=r"gave no batch.*start anew at each iteration"):
        vae.fit(Stream(ROWS, once=True), epochs=2, batch_size=4, capture=False)


@st.composite
def cuts(draw):
    """Data and the sizes of the batches in which a loader gives them."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    shape = draw(st.sampled_from([(), (1,), (2, 3)]))
    columns = draw(st.integers(1, 3))
    kinds = [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
    dtypes = [draw(st.sampled_from(kinds)) for _ in range(columns)]
    form = draw(st.sampled_from(["tensor", "array", "list"]))
    return sizes, shape, dtypes, form


@given(cuts(), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_loader_gives_its_data_in_order(made, kept, stream):
    sizes, shape, dtypes, form = made
    numbers = torch.arange(sum(sizes) * int(np.prod(shape))).reshape(sum(sizes), *shape)
    whole = [(numbers % 2).to(dtype) for dtype in dtypes]
    batches = list(zip(*(column.split(sizes) for column in whole), strict=True))

    def collate(items):
        (item,) = items
        given = [x.numpy() if form == "array" else x for x in item]
        if form == "list":
            given = [x.tolist() for x in item]
        return given[0] if len(given) == 1 and form != "list" else tuple(given)

    source = Stream(batches) if stream else Items(batches)
    loader = DataLoader(source, 1, collate_fn=collate)
    programs = [lambda *x: x, lambda x: x, lambda x, y: x, lambda x, y, z: x]
    found = list(as_batches(loader, 1, shuffle=False, programs=[programs[kept]], **HOW))
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    assert [len(batch[0]) for batch in found] == sizes
    assert len(columns) == min(kept, len(dtypes))
    for column, expected in zip(columns, whole, strict=False):
        assert column.dtype == (torch.float32 if column.is_floating_point() else column.dtype)
        assert torch.equal(column.double(), expected.double())


@given(
    st.lists(st.sampled_from(["good", "short", "nan", "dict", "empty", "none"]), min_size=1,
             max_size=4)
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_bad_batch_is_named_by_its_number(kinds):
    made = {
        "good": torch.ones(2, 3),
        "short": torch.ones(2, 2),
        "nan": torch.full((2, 3), torch.nan),
        "dict": {"x": torch.ones(2, 3)},
        "empty": torch.ones(0, 3),
        "none": None,
    }
    loader = DataLoader(Items(["good", *kinds]), 1, collate_fn=lambda items: made[items[0]])
    bad = next((i for i, kind in enumerate(kinds) if kind != "good"), None)
    batches = as_batches(loader, 1, shuffle=False, programs=[lambda x: x], **HOW)
    if bad is None:
        assert len(list(batches)) == 1 + len(kinds)
        return
    with pytest.raises((TypeError, ValueError), match=f"Batch {bad + 1} of the data"):
        list(batches)


def test_every_function_takes_what_people_hold():
    torch.manual_seed(0)
    vae = pv.VAE(3, 2, likelihood=pv.likelihoods.Gaussian(0.5), encoder=pv.nets.MLP(4))
    x = torch.tensor(X) / 10
    expected = vae.encode(x).mean
    estimator = pv.estimators.AnalyticKL()
    forms = [(X / 10).astype(float), pandas.DataFrame(X / 10), polars.DataFrame(X / 10),
             (X / 10).tolist(), TensorDataset(x)]  # fmt: skip
    for form in forms[:-1]:
        torch.testing.assert_close(vae.encode(form).mean, expected)
        assert vae.reconstruct(form).shape == (4, 3)
        vae.initialize_from(form)
        found = pv.log_marginal(vae.model, vae.guide, form, num_particles=3)
        same = pv.log_marginal(vae.model, vae.guide, x, num_particles=3)
        np.testing.assert_array_equal(found.log_marginal, same.log_marginal)
        torch.manual_seed(1)
        bound = estimator.bound(vae.model, vae.guide, form)
        torch.manual_seed(1)
        torch.testing.assert_close(bound, estimator.bound(vae.model, vae.guide, x))
    for form in forms:
        vae.fit(form, epochs=1, capture=False, device="cpu")
    labelled = TensorDataset(x, torch.arange(4))
    estimators, how = {"ELBO": pv.estimators.ELBO()}, {"num_replicates": 4, "reference": 0.0}
    for form in (forms[1], labelled, DataLoader(labelled, 3)):
        weights = [*vae.initialize_from(form).state_dict().values()]
        again = [*vae.initialize_from(x).state_dict().values()]
        torch.testing.assert_close(weights, again)
        pv.compare_estimators(
            vae.model, vae.guide, form, estimators, gradient_reference=False, **how
        )
