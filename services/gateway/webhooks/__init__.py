"""Webhooks: results are sent to the URLs that clients registered, signed, until they arrive."""
