"""Many trainings at once: each goes its own way, but for its epochs, which are run as one.

Every training runs in a greenlet, as it would alone: its own callbacks, validation, schedule, end.
Where it comes to an epoch that the fused trainer can take, it waits until all others have come to
one or have ended; then the epochs of all that can share a stack are run together. A training that
nobody watches asks for all its epochs at once: then it need not be woken up after each.
"""

from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet

from ._fused import Stack


def run_alone(net, batches):
    """Run an epoch of a training that has no others beside it; keep the stack for the next."""
    if net.stack_ is None:
        net.stack_ = Stack([net], [batches])
    net.stack_.load()
    [epoch], _ = net.stack_.run_epoch()
    net.stack_.store()
    return [epoch]


def run_with_others(net, batches, n_epochs=1):
    """Run epochs of a training that `train_together` has started.

    Parameters
    ----------
    net : DiskNet
        The net in training.
    batches : TensorBatches
        Its data.
    n_epochs : int, default=1
        How many epochs to run.

    Returns
    -------
    epochs : list of Epoch
        What came of them. Where several are asked for, they end before an epoch in which the
        training would diverge.
    """
    return getcurrent().parent.switch(Request(net, batches, n_epochs))


@dataclass
class Request:
    """Epochs that a training waits for."""

    net: object
    batches: object
    n_epochs: int
    epochs: list = field(default_factory=list)

    diverges: bool = False

    @property
    def is_ahead(self):
        """Whether the training is not woken up after each epoch."""
        return self.n_epochs > 1

    @property
    def n_left(self):
        """How many epochs are still to be run."""
        return 0 if self.diverges else self.n_epochs - len(self.epochs)


def _run(stack, requests):
    """Run epochs of a stack until a training must go on by itself."""
    ahead = [request for request in requests if request.is_ahead]
    stack.load()
    for _ in range(min(request.n_left for request in requests)):
        for request in ahead:
            n_done = len(request.net.history) + len(request.epochs)
            request.net.set_epoch(request.batches, n_done)
        before = stack.copy_state() if ahead else None
        epochs, is_finite = stack.run_epoch()
        for request, finite in zip(requests, is_finite, strict=True):
            request.diverges = request.is_ahead and not finite
        if any(request.diverges for request in requests):
            # The training that diverges runs this epoch once more by itself, the usual way.
            stack.set_state(before)
            break
        for request, epoch in zip(requests, epochs, strict=True):
            request.epochs.append(epoch)
    stack.store()


def find_stack(net):
    """Find out what nets must have in common to share a stack.

    Parameters
    ----------
    net : DiskNet
        A net in training.

    Returns
    -------
    key : tuple
        Equal for nets that can share one.
    """
    sizes = net.module_.layer_sizes
    shape = sizes[0], len(sizes), sizes[-1]
    optimizer = type(net.optimizer_).__name__
    return shape, net.module_.activation, net.batch_size, optimizer, str(net.device)


def train_together(trainings):
    """Run trainings to their ends, their fused epochs together.

    Parameters
    ----------
    trainings : list of callable
        Each trains one net, whose `run_fused_epochs` is `run_with_others`.

    Returns
    -------
    errors : list of Exception or None
        What each raised.
    """
    errors, waiting = [None] * len(trainings), {}

    def go_on(k, task, *epochs):
        """Let a training go on to its next epoch, or its end."""
        try:
            request = task.switch(*epochs)
        except Exception as error:
            errors[k] = error
            request = None
        waiting.pop(k, None)
        if request is not None and not task.dead:
            waiting[k] = task, request

    for k, train in enumerate(trainings):
        go_on(k, greenlet(lambda train=train: train() and None))
    stacks = {}
    while waiting:
        groups = {}
        for k, (_, request) in waiting.items():
            key = *find_stack(request.net), request.net.precise_
            groups.setdefault(key, []).append((k, request))
        for key, members in groups.items():
            nets = [request.net for _, request in members]
            if key not in stacks or stacks[key].nets != nets:
                stacks[key] = Stack(nets, [request.batches for _, request in members])
            _run(stacks[key], [request for _, request in members])
            for k, request in members:
                if request.n_left == 0:
                    go_on(k, waiting[k][0], request.epochs)
    return errors
