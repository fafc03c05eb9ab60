"""Tests of :mod:`wsproxy.telemetry`, one file for each module."""
