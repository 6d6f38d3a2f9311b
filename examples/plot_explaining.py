"""
Which features, and how
=======================

What does a network go by? Permutation says which features it needs, partial dependence how a
probability moves with one.
"""

# %%
# A feature is shuffled among rows that the network has not seen: by how much does the log loss
# grow? Accuracy would only notice what makes another class the most probable.
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

X, y = load_wine(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
model = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)).fit(X_train, y_train)
result = permutation_importance(
    model, X_test, y_test, scoring="neg_log_loss", n_repeats=30, random_state=0
)
means = pd.Series(result.importances_mean, index=X.columns, name="mean").sort_values()
spread = pd.Series(result.importances_std, index=X.columns)
axes = means.plot.barh(xerr=spread[means.index], figsize=(7, 4.5))
axes.set_xlabel("growth of the log loss in nats")
axes.figure.tight_layout()

# %%
# Features that say the same stand in for each other, and each of them looks dispensable: shuffle
# such features together.
#
# How does a probability move? Each line is one wine, its feature set to one value after another.
# Where a line rises or falls is decided by the other features. The average is flatter than most,
# and alone would hide that.
options = {"kind": "both", "subsample": 40, "random_state": 0}
style = {"ice_lines_kw": {"alpha": 0.6}, "pd_line_kw": {"color": "black"}}
display = PartialDependenceDisplay.from_estimator(
    model, X_test, means.index[:-3:-1], target=0, **options, **style
)
_ = display.axes_[0, 0].set_ylabel("probability of class 0")

# %%
# SHAP shares a prediction out among the features of its row: the shares add up to how far the
# probability is from its mean over the background. This block is not run with the page, because
# shap is large:
#
# .. code-block:: python
#
#     scaler, clf = model
#     background = torch.from_numpy(scaler.transform(X_train).astype("float32"))
#     rows = torch.from_numpy(scaler.transform(X_test).astype("float32"))
#     shares = shap.DeepExplainer(clf.to_torch(), background).shap_values(rows)
#     print(pd.DataFrame(shares[..., 0], columns=X.columns).abs().mean().sort_values())
