"""`understudy serve`: a lean HTTP server for one MLflow pyfunc model.

The parent process (supervisor) owns the listening socket and never imports MLflow; a worker process loads
the model once and answers. Nothing else of the controller is imported here, so the `serve` extra stands alone.

What a client sees:

- `POST /invocations`: MLflow's body formats in, `{"predictions": ...}` out.
- `GET /health`: scores the model's own input example. `GET /ping`: the process answers, nothing more.
- `GET /version`: which model this is. `GET /metrics`: counters in the Prometheus text format.

Status codes tell whose fault it was: 400, 413 and 415 the client's, 500 the model's, 503 and 504 the load's.
"""
