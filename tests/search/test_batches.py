"""Data of a run: functions, lists and loaders, gone through and resumed bit for bit."""

import io
import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

import trinas as tn
from trinas._core.errors import CheckpointError, DataError
from trinas.search.stream import Stream

STEPS = 8  # of three batches an epoch


def rows(number=6):
    return torch.arange(2.0 * number).reshape(number, 2)


def dataset(number=6):
    return TensorDataset(rows(number), rows(number)[:, :1])


class Noisy(Dataset):
    """Augmentation that draws from torch's global generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        x = rows()[index]
        return x + torch.rand(2), x[:1]


class Flow(IterableDataset):
    def __iter__(self):
        for x in rows():
            yield x, x[:1]


class Maker:
    """Makes an iterator each time, as a generator function does."""

    def __iter__(self):
        for k in range(3):
            yield rows()[2 * k : 2 * k + 2] + torch.rand(()), rows()[2 * k : 2 * k + 2, :1]


class Itself:
    """An iterator that begins again whenever it is asked for one."""

    def __iter__(self):
        self.k = -1
        return self

    def __next__(self):
        self.k += 1
        if self.k == 3:
            raise StopIteration
        return rows()[2 * self.k : 2 * self.k + 2], rows()[2 * self.k : 2 * self.k + 2, :1]


class StatefulLoader:
    """Says where it is in the midst of an epoch; each epoch has an order of its own.

    As the loader of torchdata: what is asked for behind a batch goes on with the next one, and
    an iterator that was left is of no more use.
    """

    def __init__(self, noise=0.0):
        self.noise = noise
        self.generator = None
        self.random = torch.Generator().manual_seed(5)
        self.order, self.at, self.loaded = [], 0, False

    def __iter__(self):
        if not self.loaded:
            self.order, self.at = torch.randperm(6, generator=self.random).tolist(), 0
        self.loaded = False
        while self.at < 6:
            picked = self.order[self.at : self.at + 2]
            self.at += 2
            x = rows()[picked]
            yield x + self.noise * torch.rand(2), x[:, :1]

    def state_dict(self):
        return {"order": self.order, "at": self.at, "random": self.random.get_state()}

    def load_state_dict(self, state):
        self.order, self.at = state["order"], state["at"]
        self.random.set_state(state["random"])
        # Before the first batch of all there is no order to go on in.
        self.loaded = bool(self.order)


def own(seed=3):
    return torch.Generator().manual_seed(seed)


def drawn_with_replacement():
    sampler = RandomSampler(dataset(), replacement=True, num_samples=6, generator=own())
    return DataLoader(dataset(), 2, sampler=sampler)


LOADERS = {
    "list": lambda: [(x, x[:, :1]) for x in rows().split(2)],
    "tuple": lambda: tuple([x, x[:, :1]] for x in rows().split(2)),
    "loader": lambda: DataLoader(dataset(), 2),
    "shuffled": lambda: DataLoader(dataset(), 2, shuffle=True),
    "own generator": lambda: DataLoader(dataset(), 2, shuffle=True, generator=own()),
    "replacement": drawn_with_replacement,
    "augmented": lambda: DataLoader(Noisy(), 2, shuffle=True),
    "augmented, own generator": lambda: DataLoader(Noisy(), 2, shuffle=True, generator=own()),
    "iterable dataset": lambda: DataLoader(Flow(), 2),
    "maker": Maker,
    "itself": Itself,
    "stateful": StatefulLoader,
    "stateful, augmented": lambda: StatefulLoader(noise=1.0),
}


def training(data, *, seed=0, steps=STEPS):
    """A run that keeps in `seen` what its loss was asked about."""
    seen = []

    def loss(prediction, target):
        seen.append((prediction.detach().clone(), target.clone()))
        return (prediction - target).square().mean()

    torch.manual_seed(0)
    run = tn.Training(nn.Linear(2, 1), loss, data, tn.TrainConfig(steps=steps, lr=0.1, seed=seed))
    run.seen = seen
    return run


def stream(data, seed=0, device="cpu"):
    return Stream(data, name="train", seed=seed, device=torch.device(device))


def taken(source, number):
    found = []
    for step in range(number):
        found.append(source.take(step))
        source.done()
    return found


def orders(source, epochs):
    """Which rows there were, epoch by epoch."""
    firsts = [[int(v) // 2 for v in x[:, 0]] for x, _ in taken(source, 3 * epochs)]
    return [[row for first in firsts[3 * e : 3 * e + 3] for row in first] for e in range(epochs)]


def saved(state):
    """Through a file that holds plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b) for pair in zip(left, right) for a, b in zip(*pair)
    )


