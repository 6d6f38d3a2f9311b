"""`DiskNet`, the skorch net in the engine room of `MLPDiskClassifier`.

It overrides only what skorch does wrongly or slowly for this network:

- the loss: the module returns log-probabilities, which skorch would take the logarithm of again;
- the batches: slices of tensors in memory instead of a `DataLoader`;
- the training of an epoch: by the fused trainer wherever that gives the same result;
- the random stream: one generator per net, so that torch's global one is left alone;
- Ctrl-C: it ends the training at the last whole epoch and is raised, not swallowed.
"""

import copy
import dis

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EpochTimer, PrintLog
from skorch.utils import data_from_dataset, is_dataset

from ._batches import FEW_ROWS, PREDICTION_ROWS, TensorBatches
from ._engine import FusedTrainer
from ._module import MLP, forward_few, forward_many, make_buffers
from ._obstacles import find_obstacle, find_passing_obstacle


class EpochLoss(Callback):
    """Record the mean loss of an epoch and whether it is the lowest so far.

    It writes what skorch's `PassthroughScoring` writes, in a fifth of the time, which for the
    smallest networks is a tenth of a fused epoch.

    Parameters
    ----------
    prefix : {"train", "valid"}
        Of which batches.
    """

    def __init__(self, prefix):
        self.prefix = prefix

    def on_train_begin(self, net, **kwargs):
        """Look up the lowest loss of an earlier training."""
        name = f"{self.prefix}_loss"
        self.best_ = min((row[name] for row in net.history if name in row), default=float("inf"))

    def on_epoch_end(self, net, **kwargs):
        """Average over the batches, weighted by their sizes."""
        loss, size = f"{self.prefix}_loss", f"{self.prefix}_batch_size"
        rows = [row for row in net.history[-1]["batches"] if loss in row]
        if rows:
            mean = sum(row[loss] * row[size] for row in rows) / sum(row[size] for row in rows)
            net.history.record(loss, mean)
            net.history.record(f"{loss}_best", mean < self.best_)
            self.best_ = min(mean, self.best_)


