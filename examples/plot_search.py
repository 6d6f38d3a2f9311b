"""
A search of hundreds of networks
================================

Which learning rate, and which batch size? Try all pairs, and see that it is one question.
"""

# %%
# A network trains on one core without the interpreter's lock. So threads are enough, one for each
# core: they start at once and share the data. A pixel is a number from 0 to 16.
import time
import warnings

import joblib
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_validate
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from torch import nn

from skdisk import MLPDiskClassifier

X, y = load_digits(return_X_y=True)
X = X.astype("float32") / 8 - 1
grid = {"batch_size": [32, 64, 128, 256, 512], "lr": [0.002 * 2**k for k in range(8)]}
clf = MLPDiskClassifier(max_epochs=30, random_state=0)
search = GridSearchCV(clf, grid, scoring="neg_log_loss", cv=5, n_jobs=-1)
start = time.perf_counter()
with joblib.parallel_config("threading"):
    search.fit(X, y)
losses = -search.cv_results_["mean_test_score"].reshape(5, 8)
n_networks = losses.size * search.n_splits_
print(f"{n_networks} networks: {time.perf_counter() - start:.1f} s on {joblib.cpu_count()} cores")

# %%
# Follow a colour: it runs down the diagonal. Twice the batch with twice the rate is nearly the
# same network, so choose the batch size by speed, and search the rate that goes with it.
fig, ax = plt.subplots(figsize=(6, 3.3), layout="constrained")
image = ax.imshow(losses, vmax=0.5, cmap="viridis_r")
ax.set(xticks=range(8), xticklabels=grid["lr"], xlabel="learning rate")
ax.set(yticks=range(5), yticklabels=grid["batch_size"], ylabel="batch size")
bar = fig.colorbar(image, label="log loss of unseen rows", extend="max")

# %%
# The same layers and epochs elsewhere, in batches of 128 rows, skorch's default: the faster of two
# fits. What all would take, one after another, is that times their number, and not measured.
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
peers = {
    "skdisk": clf.set_params(batch_size=128),
    "MLPClassifier": MLPClassifier((64, 64), solver="sgd", batch_size=128, max_iter=30),
    "skorch": NeuralNetClassifier(
        net, criterion=nn.CrossEntropyLoss, max_epochs=30, train_split=None, verbose=0
    ),
}
with warnings.catch_warnings(action="ignore"):  # MLPClassifier would go on.
    for name, peer in peers.items():
        fits = cross_validate(peer, X, y, cv=ShuffleSplit(2, train_size=0.8))["fit_time"]
        print(f"{name:13}  {fits.min():.3f} s, {n_networks} fits: {n_networks * fits.min():.0f} s")
