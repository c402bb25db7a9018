"""Operating a store: keys, health and metrics over HTTP, logs, and the audit trail."""
