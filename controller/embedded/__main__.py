"""`python -m controller.embedded run FILE`."""

from controller.embedded.commands import main

if __name__ == "__main__":
    main(prog_name="python -m controller.embedded")
