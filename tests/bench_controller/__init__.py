"""What one controller costs with thousands of rollouts: ``python -m tests.bench_controller``."""
