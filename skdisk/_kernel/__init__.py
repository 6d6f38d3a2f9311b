"""The compiled kernel: arrays in, arrays and a status out. See README.md in this folder."""

from .trainer import Data as Data
from .trainer import Network as Network
from .trainer import Settings as Settings
from .trainer import State as State
from .trainer import choose_instruction_set as choose_instruction_set
from .trainer import compute_outputs as compute_outputs
from .trainer import evaluate as evaluate
from .trainer import explain_absence as explain_absence
from .trainer import get_instruction_sets as get_instruction_sets
from .trainer import predict as predict
from .trainer import train as train
