"""Say which instruction set the kernel uses, or why there is no kernel."""

import sys

from . import choose_instruction_set, explain_absence, get_instruction_sets

try:
    reason = explain_absence()
except ValueError as error:
    sys.exit(str(error))
if reason is None:
    print(f"The kernel uses {choose_instruction_set()}.")
    print(f"This machine has {', '.join(get_instruction_sets())}.")
else:
    print(f"There is no kernel: {reason}. skorch's loop trains instead.")
