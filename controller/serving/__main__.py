"""`python -m controller.serving MODEL_URI`."""

from controller.serving.command import serve

if __name__ == "__main__":
    serve(prog_name="python -m controller.serving")
