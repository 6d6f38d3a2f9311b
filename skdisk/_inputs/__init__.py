"""From what users have to checked arrays and choices. It knows scikit-learn."""
