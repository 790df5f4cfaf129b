"""The leader killed in the midst of rollouts: ``python -m tests.kubernetes.kill_leader``, see ``--help``.

Real are kube-apiserver, etcd and Kubernetes' own controllers, MLflow's tracking server, both operators with their
Lease, and the routers, all of them processes; model servers are threads of this one, and no kubelet starts pods. Two
operators run, with the account that the manifests give them. One rollout goes on from version to version, to its
promotion or, where the version is harmful, to its rollback, with users on every router. In each one the process that
holds the Lease is killed with SIGKILL at a random point, often near what matters: a table, a promotion's alias, a
rollback. It is started again on its own disk a moment later.

Looked at all the time are every status, every move of an alias (by a trigger in MLflow's database) and the tables that
routers have; by the API server's audit log every write, and who held the Lease then.

Prints a JSON object; the exit code is 1 where a claim does not hold, or fewer were killed than asked.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.ending import as_by_keyboard
from tests.kubernetes import binaries
from tests.kubernetes.kill_leader.campaign import trial


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="of the leader (30)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (1); times are the machine's own")
    parser.add_argument("--keep", type=Path, help="a new folder where everything that is written stays")
    given = parser.parse_args()
    as_by_keyboard()
    assets = binaries.programs(lambda text: print(f"Kubernetes: {text}", file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(prefix="understudy-leader-") as folder:
        summary = trial(assets, given.keep or Path(folder), given.kills, given.seed)
    print(json.dumps(summary, indent=1))
    return 1 if summary["violations"] or summary["kills"] < given.kills else 0


if __name__ == "__main__":
    sys.exit(main())
