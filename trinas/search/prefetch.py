"""Batches computed in the background while a step runs."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import attrs
import torch
from torch import Tensor

from trinas._core.errors import ConfigError
from trinas.search.batches import Batches
from trinas.search.checks import require_whole
from trinas.search.nested import each_tensor, tensors_in


def prefetch(
    batches: Batches, *, ahead: int = 2, device: str | torch.device | None = None
) -> Prefetched:
    """Compute the next batches in one background thread while a step runs.

    The result is used like `batches` itself. As data are a function of the step number, every
    step gets the very batch it would have got, in any order of steps: whoever asks for step n
    probably wants n + 1 next, and a jump elsewhere (a run that is resumed) only drops what was
    computed in vain.

    `batches` is called in the background, so it has to be that function:

    - What it draws comes from a generator of its own, seeded by the step. Draws from torch's
      global generator would come between those of the step.
    - It returns new tensors, as several batches are in memory at once.
    - It may be asked for steps beyond the last. What it raises is raised at the step that asks
      for that batch, and never if none does.
    - Grad mode, autocast and default device are set for each thread. Here they are torch's
      defaults.

    Python code in `batches` shares the interpreter with the step: time is saved where it waits
    for files, works inside torch, NumPy or a decoder, or waits for a device.

    Args:
        batches: input and target by step number.
        ahead: how many batches beyond the one asked for are computed and kept. Memory holds as
            many, and one more.
        device: where batches are wanted: tensors are moved there, also those inside tuples,
            lists and dicts; other objects are left alone. To a CUDA device they are copied from
            pinned memory on a stream of their own, while the step computes; the stream that asks
            for a batch waits for its copy, the host does not. None leaves tensors where they are.

    Returns:
        A function of the step number that has a thread. It ends with `Prefetched.close`, at the
        end of a ``with`` block, or when the object is gone. One thread at a time may call it. It
        can neither be pickled nor used after a fork: make it in the process that uses it.

    Raises:
        ConfigError: `batches` cannot be called, `ahead` is no whole number of at least 1, or
            torch cannot use the device here.

    >>> import torch, trinas as tn
    >>> def batches(step):
    ...     x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    ...     return x, x.mean(1, keepdim=True)
    >>> model = tn.build(tn.lower(tn.conv(3, 1), (3, 8, 8)))
    >>> with tn.prefetch(batches) as train:
    ...     for report in tn.Training(model, torch.nn.functional.l1_loss, train,
    ...                               tn.TrainConfig(steps=5)):
    ...         assert report.loss > 0
    """
    if not callable(batches):
        raise ConfigError(
            "batches are a function of the step number",
            got=f"a {type(batches).__name__}",
            at="prefetch",
            fix="Wrap a list as batches.__getitem__; a loader with a position cannot jump to a "
            "step.",
        )
    require_whole(
        ahead,
        "ahead",
        least=1,
        at="prefetch",
        fix="Without a background thread, pass the batches as they are.",
    )
    return Prefetched(_Loader.of(batches, device), ahead)


class Prefetched:
    """Batches with a thread that computes them ahead: what `prefetch` returns."""

    def __init__(self, loader: _Loader, ahead: int) -> None:
        self._loader = loader
        self._ahead = ahead
        self._tasks: dict[int, Future[_Loaded]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="trinas-prefetch")
        # Neither the thread nor its tasks know this object, so it can go while they work. It may
        # go in any thread, its own included: nobody waits then.
        self._closer = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __call__(self, step: int) -> tuple[Tensor, Any]:
        """The batch of a step; those of the steps after it are begun.

        Raises:
            BaseException: whatever the batches raised for this step, as it was.
        """
        if not self._closer.alive:
            return self._loader(step).handed_over()
        task = self._task(step)
        try:
            return task.result().handed_over()
        finally:
            del task  # an error knows this frame: without this, the two would keep each other

    def _task(self, step: int) -> Future[_Loaded]:
        """The task of a step, with those of the next steps behind it in the queue."""
        wanted = range(step, step + self._ahead + 1)
        for other in [other for other in self._tasks if other not in wanted]:
            self._tasks.pop(other).cancel()
        if step not in self._tasks or self._tasks[step].cancelled():
            # What is queued but not begun comes after this one.
            for other in [other for other, task in self._tasks.items() if task.cancel()]:
                del self._tasks[other]
        for other in wanted:
            # An interruption may have left one that was cancelled.
            if other not in self._tasks or self._tasks[other].cancelled():
                self._tasks[other] = self._pool.submit(self._loader, other)
        return self._tasks.pop(step)

    def close(self) -> None:
        """End the thread, when the batch in the making is done, and drop what was not asked for.

        Batches can still be asked for: they are then computed when they are.
        """
        self._closer.detach()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._tasks.clear()

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@attrs.frozen(eq=False)
class _Loaded:
    """A batch, and for every CUDA device it lies on an event after which it is whole."""

    batch: tuple[Tensor, Any]
    ready: dict[torch.device, torch.Event]

    def handed_over(self) -> tuple[Tensor, Any]:
        """The batch, safe to use on the streams that are current where this is called."""
        for device, event in self.ready.items():
            torch.cuda.current_stream(device).wait_event(event)
        for tensor in tensors_in(self.batch):
            if tensor.is_cuda:
                # Its memory belongs to the stream it was made on, which must not take it back
                # before this one is done with it.
                tensor.record_stream(torch.cuda.current_stream(tensor.device))
        return self.batch


@attrs.frozen(eq=False)
class _Loader:
    """Computes the batch of a step and brings it to the device: what the thread does."""

    batches: Batches
    device: torch.device | None
    copies: torch.cuda.Stream | None

    @classmethod
    def of(cls, batches: Batches, name: str | torch.device | None) -> _Loader:
        """For a device by its name.

        Raises:
            ConfigError: torch cannot use it here.
        """
        if name is None:
            return cls(batches, None, None)
        try:
            # A tensor on it tells whether it is there, and which one "cuda" is now.
            device = torch.empty(0, device=name).device
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            raise ConfigError(
                "a device is one that torch can use here",
                got=name,
                at=f"prefetch: {str(error).strip().splitlines()[0]}",
                fix="Give the device of the network, or None to leave batches where they are.",
            ) from None
        copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        return cls(batches, device, copies)

    def __call__(self, step: int) -> _Loaded:
        """Compute and move the batch of a step."""
        if self.device is None:
            return _whole(self.batches(step))
        if self.copies is None:
            return _whole(each_tensor(self.batches(step), lambda tensor: tensor.to(self.device)))
        with torch.cuda.device(self.device):
            batch = self.batches(step)
            if any(tensor.is_cuda for tensor in tensors_in(batch)):
                # What the batches themselves put on the device is done before the event as well.
                # Elsewhere nothing is waited for: steps are queued on that stream, too.
                self.copies.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.copies):
                return _whole(each_tensor(batch, self._copied))

    def _copied(self, tensor: Tensor) -> Tensor:
        # From pageable memory a copy would hold up the host. Pinned memory is not reused before
        # its copy is done: torch's allocator sees to that.
        source = tensor.pin_memory() if tensor.device.type == "cpu" else tensor
        return source.to(self.device, non_blocking=True)


def _whole(batch: Any) -> _Loaded:
    """The batch, with events on the streams that are current now."""
    devices = {tensor.device for tensor in tensors_in(batch) if tensor.is_cuda}
    ready = {device: torch.cuda.current_stream(device).record_event() for device in devices}
    return _Loaded(batch, ready)
