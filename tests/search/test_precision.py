"""Automatic mixed precision: bfloat16, and float16 with scaled losses, against plain torch."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import trinas as tn

STEPS = 6
START = 2.0**16  # the scale that torch begins with


def batch(step, stream=0):
    generator = torch.Generator().manual_seed(1000 * stream + step)
    return tuple(torch.rand(3, 1, 6, 6, generator=generator) for _ in range(2))


def valid(step):
    return batch(step, 1)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )


def steep(factor):
    """A loss so large that its gradients overflow in float16 until the scale is small enough."""

    def loss(prediction, target):
        return factor * F.mse_loss(prediction.float(), target)

    return loss


def training(dtype, factor, *, steps=STEPS):
    rule = tn.weights(tn.sgd(1e-3 / factor, momentum=0.9), passes=("sampled",), clip=factor)
    return tn.run(rule, net(), steep(factor), batch, steps=steps, autocast=dtype)


def supernet():
    c = tn.width(values=(2, 3))
    slot = tn.choice(a=tn.conv_bn_relu(3, c), b=tn.conv_bn_relu(1, c), name="slot")
    graph = tn.lower(tn.seq(slot, tn.conv(1, 1)), (1, 6, 6))
    return tn.compile_supernet(graph, seed=0)


def search(factor=1.0, signal="gradient", dtype=torch.float16, steps=STEPS):
    method = tn.chain(
        tn.weights(tn.adam(1e-2)),
        tn.architecture(tn.adam(5e-2), signal=getattr(tn.signals, signal)()),
        tn.expected_cost(1e3, weight=0.1),
        tn.average(0.5),
    )
    return tn.run(method, supernet(), steep(factor), batch, valid, steps=steps, autocast=dtype)


def parameters(run):
    return [p.detach().clone() for p in run.task.model.parameters()]


def equal(left, right):
    return all(map(torch.equal, left, right))


def scale_of(run):
    return run.task.scaler.state_dict()["scale"]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def in_plain_torch(dtype, factor):
    model = net()
    made = torch.optim.SGD(model.parameters(), lr=1e-3 / factor, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    losses, scales = [], []
    for step in range(STEPS):
        x, y = batch(step)
        with torch.autocast("cpu", dtype):
            loss = steep(factor)(model(x), y)
        made.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(made)
        nn.utils.clip_grad_norm_(model.parameters(), factor)
        scaler.step(made)
        scaler.update()
        losses.append(loss.item())
        scales.append(scaler.get_scale())
    return model, losses, scales


@pytest.mark.parametrize("factor", [1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_training_is_its_loop_in_plain_torch(dtype, factor):
    run, losses, scales = training(dtype, factor), [], []
    while run.step < run.total:
        losses.append(run.advance().loss)
        scales.append(1.0 if run.task.scaler is None else scale_of(run))
    model, expected, wanted = in_plain_torch(dtype, factor)

    assert losses == expected
    assert scales == wanted
    assert equal(run.task.model.state_dict().values(), model.state_dict().values())
    assert (dtype is torch.float16) == (run.task.scaler is not None)
    single = training(None, factor)
    assert [report.loss for report in single] != losses


def test_a_step_that_overflows_is_left_out_and_the_scale_is_halved():
    run = training(torch.float16, 1e3, steps=30)
    before = parameters(run)
    report = run.advance()

    assert scale_of(run) == START / 2
    assert equal(parameters(run), before)
    assert not run.parts[0].optimiser.state
    assert report.loss < float("inf")
    while scale_of(run) == START / 2**run.step:
        run.advance()
    assert not equal(parameters(run), before)
    assert all(p.isfinite().all() for p in parameters(run))


@pytest.mark.parametrize("signal", ["gradient", "unrolled"])
def test_in_a_search_neither_weights_nor_architecture_move_while_it_overflows(signal):
    run = search(1e4, signal)
    before = parameters(run)
    run.advance()

    assert scale_of(run) == START / 2
    assert equal(parameters(run), before)
    made = [part.optimisers[name] for part in run.parts for name in part.optimisers]
    moments = [m for one in made for entry in one.state.values() for m in entry.values()]
    assert not any(moment.any() for moment in moments)  # the fused ones have some, of zero steps
    average = run.part(tn.search.Average).averages
    assert all(torch.equal(average[n], p) for n, p in run.task.weights.items())


def test_a_search_goes_on_once_the_scale_is_small_enough():
    run = search(1e3, steps=20)
    arch = copy.deepcopy(run.task.arch)
    list(run)

    assert 1 <= scale_of(run) < START
    assert all(not torch.equal(p, arch[name]) for name, p in run.task.arch.items())


def test_scaled_gradients_of_the_architecture_are_those_of_single_precision():
    """Terms and differences of losses are scaled like losses, or they would vanish beside them."""
    moved = {}
    for dtype in (None, torch.float16):
        method = tn.chain(
            tn.weights(tn.sgd(1e-30)),
            tn.architecture(tn.sgd(1.0)),
            tn.expected_cost(1e3, weight=1.0),
            tn.ordered(0.1),
        )
        model = supernet()
        before = {n: p.detach().clone() for n, p in model.arch_parameters().items()}
        data = (lambda step: tuple(0.1 * x for x in batch(step)), lambda step: valid(step))
        list(tn.run(method, model, F.mse_loss, *data, steps=1, autocast=dtype))
        moved[dtype] = {n: p - before[n] for n, p in model.arch_parameters().items()}

    for name, expected in moved[None].items():
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(moved[torch.float16][name], expected, rtol=2e-2, atol=2e-4)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("factor", [1.0, 1e3])
@pytest.mark.parametrize("make", [search, lambda factor: training(torch.float16, factor)])
def test_a_run_with_scaled_losses_is_resumed_exactly(make, factor, stop):
    whole = make(factor)
    expected = [report.loss for report in whole]
    first, second = make(factor), make(factor)
    start = [first.advance().loss for _ in range(stop)]
    second.load_state_dict(through_a_file(first.state_dict()))

    assert start + [report.loss for report in second] == expected
    assert second.task.scaler.state_dict() == whole.task.scaler.state_dict()
    assert equal(parameters(second), parameters(whole))


def test_a_scale_that_grew_goes_on_growing():
    """Torch doubles it after so many steps without an overflow; the count is in a checkpoint."""

    def make():
        run = training(torch.float16, 1e-3)
        run.task.scaler.set_growth_interval(4)
        return run

    first, second = make(), make()
    for _ in range(3):
        first.advance()
    second.load_state_dict(through_a_file(first.state_dict()))
    scales = [scale_of(second) for _ in second]

    assert scales == [2 * START] * 3


def test_an_interruption_in_a_step_that_overflows_takes_the_scale_back():
    calls = []

    def watch(step):
        calls.append(step.number)
        if calls == [0]:
            raise KeyboardInterrupt

    method = tn.chain(tn.weights(tn.sgd(0.1)), tn.watch(watch))
    run = tn.run(method, net(), steep(1e8), batch, steps=2, autocast=torch.float16)
    with pytest.raises(KeyboardInterrupt):
        run.advance()
    assert scale_of(run) == START
    run.advance()
    assert scale_of(run) == START / 2


def test_a_loop_of_ones_own_scales_too():
    torch.manual_seed(0)
    task = tn.Task(supernet(), steep(1e3), autocast=torch.float16)
    weights = tn.weights(tn.adam(1e-2)).start(task)
    architecture = tn.architecture(tn.adam(5e-2)).start(task)
    before, scales = [p.detach().clone() for p in task.weights.values()], []
    for number in range(14):
        step = tn.Step.of(task, batch(number), valid(number), progress=number / 14, seed=number)
        for part in (weights, architecture):
            part.before(step)
            part.update(step)
        step.finish()
        scales.append(task.scaler.get_scale())
        if number == 0:
            assert equal(task.weights.values(), before)

    assert scales[:2] == [START / 2, START / 4]
    assert scales[-1] == scales[-2]
    assert not equal(task.weights.values(), before)


def test_schedulers_do_not_warn_where_a_step_is_left_out():
    """Torch does, as it knows of no step; warnings are errors in this suite."""
    step = torch.optim.lr_scheduler.StepLR
    rule = tn.weights(tn.sgd(0.1), scheduler=lambda o: step(o, 2, 0.5))
    run = tn.run(rule, net(), steep(1e8), batch, steps=4, autocast=torch.float16)

    assert [report.lr for report in run] == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert scale_of(run) == START / 2**4
