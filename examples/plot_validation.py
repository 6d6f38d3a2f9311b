"""
Your own validation set, in a pipeline
======================================

Early stopping holds rows out at random. Later rows, or those of other patients, tell more: how do
they get to the classifier, scaled as the training rows are?
"""

# %%
# ``transform_input`` names what the pipeline is to send through the steps before the classifier.
import sklearn
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import LossCurveDisplay, MLPDiskClassifier

sklearn.set_config(enable_metadata_routing=True)
X, y = load_digits(return_X_y=True)
# The last rows stand for later ones.
X_train, X_val, X_test = X[:1000], X[1000:1400], X[1400:]
y_train, y_val, y_test = y[:1000], y[1000:1400], y[1400:]

clf = MLPDiskClassifier(
    early_stopping=True, max_epochs=50, n_iter_no_change=50, random_state=0
).set_fit_request(X_val=True, y_val=True)
model = make_pipeline(StandardScaler(), clf, transform_input=["X_val"])
model.fit(X_train, y_train, X_val=X_val, y_val=y_val)
print(f"The epoch that is kept: {clf.best_epoch_} of {clf.n_iter_}")
print(f"Accuracy on the last rows: {model.score(X_test, y_test):.3f}")

# %%
# The dashed line is the loss on the validation set, the dot the epoch that is kept.
display = LossCurveDisplay.from_estimator(model, log=True)
sklearn.set_config(enable_metadata_routing=False)