class DiskNet(NeuralNetClassifier):
    """The skorch net that trains `MLP` on data in memory.

    Targets are the ints 0 to n_classes - 1.

    Parameters
    ----------
    module : type, default=MLP
        The class of the network; it takes a `generator`.
    seed : int
        Seed of the generator that draws the initial weights and the order of the rows.
    fused : {"auto", True, False}, default="auto"
        Whether to train with the fused trainer: where it can, always (or say why not), never.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    iterator_train, iterator_valid : type, default=TensorBatches
        The classes of the batches.
    train_split, predict_nonlinearity, verbose, **kwargs
        As for `skorch.NeuralNetClassifier`; the defaults are to validate on nothing, to turn
        log-probabilities into probabilities, and to print nothing.
    """

    def __init__(
        self,
        module=MLP,
        *,
        seed,
        fused="auto",
        shuffle=True,
        iterator_train=TensorBatches,
        iterator_valid=TensorBatches,
        train_split=None,
        predict_nonlinearity=torch.exp,
        verbose=0,
        **kwargs,
    ):
        self.seed = seed
        self.fused = fused
        self.shuffle = shuffle
        super().__init__(
            module,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            train_split=train_split,
            predict_nonlinearity=predict_nonlinearity,
            verbose=verbose,
            **kwargs,
        )

    @property
    def _default_callbacks(self):
        callbacks = [
            ("epoch_timer", EpochTimer()),
            ("train_loss", EpochLoss("train")),
        ]
        if self.train_split is not None:
            callbacks.append(("valid_loss", EpochLoss("valid")))
        # It lays out its table also when it does not print it.
        if self.verbose:
            callbacks.append(("print_log", PrintLog()))
        return callbacks

    def initialize_module(self):
        """Make the module, with weights drawn from the net's own generator."""
        self.parameters_ = None
        self.generator_ = torch.Generator().manual_seed(self.seed)
        self.module_ = self.module(**self.get_params_for("module"), generator=self.generator_)
        return self

    def get_iterator(self, dataset, training=False):
        """Make the batches of a data set, on the net's device.

        Parameters
        ----------
        dataset : skorch.dataset.Dataset
            The data.
        training : bool, default=False
            Whether the batches are to train with (`batch_size` rows, shuffled) or to predict.

        Returns
        -------
        batches : TensorBatches
            An iterable of pairs of tensors.
        """
        if training:
            return self.iterator_train(
                dataset,
                self.batch_size,
                device=self.device,
                shuffle=self.shuffle,
                generator=self.generator_,
            )
        return self.iterator_valid(dataset, PREDICTION_ROWS, device=self.device)

    def infer(self, x, **fit_params):
        """Run the module on a batch, which lies on the device already."""
        return self.module_(x, **fit_params)

    def forward_iter(self, X, training=False, device="cpu"):
        """Yield the log-probabilities of a chunk of rows after the other.

        Parameters
        ----------
        X : ndarray or tensor of shape (n_samples, n_features), dtype=float32
            The rows.
        training : bool, default=False
            Whether to run the module in training mode.
        device : str or torch.device, default="cpu"
            Where to put the results.

        Yields
        ------
        log_proba : tensor of shape (n_rows, n_classes), dtype=float32
            Log-probabilities.
        """
        if type(self.module_) is not MLP:
            yield from super().forward_iter(X, training=training, device=device)
            return
        if is_dataset(X):
            X, _ = data_from_dataset(X)
        self._set_training(training)
        X = torch.as_tensor(X)
        # The mode is not set around the loop: it would be on wherever this generator is consumed.
        if len(X) <= FEW_ROWS:
            with torch.inference_mode():
                log_proba = forward_few(self.module_, X)
            yield log_proba.to(device)
            return
        with torch.inference_mode():
            buffers = make_buffers(self.module_, min(len(X), PREDICTION_ROWS))
        for rows in X.split(PREDICTION_ROWS):
            with torch.inference_mode():
                log_proba = forward_many(self.module_, rows.to(self.device), buffers)
            yield log_proba.to(device)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Compute the loss of log-probabilities, taken as they are."""
        return self.criterion_(y_pred, y_true)

    def check_data(self, X, y):
        """Accept the data: `MLPDiskClassifier` has checked them and set `classes`."""

    def notify(self, method_name, **cb_kwargs):
        """Call a hook of the net, then of those callbacks that have a use for it.

        skorch calls three hooks a batch on every callback; nearly all of them are empty.
        """
        getattr(self, method_name)(self, **cb_kwargs)
        for callback in self._find_watchers(method_name):
            getattr(callback, method_name)(self, **cb_kwargs)

    def _find_watchers(self, method_name):
        empty = getattr(Callback, method_name)
        return [cb for _, cb in self.callbacks_ if getattr(type(cb), method_name) is not empty]

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Train or validate for an epoch: fused, batch by batch, or watched by a callback.

        Where no callback watches, the rows of all batches are written to the history at once:
        writing them one by one, with two hooks each, costs as much as a fused step.
        """
        if iterator is None:
            return
        if training:
            self._check_fused()
        if training and self.fused_reason_ is None:
            losses, sizes = self._run_fused_epoch(iterator)
        elif self._find_watchers("on_batch_begin") or self._find_watchers("on_batch_end"):
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
            return
        else:
            losses, sizes = [], []
            for batch in iterator:
                losses.append(step_fn(batch, **fit_params)["loss"].item())
                sizes.append(len(batch[0]))
        self.history[-1]["batches"].extend(
            {f"{prefix}_loss": loss, f"{prefix}_batch_size": size}
            for loss, size in zip(losses, sizes, strict=True)
        )
        self.history.record(f"{prefix}_batch_count", len(losses))

    def _run_fused_epoch(self, batches):
        """Train for an epoch with the fused trainer; return the batches' losses and sizes.

        Weights and momentum go in and out every epoch, which costs a hundredth of the smallest
        epochs: between epochs, everything is where skorch, callbacks and torch look for it.
        """
        if self.trainer_ is None:
            self.trainer_ = FusedTrainer(
                self.module_.layer_sizes,
                self.module_.activation,
                self.batch_size,
                device=self.device,
            )
            # Without gradients it only tells torch's schedulers that the optimiser is in use.
            self.optimizer_.zero_grad()
            self.optimizer_.step()
        trainer, parameters = self.trainer_, self.parameters_
        [group] = self.optimizer_.param_groups
        trainer.set_hyperparameters(
            group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]
        )
        trainer.load(trainer.weights, parameters)
        if group["momentum"]:
            state = self.optimizer_.state
            for p in parameters:
                if state[p].get("momentum_buffer") is None:
                    state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [state[p]["momentum_buffer"] for p in parameters]
            trainer.load(trainer.velocity, buffers)
        losses = trainer.run_epoch(batches.X, batches.y, [batches.draw_order()])
        trainer.store(trainer.weights, parameters)
        if group["momentum"]:
            trainer.store(trainer.velocity, buffers)
        return losses[:, 0].tolist(), batches.sizes

    def _check_fused(self):
        """Find out whether the fused trainer can take the coming epoch.

        Callbacks may freeze layers or change the optimiser between epochs. Once in the way, a
        setting counts for the rest of the training.
        """
        if self.fused_reason_ is None:
            self.fused_reason_ = find_passing_obstacle(self)
        if self.fused is True and self.fused_reason_ is not None:
            raise ValueError(
                f"fused=True is not possible: {self.fused_reason_}. Change that, or use "
                'fused="auto" to train without the fused trainer where it cannot be used.'
            )

    def _set_training(self, training=True):
        # Going through all submodules at every batch costs a tenth of a small training step.
        if self.module_.training is not training:
            super()._set_training(training)

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train as skorch does, but raise KeyboardInterrupt once the net is in order again.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), dtype=float32
            Training data.
        y : ndarray of shape (n_samples,), dtype=int64
            Targets.
        classes : None
            Not used; skorch has it for compatibility.
        **fit_params
            `epochs`, if other than `max_epochs`.

        Returns
        -------
        self : DiskNet
            The trained net.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when the net stands as it did after the last whole epoch.
        """
        if not self.initialized_:
            self.initialize()
        # Going through the module for them takes as long as copying them.
        self.parameters_ = list(self.module_.parameters())
        self.fused_reason_, self.interrupt_ = find_obstacle(self), None
        self._check_fused()
        self._remember_epoch()
        self.trainer_ = None
        try:
            super().partial_fit(X, y, classes, **fit_params)
        except Exception as error:
            if self.interrupt_ is None:
                raise
            # A callback's last hook that counts on an epoch where there is none.
            raise self.interrupt_ from error
        finally:
            # A kept exception would keep the data of the frames in its traceback.
            interrupt = self.interrupt_
            self.interrupt_ = self.last_whole_epoch_ = self.parameters_ = self.trainer_ = None
        if interrupt is not None:
            raise interrupt
        return self

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train; on Ctrl-C, or a stop within an epoch, go back to the last whole epoch."""
        try:
            super().fit_loop(X, y, epochs, **fit_params)
        except KeyboardInterrupt as interrupt:
            is_stop = self._is_stop_request(interrupt)
            if not is_stop:
                self.interrupt_ = interrupt
            if not is_stop or (self.history and "train_batch_count" not in self.history[-1]):
                n_epochs, state = self.last_whole_epoch_
                del self.history[n_epochs:]
                self._load_training_state(state)
        return self

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Remember where the last whole epoch ended, then open a new row of the history."""
        self._remember_epoch()
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)

    def _remember_epoch(self):
        self.last_whole_epoch_ = len(self.history), self._copy_training_state()

    def __getstate__(self):
        """Leave out what lives only during a training, for callbacks that pickle the net."""
        training = ("trainer_", "parameters_", "last_whole_epoch_")
        return super().__getstate__() | dict.fromkeys(training)

    def _is_stop_request(self, interrupt):
        """Tell a callback's `raise KeyboardInterrupt` from Ctrl-C.

        It is skorch's convention for ending the training early (`EarlyStopping` does so). Ctrl-C
        raises the same exception between two instructions of whatever code is running, so only
        at the former does the traceback end on a raise statement of a callback's method.
        """
        traceback = interrupt.__traceback__
        while traceback.tb_next is not None:
            traceback = traceback.tb_next
        instruction = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
        raiser = traceback.tb_frame.f_locals.get("self")
        return dis.opname[instruction] == "RAISE_VARARGS" and any(
            raiser is callback for _, callback in self.callbacks_
        )

    def _copy_training_state(self):
        """Copy all that an epoch of training changes, but for the history.

        The optimiser's part is that of its `state_dict`, without what that costs at every epoch.
        """
        parameters = self.parameters_ or list(self.module_.parameters())
        return {
            "parameters": [p.detach().clone() for p in parameters],
            "groups": [{**group, "params": None} for group in self.optimizer_.param_groups],
            "optimizer": [copy.deepcopy(self.optimizer_.state.get(p)) for p in parameters],
            "generator": self.generator_.get_state(),
        }

    @torch.no_grad()
    def _load_training_state(self, state):
        parameters = list(self.module_.parameters())
        for p, value, values in zip(
            parameters, state["parameters"], state["optimizer"], strict=True
        ):
            p.copy_(value)
            self.optimizer_.state.pop(p, None)
            if values is not None:
                self.optimizer_.state[p] = {
                    name: value.to(p.device) if torch.is_tensor(value) else value
                    for name, value in values.items()
                }
        for group, values in zip(self.optimizer_.param_groups, state["groups"], strict=True):
            group.update(values, params=group["params"])
        self.generator_.set_state(state["generator"])

    def resume(self, earlier):
        """Go on from where another net of the same shape stands.

        Settings of the optimiser that differ between the two nets are taken from this one.

        Parameters
        ----------
        earlier : DiskNet
            A trained net. It stays as it is.

        Returns
        -------
        self : DiskNet
            This net, with the earlier one's weights, history and state of the training.

        Raises
        ------
        ValueError
            If the networks differ in their layers.
        """
        if repr(self.module_) != repr(earlier.module_):
            raise ValueError(
                "warm_start and partial_fit go on with the network of the earlier fit, which has "
                f"other layers:\n{earlier.module_}\nthan the parameters ask for now:\n"
                f"{self.module_}\nFit anew with warm_start=False, or restore the parameters."
            )
        changed = {
            name: value
            for name, value in self.optimizer_.defaults.items()
            if value != earlier.optimizer_.defaults[name]
        }
        self._load_training_state(earlier._copy_training_state())
        for group in self.optimizer_.param_groups:
            group.update(changed)
            if "lr" in changed and "initial_lr" in group:
                # Where a schedule begins.
                group["initial_lr"] = changed["lr"]
        self.history.extend(earlier.history)
        return self
