"""The pure core: arguments in, values out. No clock, log, input, output or randomness."""
