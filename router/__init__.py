"""The data plane: assigns units to arms, forwards, falls back, captures. Knows nothing of statistics or MLflow."""
