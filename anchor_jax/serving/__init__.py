"""An exported run over HTTP: requests of pictures, batches of concurrent requests, metrics for monitoring."""
