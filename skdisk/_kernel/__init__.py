"""The compiled kernel: arrays in, arrays and a status out. See README.md in this folder."""

from .trainer import (
    Data,
    Network,
    Settings,
    State,
    choose_instruction_set,
    compute_outputs,
    evaluate,
    explain_absence,
    get_instruction_sets,
    predict,
    train,
)

__all__ = [
    "Data",
    "Network",
    "Settings",
    "State",
    "choose_instruction_set",
    "compute_outputs",
    "evaluate",
    "explain_absence",
    "get_instruction_sets",
    "predict",
    "train",
]
