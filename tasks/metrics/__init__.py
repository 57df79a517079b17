"""Kontor's figures for a monitoring system: the view report.metrics in Prometheus's own form."""
