"""Epochs, stops, history: the training of a network. The only wing that knows skorch."""
