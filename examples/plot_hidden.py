"""
A hidden layer for another model
================================

Many rows are labelled for one question, few for another. Does what a network has learned of the
first help with the second?
"""

# %%
# A network learns to read digits. On rows that it has not seen, a linear model is to tell whether
# the digit has a loop: from its pixels, or from the network's last hidden layer.
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, learning_curve, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skdisk import MLPDiskClassifier

X, digits = load_digits(return_X_y=True)
X_old, X_new, digits_old, digits_new = train_test_split(
    X / 16, digits, test_size=0.4, random_state=0
)
clf = MLPDiskClassifier(random_state=0).fit(X_old, digits_old)
linear = LogisticRegression(max_iter=1000)
models = {
    "pixels": linear,
    "hidden layer": make_pipeline(FunctionTransformer(clf.hidden_activations), linear),
}
has_loop = np.isin(digits_new, [0, 6, 8, 9])
n_labels = pd.Index([20, 40, 80, 160], name="labels")
splits = StratifiedShuffleSplit(20, test_size=0.5, random_state=0)
table = pd.DataFrame(index=n_labels)
for name, model in models.items():
    _, _, scores = learning_curve(model, X_new, has_loop, train_sizes=n_labels, cv=splits)
    table[name] = scores.mean(axis=1)
print(table.round(3).to_string())

# %%
# The fewer labels there are, the more the hidden layer helps: what makes a digit is worked out
# there already. Never give the second model rows that the network was trained on: what comes out
# for those betrays their labels.
axes = table.plot(marker="o", logx=True, ylabel="accuracy on other rows", grid=True)
axes.set_xticks(n_labels, n_labels)
axes.minorticks_off()
