"""
From a search to an ensemble
============================

A search trains many networks and keeps one. Are the others worth something?
"""

# %%
# A random search on a quarter of the rows; the others are kept for the end.
import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import loguniform
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.model_selection import RandomizedSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier, MLPDiskEnsemble

X, y = make_classification(4000, n_informative=8, n_classes=3, flip_y=0.05, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=1000, random_state=0)
space = {
    "hidden_layer_sizes": [(32,), (128,), (64, 64), (64, 64, 64)],
    "activation": ["relu", "tanh", "silu"],
    "lr": loguniform(0.003, 0.2),
    "weight_decay": loguniform(1e-5, 0.03),
}
pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
params = {f"mlpdiskclassifier__{name}": values for name, values in space.items()}
search = RandomizedSearchCV(
    pipeline, params, n_iter=30, cv=3, scoring="neg_log_loss", n_jobs=-1, random_state=0
)
with joblib.parallel_config("threading"):
    search.fit(X_train, y_train)

# %%
# ``from_search`` chooses, one by one, those candidates that are best together on the rows that
# each fold held out; some it takes several times.
shared = {"n_members": 10, "n_jobs": -1, "random_state": 0}
chosen = MLPDiskEnsemble.from_search(search, X_train, y_train, **shared)
settings = pd.DataFrame([member[-1].get_params() for member in chosen.estimator])[[*space]]
counts = settings.value_counts(sort=False).reset_index()
print(counts.to_string(index=False, float_format="{:.2g}".format))

# %%
# Beside it stands the best candidate ten times, each time with a seed of its own. Networks that
# differ in more than the seed err on different rows, and their mean evens out more of it. One
# split of one table can be chance; see :doc:`twenty splits of four tables </results/ensembles>`.
seeds = MLPDiskEnsemble(search.best_estimator_, **shared).fit(X_train, y_train)
fig, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for name, ensemble in {"seeds of the best": seeds, "chosen by from_search": chosen}.items():
    total = np.cumsum([member.predict_proba(X_test) for member in ensemble.estimators_], axis=0)
    losses = [log_loss(y_test, proba / n) for n, proba in enumerate(total, 1)]
    ax.plot(range(1, 11), losses, "o-", label=name)
ax.set(xlabel="members", ylabel="log loss of unseen rows", xticks=range(1, 11))
legend = ax.legend()
