"""
L-BFGS, and what a penalty is for
=================================

On few rows L-BFGS brings the loss of the training down to nearly 0. Is that the best network?
"""

# %%
# The first two have scikit-learn's penalty: its ``alpha`` is ``weight_decay`` times the number of
# rows. The third has "auto", which is larger the fewer rows there are.
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.model_selection import cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

rows = {}
for load in (load_iris, load_wine, load_breast_cancer):
    X, y = load(return_X_y=True)
    n_rows = len(X) * 4 // 5
    classifiers = {
        "MLPClassifier": MLPClassifier((64,), solver="lbfgs", random_state=0),
        "the same penalty": MLPDiskClassifier(
            (64,), optimizer="lbfgs", weight_decay=1e-4 / n_rows, random_state=0
        ),
        'weight_decay="auto"': MLPDiskClassifier((64,), optimizer="lbfgs", random_state=0),
    }
    for name, clf in classifiers.items():
        model = make_pipeline(StandardScaler(), clf)
        scores = cross_validate(model, X, y, scoring="neg_log_loss", return_train_score=True)
        rows[load.__name__.removeprefix("load_"), name] = {
            "training": -scores["train_score"].mean(),
            "other rows": -scores["test_score"].mean(),
        }
table = pd.DataFrame.from_dict(rows, orient="index")
print(table.round(5).to_string())

# %%
# A network that knows its rows by heart is certain of other rows, too. Where classes overlap it is
# certain of what is wrong, which the log loss punishes most. In wine they hardly overlap.
losses = table["other rows"].unstack(sort=False)
axes = losses.plot.bar(rot=0, ylabel="log loss of other rows in nats")
