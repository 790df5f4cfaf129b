"""`understudy plan`: what a rollout can prove, how soon, and what a bad challenger costs, before it starts.

Pure calculation, by simulating the boundary: the sums of the two arms are drawn from their law and the very tests of
``controller.core`` read them, with the rule's own alphas and the reserved control.
"""