def weights(run):
    return [p.detach().clone() for p in run.model.parameters()]


# -- epochs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_is_gone_through_again_and_again(name):
    found = orders(stream(LOADERS[name]()), 3)

    if name != "replacement":
        assert all(sorted(epoch) == list(range(6)) for epoch in found)


@pytest.mark.parametrize(
    "name", ["shuffled", "own generator", "augmented", "replacement", "stateful"]
)
def test_every_epoch_has_an_order_of_its_own(name):
    found = orders(stream(LOADERS[name]()), 6)

    assert len({tuple(epoch) for epoch in found}) > 3


def test_orders_and_augmentation_are_those_of_the_seed():
    first, again, other = (
        taken(stream(DataLoader(Noisy(), 2, shuffle=True), seed=seed), 6) for seed in (1, 1, 2)
    )

    assert same(first, again)
    assert not same(first, other)
    assert len({float(x.sum()) for x, _ in first}) == 6  # noise is never the same twice


def test_train_and_valid_have_orders_of_their_own():
    device = torch.device("cpu")
    found = [
        orders(Stream(LOADERS["shuffled"](), name=name, seed=0, device=device), 4)
        for name in ("train", "valid")
    ]

    assert found[0] != found[1]


def test_what_is_drawn_elsewhere_changes_nothing_and_is_not_changed():
    loader = LOADERS["augmented"]
    first = taken(stream(loader()), 5)
    source, second = stream(loader()), []
    for step in range(5):
        torch.manual_seed(step)
        expected = torch.rand(3)
        torch.manual_seed(step)
        second.append(source.take(step))
        assert torch.equal(torch.rand(3), expected)
        source.done()

    assert same(first, second)


class Epochs(torch.utils.data.SequentialSampler):
    def __init__(self, data):
        super().__init__(data)
        self.told = []

    def set_epoch(self, epoch):
        self.told.append(epoch)


def test_samplers_are_told_their_epoch():
    sampler = Epochs(dataset())
    taken(stream(DataLoader(dataset(), 2, sampler=sampler)), 7)

    assert sampler.told == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_the_same_on_every_run_and_resume():
    def loader():
        return DataLoader(Noisy(), 2, shuffle=True, num_workers=2)

    whole = taken(stream(loader()), 5)
    first = stream(loader())
    start = taken(first, 4)
    second = stream(loader())
    second.load_state_dict(saved(first.state_dict()))

    assert same(start + taken(second, 1), whole)
    assert len({float(x.sum()) for x, _ in whole}) == 5


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_persist_resume_within_the_first_epoch_or_say_so():
    """Their generators go on from epoch to epoch, and have no state that one could ask for."""

    def loader():
        return DataLoader(Noisy(), 2, shuffle=True, num_workers=1, persistent_workers=True)

    whole, first, second = (stream(loader()) for _ in range(3))
    expected, start = taken(whole, 5), taken(first, 2)
    second.load_state_dict(saved(first.state_dict()))
    assert same(start + taken(second, 3), expected)

    third = stream(loader())
    third.load_state_dict(saved(whole.state_dict()))
    with pytest.warns(UserWarning, match=r"workers that persist .* at train\. .*workers=False"):
        third.take(5)


# -- what is no data ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "empty",
    [[], DataLoader(dataset(), 7, drop_last=True), iter([]), DataLoader(Flow(), 9, drop_last=True)],
    ids=["list", "loader", "iterator", "iterable dataset"],
)
def test_a_loader_without_a_batch_says_so(empty):
    with pytest.raises(DataError, match=r"a batch at least; got none; at train, epoch 1.*drop"):
        stream(empty).take(0)


def test_an_iterator_that_ends_says_so():
    run = training(iter(LOADERS["list"]()))
    with pytest.raises(DataError, match=r"at train, epoch 2\. An iterator .* through once") as e:
        list(run)

    assert run.step == 3
    assert e.value.__notes__ == ["in train step 4"]


