"""The promises under fire: workers, broker, Redis and disk fail at random, and every request has one right answer."""
