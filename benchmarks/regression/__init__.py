"""Regression, risk regimes and Bayesian optimization."""