def test_an_iterator_without_end_serves_one_run():
    def forever():
        while True:
            yield from LOADERS["list"]()

    expected = training(LOADERS["list"]())
    list(expected)
    run = training(forever())
    list(run)

    assert same(run.seen, expected.seen)


def test_an_iterator_is_resumed_from_its_start_alone():
    expected = training(LOADERS["list"]() * 3)
    list(expected)
    first = training(iter(LOADERS["list"]() * 3))
    for _ in range(4):
        first.advance()
    state = saved(first.state_dict())
    second = training(iter(LOADERS["list"]() * 3))
    second.load_state_dict(state)
    list(second)
    assert same(second.seen, expected.seen[4:])

    first.load_state_dict(state)  # its iterator is four batches on, and one cannot go back
    with pytest.raises(DataError, match=r"gone through once; got one to go back to batch 5"):
        first.advance()


@pytest.mark.parametrize("data", [3, None, torch.rand], ids=["number", "none", "function"])
def test_data_are_a_function_or_iterable(data):
    if callable(data):
        assert stream(lambda step: (data(2), step)).take(0)[1] == 0
    else:
        with pytest.raises(DataError, match=r"or a loader of batches; got a \w+; at train"):
            stream(data)


@pytest.mark.parametrize("batch", [rows(), (rows(),), (rows(), rows(), rows()), ("a", rows())])
def test_batches_that_are_no_pair_name_their_place(batch):
    good = (rows(), rows()[:, :1])
    source = stream([good, batch])
    taken(source, 1)

    for _ in range(2):  # and again: nothing is passed over
        with pytest.raises(DataError, match=r"a pair of an input .*; at train, epoch 1, batch 2"):
            source.take(1)


def test_a_resumed_loader_that_is_shorter_says_so():
    first = stream([(rows(), rows())] * 3)
    taken(first, 3)
    second = stream([(rows(), rows())] * 2)
    second.load_state_dict(first.state_dict())

    with pytest.raises(DataError, match=r"got 2 batches, not 3; at train, epoch 1"):
        second.take(3)


# -- nests and devices -------------------------------------------------------------------


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        a, b = (x["a"], x["b"]) if isinstance(x, dict) else x
        return self.layer(a) + b


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_inputs_may_be_nests(kind):
    def nest(x):
        return {"a": x, "b": x[:, :1]} if kind == "dict" else (x, x[:, :1])

    data = [(nest(x), x[:, :1]) for x in rows().split(2)]
    found = []
    for source in (data, lambda step: data[step % 3]):
        torch.manual_seed(0)
        run = tn.Training(Both(), nn.functional.mse_loss, source, tn.TrainConfig(steps=4, lr=0.1))
        found.append([report.loss for report in run])

    assert found[0] == found[1]
    assert found[0][0] != found[0][3]


def test_batches_of_loaders_are_brought_to_the_device():
    x, (a, b) = next(iter([({"k": (rows(),)}, [rows(), "word"])]))
    moved, (target, word) = stream([(x, (a, b))], device="meta").take(0)

    assert moved["k"][0].device.type == target.device.type == "meta"
    assert word == "word"
    with pytest.raises(DataError, match="on cpu, the network on meta"):
        stream(lambda step: (rows(), rows()), device="meta").take(0)


# -- memory ------------------------------------------------------------------------------


class Traced:
    """An endless epoch whose batches are counted while they live."""

    def __init__(self):
        self.made = []

    def __iter__(self):
        for _ in range(100):
            x = torch.rand(2, 2)
            self.made.append(weakref.ref(x))
            yield x, x[:, :1].clone()
            del x

    def alive(self):
        return sum(ref() is not None for ref in self.made)


def test_nothing_of_an_epoch_is_kept():
    data = Traced()
    run = training(data)
    counts = []
    for _ in run:
        run.seen.clear()
        counts.append(data.alive())

    assert len(data.made) == STEPS
    assert max(counts) <= 1
    run.state_dict()
    assert data.alive() <= 1


