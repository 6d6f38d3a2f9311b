"""Say which instruction set the kernel uses, or why there is no kernel."""

from . import choose_instruction_set, explain_absence, get_instruction_sets

reason = explain_absence()
if reason is None:
    print(f"The kernel uses {choose_instruction_set()}.")
    print(f"This machine has {', '.join(get_instruction_sets())}.")
else:
    print(f"There is no kernel: {reason}.")
