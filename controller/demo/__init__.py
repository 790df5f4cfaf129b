"""The demo: real flights, two honest models, and two that are broken on purpose."""
