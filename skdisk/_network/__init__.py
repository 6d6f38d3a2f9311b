"""The network and its random numbers. torch and NumPy; neither scikit-learn nor skorch."""
