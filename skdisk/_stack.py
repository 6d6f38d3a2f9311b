"""Many trainings at once: each goes its own way, but for its epochs, which are run as one.

Every training runs in a greenlet, as it would alone: its own callbacks, validation, schedule, end.
Where it comes to an epoch that the fused trainer can take, it waits until all others have come to
one or have ended; then the epochs of all that can share a stack are run together.
"""

from greenlet import getcurrent, greenlet

from ._fused import Stack


def run_alone(net, batches):
    """Run an epoch of a training that has no others beside it; keep the stack for the next."""
    if net.stack_ is None:
        net.stack_ = Stack([net], [batches])
    [losses] = net.stack_.run_epoch()
    return losses


def run_with_others(net, batches):
    """Run an epoch of a training that `train_together` has started."""
    return getcurrent().parent.switch((net, batches))


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
    activation = net.module_.activation
    # Units that are not there must stay without effect, and the sigmoid of 0 is not 0.
    shape = sizes if activation == "logistic" else (sizes[0], len(sizes), sizes[-1])
    optimizer = type(net.optimizer_).__name__
    return shape, activation, net.batch_size, optimizer, str(net.device)


def train_together(trainings):
    """Run trainings to their ends, their fused epochs together.

    Parameters
    ----------
    trainings : list of callable
        Each trains one net, whose `run_fused_epoch` is `run_with_others`.

    Returns
    -------
    errors : list of Exception or None
        What each raised.
    """
    errors, waiting = [None] * len(trainings), {}

    def go_on(k, task, *losses):
        """Let a training go on to its next epoch, or its end."""
        try:
            request = task.switch(*losses)
        except Exception as error:
            errors[k] = error
            request = None
        waiting.pop(k, None)
        if request is not None and not task.dead:
            waiting[k] = (task, *request)

    for k, train in enumerate(trainings):
        go_on(k, greenlet(lambda train=train: train() and None))
    stacks = {}
    while waiting:
        groups = {}
        for k, (_, net, batches) in waiting.items():
            groups.setdefault((*find_stack(net), net.precise_), []).append((k, net, batches))
        for key, members in groups.items():
            ks, nets, batches = zip(*members, strict=True)
            if key not in stacks or stacks[key].nets != list(nets):
                stacks[key] = Stack(list(nets), list(batches))
            for k, losses in zip(ks, stacks[key].run_epoch(), strict=True):
                go_on(k, waiting[k][0], losses)
    return errors
