"""What the router costs beside other proxies, measured in one run on this machine: ``make bench-router``."""
