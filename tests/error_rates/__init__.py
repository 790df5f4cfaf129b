"""Measured error rates of the whole rule, on drawn data: ``python -m tests.error_rates`` (`make error-rates`)."""
