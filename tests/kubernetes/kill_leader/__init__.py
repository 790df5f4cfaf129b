"""The campaign in which the operator that leads is killed, again and again, in the midst of rollouts."""
