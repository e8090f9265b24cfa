"""The embedded stack: real Envoy, PostgreSQL and Valkey out of wheels, and the three services, on one machine."""
