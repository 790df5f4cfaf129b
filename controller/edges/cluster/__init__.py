"""Kubernetes: rollouts, their servers, routers and journals behind the ports of the controller."""