def test_an_epoch_begins_with_one_batch():
    made = []

    class Lazy(Dataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            made.append(index)
            return rows()[0], rows()[0, :1]

    source = stream(DataLoader(Lazy(), 2, shuffle=True))
    source.take(0)

    assert len(made) == 2


# -- resume ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADERS)
def test_resumed_at_any_step_equals_uninterrupted(name):
    whole = training(LOADERS[name]())
    list(whole)
    for stop in range(STEPS):
        first = training(LOADERS[name]())
        for _ in range(stop):
            first.advance()
        second = training(LOADERS[name](), steps=STEPS)
        second.load_state_dict(saved(first.state_dict()))
        list(second)

        assert same(first.seen + second.seen, whole.seen)
        assert all(map(torch.equal, weights(second), weights(whole)))


@pytest.mark.parametrize("name", [n for n in LOADERS if n != "itself"])
def test_a_run_goes_back_to_its_own_checkpoint(name):
    run = training(LOADERS[name]())
    for _ in range(4):
        run.advance()
    state = saved(run.state_dict())
    list(run)
    expected = run.seen[4:]
    run.load_state_dict(state)
    run.seen.clear()
    list(run)

    assert same(run.seen, expected)


def test_two_loaders_may_have_one_generator():
    def search():
        shared = own()
        net = tn.compile_supernet(
            tn.lower(tn.choice(a=tn.conv(1, 1), b=tn.conv(1, 1), name="s"), (1, 1, 2)), seed=0
        )
        data = TensorDataset(rows().reshape(6, 1, 1, 2), rows().reshape(6, 1, 1, 2) / 10)
        train = DataLoader(data, 2, shuffle=True, generator=shared)
        valid = DataLoader(data, 3, shuffle=True, generator=shared)
        return tn.Search(
            net, nn.functional.mse_loss, train, valid, tn.SearchConfig(search_steps=STEPS)
        )

    expected = [(r.loss, r.arch_loss) for r in search()]
    for stop in range(1, STEPS):
        first, second = search(), search()
        start = [first.advance() for _ in range(stop)]
        second.load_state_dict(saved(first.state_dict()))
        assert [(r.loss, r.arch_loss) for r in [*start, *second]] == expected


def test_a_loader_with_a_state_is_not_gone_through():
    class Counting(StatefulLoader):
        given = 0

        def __iter__(self):
            for batch in super().__iter__():
                self.given += 1
                yield batch

    first = stream(Counting())
    taken(first, 5)
    loader = Counting()
    second = stream(loader)
    second.load_state_dict(saved(first.state_dict()))
    second.take(5)

    assert loader.given == 1


# -- interruptions -----------------------------------------------------------------------


class Interrupted:
    """A loader whose iterator is interrupted once, before or behind its own work."""

    def __init__(self, loader, at, behind, error):
        self.loader, self.at, self.behind, self.error = loader, at, behind, error
        self.calls = 0

    def __iter__(self):
        return map(self._given, iter(_Nexts(iter(self.loader), self._count)))

    def _count(self):
        self.calls += 1
        if self.calls == self.at and not self.behind:
            raise self.error

    def _given(self, batch):
        if self.calls == self.at and self.behind:
            raise self.error
        return batch

    @property
    def generator(self):
        return getattr(self.loader, "generator", None)

    @property
    def sampler(self):
        return getattr(self.loader, "sampler", None)


class _Nexts:
    def __init__(self, inner, count):
        self.inner, self.count = inner, count

    def __iter__(self):
        return self

    def __next__(self):
        self.count()
        return next(self.inner)


class InterruptedStateful(Interrupted):
    def state_dict(self):
        return self.loader.state_dict()

    def load_state_dict(self, state):
        self.loader.load_state_dict(state)


def go_on(run, error):
    """Iterate to the end, as often as it takes; how often it was interrupted."""
    times = 0
    while run.step < run.total:
        try:
            list(run)
        except error:
            times += 1
    return times


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("name", [n for n in LOADERS if n != "itself"])
def test_an_interruption_in_a_loader_costs_nothing(name, behind):
    whole = training(LOADERS[name]())
    list(whole)
    for at in range(1, STEPS + 2):
        kind = InterruptedStateful if "stateful" in name else Interrupted
        data = kind(LOADERS[name](), at, behind, KeyboardInterrupt())
        run = training(data)
        times = go_on(run, KeyboardInterrupt)

        # An end of an epoch is interrupted before it is found, and not behind it.
        assert times == 1 or behind
        assert same(run.seen, whole.seen), at
        assert all(map(torch.equal, weights(run), weights(whole)))


@pytest.mark.parametrize("name", ["own generator", "augmented", "stateful"])
def test_a_run_that_was_interrupted_in_a_loader_goes_on_elsewhere(name):
    whole = training(LOADERS[name]())
    list(whole)
    kind = InterruptedStateful if "stateful" in name else Interrupted
    for at in (1, 2, 5, 7):
        first = training(kind(LOADERS[name](), at, True, RuntimeError("once")))
        with pytest.raises(RuntimeError, match="once"):
            list(first)
        second = training(LOADERS[name]())
        second.load_state_dict(saved(first.state_dict()))
        list(second)

        assert same(first.seen + second.seen, whole.seen)


class Failing(Dataset):
    def __init__(self, at):
        self.at, self.calls = at, 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.calls += 1
        x = rows()[index] + torch.rand(2)
        if self.calls == self.at:
            raise OSError("a file is gone")
        return x, rows()[index, :1]


@pytest.mark.parametrize("generator", [None, 3], ids=["global", "own"])
def test_an_error_in_a_dataset_costs_nothing(generator):
    def loader(at):
        given = None if generator is None else own(generator)
        return DataLoader(Failing(at), 2, shuffle=True, generator=given)

    whole = training(loader(0))
    list(whole)
    for at in range(1, 15):
        run = training(loader(at))

        assert go_on(run, OSError) == 1
        assert same(run.seen, whole.seen), at


@pytest.mark.parametrize("name", ["shuffled", "stateful, augmented", "maker"])
def test_a_batch_that_was_taken_is_the_next_one_until_its_step_is_done(name):
    source, other = stream(LOADERS[name]()), stream(LOADERS[name]())
    expected = taken(other, 4)
    found = []
    for step in range(4):
        batch = source.take(step)
        assert source.take(step) is batch
        # Saved now, a run takes it again.
        second = stream(LOADERS[name]())
        second.load_state_dict(saved(source.state_dict()))
        assert same([second.take(step)], [batch])
        found.append(batch)
        source.done()

    assert same(found, expected)


# -- states that do not fit --------------------------------------------------------------


def test_a_function_and_a_loader_do_not_resume_each_other():
    function, loader = stream(lambda step: (rows(), rows())), stream(LOADERS["list"]())

    with pytest.raises(CheckpointError, match="got a state of a loader; at train, a function"):
        function.load_state_dict(loader.state_dict())
    with pytest.raises(CheckpointError, match="got a state of a function; at train, a loader"):
        loader.load_state_dict(function.state_dict())


DAMAGES = [
    {"index": -1},
    {"epoch": None},
    {"total": True},
    {"began": None},
    {"now": [torch.zeros(3)]},
    {"now": 7},
    {"kind": "other"},
]
NO_GENERATORS, NO_ORDER = {"began": []}, {"loader": {"order": []}}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("own generator", damage) for damage in [*DAMAGES, NO_GENERATORS]),
        *(("stateful", damage) for damage in [*DAMAGES, NO_ORDER]),
    ],
    ids=str,
)
def test_damaged_places_are_refused_and_change_nothing(name, damage):
    run = training(LOADERS[name]())
    for _ in range(4):
        run.advance()
    state = saved(run.state_dict())
    state["data"][0] |= damage
    with pytest.raises(CheckpointError):
        run.load_state_dict(state)
    list(run)
    whole = training(LOADERS[name]())
    list(whole)

    assert same(run.seen, whole.seen)


# -- in the background -------------------------------------------------------------------


def test_a_function_may_be_computed_ahead():
    def batch(step):
        x = torch.rand(2, 2, generator=torch.Generator().manual_seed(step))
        return x, x[:, :1]

    whole = training(batch)
    list(whole)
    with tn.prefetch(batch) as ahead:
        first = training(ahead)
        for _ in range(3):
            first.advance()
        second = training(ahead)
        second.load_state_dict(saved(first.state_dict()))
        list(second)

    assert same(first.seen + second.seen, whole.seen)
