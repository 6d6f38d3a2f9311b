"""
Probabilities that can be believed
==================================

The network says 95 %. Is it right 95 times of 100? If not, one number mends it: a temperature.
"""

# %%
# Two classes that overlap, and a network that is trained until it is too sure of itself.
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split

from skdisk import MLPDiskClassifier

X, y = make_classification(
    8000, n_informative=6, n_clusters_per_class=3, class_sep=0.3, flip_y=0, random_state=0
)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=3000, random_state=0)
X_train, X_val, y_train, y_val = train_test_split(
    X_train, y_train, train_size=2000, random_state=0
)
network = MLPDiskClassifier(random_state=0).fit(X_train, y_train)

# %%
# The temperature divides the network's log-odds before they become probabilities: more than 1
# makes it less sure, and which class is the more probable stays as it was. It is found on rows
# that the network has not seen, your own validation set. ``FrozenEstimator`` says that the
# network is not to be trained again. (Labels of a data frame: give ``y.to_numpy()``, because
# scikit-learn 1.9 looks for a row that is called 0.)
calibrated = CalibratedClassifierCV(FrozenEstimator(network), method="temperature")
calibrated.fit(X_val, y_val)
models = {"as it comes": network, "with a temperature": calibrated}
scores = {}
for name, model in models.items():
    proba = model.predict_proba(X_test)
    scores[name] = {
        "accuracy": accuracy_score(y_test, model.predict(X_test)),
        "mean confidence": proba.max(axis=1).mean(),
        "log loss": log_loss(y_test, proba),
    }
print(pd.DataFrame.from_dict(scores, orient="index").round(3).to_string())

# %%
# A classifier can be believed if its mean confidence is its accuracy, and its dots are on the
# diagonal: of the rows to which it gives a probability, that share is of the class.
fig, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
for name, model in models.items():
    CalibrationDisplay.from_estimator(model, X_test, y_test, n_bins=10, name=name, ax=ax)
text = ax.set(xlabel="probability of class 1", ylabel="share of class 1")
