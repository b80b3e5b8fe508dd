"""The loader and what it draws: everything once, streams that do not touch, resumed bit for bit; augmentation."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch.data import DataLoader, RandomCrop, RandomFlip, RandomShift, Subset, TensorDataset, random_split

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
AUGMENTED = (RandomShift(2), RandomFlip(0.5), RandomFlip(0.5, axis=-2), RandomCrop(3))


def images(n=10, size=5):
    return np.arange(n * 3 * size * size, dtype=np.float32).reshape(n, 3, size, size) + 1


def same(one, other):
    assert len(one) == len(other)
    for batch, twin in zip(one, other, strict=True):
        for a, b in zip(batch, twin, strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@given(st.integers(1, 30), st.integers(1, 35), st.booleans(), st.booleans(), st.integers(0, 3))
def test_every_example_once_in_whole_batches(n, size, shuffle, drop_last, seed):
    x, y = np.arange(3.0 * n).reshape(n, 3), np.arange(n)
    if drop_last and size > n:
        with pytest.raises(ValueError, match=f"batch_size {size} with drop_last leaves none of the {n} examples"):
            DataLoader(x, y, batch_size=size, drop_last=True)
        return
    loader = DataLoader(x, y, batch_size=size, shuffle=shuffle, drop_last=drop_last, rng=seed)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        sizes = [len(rows) for _, rows in batches]
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert sizes[-1] == (size if drop_last else n - size * (len(sizes) - 1))
        rows = np.concatenate([rows for _, rows in batches])
        assert len(set(rows)) == len(rows) == (n // size * size if drop_last else n)
        if not shuffle:
            np.testing.assert_array_equal(rows, np.arange(len(rows)))
        for part, taken in batches:
            np.testing.assert_array_equal(part, x[taken])


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 25), st.booleans(), st.booleans())
def test_resumed_after_any_batch_it_goes_on_bit_for_bit(n, size, stop, shuffle, drop_last):
    size = min(size, n)
    x, y = images(n), np.arange(n)
    options = {"batch_size": size, "shuffle": shuffle, "drop_last": drop_last, "transforms": AUGMENTED}
    straight = DataLoader(x, y, **options, rng=7)
    expected = [batch for _ in range(4) for batch in straight]
    loader = DataLoader(x, y, **options, rng=7)
    made, state = [], loader.state_dict()
    while len(made) < stop and len(made) < len(expected) - len(loader):
        for batch in loader:
            made.append(batch)
            state = loader.state_dict()
            if len(made) == stop:
                break
    resumed = DataLoader(x, y, **options, rng=99)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    while len(made) < len(expected):
        made += list(resumed)
    same(made, expected)


def test_a_pass_that_was_left_is_not_gone_on_with():
    loader = DataLoader(np.arange(10), batch_size=3, shuffle=True, rng=0)
    first = next(iter(loader))
    assert len(list(loader)) == 4
    again = DataLoader(np.arange(10), batch_size=3, shuffle=True, rng=0)
    np.testing.assert_array_equal(next(iter(again)), first)


def test_a_second_pass_ends_the_first():
    loader = DataLoader(np.arange(6), batch_size=2)
    first = iter(loader)
    next(first)
    assert len(list(loader)) == 3
    with pytest.raises(RuntimeError, match="use a loader for each"):
        next(first)


class TestStreams:
    def test_the_given_generator_keeps_its_numbers(self):
        rng, untouched = np.random.default_rng(5), np.random.default_rng(5)
        loader = DataLoader(images(), batch_size=2, shuffle=True, transforms=AUGMENTED, rng=rng)
        np.random.seed(1)  # noqa: NPY002 (the old global stream must not move either)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        list(loader)
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        np.testing.assert_array_equal(rng.random(100), untouched.random(100))

    def test_nothing_drawn_elsewhere_changes_it(self):
        def batches(disturb):
            rng = np.random.default_rng(5)
            made = []
            for batch in DataLoader(images(), np.arange(10), batch_size=2, shuffle=True, transforms=AUGMENTED, rng=rng):
                made.append(batch)
                if disturb:
                    rng.random(17)
            return made

        same(batches(True), batches(False))

    def test_two_loaders_of_one_generator_are_independent(self):
        rng = np.random.default_rng(5)
        one, two = (next(iter(DataLoader(np.arange(1000), batch_size=1000, shuffle=True, rng=rng))) for _ in "12")
        assert np.mean(one == two) < 0.02
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.15

    def test_same_seed_same_batches_other_seed_others(self):
        first, second, other = ([*DataLoader(np.arange(50), shuffle=True, rng=seed)] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, second)
        assert first != other
        child = np.random.SeedSequence(1)
        np.testing.assert_array_equal(first, [*DataLoader(np.arange(50), shuffle=True, rng=child)])

    def test_each_epoch_has_its_own_order(self):
        loader = DataLoader(np.arange(50), shuffle=True, rng=1)
        assert list(loader) != list(loader)

    def test_a_generator_without_a_seed_is_refused(self):
        class Entropy(np.random.bit_generator.ISeedSequence):
            def generate_state(self, n_words, dtype=np.uint32):
                return np.ones(n_words, dtype)

        with pytest.raises(TypeError, match="pass a seed"):
            DataLoader(np.arange(3), rng=np.random.Generator(np.random.PCG64(Entropy())))


class TestWhatItTakes:
    def test_one_array_gives_arrays_and_several_tuples(self):
        assert isinstance(next(iter(DataLoader(np.arange(3)))), np.ndarray)
        x, y = next(iter(DataLoader([[1.0], [2.0]], tg.Tensor([3.0, 4.0]), batch_size=2)))
        assert (x.tolist(), y.tolist()) == ([[1.0], [2.0]], [3.0, 4.0])

    def test_batches_are_the_callers(self):
        x = np.arange(6.0)
        for transforms in ((), (lambda part, rng: part,)):
            kept = list(DataLoader(x, batch_size=2, transforms=transforms))
            for batch in kept:
                assert not np.shares_memory(batch, x)
                batch += 100
            assert [batch.tolist() for batch in kept] == [[100, 101], [102, 103], [104, 105]]
        assert x.tolist() == [0, 1, 2, 3, 4, 5]

    def test_any_data_set_that_is_indexed_by_arrays(self):
        class Squares:
            def __len__(self):
                return 4

            def __getitem__(self, rows):
                return rows, rows**2

        assert [(i.tolist(), s.tolist()) for i, s in DataLoader(Squares(), batch_size=3)] == [
            ([0, 1, 2], [0, 1, 4]),
            ([3], [9]),
        ]

    def test_transforms_see_the_first_array_in_turn(self):
        loader = DataLoader(
            np.ones(2), np.ones(2), batch_size=2, transforms=[lambda x, rng: x + 1, lambda x, rng: x * 3]
        )
        assert [part.tolist() for part in next(iter(loader))] == [[6, 6], [1, 1]]

    @pytest.mark.parametrize(
        ("arrays", "options", "message"),
        [
            ((), {}, "same number of examples on their first axis, not none"),
            ((np.zeros((3, 2)), np.zeros(4)), {}, r"not float64\(3, 2\), float64\(4,\)"),
            ((np.array(1.0),), {}, "same number of examples on their first axis"),
            ((np.zeros((0, 2)),), {}, "the data set has no examples"),
            ((np.zeros(3),), {"batch_size": 0}, "batch_size is 0: it must be 1 or more"),
            ((np.zeros(3),), {"batch_size": -2}, "batch_size is -2: it must be 1 or more"),
            ((np.zeros(3),), {"batch_size": 4, "drop_last": True}, "leaves none of the 3 examples: use at most 3"),
        ],
    )
    def test_senseless_ones_are_refused(self, arrays, options, message):
        with pytest.raises(ValueError, match=message):
            DataLoader(*arrays, **options)


class TestState:
    def test_rows_and_advance_are_the_same_epoch(self):
        x = np.arange(11)
        one, two = (DataLoader(x, batch_size=3, shuffle=True, rng=4) for _ in "12")
        for _ in range(2):
            rows = one.rows()
            np.testing.assert_array_equal(rows, np.concatenate(list(two)))
            one.advance(2)
            np.testing.assert_array_equal(one.rows(), rows[6:])
            twin = DataLoader(x, batch_size=3, shuffle=True)
            twin.load_state_dict(one.state_dict())
            twin.advance()
            np.testing.assert_array_equal(np.concatenate(list(twin)), rows[9:])
            np.testing.assert_array_equal(np.concatenate(list(one)), rows[6:])
            assert one.state_dict() == two.state_dict()

    def test_what_does_not_fit_changes_nothing(self):
        loader = DataLoader(np.arange(10), batch_size=3, shuffle=True, rng=0)
        next(iter(loader))
        state, other = loader.state_dict(), DataLoader(np.arange(10), batch_size=3, shuffle=True, rng=1)
        before = other.state_dict()
        for change, message in [
            ({"examples": 9}, "of 9 examples in batches of 3, the loader has 10 in batches of 3"),
            ({"batch_size": 4}, "of 10 examples in batches of 4"),
            ({"batches": 4}, "batch 4 of an epoch of 4"),
            ({"batches": -1}, "batch -1"),
            ({"began": None}, "batch 1 of an epoch"),
            ({"began": {"bit_generator": "MT19937"}}, "of another generator"),
            ({"stream": {"bit_generator": "PCG64"}}, "of another generator"),
            ({"stream": 3}, "of another generator"),
            ({"more": 1}, "no state_dict of a DataLoader"),
        ]:
            with pytest.raises(ValueError, match=message):
                other.load_state_dict(state | change)
            assert other.state_dict() == before
        with pytest.raises(ValueError, match="no state_dict"):
            other.load_state_dict([])


class TestSplit:
    @given(st.integers(1, 40), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 5))
    def test_a_reproducible_partition(self, n, weights, seed):
        total = sum(weights)
        lengths = [n] if not total else [weight / total for weight in weights]
        parts = random_split(np.arange(n), lengths, rng=seed)
        rows = [part[:][0] for part in parts]
        assert sorted(np.concatenate(rows)) == list(range(n))
        if total:
            assert all(abs(len(part) - n * share) <= 1 for part, share in zip(parts, lengths, strict=True))
        for part, twin in zip(rows, random_split(np.arange(n), lengths, rng=seed), strict=True):
            np.testing.assert_array_equal(part, twin[:][0])

    def test_of_several_arrays_and_of_parts(self):
        x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
        train, rest = random_split((x, y), [6, 4], rng=0)
        assert isinstance(train, Subset)
        for a, b in DataLoader(random_split(rest, [3, 1], rng=1)[0], batch_size=2):
            np.testing.assert_array_equal(a, x[b])
            assert not set(b) & set(train[:][1])

    def test_of_one_generator_two_splits_differ(self):
        rng = np.random.default_rng(0)
        one, two = (random_split(np.arange(30), [15, 15], rng=rng)[0].indices for _ in "12")
        assert one.tolist() != two.tolist()

    @pytest.mark.parametrize("lengths", [[3, 3], [11], [-1, 11], [0.5, 0.4], [2.5, 7.5], []])
    def test_lengths_that_do_not_add_up(self, lengths):
        with pytest.raises(ValueError, match="with the sum 10, or shares with the sum 1"):
            random_split(np.arange(10), lengths)


def test_a_data_set_takes_rows_slices_and_masks():
    dataset = TensorDataset(np.arange(5) * 2)
    for rows in (np.array([3, 1]), slice(1, 3), np.array([True, False, True, False, True]), [0, -1]):
        np.testing.assert_array_equal(dataset[rows][0], (np.arange(5) * 2)[rows])


class TestAugmentation:
    @given(SHAPES, st.integers(0, 3), st.integers(0, 9))
    def test_shift_against_a_loop(self, shape, most, seed):
        x = np.random.default_rng(1).random(shape)
        made = RandomShift(most, fill=9.0)(x, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        tops, lefts = rng.integers(0, 2 * most + 1, shape[0]), rng.integers(0, 2 * most + 1, shape[0])
        for image, before, top, left in zip(made, x, tops, lefts, strict=True):
            padded = np.pad(before, ((0, 0), (most, most), (most, most)), constant_values=9.0)
            np.testing.assert_array_equal(image, padded[:, top : top + shape[2], left : left + shape[3]])

    @given(SHAPES, st.integers(0, 2), st.data())
    def test_crop_is_a_part_of_the_image(self, shape, padding, data):
        size = tuple(data.draw(st.integers(1, n + 2 * padding)) for n in shape[2:])
        x = np.random.default_rng(1).random(shape, np.float32)
        made = RandomCrop(size, padding)(x, np.random.default_rng(0))
        assert (made.shape, made.dtype) == ((*shape[:2], *size), np.float32)
        for image, before in zip(made, x, strict=True):
            padded = np.pad(before, ((0, 0), (padding, padding), (padding, padding)))
            room = padded.shape[1] - size[0], padded.shape[2] - size[1]
            places = [(i, j) for i in range(room[0] + 1) for j in range(room[1] + 1)]
            assert any(np.array_equal(image, padded[:, i : i + size[0], j : j + size[1]]) for i, j in places)

    @given(SHAPES, st.sampled_from([-1, -2]), st.sampled_from([0.0, 0.5, 1.0]))
    def test_flip_is_the_image_or_its_mirror(self, shape, axis, p):
        x = np.random.default_rng(1).random(shape)
        made = RandomFlip(p, axis)(x, np.random.default_rng(0))
        for image, before in zip(made, x, strict=True):
            kept, mirrored = np.array_equal(image, before), np.array_equal(image, np.flip(before, axis))
            assert (kept and p < 1) or (mirrored and p > 0)

    def test_every_place_is_drawn_equally_often(self):
        x = np.zeros((9000, 1, 3, 3))
        x[:, 0, 1, 1] = 1
        counts = RandomShift(1)(x, np.random.default_rng(0)).sum(axis=(0, 1))
        assert counts.min() > 1000 - 5 * np.sqrt(1000)
        assert counts.max() < 1000 + 5 * np.sqrt(1000)
        flipped = RandomFlip(0.25)(np.tile(np.arange(2.0), (10_000, 1, 1)), np.random.default_rng(0))
        assert abs(flipped[:, 0, 0].mean() - 0.25) < 0.02

    @pytest.mark.parametrize("transform", AUGMENTED)
    def test_the_data_are_left_as_they_are(self, transform):
        x = images()
        x.setflags(write=False)
        made = transform(x, np.random.default_rng(0))
        made += 1
        np.testing.assert_array_equal(x, images())

    def test_axes_before_the_last_two_are_kept_together(self):
        x = np.broadcast_to(np.arange(25.0).reshape(5, 5), (4, 2, 3, 5, 5))
        for transform in AUGMENTED:
            made = transform(x, np.random.default_rng(0))
            np.testing.assert_array_equal(made, np.broadcast_to(made[:, :1, :1], made.shape))

    def test_senseless_ones_are_refused(self):
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"no part of shape \(6, 6\) fits into images of shape \(10, 3, 5, 5\)"):
            RandomCrop(6)(images(), rng)
        for transform in AUGMENTED:
            with pytest.raises(ValueError, match=r"images \(N, C, H, W\).*, not float64\(3, 2\)"):
                transform(np.zeros((3, 2)), rng)
        for make in (
            lambda: RandomShift(-1),
            lambda: RandomCrop(0),
            lambda: RandomCrop(2, -1),
            lambda: RandomFlip(1.5),
        ):
            with pytest.raises(ValueError, match="Random"):
                make()
        with pytest.raises(ValueError, match="axis -1 or -2"):
            RandomFlip(axis=0)
