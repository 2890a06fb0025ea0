"""The manifests on a real cluster, of which ``TONESTREAM_TEST_KUBERNETES`` names the context."""
