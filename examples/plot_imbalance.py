"""
A rare class
============

One row in twenty is of the class that matters. Weigh the classes, or move the threshold?
"""

# %%
# Both are a line. ``TunedThresholdClassifierCV`` chooses, in cross-validation, the probability
# from which on a row is called rare.
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

X, y = make_classification(4000, n_informative=6, weights=[0.95], class_sep=0.7, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
plain = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
weighted = make_pipeline(
    StandardScaler(), MLPDiskClassifier(class_weight="balanced", random_state=0)
)
models = {
    "as it comes": plain,
    "balanced": weighted,
    "tuned threshold": TunedThresholdClassifierCV(plain, scoring="f1"),
}
scores = {}
for name, model in models.items():
    y_pred = model.fit(X_train, y_train).predict(X_test)
    scores[name] = {
        "precision": precision_score(y_test, y_pred),
        "recall": recall_score(y_test, y_pred),
        "f1": f1_score(y_test, y_pred),
        "average precision": average_precision_score(y_test, model.predict_proba(X_test)[:, 1]),
    }
table = pd.DataFrame.from_dict(scores, orient="index")
print(table.round(3).to_string())

# %%
# Precision is the share of true alarms, recall the share of rare rows that are found. The last
# score looks at the order of the rows alone, which a threshold leaves as it is.
fig, ax = plt.subplots(layout="constrained")
table.plot.bar(ax=ax, rot=0, ylim=(0, 1), legend=False)
legend = fig.legend(loc="outside upper center", ncols=4)
