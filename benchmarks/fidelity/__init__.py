"""Agreement with the original implementations of models and corruptions."""
