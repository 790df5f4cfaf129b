"""`understudy run FILE`: everything on one machine, as processes that one parent supervises.

::

    run (parent) ─┬─ mlflow server          unless an address is given
                  ├─ router ── workers      traffic, outcomes, journals
                  ├─ controller             one tick after the other
                  └─ model servers          one per version that is wanted

The model servers belong to the parent, not to the controller: whoever kills the controller stops no traffic. The two
talk through a small table in the state folder (``controller.edges.servers``). All that has to survive is in that
folder, so a parent that was killed goes on where it was when it is started again.
"""
