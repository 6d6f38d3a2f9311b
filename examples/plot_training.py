"""
Two ways to train
=================

Is the classifier better as it comes, or with AdamW, dropout and early stopping? Breast-cancer
data: 569 tumours, 30 measurements, labels in words.
"""

# %%
# Labels stay what they are; the scaler is in the pipeline, so that held-out rows do not tell it
# anything.
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import LossCurveDisplay, MLPDiskClassifier

data = load_breast_cancer(as_frame=True)
X, y = data.data, data.target.map(dict(enumerate(data.target_names)))
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
regularised = MLPDiskClassifier(
    (32,),
    optimizer="adamw",
    weight_decay=0.01,
    dropout=0.5,
    class_weight="balanced",
    early_stopping=True,
    validation_fraction=0.2,
    max_epochs=60,
    random_state=0,
)
models = {
    "as it comes": MLPDiskClassifier(random_state=0),
    "AdamW, early stopping": regularised,
}
scores = {}
for name, clf in models.items():
    models[name] = make_pipeline(StandardScaler(), clf).fit(X_train, y_train)
    y_pred = models[name].predict(X_test)
    scores[name] = {
        "balanced_accuracy": balanced_accuracy_score(y_test, y_pred),
        "log_loss": log_loss(y_test, models[name].predict_proba(X_test)),
        "epochs": models[name][-1].n_iter_,
        "best_epoch": models[name][-1].best_epoch_,
    }
print(pd.DataFrame.from_dict(scores, orient="index").round(3).to_string())

# %%
# One picture for both. The dot is the epoch whose weights were kept.
display = LossCurveDisplay.from_estimator([*models.values()], name=[*models])
