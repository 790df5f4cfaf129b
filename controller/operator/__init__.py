"""The controller on a cluster: `understudy operator`."""
