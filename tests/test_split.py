"""Splits by whole groups: which groups are taken, shares, what goes together, what does not matter."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saistudy.data import fasdd, index, split
from saistudy.paths import Refusal

sizes = st.lists(st.integers(1, 30), min_size=3, max_size=40)


def _dataset(sizes, name="any", phash=None):
    """Groups g0, g1, ... of these sizes, no two images alike."""
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"image": [f"a{i:05d}.jpg" for i in range(len(groups))], "group": groups})
    rows["phash"] = rng.integers(0, 2**63, len(rows), dtype=np.uint64) if phash is None else phash
    rows["split"] = "train"
    empty = pd.DataFrame(columns=index.NOTES)
    return index.Dataset(name, rows, empty, len(rows), {0: "smoke"}, "synthetic", lambda image: b"")


def _counts(dataset):
    return dataset.rows["split"].value_counts().to_dict()


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from([None, (1 / 6, 1 / 6), (0.2, 0.1)]))
def test_whole_groups_and_shares_within_the_largest_group(sizes, fractions):
    dataset = _dataset(sizes)
    apart = split.disjoint(dataset, fractions)
    assert (apart.rows.groupby("group")["split"].nunique() == 1).all()
    assert apart.rows["image"].tolist() == dataset.rows["image"].tolist()
    counts, test_frac, val_frac = _counts(apart), *(fractions or (0.1, 0.1))
    assert set(counts) == {"train", "val", "test"}
    for name, frac in (("test", test_frac), ("val", val_frac)):
        target_n = frac * sum(sizes)
        assert abs(counts[name] - target_n) <= max(sizes)
        # At most twice the share, unless every single group is larger.
        assert counts[name] <= 2 * target_n or counts[name] in sizes


@settings(max_examples=30, deadline=None)
@given(sizes, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(sizes, random):
    dataset = _dataset(sizes)
    order = list(range(len(dataset.rows)))
    random.shuffle(order)
    shuffled = index.Dataset(**{**vars(dataset), "rows": dataset.rows.iloc[order]})
    one = split.disjoint(dataset).rows.set_index("image")["split"]
    other = split.disjoint(shuffled).rows.set_index("image")["split"]
    pd.testing.assert_series_equal(one, other.sort_index())


def test_groups_are_taken_in_hash_order_until_the_target():
    sizes = {"a": 1, "b": 1, "c": 1, "d": 97}
    # sha256 of a, b, c, d begins with ca, 3e, 2e, 18 (sha256sum), so the order is d, c, b, a.
    assert split.cut(sizes, 10) == {"d"}
    assert split.cut(sizes, 97.5) == {"d", "c"}
    assert split.cut(sizes, 1000) == {"d", "c", "b"}
    assert split.cut(sizes, 0) == {"d"}
    # The giant is passed over, but not where it is all that there is.
    assert split.cut(sizes, 2, most_n=4) == {"c", "b"}
    assert split.cut({"d": 97, "a": 98}, 2, most_n=4) == {"d"}


def test_one_giant_group_stays_in_train():
    apart = split.disjoint(_dataset([900, *[1] * 100]))
    assert set(apart.rows.loc[apart.rows["group"] == "g0", "split"]) == {"train"}
    assert _counts(apart)["val"] >= 1 and _counts(apart)["train"] >= 900


def test_shares_of_fasdd_are_the_published_ones():
    apart = split.disjoint(_dataset([1] * 1200, fasdd.NAME))
    assert apart.name == "fasdd_cv-disjoint"
    assert _counts(apart) == {"train": 800, "val": 200, "test": 200}
    assert _counts(split.disjoint(_dataset([1] * 1200))) == {"train": 960, "val": 120, "test": 120}


def test_groups_with_a_view_in_common_go_together():
    phash = np.random.default_rng(0).integers(0, 2**63, 70, dtype=np.uint64)
    # The first pictures of groups 0 to 4 form a chain of steps of 6 bits, 24 bits from end to end.
    for group in range(1, 5):
        phash[group * 10] = phash[(group - 1) * 10] ^ np.uint64(0b111111 << (6 * group))
    rows = split.disjoint(_dataset([10] * 6 + [1] * 10, phash=phash), (0.2, 0.1)).rows
    chain = rows["group"].isin([f"g{number}" for number in range(5)])
    assert rows[chain]["split"].nunique() == 1
    # Without the chain these five groups are not all on one side.
    plain = split.disjoint(_dataset([10] * 6 + [1] * 10), (0.2, 0.1)).rows
    assert plain[chain]["split"].nunique() > 1


def test_too_few_groups():
    with pytest.raises(Refusal, match="any: its 2 groups are only 2 where"):
        split.disjoint(_dataset([5, 5]))
    # Three names, but one view in all of them.
    with pytest.raises(Refusal, match="any: its 3 groups are only 1 where"):
        split.disjoint(_dataset([5, 5, 5], phash=np.uint64(7)))
    with pytest.raises(Refusal, match=r"1 group\(s\) \(a\) found where at least 2 were expected"):
        split.cut({"a": 5}, 1)


@pytest.mark.parametrize("fractions", [(0, 0.1), (0.5, 0.5), (-0.1, 0.3)])
def test_shares_that_leave_nothing(fractions):
    with pytest.raises(Refusal, match="both above 0 and less than 1 together"):
        split.disjoint(_dataset([5] * 9), fractions)
