"""The control plane: reads statistics, decides, acts. Never in the request path."""
