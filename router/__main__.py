"""``python -m router``."""

from router.command import router

router(prog_name="router")
