"""Tests of wsproxy.settings."""
