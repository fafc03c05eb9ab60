"""One open session's bytes: pumps, writers, the poller, liveness and lifetime."""
